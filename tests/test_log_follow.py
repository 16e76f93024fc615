"""LogReader(follow=True): a path is followed as tail -F does."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import leaves_unclosed, open_fds, run
from log_kinds import KINDS, encode, given, write_at

from uringfile import (
    AIOFile,
    ClosedFileError,
    CorruptLogError,
    LogReader,
    LogWriter,
    Torn,
    _native_engine,
)
from uringfile._follow import Follow
from uringfile._frames import frame
from uringfile._native_engine import inotify_add


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return KINDS[request.param]


FOLLOW: dict[str, Any] = {"follow": True}


@pytest.fixture(params=["inotify", "polling"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments for a follower that is told by inotify, and looks by itself too late for
    any test; or that can only look by itself."""
    if request.param == "inotify":
        return {"follow": True, "poll_interval": 1000.0}
    monkeypatch.setattr(_native_engine, "inotify_open", lambda: -errno.EMFILE)
    return {"follow": True, "poll_interval": 0.01}


async def until_it_waits(reader: LogReader, task: asyncio.Task[Any] | None = None) -> None:
    while reader._follow is None or reader._follow._waiter is None:
        if task is not None and task.done():
            break
        await asyncio.sleep(0.001)


async def after(reader: LogReader, *steps: Callable[[], Any]) -> bytes:
    """The next record, when each step is done while the reader waits."""
    record = asyncio.create_task(reader.__anext__())
    for step in steps:
        await until_it_waits(reader, record)
        step()
        # What the step has set off is dealt with before the next one.
        for _ in range(3):
            await asyncio.sleep(0.002)
    return await asyncio.wait_for(record, 20)


def append(path: Path, data: bytes) -> Callable[[], None]:
    def step() -> None:
        with open(path, "ab") as log:
            log.write(data)

    return step


def test_follow_an_append(
    tmp_path: Path, engine: str, watching: dict[str, Any], kind: dict[str, Any]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(encode(b"one", kind))
    second = encode(b"two", kind)

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching, **kind) as reader:
            assert await anext(reader) == given(b"one", kind)
            assert await after(reader, append(path, second)) == given(b"two", kind)
            # Byte by byte, so that it wakes for parts of a record.
            steps = [append(path, second[i : i + 1]) for i in range(len(second))]
            assert await after(reader, *steps) == given(b"two", kind)
            assert reader.offset == path.stat().st_size
            assert reader.torn is None

    run(main())


def test_follow_into_a_preallocated_end(
    tmp_path: Path, engine: str, watching: dict[str, Any]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(frame(b"one") + b"\0" * 100_000)

    async def main() -> None:
        async with LogReader(path, framed=True, engine=engine, **watching) as reader:
            assert await anext(reader) == b"one"
            # In two parts, the second first.
            steps = [
                lambda: write_at(path, 15, frame(b"two")[4:]),
                lambda: write_at(path, 11, frame(b"two")[:4]),
            ]
            assert await after(reader, *steps) == b"two"

    run(main())


def test_follow_lines_into_a_preallocated_end(
    tmp_path: Path, engine: str, watching: dict[str, Any]
) -> None:
    """Zeros up to the end of the file are not written yet; others are part of a record."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n" + bytes(1_000_000))
    zeros = bytes(200_000) + b"three\n"

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching) as reader:
            assert await anext(reader) == b"one\n"
            assert await after(reader, lambda: write_at(path, 4, b"two\n")) == b"two\n"
            parts = [lambda: write_at(path, 8, b"t"), lambda: write_at(path, 9, b"w\0o\n")]
            assert await after(reader, *parts) == b"tw\0o\n"
            # Once it has waited without news it looks behind zeros.
            steps = [lambda: write_at(path, 13, zeros), lambda: os.utime(path, (1, 1))]
            assert await after(reader, *steps) == zeros
            assert reader.offset == 13 + len(zeros)
            old = tmp_path / "old"

            def rotate() -> None:
                path.rename(old)
                write_at(old, reader.offset, zeros)
                path.write_bytes(b"four\n")

            assert await after(reader, rotate) == zeros
            assert await asyncio.wait_for(reader.__anext__(), 20) == b"four\n"

    run(main())


def test_a_log_writer_that_preallocates_is_followed(
    tmp_path: Path, engine: str, watching: dict[str, Any]
) -> None:
    path = tmp_path / "log"

    async def write() -> None:
        log = LogWriter(path, preallocate=1 << 20, sync="never", engine=engine)  # type: ignore[arg-type]
        async with log:
            for i in range(300):
                await log.append(b"%d" % i * 100 + b"\n")

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching) as reader:
            writing = asyncio.create_task(write())
            for i in range(300):
                record = await asyncio.wait_for(reader.__anext__(), 20)
                assert record == b"%d" % i * 100 + b"\n"
            await writing

    run(main())


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    "seen",
    [
        [b"one\nt\0o\nthr\0\0\0\0\0"],
        [b"one\n\0wo\n", b"\0w\0\n", b"tw\0\n"],
        [b"\0ne\ntwo\n", b"o\0e\n", b"\0ne\n"],
    ],
)
def test_zeros_in_front_of_what_is_being_written_are_no_record(
    tmp_path: Path, engine: str, follow: bool, seen: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\nf\0ur\n" + bytes(50))
    read_bytes = AIOFile.read_bytes
    early = iter(seen)

    async def racing(file: AIOFile, *args: int) -> bytes:
        read = await read_bytes(file, *args)
        return next(early, read)

    async def main() -> list[bytes]:
        async with LogReader(path, engine=engine, follow=follow) as reader:  # type: ignore[arg-type]
            monkeypatch.setattr(AIOFile, "read_bytes", racing)
            return [await asyncio.wait_for(reader.__anext__(), 20) for _ in range(4)]

    assert run(main()) == [b"one\n", b"two\n", b"three\n", b"f\0ur\n"]


def test_follow_a_file_that_is_not_there_yet(
    tmp_path: Path, engine: str, watching: dict[str, Any]
) -> None:
    path = tmp_path / "log"

    async def main() -> None:
        async with LogReader(path, offset=100, engine=engine, **watching) as reader:
            with pytest.raises(ClosedFileError):
                reader.fileno()
            assert await after(reader, path.touch, append(path, b"one\n")) == b"one\n"
            assert reader.offset == 4

    run(main())


def test_follow_through_what_inotify_does_not_see(tmp_path: Path, engine: str) -> None:
    """A directory that comes later, a dangling link, a directory that is replaced."""
    path = tmp_path / "directory" / "log"
    target = tmp_path / "elsewhere" / "target"

    def make_link() -> None:
        path.parent.mkdir()
        path.symlink_to(target)

    def make_target() -> None:
        target.parent.mkdir()
        target.write_bytes(b"one\n")

    def replace_directory() -> None:
        path.parent.rename(tmp_path / "old")
        path.parent.mkdir()
        path.write_bytes(b"two\n")

    async def main() -> None:
        reader = LogReader(path, follow=True, poll_interval=0.01, engine=engine)  # type: ignore[arg-type]
        async with reader:
            assert await after(reader, make_link, make_target) == b"one\n"
            assert await after(reader, replace_directory) == b"two\n"
            assert await after(reader, append(path, b"three\n")) == b"three\n"
            # The directory and the file, and not what was there before.
            assert reader._follow is not None
            assert reader._follow._inotify is not None
            fdinfo = Path(f"/proc/self/fdinfo/{reader._follow._inotify.fileno()}")
            assert fdinfo.read_text().count("inotify wd:") == 2

    run(main())


def test_the_old_file_is_read_to_its_end_first(
    tmp_path: Path, engine: str, watching: dict[str, Any], kind: dict[str, Any]
) -> None:
    """Its writer goes on in it until it opens the new one, which may be there before."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    path.write_bytes(encode(b"1", kind))

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching, **kind) as reader:
            assert await anext(reader) == given(b"1", kind)
            assert await after(reader, lambda: path.rename(old), append(old, encode(b"2", kind)))
            assert await after(reader, path.touch, append(old, encode(b"3", kind))) == given(
                b"3", kind
            )
            with open(old, "ab") as log:
                log.write(encode(b"4", kind) + encode(b"5", kind)[:-1])
            with open(path, "ab") as log:
                log.write(encode(b"6", kind))
            assert [await anext(reader) for _ in range(2)] == [given(b"4", kind), given(b"6", kind)]
            whole = 4 * len(encode(b"1", kind))
            assert reader.torn == Torn(whole, len(encode(b"5", kind)) - 1)
            assert reader.offset == len(encode(b"6", kind))

    before = open_fds()
    run(main())
    assert open_fds() == before


@pytest.mark.parametrize("rotation", ["move", "replace", "delete"])
def test_rotations(tmp_path: Path, engine: str, watching: dict[str, Any], rotation: str) -> None:
    path, other = tmp_path / "log", tmp_path / "other"

    def rotate(data: bytes) -> None:
        if rotation == "replace":
            other.write_bytes(data)
            other.rename(path)
        else:
            path.rename(other) if rotation == "move" else path.unlink()
            path.write_bytes(data)

    async def main() -> None:
        path.touch()
        async with LogReader(path, engine=engine, **watching) as reader:
            for i in range(5):
                step = [lambda i=i: rotate(b"%d\n%d\n" % (i, i))]
                assert await after(reader, *step) == b"%d\n" % i
                assert await anext(reader) == b"%d\n" % i
                assert os.path.samestat(os.fstat(reader.fileno()), path.stat())

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_two_rotations_while_the_old_file_is_read(
    tmp_path: Path, engine: str, watching: dict[str, Any]
) -> None:
    """Each file that the reader has seen at the path is read, in order."""
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(100)))

    async def main() -> None:
        async with LogReader(path, chunk_size=16, engine=engine, **watching) as reader:
            records = [await anext(reader)]
            for i in range(100, 110):
                path.rename(tmp_path / f"log.{i}")
                path.write_bytes(b"%d\n" % i)
                if watching["poll_interval"] < 1:
                    await asyncio.sleep(0.02)
                for _ in range(9):  # more than a chunk holds, and so the path is looked at
                    records.append(await anext(reader))
            while len(records) < 110:
                records.append(await asyncio.wait_for(reader.__anext__(), 20))
            assert records == [b"%d\n" % i for i in range(110)]

    run(main())


def test_a_successor_without_data_is_passed_over(
    tmp_path: Path, engine: str, watching: dict[str, Any]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching) as reader:
            assert await anext(reader) == b"one\n"

            def rotate() -> None:
                path.rename(tmp_path / "old")
                path.touch()

            assert await after(reader, rotate, rotate, append(path, b"two\n")) == b"two\n"

    run(main())


def test_the_last_record_of_the_old_file_comes_between_two_looks(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written after the reader found the end, and right before the new file has data."""
    path, old = tmp_path / "log", tmp_path / "old"
    path.write_bytes(b"one\n")
    is_superseded = Follow.is_superseded

    async def write_and_look(follow: Follow) -> bool:
        if old.exists() and old.stat().st_size == 4:
            append(old, b"two\n")()
            append(path, b"three\n")()
        return await is_superseded(follow)

    monkeypatch.setattr(Follow, "is_superseded", write_and_look)

    async def main() -> None:
        async with LogReader(path, engine=engine, **FOLLOW) as reader:
            assert await anext(reader) == b"one\n"

            def rotate() -> None:
                path.rename(old)
                path.touch()

            assert await after(reader, rotate) == b"two\n"
            assert await asyncio.wait_for(reader.__anext__(), 20) == b"three\n"

    run(main())


def test_copytruncate(
    tmp_path: Path, engine: str, watching: dict[str, Any], kind: dict[str, Any]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(encode(b"one", kind) + encode(b"two", kind)[:2])

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching, **kind) as reader:
            assert await anext(reader) == given(b"one", kind)
            steps = [lambda: os.truncate(path, 0), append(path, encode(b"3", kind))]
            assert await after(reader, *steps) == given(b"3", kind)
            assert reader.offset == len(encode(b"3", kind))

    run(main())


def test_a_cut_end_is_no_truncation(
    tmp_path: Path, engine: str, watching: dict[str, Any], kind: dict[str, Any]
) -> None:
    """As after recover(): what is written in its place is read, and nothing twice."""
    path = tmp_path / "log"
    whole = encode(b"one", kind)
    path.write_bytes(whole + encode(b"two", kind)[:-1])

    def replace_the_end() -> None:
        os.truncate(path, len(whole))
        append(path, encode(b"a longer one", kind))()

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching, **kind) as reader:
            assert await anext(reader) == given(b"one", kind)
            assert await after(reader, replace_the_end) == given(b"a longer one", kind)

    run(main())


def test_follow_finds_damage(tmp_path: Path, engine: str, watching: dict[str, Any]) -> None:
    """Also where a damaged length says that the record is not whole yet."""
    path = tmp_path / "log"
    for damaged, length in ((b"\xff\xff\0\0", 4), (b"\0\0\0\x7f", 4), (b"?", 1)):
        path.write_bytes(frame(b"one") + damaged + frame(b"two")[length:])

        async def main() -> None:
            async with LogReader(path, framed=True, engine=engine, **watching) as reader:
                assert await anext(reader) == b"one"
                with pytest.raises(CorruptLogError) as caught:
                    await after(
                        reader, append(path, frame(b"three")), lambda: os.utime(path, (1, 1))
                    )
                assert caught.value.offset == 11
                assert caught.value.next_offset == 22

        run(main())


def test_what_was_written_in_part_may_be_replaced(
    tmp_path: Path, engine: str, watching: dict[str, Any], kind: dict[str, Any]
) -> None:
    """By a writer that had an error: the parts of two records make none."""
    path = tmp_path / "log"
    path.write_bytes(encode(b"one", kind)[:-1])

    async def main() -> None:
        async with LogReader(path, engine=engine, **watching, **kind) as reader:
            replace = [lambda: write_at(path, 0, encode(b"a longer one", kind))]
            assert await after(reader, *replace) == given(b"a longer one", kind)

    run(main())


def test_cancelling_loses_nothing(
    tmp_path: Path, engine: str, watching: dict[str, Any], kind: dict[str, Any]
) -> None:
    """At any await: a task is cancelled after any number of turns of the loop."""
    path = tmp_path / "log"
    path.touch()
    rng = random.Random(2)

    async def main() -> None:
        written = 0
        got: list[bytes] = []

        async def collect(reader: LogReader) -> None:
            async for record in reader:
                got.append(record)

        async with LogReader(path, chunk_size=64, engine=engine, **watching, **kind) as reader:
            for turns in [*range(40), *(rng.randrange(60) for _ in range(60))]:
                task = asyncio.create_task(collect(reader))
                for turn in range(turns):
                    if turn % 5 == 0:
                        append(path, encode(b"%d" % written, kind))()
                        written += 1
                        if written % 50 == 0:
                            path.rename(tmp_path / "log.1")
                            path.touch()
                            while reader._follow is not None and not reader._follow.successors:
                                await reader._follow.look()
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            while len(got) < written:
                got.append(await asyncio.wait_for(reader.__anext__(), 20))
        assert got == [given(b"%d" % i, kind) for i in range(written)]

    run(main())


def test_close_while_waiting(tmp_path: Path, engine: str, watching: dict[str, Any]) -> None:
    path = tmp_path / "log"

    async def collect(reader: LogReader) -> list[bytes]:
        return [record async for record in reader]

    async def main() -> None:
        for there in (False, True):
            if there:
                path.write_bytes(b"one\n")
            reader = LogReader(path, engine=engine, **watching)
            await reader.open()
            tasks = [asyncio.create_task(collect(reader)) for _ in range(3)]
            await until_it_waits(reader)
            await reader.close()
            assert sorted(await asyncio.gather(*tasks)) == [[], [], [b"one\n"] if there else []]

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_close_at_any_moment(tmp_path: Path, engine: str, watching: dict[str, Any]) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")

    async def collect(reader: LogReader) -> None:
        async for _ in reader:
            path.rename(tmp_path / "old")
            path.write_bytes(b"two\n")

    async def main() -> None:
        for turns in range(30):
            reader = LogReader(path, engine=engine, **watching)
            await reader.open()
            task = asyncio.create_task(collect(reader))
            for _ in range(turns):
                await asyncio.sleep(0)
            await reader.close()
            try:
                await asyncio.wait_for(task, 20)
            except ClosedFileError:
                assert turns == 0  # it had not begun to wait

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_an_unclosed_reader_is_collected(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")

    async def main() -> None:
        reader = LogReader(path, follow=True, engine=engine)  # type: ignore[arg-type]
        await reader.open()
        assert await anext(reader) == b"one\n"
        await asyncio.wait([asyncio.create_task(reader.__anext__())], timeout=0.01)

    before = open_fds()
    with leaves_unclosed("unclosed file"):
        run(main())
    assert open_fds() == before


@pytest.mark.parametrize("refusal", [errno.EMFILE, errno.ENOSYS])
@pytest.mark.parametrize("call", ["inotify_open", "inotify_add", "inotify_add for files"])
def test_where_inotify_cannot_be_had(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch, refusal: int, call: str
) -> None:
    path = tmp_path / "log"

    def refuse(fd: int = -1, name: bytes = b"", mask: int = 0) -> int:
        if call == "inotify_add for files" and not name.startswith(b"/proc"):
            return inotify_add(fd, name, mask)
        return -errno.ENOSPC if call != "inotify_open" else -refusal

    monkeypatch.setattr(_native_engine, call.partition(" ")[0], refuse)

    async def main() -> None:
        reader = LogReader(path, follow=True, poll_interval=0.01, engine=engine)  # type: ignore[arg-type]
        async with reader:
            assert await after(reader, append(path, b"one\n")) == b"one\n"
            assert await after(reader, append(path, b"two\n")) == b"two\n"

            def rotate() -> None:
                path.rename(tmp_path / "old")
                path.write_bytes(b"three\n")

            assert await after(reader, rotate) == b"three\n"

    run(main())


def test_a_refused_open_is_raised_and_tried_again(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")

    async def main() -> None:
        reader = LogReader(path, follow=True, poll_interval=0.01, engine=engine)  # type: ignore[arg-type]
        async with reader:
            assert await anext(reader) == b"one\n"
            path.rename(tmp_path / "old")
            path.mkdir()
            with pytest.raises(IsADirectoryError):
                await asyncio.wait_for(reader.__anext__(), 20)
            with open(tmp_path / "old", "ab") as old:
                old.write(b"two\n")
            path.rmdir()
            path.write_bytes(b"three\n")
            rest = [await asyncio.wait_for(reader.__anext__(), 20) for _ in range(2)]
            assert rest == [b"two\n", b"three\n"]

    run(main())


def test_a_waiting_reader_costs_nothing(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "log"
    path.touch()

    async def main() -> None:
        async with LogReader(path, engine=engine, **FOLLOW) as reader:
            task = asyncio.create_task(reader.__anext__())
            await until_it_waits(reader)
            start = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - start < 0.1
            # What happens to other files in the directory is no reason to look.
            assert reader._follow is not None
            next_look = asyncio.get_running_loop().time() + 1000
            reader._follow._next_look = next_look
            for i in range(10):
                (tmp_path / f"other{i}").touch()
                await asyncio.sleep(0)
            await until_it_waits(reader)
            assert not reader._follow.due()
            assert reader._follow._next_look == next_look
            task.cancel()

    run(main())
