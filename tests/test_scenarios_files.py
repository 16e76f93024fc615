"""Files of all kinds and sizes, and files that change under their reader."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from uringfile import AIOFile, LineReader, async_open

LAST = 2**63 - 1


# ---- under a reader ---


async def test_a_file_that_shrinks_and_grows(tmp_path: Path, engine: Any) -> None:
    """Reads end where the file ends at that moment; they are never an error."""
    path = tmp_path / "f"
    short, long = b"A" * 100_000, b"A" * (3 << 20)
    path.write_bytes(short)
    stop = threading.Event()

    def change() -> None:
        fd = os.open(path, os.O_RDWR)
        while not stop.is_set():
            os.pwrite(fd, long, 0)
            os.ftruncate(fd, len(short))
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    thread = threading.Thread(target=change)
    thread.start()
    sizes = set()
    loop = asyncio.get_running_loop()
    try:
        begin = loop.time()
        async with (
            AIOFile(path, "rb", engine=engine) as f,
            AIOFile(path, "rb", direct=True, engine=engine) as direct,
            await async_open(path, "rb", engine=engine) as stream,
        ):
            while (past := loop.time() - begin) < 0.4 or (len(sizes) < 2 and past < 20):
                whole = [await f.read(), await f.read(1 << 20, 0), await direct.read()]
                stream.seek(0)
                whole.append(await stream.read())
                # Zeros are what the kernel shows of a page that is being cut.
                assert all(len(data) >= len(short) and not data.strip(b"A\0") for data in whole)
                parts = await f.read_many([(4096, o) for o in range(0, 2 << 20, 300_000)])
                assert len(parts[0]) == 4096
                assert not b"".join(parts).strip(b"A\0")
                sizes.add(len(whole[0]))
    finally:
        stop.set()
        thread.join()
    assert len(sizes) > 1


async def test_a_file_that_is_appended_to(tmp_path: Path, engine: Any) -> None:
    """Whoever reads on from where the last read ended gets every byte once."""
    path = tmp_path / "f"
    path.touch()
    lines = [b"%07d\n" % i for i in range(10_000)]

    def append() -> None:
        with open(path, "ab", buffering=0) as file:
            for i in range(0, len(lines), 50):
                file.write(b"".join(lines[i : i + 50]))

    thread = threading.Thread(target=append)
    thread.start()
    got = b""
    async with AIOFile(path, "rb", engine=engine) as f:
        while len(got) < 8 * len(lines):
            piece = await f.read(-1, len(got))
            got += piece
            if not piece:
                await asyncio.sleep(0.001)
        assert [line async for line in LineReader(f)] == lines
    thread.join()
    assert got == b"".join(lines)


async def test_a_file_that_is_deleted_and_replaced(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    async with AIOFile(path, "rb+", engine=engine) as f:
        path.unlink()
        path.write_bytes(b"new")
        assert await f.read() == b"old"
        assert await f.write(b"OLD") == 3
        await f.fsync()
        assert (await f.stat()).st_nlink == 0
    assert path.read_bytes() == b"new"


# ---- kinds ---


async def test_what_a_path_may_be(tmp_path: Path, engine: Any) -> None:
    directory, dangling = tmp_path / "directory", tmp_path / "dangling"
    loop, long = tmp_path / "loop", tmp_path / ("x" * 300)
    directory.mkdir()
    dangling.symlink_to("nowhere")
    loop.symlink_to(loop)
    unix = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(unix))
        expected = {
            directory: errno.EISDIR,
            dangling: errno.ENOENT,
            loop: errno.ELOOP,
            long: errno.ENAMETOOLONG,
            unix: errno.ENXIO,
            tmp_path / "none" / "f": errno.ENOENT,
        }
        for path, code in expected.items():
            for _ in range(2):  # the second time the path is cached
                with pytest.raises(OSError, match="Errno") as raised:
                    await AIOFile(path, "rb", engine=engine)
                assert (raised.value.errno, raised.value.filename) == (code, str(path))
    async with AIOFile(dangling, "wb", engine=engine) as f:  # as open(2): it makes the target
        await f.write(b"x")
    assert (tmp_path / "nowhere").read_bytes() == b"x"


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/kmsg", "/dev/full", "/dev/tty"])
async def test_special_files_do_not_break_it(path: str, engine: Any) -> None:
    """What plain calls answer: the same errno, or something."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        with pytest.raises(OSError, match="Errno") as raised:
            await AIOFile(path, "rb", engine=engine)
        assert raised.value.errno == error.errno  # noqa: PT017
        return
    os.close(fd)
    async with AIOFile(path, "rb", engine=engine) as f:
        assert stat.S_IFMT((await f.stat()).st_mode)
        try:
            await asyncio.wait_for(f.read(10), 0.1)
        except (OSError, asyncio.TimeoutError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                assert error.filename == path  # noqa: PT017


# ---- sizes and offsets ---


async def test_sparse_files_of_3_and_5_gib(tmp_path: Path, engine: Any) -> None:
    for size in (3 << 30, 5 << 30):
        path = tmp_path / "f"
        async with AIOFile(path, "wb+", engine=engine) as f:
            await f.truncate(size)
            places = [(1 << 31) - 3, size - 6]
            await f.write_many([(b"middle", place) for place in places])
            assert await f.read_many([(8, place - 1) for place in places]) == [
                b"\0middle\0",
                b"\0middle",
            ]
            tail = await f.read(-1, size - (1 << 20))
            assert tail == bytes((1 << 20) - 6) + b"middle"
            block = bytearray(10)
            assert await f.readinto(block, size - 4) == 4
            assert block == b"ddle" + bytes(6)
            assert await f.read(10, size) == await f.read(-1, size + 1) == b""
            await f.truncate(size + 1)
            assert (await f.stat()).st_size == size + 1
        async with AIOFile(path, "rb", direct=True, engine=engine) as f:
            assert await f.read(-1, size - 6) == b"middle\0"
        stream = await async_open(path, "rb", engine=engine)
        assert stream.seek(-7, os.SEEK_END) == size - 6
        assert await stream.read() == b"middle\0"
        await stream.close()
        path.unlink()


async def outcome(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await asyncio.wait_for(call(), 20)
    except (OSError, ValueError, OverflowError) as error:
        return error


@pytest.mark.parametrize("direct", [False, True])
async def test_the_last_offsets(tmp_path: Path, engine: Any, direct: bool) -> None:
    """Nothing is there to read; what writes there answers as the system calls do: with an error,
    or, on a tmpfs and XFS, by doing it."""
    path = tmp_path / "f"
    fd = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    async with AIOFile(path, "wb+", direct=direct, engine=engine) as f:
        await f.write(b"hello")
        for offset in (LAST, LAST - 1, LAST - 4096, LAST - 5000):
            assert await f.read(10, offset) == await f.read(-1, offset) == b""
            assert await f.read_many([(5000, offset), (3, 1)]) == [b"", b"ell"]
            assert await f.readinto(bytearray(9000), offset) == 0
            calls = [
                (f.write(b"x" * 10, offset), (os.pwrite, fd, b"x" * 10, offset)),
                (f.write_many([(b"x", offset), (b"y", offset)]), (os.pwrite, fd, b"x", offset)),
                (f.truncate(offset), (os.ftruncate, fd, offset)),
                (f.allocate(10, offset - 20), (os.posix_fallocate, fd, offset - 20, 10)),
            ]
            for ours, (theirs, *arguments) in calls:
                error = await outcome(lambda ours=ours: ours)
                if isinstance(error, OSError):
                    assert error.errno in (errno.EFBIG, errno.EINVAL, errno.ENOSPC)
                    assert error.filename == str(path)
                try:
                    theirs(*arguments)
                except OSError:
                    assert isinstance(error, OSError)
                else:
                    assert direct or not isinstance(error, OSError)
                    assert direct or os.fstat(f.fileno()).st_size == os.fstat(fd).st_size
                os.ftruncate(fd, 5)
                await f.truncate(5)
        assert path.read_bytes() == b"hello"
    os.close(fd)


@pytest.mark.parametrize("offset", [-1, LAST + 1, 2**64, -(2**64)])
async def test_what_is_no_offset(tmp_path: Path, engine: Any, offset: int) -> None:
    async with AIOFile(tmp_path / "f", "wb+", engine=engine) as f:
        before = f._driver.stats().submitted  # type: ignore[union-attr]
        calls = [
            lambda: f.read(10, offset),
            lambda: f.read_bytes(-1, offset),
            lambda: f.readinto(bytearray(3), offset),
            lambda: f.read_many([(10, offset)]),
            lambda: f.readinto_many([(bytearray(3), offset)]),
            lambda: f.write(b"x", offset),
            lambda: f.write_many([(b"x", offset)]),
            lambda: f.truncate(offset),
            lambda: f.allocate(10, offset),
        ]
        for call in calls:
            assert isinstance(await outcome(call), ValueError)
        assert f._driver.stats().submitted == before  # type: ignore[union-attr]
        assert (await f.stat()).st_size == 0


# ---- buffers ---


async def test_a_buffer_in_flight_cannot_be_resized(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(1 << 16))
    async with AIOFile(path, "rb+", engine=engine) as f:
        f._inline = False
        for start in (
            lambda buffer: f.readinto(buffer),
            lambda buffer: f.readinto_many([(buffer, 0), (bytearray(8), 8)]),
            lambda buffer: f.write(buffer),
            lambda buffer: f.write_many([(buffer, 0), (b"x", 1 << 16)]),
        ):
            buffer = bytearray(1 << 16)
            task = asyncio.ensure_future(start(buffer))  # type: ignore[no-untyped-call]
            await asyncio.sleep(0)
            refused = 0
            while not task.done():
                with pytest.raises(BufferError):
                    buffer.extend(b"longer")
                with pytest.raises(BufferError):
                    del buffer[10:]
                refused += 1
                await asyncio.sleep(0)
            await task
            assert refused
            del task
            buffer.extend(b"longer")
