"""uringfile.aiofiles: open, wrap and the standard streams. Its peer's own tests: peers.py."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import inspect
import io
import locale
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import check, count, open_fds
from suspensions import cancelled_at_each, descriptors

from uringfile import _openfile, aiofiles, async_open
from uringfile import os as aos
from uringfile.aiofiles import threadpool
from uringfile.aiofiles.threadpool.binary import (
    AsyncBufferedIOBase,
    AsyncBufferedReader,
    AsyncFileIO,
)
from uringfile.aiofiles.threadpool.text import AsyncTextIOWrapper


@pytest.fixture(autouse=True, params=["io_uring", "posix_aio"])
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    count(request.param)
    monkeypatch.setenv("URINGFILE_ENGINE", request.param)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\r\nthree")
    return path


@pytest.mark.parametrize(
    ("mode", "buffering", "kind"),
    [
        ("r", -1, AsyncTextIOWrapper),
        ("w+", 1, AsyncTextIOWrapper),
        ("rb", -1, AsyncBufferedReader),
        ("rb+", -1, AsyncBufferedReader),
        ("ab", -1, AsyncBufferedIOBase),
        ("ab", 0, AsyncFileIO),
        ("rb", 0, AsyncFileIO),
    ],
)
async def test_each_mode_has_its_class(lines: Path, mode: str, buffering: int, kind: type) -> None:
    async with aiofiles.open(lines, mode, buffering) as file:
        assert type(file) is kind
        with open(lines, mode.replace("w", "r"), buffering) as python:
            assert hasattr(file, "peek") == hasattr(python, "peek")


async def test_every_call_that_may_wait_is_a_coroutine(lines: Path) -> None:
    async with aiofiles.open(lines, "r+") as text, aiofiles.open(lines, "rb+") as data:
        common = (
            "close flush isatty read readline readlines seek seekable tell truncate writable write"
        )
        for name in common.split():
            assert inspect.iscoroutinefunction(getattr(text, name)), name
            assert inspect.iscoroutinefunction(getattr(data, name)), name
        assert inspect.iscoroutinefunction(text.readable)
        assert data.readable() is True
        assert isinstance(data.fileno(), int)


async def test_calls_and_attributes(lines: Path) -> None:
    async with aiofiles.open(lines, "r+", encoding="ascii", errors="replace") as file:
        assert await file.readline() == "one\n"
        assert [line async for line in file] == ["two\n", "three"]
        assert file.newlines == ("\n", "\r\n")
        assert await file.tell() == 14
        assert await file.seek(0) == 0
        assert await file.readlines() == ["one\n", "two\n", "three"]
        assert await file.write("!") == 1
        await file.writelines(["?", "\n"])
        await file.flush()
        assert lines.read_bytes() == b"one\ntwo\r\nthree!?\n"
        assert await file.truncate(3) == 3
        assert (file.encoding, file.errors, file.line_buffering) == ("ascii", "replace", False)
        assert (file.name, file.mode, file.closed) == (str(lines), "r+", False)
        assert await file.readable()
        assert await file.writable()
        assert await file.seekable()
        assert not await file.isatty()
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        await file.read()
    with open(lines, "rb") as python:
        assert python.read() == b"one"


async def test_bytes(lines: Path) -> None:
    async with aiofiles.open(lines, "rb+") as file:
        assert (await file.peek()).startswith(b"one")
        assert await file.read1(2) == b"on"
        buffer = bytearray(4)
        assert await file.readinto(buffer) == 4
        assert buffer == b"e\ntw"
        assert [line async for line in file] == [b"o\r\n", b"three"]
        assert await file.seek(-5, os.SEEK_END) == 9
        assert await file.read() == b"three"
        with pytest.raises(io.UnsupportedOperation):
            _ = file.raw
    async with aiofiles.open(lines, "rb", buffering=0) as raw:
        assert await raw.readall() == lines.read_bytes()
        assert not hasattr(raw, "detach")


async def test_leaving_an_iteration_loses_nothing(lines: Path) -> None:
    async with aiofiles.open(lines) as file:
        async for line in file:
            assert line == "one\n"
            break
        assert await file.__anext__() == "two\n"
        assert await file.read() == "three"
        with pytest.raises(StopAsyncIteration):
            await file.__anext__()


async def test_the_default_encoding_is_the_locales(lines: Path) -> None:
    with open(lines) as python, mock.patch.object(locale, "getpreferredencoding") as preferred:
        preferred.return_value = "latin-1"
        async with aiofiles.open(lines) as file:
            assert file.encoding == "latin-1"
        preferred.return_value = python.encoding
        async with aiofiles.open(lines) as file:
            assert file.encoding == python.encoding


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere/file",),
        ("file", "rw"),
        ("file", "r", 0),
        ("file", "rb", -1, "utf-8"),
        ("file", "r", -1, "no such codec"),
        ("file", "r", -1, None, None, "x"),
        ("file", "r", -1, None, None, None, False),
        (10_000,),
        (1.5,),
        (".",),
    ],
)
async def test_what_open_raises(
    tmp_path: Path, arguments: tuple[Any, ...], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises((OSError, ValueError, TypeError, LookupError)) as expected:
        open(*arguments).close()
    opening = aiofiles.open(*arguments)  # raises nothing yet
    with pytest.raises(expected.type) as caught:
        await opening
    assert getattr(caught.value, "errno", None) == getattr(expected.value, "errno", None)


async def test_loop_and_executor_are_ignored(lines: Path) -> None:
    executor = mock.Mock()
    loop = asyncio.get_running_loop()
    async with aiofiles.open(lines, loop=loop, executor=executor) as file:
        assert await file.read()
    assert not executor.mock_calls


# ---- opener, descriptors ------------------------------------------------------------


async def test_opener(tmp_path: Path) -> None:
    opened = []

    def opener(path: str, flags: int) -> int:
        opened.append((path, flags))
        return os.open(path, flags, 0o600)

    path = tmp_path / "new"
    async with aiofiles.open(path, "w", opener=opener) as file:
        await file.write("text")
        assert file.name == str(path)
        assert not os.get_inheritable(file.fileno())
    assert opened == [(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)]
    assert path.read_text() == "text"
    assert path.stat().st_mode & 0o777 == 0o600
    async with aiofiles.open(path, "a", opener=opener) as file:
        await file.write("+")
    assert path.read_text() == "text+"


@pytest.mark.parametrize(("answer", "error"), [(-1, ValueError), ("x", TypeError)])
async def test_a_bad_opener(tmp_path: Path, answer: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await aiofiles.open(tmp_path / "x", "w", opener=lambda path, flags: answer)


async def test_closefd(lines: Path) -> None:
    fd = os.open(lines, os.O_RDONLY)
    async with aiofiles.open(fd, "rb", closefd=False) as file:
        assert await file.read(4) == b"one\n"
    assert os.read(fd, 3) == b"two"
    async with aiofiles.open(fd, "rb"):
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# ---- detach, buffer -----------------------------------------------------------------


async def test_detach_of_bytes(lines: Path) -> None:
    file = await aiofiles.open(lines, "rb+")
    before = open_fds()
    await file.readline()
    await file.write(b"TW")
    raw = file.detach()
    assert isinstance(raw, io.FileIO)
    assert (raw.mode, raw.name, raw.tell()) == ("rb+", str(lines), 6)
    assert lines.read_bytes() == b"one\nTWo\r\nthree"
    for call in (file.read, file.close, file.flush):
        with pytest.raises(ValueError, match="detached"):
            await call()
    assert open_fds() == before
    raw.close()
    assert len(open_fds()) == len(before) - 1


async def test_detach_of_text(lines: Path) -> None:
    opening = aiofiles.open(lines)
    file = await opening
    with file.detach() as buffer:
        assert isinstance(buffer, io.BufferedReader)
        assert buffer.readline() == b"one\n"
    with pytest.raises(ValueError, match="detached"):
        await opening.__aexit__(None, None, None)
    file = await aiofiles.open(lines, "a")
    await file.write("4")
    with file.detach() as buffer:
        buffer.write(b"5")
    assert lines.read_bytes() == b"one\ntwo\r\nthree45"


async def test_detach_of_a_file_in_use(lines: Path, pipe: tuple[int, int]) -> None:
    async with aiofiles.open(pipe[0], "rb", closefd=False) as file:
        reading = asyncio.ensure_future(file.read(3))
        await asyncio.sleep(0.01)
        with pytest.raises(BlockingIOError):
            file.detach()
        os.write(pipe[1], b"abc")
        assert await reading == b"abc"


async def test_the_bytes_below_a_text(lines: Path) -> None:
    async with aiofiles.open(lines) as file:
        assert await file.buffer.readline() == b"one\n"
        assert await file.readline() == "two\n"


# ---- wrap ---------------------------------------------------------------------------


async def test_wrap_of_pythons_files(lines: Path) -> None:
    with open(lines) as python:
        file = threadpool.wrap(python)
        assert type(file) is AsyncTextIOWrapper
        assert [line async for line in file] == ["one\n", "two\n", "three"]
        assert file.buffer is python.buffer
        await file.close()
        assert python.closed
    with open(lines, "rb", 0) as raw:
        assert type(threadpool.wrap(raw)) is AsyncFileIO
    memory = threadpool.wrap(io.BytesIO(b"12"))
    assert type(memory) is AsyncBufferedIOBase
    assert await memory.read(1) + await memory.read() == b"12"
    text = threadpool.wrap(io.StringIO())
    await text.write("x")
    assert await text.seek(0) == 0
    assert await text.read() == "x"


async def test_wrap_of_ours(lines: Path) -> None:
    async with async_open(lines, "rb") as ours:
        file = threadpool.wrap(ours)
        assert type(file) is AsyncBufferedReader
        assert await file.seek(4) == 4
        assert await file.readline() == b"two\r\n"
        assert ours.tell() == 9


async def test_wrap_uses_the_executor() -> None:
    with ThreadPoolExecutor(1, "mine") as executor:

        class Python(io.StringIO):
            def read(self, size: int | None = -1) -> str:
                return threading.current_thread().name

        assert (await threadpool.wrap(Python(), executor=executor).read()).startswith("mine")


async def test_files_are_mocked_as_aiofiles_documents_it() -> None:
    threadpool.wrap.register(mock.MagicMock)(
        lambda *args, **kwargs: threadpool.AsyncBufferedIOBase(*args, **kwargs)
    )
    fake = mock.MagicMock()
    with mock.patch.object(threadpool, "sync_open", return_value=fake) as sync_open:
        async with aiofiles.open("somewhere", "wb") as file:
            await file.write(b"data")
    fake.write.assert_called_once_with(b"data")
    fake.__exit__.assert_called_once()
    assert sync_open.call_args.args == ("somewhere",)
    assert sync_open.call_args.kwargs["mode"] == "wb"
    assert threadpool.sync_open is builtins.open


# ---- os, os.path --------------------------------------------------------------------


async def test_os_has_what_aiofiles_has(tmp_path: Path) -> None:
    executor = mock.Mock()
    more: Any = {"loop": asyncio.get_running_loop(), "executor": executor}
    path = tmp_path / "a" / "b"
    await aiofiles.os.makedirs(path, exist_ok=True, **more)
    assert await aiofiles.os.path.isdir(path, **more)
    assert await aiofiles.os.listdir(tmp_path, **more) == ["a"]
    assert await aiofiles.os.stat(path, **more) == os.stat(path)
    assert await aiofiles.os.getcwd() == os.getcwd()
    assert await aiofiles.ospath.abspath("x", **more) == os.path.abspath("x")
    assert not executor.mock_calls
    assert inspect.iscoroutinefunction(aiofiles.os.stat)
    for name in aiofiles.os.__all__:
        assert hasattr(aiofiles.os, name)


async def test_scandir_is_for_a_plain_loop(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    with await aiofiles.os.scandir(tmp_path) as entries:
        first = next(entries)
        assert isinstance(first, os.DirEntry)
        assert {first.name} | {entry.name for entry in entries} == {"a", "b", "c"}
    entries = await aiofiles.os.scandir(os.fsencode(tmp_path))
    assert next(entries).name in {b"a", b"b", b"c"}
    entries.close()
    assert list(entries) == []
    with pytest.raises(FileNotFoundError):
        await aiofiles.os.scandir(tmp_path / "nowhere")


async def test_wrap_of_a_function() -> None:
    """``aiofiles.os.wrap``: a call in a thread."""
    name = aiofiles.os.wrap(lambda greeting: greeting + threading.current_thread().name)
    with ThreadPoolExecutor(1, "mine") as executor:
        assert (await name("hi ", executor=executor)).startswith("hi mine")
    assert await name("hi ") != "hi " + threading.current_thread().name


# ---- the standard streams -----------------------------------------------------------


def test_standard_streams_of_a_process() -> None:
    code = """
import asyncio, sys
from uringfile import aiofiles
async def main():
    print("first", flush=True)
    await aiofiles.stdout.write("second\\n")
    await aiofiles.stdout.flush()
    await aiofiles.stdout_bytes.write(b"third\\n")
    await aiofiles.stderr.write("error\\n")
    print(await aiofiles.stdin.readline(), await aiofiles.stdin_bytes.read())
    print(aiofiles.stdout.name, aiofiles.stdin_bytes.closed, repr(aiofiles.stderr)[:50])
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"in\n", capture_output=True, timeout=60, check=True
    )
    lines = done.stdout.decode().splitlines()
    assert lines[:5] == ["first", "second", "third", "in", " b''"]
    assert lines[5].startswith("<stdout> False <AsyncTextIndirectIOWrapper")
    assert done.stderr == b"error\n"


async def test_a_stream_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = io.StringIO()
    monkeypatch.setattr(sys, "stdout", fake)
    await aiofiles.stdout.write("here")
    assert fake.getvalue() == "here"


# ---- in the place of aiofiles -------------------------------------------------------


def test_install() -> None:
    code = """
import uringfile.aiofiles
uringfile.aiofiles.install()
uringfile.aiofiles.install()
import aiofiles, aiofiles.threadpool.binary
from aiofiles.base import AiofilesContextManager
from aiofiles.threadpool.text import AsyncTextIOWrapper
assert aiofiles is uringfile.aiofiles
assert aiofiles.threadpool.binary.AsyncFileIO.__module__ == "uringfile.aiofiles.threadpool.binary"
annotation = AiofilesContextManager[AsyncTextIOWrapper]
"""
    check(code)


def test_install_after_the_real_one() -> None:
    code = """
import sys, types
sys.modules["aiofiles"] = types.ModuleType("aiofiles")
import uringfile.aiofiles
try:
    uringfile.aiofiles.install()
except RuntimeError as error:
    print(error)
"""
    assert "has been imported" in check(code)


# ---- cancellation -------------------------------------------------------------------


async def _read(path: Path) -> None:
    async with aiofiles.open(path) as file:
        await file.readline()
        await file.seek(0)
        await file.read()


async def _write(path: Path) -> None:
    async with aiofiles.open(path, "w") as file:
        await file.write("x" * 300_000)
        await file.flush()
        await file.seek(0)
        await file.write("y")


async def _with_opener(path: Path) -> None:
    opener: Callable[[str, int], int] = os.open
    file = await aiofiles.open(path, "rb+", opener=opener)
    try:
        await file.write(b"z")
    finally:
        await file.close()


async def _is_remote(*args: Any) -> bool:
    await asyncio.sleep(0)
    return False


@pytest.mark.parametrize("work", [_read, _write, _with_opener])
@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
async def test_cancelling_leaks_no_descriptor(
    lines: Path, work: Any, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not local:
        monkeypatch.setattr(_openfile, "is_local", _is_remote)
    # Nothing is done inline, so that there is something to be cancelled.
    monkeypatch.setenv("URINGFILE_INLINE", "off")
    monkeypatch.setattr(_openfile, "open_cached", lambda *args: -1)
    await work(lines)
    before = descriptors()
    async for _ in cancelled_at_each(lambda: work(lines)):
        assert descriptors() - before == set()


#: A call of each coroutine that file objects have; ``some`` is text or bytes.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "__anext__": lambda file, some: file.__anext__(),
    "write": lambda file, some: file.write(some * 200_000),
    "writelines": lambda file, some: file.writelines([some * 100_000, some]),
    "flush": lambda file, some: file.flush(),
    "seek": lambda file, some: file.seek(0),
    "readline": lambda file, some: file.readline(),
    "readlines": lambda file, some: file.readlines(10),
    "read": lambda file, some: file.read(100_000),
    "tell": lambda file, some: file.tell(),
    "readinto": lambda file, some: file.readinto(bytearray(70_000)),
    "read1": lambda file, some: file.read1(),
    "peek": lambda file, some: file.peek(),
    "readall": lambda file, some: file.readall(),
    "truncate": lambda file, some: file.truncate(50_000),
    "isatty": lambda file, some: file.isatty(),
    "readable": lambda file, some: file.readable(),
    "seekable": lambda file, some: file.seekable(),
    "writable": lambda file, some: file.writable(),
    "rollover": lambda file, some: file.rollover(),
    "fileno": lambda file, some: file.fileno(),
    "close": lambda file, some: file.close(),
}

KINDS = {
    "text": lambda path: aiofiles.open(path, "r+"),
    "bytes": lambda path: aiofiles.open(path, "rb+"),
    "unbuffered": lambda path: aiofiles.open(path, "rb+", buffering=0),
    "spooled": lambda path: aiofiles.tempfile.SpooledTemporaryFile(10_000),
    "named": lambda path: aiofiles.tempfile.NamedTemporaryFile("w+"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_any_call_of_a_file_leaks_nothing(
    kind: str, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = lines.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("URINGFILE_INLINE", "off")

    async def work() -> None:
        async with KINDS[kind](lines) as file:
            coroutines = {
                name
                for name in dir(file)
                if inspect.iscoroutinefunction(getattr(type(file), name, None))
                and (name == "__anext__" or not name.startswith("_"))
            }
            assert coroutines <= set(CALLS)
            some: Any = "x" if kind in ("text", "named") else b"x"
            for name in [name for name in CALLS if name in coroutines]:
                with contextlib.suppress(StopAsyncIteration):
                    await CALLS[name](file, some)

    await work()
    before = descriptors()
    async for _ in cancelled_at_each(work):
        assert descriptors() == before
        assert os.listdir(temporary) == []


async def test_cancelling_scandir_leaks_nothing(tmp_path: Path) -> None:
    """The other functions of ``aiofiles.os`` are those of ``uringfile.os``: test_os_each.py."""
    own = {"getcwd", "path", "scandir", "wrap"}
    for name in set(aiofiles.os.__all__) - own:
        assert inspect.unwrap(getattr(aiofiles.os, name)) is getattr(aos, name)
    for name in set(aiofiles.ospath.__all__) - {"abspath"}:
        assert inspect.unwrap(getattr(aiofiles.ospath, name)) is getattr(aos.path, name)

    async def work() -> None:
        with await aiofiles.os.scandir(tmp_path) as entries:
            assert list(entries) == []

    await work()
    before = descriptors()
    async for _ in cancelled_at_each(work):
        assert descriptors() == before
