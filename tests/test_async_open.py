"""File objects of async_open: opening, buffering, iteration, streams, clones."""

from __future__ import annotations

import asyncio
import codecs
import errno
import io
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import collect, counted_turns, open_fds, run

from uringfile import (
    AIOFile,
    BinaryFileWrapper,
    FileIOWrapperBase,
    TextFileWrapper,
    async_open,
    clone,
)

LINES = b"".join(b"line %d\n" % n for n in range(50_000))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_bytes(LINES)
    return path


# ---- opening and closing ------------------------------------------------------------


async def test_the_object_is_there_before_the_file_is_open(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "new"
    binary = async_open(path, "wb", engine=engine)
    text = async_open(path, "w", engine=engine)
    assert isinstance(binary, BinaryFileWrapper)
    assert isinstance(text, TextFileWrapper)
    assert isinstance(text, FileIOWrapperBase)
    for file in (binary, text):
        assert file.closed
        with pytest.raises(ValueError, match="not open"):
            await file.read()
        with pytest.raises(ValueError, match="not open"):
            file.tell()
        assert not path.exists()
    assert await binary is binary
    assert path.exists()
    assert not binary.closed
    assert isinstance(binary.file, AIOFile)
    await binary.close()
    assert binary.closed


async def test_await_then_async_with(lines: Path, engine: Any) -> None:
    file = await async_open(lines, "rb", engine=engine)
    async with file as entered:
        assert entered is file
        assert await file.readline() == b"line 0\n"
    assert file.closed
    with pytest.raises(ValueError, match="was closed"):
        await file


@pytest.mark.parametrize("mode", ["rb+", "r+"])
async def test_any_use_after_close_is_a_value_error(lines: Path, mode: str, engine: Any) -> None:
    file: Any = async_open(lines, mode, engine=engine)
    async with file:
        await file.readline()
    await file.close()
    calls = [
        lambda: file.read(),
        lambda: file.read(0),
        lambda: file.readline(),
        lambda: file.readlines(),
        lambda: file.write(b"" if "b" in mode else ""),
        lambda: file.writelines([]),
        lambda: file.flush(),
        lambda: file.truncate(),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"closed"):
            await call()
    for plain in (file.tell, file.fileno, file.isatty, file.readable, file.seekable):
        with pytest.raises(ValueError, match=r"closed"):
            plain()
    with pytest.raises(ValueError, match=r"closed"):
        file.seek(0)
    with pytest.raises(ValueError, match=r"closed"):
        async for _ in file:
            pass


async def test_wrappers_around_an_aiofile(lines: Path, engine: Any) -> None:
    async with BinaryFileWrapper(AIOFile(lines, "ab+", engine=engine)) as binary:
        assert binary.tell() == len(LINES)
        assert await binary.read(1) == b""
    async with TextFileWrapper(AIOFile(lines, "a+", engine=engine)) as text:
        text.seek(0)
        assert await text.readline() == "line 0\n"
    opened = await AIOFile(lines, "rb", engine=engine)
    wrapper = BinaryFileWrapper(opened)
    assert not wrapper.closed
    assert await wrapper.read(4) == b"line"
    await wrapper.close()
    assert opened.closed
    with pytest.raises(ValueError, match="binary mode"):
        BinaryFileWrapper(AIOFile(lines, "r"))
    with pytest.raises(ValueError, match="text mode"):
        TextFileWrapper(AIOFile(lines, "rb"))


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_paths_and_their_names(lines: Path, kind: Any, engine: Any) -> None:
    path = kind(lines)
    with open(path, "rb") as theirs:
        async with async_open(path, "rb", engine=engine) as ours:
            assert ours.name == theirs.name
            assert ours.mode == theirs.mode
            assert await ours.read(4) == b"line"


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "rb+", "wb+", "ab+", "xb", "xb+", "r", "w+"])
async def test_the_mode_as_python_tells_it(tmp_path: Path, mode: str, engine: Any) -> None:
    for name in ("ours", "theirs"):
        if "x" not in mode:
            (tmp_path / name).touch()
    with open(tmp_path / "theirs", mode) as theirs:
        async with async_open(tmp_path / "ours", mode, engine=engine) as ours:
            assert ours.mode == theirs.mode


NOT_ON_PYPY = pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="its open() lets that pass"
)


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("q", {}),
        ("rw", {}),
        ("rbt", {}),
        ("", {}),
        ("rb", {"encoding": "utf-8"}),
        pytest.param("rb", {"errors": "strict"}, marks=NOT_ON_PYPY),
        ("rb", {"newline": "\n"}),
        ("r", {"newline": "x"}),
        ("r", {"newline": b"\n"}),
        ("r", {"buffering": 0}),
        ("r", {"encoding": "no-such-codec"}),
        ("r", {"encoding": "hex"}),
        ("r", {"encoding": 1}),
        ("r", {"closefd": False}),
        ("r", {"buffering": None}),
        ("rb", {"buffering": 1.5}),
    ],
)
def test_arguments_that_open_refuses(lines: Path, mode: str, arguments: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        open(lines, mode, **arguments).close()
    with pytest.raises(theirs.type):
        async_open(lines, mode, **arguments)


@pytest.mark.parametrize("file", [None, [], 1.5, -1, -10])
def test_what_is_no_file(file: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        open(file).close()
    with pytest.raises(theirs.type):
        async_open(file)


@pytest.mark.parametrize("mode", ["rb", "r"])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [("seek", (0, "x")), ("seek", (0, 1.5)), ("readlines", (1.5,)), ("peek", ("x",))],
)
async def test_arguments_that_calls_refuse(
    lines: Path, mode: str, method: str, arguments: Any, engine: Any
) -> None:
    if mode == "r" and method == "peek":
        return
    with open(lines, mode) as theirs, pytest.raises(TypeError):
        getattr(theirs, method)(*arguments)
    async with async_open(lines, mode, engine=engine) as ours:

        async def call() -> None:
            await getattr(ours, method)(*arguments)

        with pytest.raises(TypeError):
            await call()


async def test_a_negative_size_of_an_unbuffered_file(lines: Path, engine: Any) -> None:
    with open(lines, "rb", 0) as theirs:
        async with async_open(lines, "rb", buffering=0, engine=engine) as ours:
            assert await ours.read(-2) == theirs.read(-2)


async def test_an_error_handler_of_ones_own(tmp_path: Path, engine: Any) -> None:
    """What it raises leaves the position where any error of the codec leaves it."""

    def refuse(error: UnicodeError) -> Any:
        raise KeyError(error.reason)

    codecs.register_error("uringfile-refuse", refuse)
    (tmp_path / "file").write_bytes(b"\xff" + b"line\n" * 10)
    with open(tmp_path / "file", encoding="utf-8", errors="uringfile-refuse") as theirs:
        with pytest.raises(KeyError):
            theirs.read()
        expected = theirs.tell(), theirs.read()
    async with async_open(tmp_path / "file", errors="uringfile-refuse", engine=engine) as ours:
        with pytest.raises(KeyError):
            await ours.read()
        assert (ours.tell(), await ours.read()) == expected


def test_line_buffering_of_bytes_is_warned_about(lines: Path) -> None:
    with pytest.warns(RuntimeWarning, match="line buffering"):
        async_open(lines, "rb", buffering=1)


async def test_what_cannot_be_opened(tmp_path: Path, engine: Any) -> None:
    file = async_open(tmp_path / "missing", engine=engine)
    with pytest.raises(FileNotFoundError) as caught:
        await file
    assert caught.value.filename == str(tmp_path / "missing")
    assert file.closed
    with pytest.raises(FileExistsError):
        async with async_open(__file__, "x", engine=engine):
            pass
    with pytest.raises(IsADirectoryError):
        await async_open(tmp_path, engine=engine)
    (tmp_path / "missing").write_text("now it is there")
    async with file:
        assert await file.read() == "now it is there"


async def test_a_descriptor_starts_where_it_stands(lines: Path, engine: Any) -> None:
    fd = os.open(lines, os.O_RDONLY)
    os.lseek(fd, 7, os.SEEK_SET)
    async with async_open(fd, "rb", closefd=False, engine=engine) as file:
        assert file.name == fd
        assert file.tell() == 7
        assert await file.readline() == b"line 1\n"
    # Whoever owns it goes on where this one stopped.
    assert os.read(fd, 7) == b"line 2\n"
    async with async_open(fd, engine=engine) as text:
        assert await text.readline() == "line 3\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_an_open_file_object_stays_open_and_goes_on(lines: Path, engine: Any) -> None:
    with open(lines, "r+", encoding="utf-8") as fp:
        assert fp.readline() == "line 0\n"
        async with async_open(fp, engine=engine) as text:
            assert isinstance(text, TextFileWrapper)
            assert await text.readline() == "line 1\n"
            assert text.name == str(lines)
        assert not fp.closed
        assert fp.readline() == "line 2\n"
    with open(lines, "rb") as fp_bytes:
        async with async_open(fp_bytes, engine=engine) as binary:
            assert await binary.readline() == b"line 0\n"
        assert fp_bytes.readline() == b"line 1\n"


async def test_parallel_opening_and_closing(lines: Path, engine: Any) -> None:
    before = open_fds()
    file = async_open(lines, "rb", engine=engine)
    await asyncio.gather(*(file._open() for _ in range(5)))
    assert await file.read(4) == b"line"
    await asyncio.gather(*(file.close() for _ in range(5)))
    assert not [fd for fd in open_fds() - before if "lines" in fd]


# ---- buffering ----------------------------------------------------------------------


async def test_small_writes_stay_in_memory_until_flush(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    async with async_open(path, "wb", engine=engine) as file:
        assert await file.write(b"abc") == 3
        assert await file.write(bytearray(b"def")) == 3
        assert await file.write(memoryview(b"ghi")) == 3
        assert file.tell() == 9
        assert path.read_bytes() == b""
        await file.flush()
        assert path.read_bytes() == b"abcdefghi"
        await file.write(b"j")
    assert path.read_bytes() == b"abcdefghij"


async def test_a_full_buffer_goes_out_in_the_background(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    async with async_open(path, "wb", engine=engine) as file:
        for _ in range(5000):
            await file.write(b"x" * 100)
        deadline = time.monotonic() + 10
        while path.stat().st_size < 300_000 and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        assert 300_000 <= path.stat().st_size < 500_000
        assert file.tell() == 500_000
        assert file.seek(0, 2) == 500_000
    assert path.stat().st_size == 500_000


async def test_reads_see_what_is_buffered(tmp_path: Path, engine: Any) -> None:
    async with async_open(tmp_path / "file", "wb+", engine=engine) as file:
        await file.write(b"0123456789")
        file.seek(5)
        await file.write(b"abc")
        assert await file.read() == b"89"
        file.seek(0)
        assert await file.read() == b"01234abc89"
        file.seek(20)
        await file.write(b"!")
        file.seek(0)
        assert await file.read() == b"01234abc89" + bytes(10) + b"!"


async def test_unbuffered_writes_are_there_at_once(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    async with async_open(path, "wb+", buffering=0, engine=engine) as file:
        assert await file.write(b"one\ntwo\n") == 8
        assert path.read_bytes() == b"one\ntwo\n"
        await asyncio.gather(*(file.write(b"%d" % n) for n in range(10)))
        assert sorted(path.read_bytes()[8:]) == sorted(b"0123456789")
        file.seek(0)
        assert await file.readline() == b"one\n"
        path.write_bytes(b"one\nTWO\n")
        assert await file.readline() == b"TWO\n"


async def test_line_buffered_text(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    async with async_open(path, "w", buffering=1, engine=engine) as file:
        assert file.line_buffering
        await file.write("half ")
        assert path.read_text() == ""
        await file.write("line\n")
        assert path.read_text() == "half line\n"


async def test_appending_tells_where_it_goes(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    async with async_open(path, "ab+", engine=engine) as file:
        file.seek(0)
        await file.write(b"67")
        assert file.tell() == 7
        file.seek(0)
        assert await file.read(5) == b"12345"
        await file.write(b"8")
        assert file.tell() == 8
    assert path.read_bytes() == b"12345678"


async def test_a_byte_order_mark_only_at_the_start(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        async with async_open(path, "a", encoding="utf-16", engine=engine) as file:
            await file.write("ab")
            await file.write("c")
    assert path.read_bytes() == "abcabc".encode("utf-16")
    async with async_open(path, "r+", encoding="utf-8-sig", engine=engine) as file:
        await file.truncate(0)
        await file.write("x")
        file.seek(0)
        await file.truncate()
        await file.write("y")
    assert path.read_bytes() == "y".encode("utf-8-sig")


async def test_text_writes_count_characters(tmp_path: Path, engine: Any) -> None:
    async with async_open(tmp_path / "file", "w+", newline="\r\n", engine=engine) as file:
        assert await file.write("ä€\n") == 3
        await file.writelines(["a", "b\n"])
        file.seek(0)
        assert await file.read() == "ä€\r\nab\r\n"
    async with async_open(tmp_path / "file", "w", encoding="ascii", engine=engine) as strict:
        await strict.write("ok")
        with pytest.raises(UnicodeEncodeError):
            await strict.write("ä")
    assert (tmp_path / "file").read_text() == "ok"


async def test_what_was_never_closed_is_written_late(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    file = await async_open(path, "wb", engine=engine)
    await file.write(b"precious")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del file
        collect()
        messages = [str(warning.message) for warning in caught]
        caught.clear()  # they hold what they warn of
        collect()
    assert any("never closed" in message for message in messages)
    assert path.read_bytes() == b"precious"


def test_what_was_never_closed_is_written_after_the_loop(tmp_path: Path, engine: Any) -> None:
    async def opened() -> Any:
        file = await async_open(tmp_path / "file", "wb", engine=engine)
        await file.write(b"precious")
        return file

    file = run(opened())
    with pytest.raises(RuntimeError, match="event loop"):
        run(file.close())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del file
        collect()
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_what_was_never_closed_is_written_in_order(tmp_path: Path, mode: str, engine: Any) -> None:
    """Also behind a write that is in flight when the loop ends."""
    blocks = [bytes([i]) * 50_000 for i in range(8)]

    async def opened(path: Path) -> Any:
        file = await async_open(path, mode, engine=engine)
        for block in blocks:
            await file.write(block)
        return file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in "abcdefgh":
            file = asyncio.run(opened(tmp_path / name))
            del file
            collect()
            assert (tmp_path / name).read_bytes() == b"".join(blocks)


@pytest.mark.parametrize("mode", ["w", "wb", "ab"])
async def test_what_was_never_closed_is_written_from_a_cycle_too(
    tmp_path: Path, mode: str, engine: Any
) -> None:
    path = tmp_path / "file"
    file: Any = await async_open(path, mode, engine=engine)
    await file.write("precious" if mode == "w" else b"precious")
    file.itself = file  # so that the collector finalizes the file and what it stands on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del file
        collect()
    assert path.read_bytes() == b"precious"
    while [fd for fd in open_fds() if str(path) in fd]:
        await asyncio.sleep(0.001)  # it may be closed by a thread


# ---- iteration ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_iteration_is_part_of_the_position(lines: Path, mode: str, engine: Any) -> None:
    kind: Any = bytes if mode == "rb" else lambda data, _: data.decode()
    expected = [kind(line, None) if mode == "r" else line for line in LINES.splitlines(True)]
    file: Any
    async with async_open(lines, mode, engine=engine) as file:
        seen = []
        async for line in file:
            seen.append(line)
            assert file.tell() == sum(map(len, seen))
            if len(seen) == 3000:
                break
        seen.append(await file.readline())
        seen += await file.readlines(100)
        async for line in file:
            seen.append(line)
        assert seen == expected
        assert await file.readline() == expected[0][:0]
        file.seek(0)
        again = []
        async for line in file:
            again.append(line)
            if len(again) == 10:
                file.seek(len(LINES) - len(expected[-1]))
        assert again == [*expected[:10], expected[-1]]


@pytest.mark.parametrize("mode", ["rb+", "r+"])
async def test_calls_between_two_lines(tmp_path: Path, mode: str, engine: Any) -> None:
    (tmp_path / "ours").write_bytes(LINES[:5000])
    binary = "b" in mode
    end: Any = b"END\n" if binary else "END\n"
    file: Any
    async with async_open(tmp_path / "ours", mode, engine=engine) as file:
        lines = []
        async for line in file:
            lines.append(line)
            if len(lines) == 3:
                lines.append(await file.read(5))
            if len(lines) == 10:
                file.seek(0, 2)
                await file.write(end)
                await file.write(end)
                file.seek(5000)
        assert lines[3] == lines[0][:5]
        assert lines[-2:] == [end, end]
        assert len(lines) == 12


async def test_closing_inside_an_iteration(lines: Path, engine: Any) -> None:
    for mode in ("rb", "r"):
        file: Any = await async_open(lines, mode, engine=engine)
        iterator = aiter(file)
        await anext(iterator)
        await file.close()
        with pytest.raises(ValueError, match="closed"):
            await anext(iterator)


async def test_iteration_lets_others_run(lines: Path, engine: Any) -> None:
    async with counted_turns() as turns, async_open(lines, "rb", engine=engine) as file:
        file.seek(0)
        for _ in range(10):
            async for _ in file:
                pass
            file.seek(0)
    assert turns() > 5


async def test_iter_chunked(lines: Path, engine: Any) -> None:
    async with async_open(lines, "rb", engine=engine) as file:
        file.seek(100)
        chunks = [chunk async for chunk in file.iter_chunked(1000)]
    assert b"".join(chunks) == LINES[100:]
    assert {len(chunk) for chunk in chunks[:-1]} == {1000}
    async with async_open(lines, engine=engine) as text:
        assert "".join([chunk async for chunk in text.iter_chunked()]) == LINES.decode()


@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_long_lines_take_linear_time(tmp_path: Path, mode: str, engine: Any) -> None:
    path = tmp_path / "long"
    size = 64 << 20
    path.write_bytes(b"x" * size + b"\n" + b"y" * 10)
    file: Any
    async with async_open(path, mode, engine=engine) as file:
        real = file.file.read_bytes
        read = 0

        async def counted(size: int, offset: int) -> bytes:
            nonlocal read
            data: bytes = await real(size, offset)
            read += len(data)
            return data

        file.file.read_bytes = counted
        start = time.process_time()
        lengths = [len(line) async for line in file]
        seconds = time.process_time() - start
    assert lengths == [size + 1, 10]
    assert read < size + (1 << 20)
    # It takes some 0.1 s. To copy, for each block, all that came before takes over 4 s.
    assert seconds < 2


# ---- files that are no plain files ----------------------------------------------------


async def test_a_pipe(pipe: tuple[int, int], engine: Any) -> None:
    reader, writer = pipe
    async with async_open(reader, "rb", closefd=False, engine=engine) as file:
        assert not file.seekable()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
        with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
            file.tell()
        line = asyncio.create_task(file.readline())
        await asyncio.sleep(0.01)
        os.write(writer, b"one")
        await asyncio.sleep(0.01)
        assert not line.done()
        os.write(writer, b" line\nand more")
        assert await line == b"one line\n"
        assert await file.read(3) == b"and"
        assert await file.peek() == b" more"
        assert await file.read1() == b" more"
        rest = asyncio.create_task(file.read(8))
        await asyncio.sleep(0.01)
        os.write(writer, b"12345")
        await asyncio.sleep(0.01)
        assert not rest.done()
        os.close(writer)
        assert await rest == b"12345"
        assert await file.read() == b""


async def test_a_cancelled_read_of_a_pipe_loses_nothing(pipe: tuple[int, int], engine: Any) -> None:
    reader, writer = pipe
    async with async_open(reader, "rb", closefd=False, engine=engine) as file:
        os.write(writer, b"half ")
        for call in (file.readline, file.read, file.readline):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call(), 0.02)
        os.write(writer, b"line\nrest")
        assert await file.readline() == b"half line\n"
        os.close(writer)
        assert await file.read() == b"rest"


async def test_several_tasks_at_one_pipe(pipe: tuple[int, int], engine: Any) -> None:
    reader, writer = pipe
    async with async_open(reader, "rb", closefd=False, engine=engine) as file:
        peeks = [asyncio.create_task(file.peek()) for _ in range(3)]
        await asyncio.sleep(0.01)
        os.write(writer, b"one\n")
        assert await asyncio.gather(*peeks) == [b"one\n"] * 3
        lines = [asyncio.create_task(file.readline()) for _ in range(3)]
        await asyncio.sleep(0.01)
        os.write(writer, b"two\nthr")
        await asyncio.sleep(0.01)
        os.write(writer, b"ee\n")
        assert await asyncio.gather(*lines) == [b"one\n", b"two\n", b"three\n"]


async def test_text_through_a_pipe(pipe: tuple[int, int], engine: Any) -> None:
    reader, writer = pipe
    async with async_open(reader, closefd=False, engine=engine) as file:
        with pytest.raises(io.UnsupportedOperation):
            file.tell()
        os.write(writer, "h\u00e4".encode()[:2])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(file.readline(), 0.02)
        os.write(writer, "h\u00e4".encode()[2:] + b"lf\r\nx\r")
        assert await file.readline() == "h\u00e4lf\n"
        os.close(writer)
        assert await file.readline() == "x\n"
        assert await file.readline() == ""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
async def test_a_byte_order_mark_in_front_of_a_pipe(
    pipe: tuple[int, int], encoding: str, engine: Any
) -> None:
    reader, writer = pipe
    async with async_open(writer, "w", encoding=encoding, closefd=False, engine=engine) as file:
        await file.write("a")
        await file.write("b")
    assert os.read(reader, 100) == "ab".encode(encoding)


async def test_a_byte_order_mark_behind_what_cannot_be_encoded(tmp_path: Path, engine: Any) -> None:
    async with async_open(tmp_path / "file", "w", encoding="utf-16", engine=engine) as file:
        with pytest.raises(UnicodeEncodeError):
            await file.write("\udc80")
        await file.write("a")
    assert (tmp_path / "file").read_bytes() == "a".encode("utf-16")


async def test_writing_to_a_pipe(pipe: tuple[int, int], engine: Any) -> None:
    reader, writer = pipe
    async with async_open(writer, "w", closefd=False, engine=engine) as file:
        await file.write("through\n")
        await file.flush()
        assert os.read(reader, 100) == b"through\n"
        await file.write("at the end")
    assert os.read(reader, 100) == b"at the end"
    with pytest.raises(io.UnsupportedOperation):
        await async_open(reader, "rb+", engine=engine)


async def test_a_device_that_gives_less_than_it_has(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /dev/zero does when a signal comes: that is not its end."""
    async with async_open("/dev/zero", "rb", engine=engine) as zeros:
        stream: Any = zeros.file._stream_io
        read = stream.read
        monkeypatch.setattr(stream, "read", lambda size: read(min(size, 1000)))
        for size in (3000, 100_000, 10):
            assert await zeros.read(size) == bytes(size)
        buffer = bytearray(b"x" * 100_000)
        assert await zeros.readinto(buffer) == len(buffer)
        assert buffer == bytes(len(buffer))


async def test_files_that_tell_no_size(engine: Any) -> None:
    async with async_open("/proc/self/status", engine=engine) as file:
        lines = [line async for line in file]
        assert lines[0].startswith("Name:")
        file.seek(0)
        assert (await file.read()).splitlines()[0] == lines[0].rstrip()
    async with async_open("/dev/zero", "rb", engine=engine) as zeros:
        assert await zeros.read(100_000) == bytes(100_000)


# ---- clones -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rb+", "r+"])
async def test_a_clone_has_its_own_position(lines: Path, mode: str, engine: Any) -> None:
    before = open_fds()
    file: Any = await async_open(lines, mode, engine=engine)
    await file.readline()
    async with clone(file) as second:
        assert type(second) is type(file)
        assert second.fileno() == file.fileno()
        first_line = await second.readline()
        third = await clone(second)
        assert await file.readline() != first_line
        assert await third.readline() == first_line
    assert second.closed
    await file.close()
    assert not third.closed
    assert await third.readline() != first_line
    await third.close()
    assert not [fd for fd in open_fds() - before if "lines" in fd]


async def test_a_clone_sees_what_was_buffered_before(tmp_path: Path, engine: Any) -> None:
    async with async_open(tmp_path / "file", "w+", engine=engine) as file:
        await file.write("hello")
        async with clone(file) as second:
            assert await second.read() == "hello"


async def test_a_plain_offset_in_an_iso_2022_text(tmp_path: Path, engine: Any) -> None:
    """CPython's codec crashes in the state 0; such an offset means the initial one."""
    text = "abc\u3042\u3044\ndef\n"
    (tmp_path / "f").write_text(text, "iso2022_jp")
    async with async_open(tmp_path / "f", "r", "iso2022_jp", engine=engine) as f:
        f.seek(3)
        assert await f.read() == text[3:]
        end = f.seek(0, 2)
        f.seek(end)
        assert await f.read() == ""
        f.seek(0)
        assert await f.readline() == "abc\u3042\u3044\n"
        f.seek(f.tell())
        assert await f.readline() == "def\n"


async def test_the_end_of_an_unbuffered_file_elsewhere(tmp_path: Path, engine: Any) -> None:
    """Where fstat could wait for a server, the size is what has been seen of it."""
    async with async_open(tmp_path / "f", "wb", buffering=0, engine=engine) as f:
        f.file._local = False
        await f.write(b"12345")
        assert f.seek(0, 2) == 5
