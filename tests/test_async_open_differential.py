"""Random sequences of calls, on a file of ours and on one of Python's, side by side.

Every result, the type of every exception, positions, and at the end the bytes on disk are
compared. URINGFILE_EXAMPLES=100000 makes it that many examples (shared by all tests of
this file); a few hundred otherwise.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import count
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uringfile import AIOFile, BinaryFileWrapper, async_open
from uringfile._engine import ENGINE_NAMES

EXAMPLES = int(os.environ.get("URINGFILE_EXAMPLES", "400"))
TESTS = 6  # three kinds of files, two engines

ENCODINGS = [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "cp1252",
    "iso2022_jp",
    "shift_jis",
    "gb18030",
    "utf-7",
]
if sys.implementation.name == "pypy":
    # Its decoders do not tell in which state they are, or abort the process.
    ENCODINGS = [name for name in ENCODINGS if name not in ("iso2022_jp", "utf-7")]
ERRORS = ["strict", "replace", "ignore", "backslashreplace", "surrogateescape"]
NEWLINES = [None, "", "\n", "\r", "\r\n"]
MODES = ["r", "w", "a", "x", "r+", "w+", "a+", "x+"]

sizes = st.one_of(st.none(), st.integers(-1, 12), st.sampled_from([100, 5000]))
raw_bytes = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"a", b"\n", b"\r\n", b"\r", b"\x1b$B", b"\xe3\x81"]), max_size=30
    ).map(b"".join),
    st.integers(0, 3000).map(lambda n: b"0123456\n" * n),
)
texts = st.one_of(
    st.text("ab\r\n~\\+-é€あ漢\U0001f40d\u2028", max_size=20),
    st.lists(st.sampled_from(["a\n", "あ\r\n", "é\r", "x" * 50, "+/"]), max_size=40).map("".join),
)

common = [
    st.tuples(st.just("read"), sizes),
    st.tuples(st.just("readline"), st.integers(-1, 12)),
    st.tuples(st.just("lines"), st.integers(1, 5)),
    st.tuples(st.just("readlines"), st.sampled_from([None, -1, 0, 1, 20])),
    st.tuples(st.just("seek_back"), st.integers(0, 10)),
    st.tuples(st.just("seek_start"), st.just(0)),
    st.tuples(st.just("seek_end"), st.just(0)),
    st.tuples(st.just("seek_here"), st.just(0)),
    st.tuples(st.just("seek_bad"), st.sampled_from([(-1, 0), (1, 1), (3, 2), (0, 9)])),
    st.tuples(st.just("tell"), st.just(0)),
    st.tuples(st.just("truncate"), st.one_of(st.none(), st.integers(-1, 60))),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("attributes"), st.just(0)),
]
text_calls = st.one_of(
    *common,
    st.tuples(st.just("write"), texts),
    st.tuples(st.just("write"), texts),
    st.tuples(st.just("writelines"), st.lists(texts, max_size=3)),
    st.tuples(st.just("write"), st.sampled_from([b"bytes", None])),
)
unbuffered = [
    *common,
    st.tuples(st.just("write"), raw_bytes),
    st.tuples(st.just("write"), raw_bytes),
    st.tuples(st.just("writelines"), st.lists(raw_bytes, max_size=3)),
    st.tuples(st.just("write"), st.sampled_from(["text", None, bytearray(b"array")])),
    st.tuples(st.just("readinto"), st.integers(0, 50)),
    st.tuples(st.just("seek"), st.integers(0, 80)),
    st.tuples(st.just("seek_relative"), st.integers(-10, 10)),
    st.tuples(st.just("seek_from_end"), st.integers(-10, 10)),
]
unbuffered_calls = st.one_of(*unbuffered)
binary_calls = st.one_of(
    *unbuffered,
    st.tuples(st.just("read1"), st.integers(-1, 20)),
    st.tuples(st.just("peek"), st.integers(0, 20)),
)


@dataclass
class Pair:
    """The two files, and the positions that the calls so far have told."""

    ours: Any
    theirs: Any
    binary: bool
    flush_writes: bool
    positions: list[int] = field(default_factory=lambda: [0])

    async def call(self, name: str, argument: Any) -> None:
        if self.python_would_lose_its_position(name, argument):
            return
        if not self.binary and (
            self.python_would_overread()
            or (name == "seek_here" and self.python_would_crash_at(self.theirs.tell()))
        ):
            self.theirs.seek(0)
            self.ours.seek(0)
        expected = self.their_outcome(name, argument)
        result = await self.our_outcome(name, argument)
        if isinstance(expected, Exception):
            # One class of ours serves all modes, where Python has one without that method.
            kind = type(expected)
            kind = io.UnsupportedOperation if kind is AttributeError else kind
            assert isinstance(result, kind), f"{name}: {result!r} instead of {expected!r}"
        elif name in ("read1", "peek") and isinstance(result, bytes):
            self.at_most_one_read(name, argument, result, expected)
        else:
            assert result == expected, name
        if self.flush_writes and name.startswith("write"):
            self.theirs.flush()
            await self.ours.flush()

    def python_would_lose_its_position(self, name: str, argument: Any) -> bool:
        """An io.BufferedRandom that is sought to before its start tells -1 afterwards."""
        if not isinstance(self.theirs, io.BufferedRandom):
            return False
        if name == "seek_bad":
            return bool(argument[0] < 0)
        if name == "seek_relative":
            return bool(self.theirs.tell() + argument < 0)
        return name == "seek_from_end" and os.fstat(self.theirs.fileno()).st_size + argument < 0

    def python_would_crash_at(self, position: int) -> bool:
        """The ISO 2022 codecs in the state 0, which a plain offset means (seen to 3.13)."""
        plain = 0 < position < 1 << 64
        return not self.binary and plain and self.theirs.encoding.startswith("iso2022")

    def python_would_overread(self) -> bool:
        """Whether CPython's tell() would decode more bytes than there are in its chunk.

        It goes by the ratio of bytes to characters of an earlier, longer chunk. A debug
        build stops at an assertion there; a release build reads what lies behind the chunk,
        and may crash (seen with 3.11.7).
        """
        decoding, target = self.ours._decoding, self.ours._target
        if decoding is None or (decoding.snapshot is None and target is None):
            return False
        used = target.skip if target is not None else decoding.used
        size = target.feed if target is not None else len(decoding.snapshot[1])
        return int(decoding.ratio * used) > size

    def their_outcome(self, name: str, argument: Any) -> Any:
        special = getattr(self, "their_" + name, None)
        try:
            if special is not None:
                return special(argument)
            args = () if name == "flush" else (argument,)
            return getattr(self.theirs, name)(*args)
        except Exception as error:
            return error

    async def our_outcome(self, name: str, argument: Any) -> Any:
        special = getattr(self, "our_" + name, None)
        try:
            if special is not None:
                return await special(argument)
            args = () if name == "flush" else (argument,)
            result = getattr(self.ours, name)(*args)
            return await result if hasattr(result, "__await__") else result
        except Exception as error:
            return error

    def at_most_one_read(self, name: str, size: int, ours: bytes, theirs: bytes) -> None:
        """How much is there depends on the sizes of the buffers; what it is does not."""
        assert ours.startswith(theirs) or theirs.startswith(ours)
        assert bool(ours) == bool(theirs)
        if name == "read1" and size >= 0:
            assert len(ours) <= size
        if name == "read1":
            self.theirs.seek(len(ours) - len(theirs), 1)
        assert self.ours.tell() == self.theirs.tell()

    # What is not the same call on both.

    def their_lines(self, count: int) -> list[Any]:
        # A text file that is iterated over refuses to tell its position; ours does not.
        return [line for _ in range(count) if (line := self.theirs.readline())]

    async def our_lines(self, count: int) -> list[Any]:
        lines = []
        async for line in self.ours:
            lines.append(line)
            if len(lines) == count:
                break
        return lines

    def their_readlines(self, hint: int | None) -> list[Any]:
        if not hint or hint < 0:
            hint = 1 << 60
        lines = []
        total = 0
        while total <= hint and (line := self.theirs.readline()):
            lines.append(line)
            total += len(line)
        return lines

    def their_read(self, size: int | None) -> Any:
        if size is None and not self.theirs.readable():
            size = -1  # from 3.12 on this None is a TypeError
        return self.theirs.read(size)

    def their_read1(self, size: int) -> bytes:
        if self.theirs.writable():
            self.theirs.flush()  # see misplaces_writes
        return self.theirs.read1(size)

    def their_readinto(self, size: int) -> Any:
        buffer = bytearray(size)
        return self.theirs.readinto(buffer), buffer

    async def our_readinto(self, size: int) -> Any:
        buffer = bytearray(size)
        return await self.ours.readinto(buffer), buffer

    def their_tell(self, _: int) -> int:
        position = self.theirs.tell()
        if not self.python_would_crash_at(position):
            self.positions.append(position)
        return position

    async def our_tell(self, _: int) -> int:
        return self.ours.tell()

    def their_seek_back(self, index: int) -> int:
        return self.theirs.seek(self.positions[index % len(self.positions)])

    async def our_seek_back(self, index: int) -> int:
        position = self.ours.seek(self.positions[index % len(self.positions)])
        await self.arrive()
        return position

    async def arrive(self) -> None:
        """Ours goes to a position with the next call that reads."""
        if self.ours.readable() and not self.binary:
            await self.ours.read(0)

    def their_seek_start(self, _: int) -> int:
        return self.theirs.seek(0)

    async def our_seek_start(self, _: int) -> int:
        return self.ours.seek(0)

    def their_seek_end(self, _: int) -> int:
        return self.theirs.seek(0, 2)

    async def our_seek_end(self, _: int) -> int:
        return self.ours.seek(0, 2)

    def their_seek_here(self, _: int) -> int:
        return self.theirs.seek(0, 1)

    async def our_seek_here(self, _: int) -> int:
        position = self.ours.seek(0, 1)
        await self.arrive()
        return position

    def their_seek_relative(self, distance: int) -> int:
        return self.theirs.seek(distance, 1)

    async def our_seek_relative(self, distance: int) -> int:
        return self.ours.seek(distance, 1)

    def their_seek_from_end(self, distance: int) -> int:
        return self.theirs.seek(distance, 2)

    async def our_seek_from_end(self, distance: int) -> int:
        return self.ours.seek(distance, 2)

    def their_seek_bad(self, arguments: tuple[int, int]) -> int:
        if self.binary and arguments[1] in (1, 2):
            arguments = (0, arguments[1])
        if isinstance(self.theirs, io.FileIO) and arguments[1] == 9:
            raise ValueError  # FileIO alone leaves that to the kernel, which says EINVAL
        return self.theirs.seek(*arguments)

    async def our_seek_bad(self, arguments: tuple[int, int]) -> int:
        if self.binary and arguments[1] in (1, 2):
            arguments = (0, arguments[1])
        return self.ours.seek(*arguments)

    def their_attributes(self, _: int) -> list[Any]:
        return self.attributes(self.theirs)

    async def our_attributes(self, _: int) -> list[Any]:
        return self.attributes(self.ours)

    def attributes(self, file: Any) -> list[Any]:
        what = [file.mode, file.closed, file.readable(), file.writable()]
        what += [file.isatty(), file.fileno() > 2]
        if not isinstance(self.theirs, io.FileIO):  # which says no after a seek that failed
            what += [file.seekable()]
        if not self.binary:
            what += [file.encoding, file.errors, file.newlines, file.line_buffering]
        return what


@pytest.fixture(scope="module", params=ENGINE_NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    count(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("differential")


_numbers = itertools.count()

differential = settings(
    max_examples=max(EXAMPLES // TESTS, 1),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


def misplaces_writes(path: Path) -> bool:
    """Whether this Python has a defect (seen up to 3.12): a read in text mode puts what was
    written after a seek to the wrong place, if that was not flushed."""
    path.write_bytes(b"")
    with open(path, "r+") as file:
        file.write("1")
        file.seek(0)
        file.write("2")
        file.readline()
    return path.read_bytes() != b"2"


def with_buffer_of_one(path: Path, mode: str) -> Any:
    raw = io.FileIO(path, mode)
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, 1)
    return io.BufferedReader(raw, 1) if raw.readable() else io.BufferedWriter(raw, 1)


@pytest.fixture(scope="module")
def python_misplaces_writes(folder: Path) -> bool:
    return misplaces_writes(folder / "probe")


async def compare(
    folder: Path,
    engine: str,
    mode: str,
    content: bytes,
    calls: Any,
    python_misplaces_writes: bool,
    **how: Any,
) -> None:
    chunk_size = how.pop("chunk_size", None)
    number = next(_numbers)
    paths = [folder / f"{number}.ours", folder / f"{number}.theirs"]
    if "x" not in mode:
        for path in paths:
            path.write_bytes(content)
    binary = "b" in mode
    if binary and how["buffering"] == 1:  # which open() takes for line buffering
        theirs = with_buffer_of_one(paths[1], mode)
        ours = BinaryFileWrapper(AIOFile(paths[0], mode, engine=engine), 1)
    else:
        theirs = open(paths[1], mode, **how)  # noqa: SIM115
        ours = async_open(paths[0], mode, engine=engine, **how)
    await ours
    if chunk_size is not None:
        theirs._CHUNK_SIZE = chunk_size
        ours._CHUNK_SIZE = chunk_size
    # What "a" means to a position is known to Python only after the flush.
    flush_writes = "a" in mode or (python_misplaces_writes and "+" in mode and not binary)
    pair = Pair(ours, theirs, binary, flush_writes)
    try:
        for name, argument in calls:
            await pair.call(name, argument)
        if binary or how.get("errors") != "strict":
            await pair.call("tell", 0)
    finally:
        theirs.close()
        await ours.close()
    written = [path.read_bytes() for path in paths]
    assert written[0] == written[1]
    for path in paths:
        path.unlink()


@differential
@given(
    mode=st.sampled_from(MODES),
    content=raw_bytes,
    calls=st.lists(binary_calls, max_size=25),
    buffering=st.sampled_from([-1, -1, 1, 2, 3, 7, 16, 64]),
)
def test_binary(
    loop: asyncio.AbstractEventLoop,
    folder: Path,
    engine: str,
    mode: str,
    content: bytes,
    calls: Any,
    buffering: int,
) -> None:
    loop.run_until_complete(
        compare(folder, engine, mode + "b", content, calls, False, buffering=buffering)
    )


@differential
@given(
    mode=st.sampled_from(MODES),
    content=raw_bytes,
    calls=st.lists(unbuffered_calls, max_size=25),
)
def test_unbuffered(
    loop: asyncio.AbstractEventLoop,
    folder: Path,
    engine: str,
    mode: str,
    content: bytes,
    calls: Any,
) -> None:
    loop.run_until_complete(compare(folder, engine, mode + "b", content, calls, False, buffering=0))


@differential
@given(
    mode=st.sampled_from(MODES),
    encoding=st.sampled_from(ENCODINGS),
    errors=st.sampled_from(ERRORS),
    newline=st.sampled_from(NEWLINES),
    buffering=st.sampled_from([-1, -1, 1, 2, 3, 7, 16, 64]),
    chunk_size=st.sampled_from([None, None, 1, 2, 3, 5, 8, 20]),
    content=st.one_of(raw_bytes, texts, texts),
    calls=st.lists(text_calls, max_size=25),
)
def test_text(
    loop: asyncio.AbstractEventLoop,
    folder: Path,
    engine: str,
    mode: str,
    content: Any,
    encoding: str,
    calls: Any,
    python_misplaces_writes: bool,
    **how: Any,
) -> None:
    if isinstance(content, str):
        content = content.encode(encoding, "ignore")
    loop.run_until_complete(
        compare(
            folder,
            engine,
            mode,
            content,
            calls,
            python_misplaces_writes,
            encoding=encoding,
            **how,
        )
    )
