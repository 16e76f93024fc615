"""The buffers of callers: kept as they are while in use, and let go of afterwards."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import collect

from uringfile import AIOFile, LogWriter, Writer, async_open, write_bytes
from uringfile.os import unlink

SIZE = 300_000  # beyond what file objects copy


async def write(path: Path, engine: Any, buffer: Any) -> None:
    async with AIOFile(path, "rb+", engine=engine) as file:
        assert await file.write(buffer) == len(buffer)


async def write_many(path: Path, engine: Any, buffer: Any) -> None:
    async with AIOFile(path, "rb+", engine=engine) as file:
        assert await file.write_many([(buffer, 0), (buffer, SIZE)]) == [len(buffer)] * 2


async def readinto(path: Path, engine: Any, buffer: Any) -> None:
    async with AIOFile(path, "rb", engine=engine) as file:
        assert await file.readinto(buffer) == len(buffer)


async def readinto_many(path: Path, engine: Any, buffer: Any) -> None:
    async with AIOFile(path, "rb", engine=engine) as file:
        assert await file.readinto_many([(buffer, 0), (buffer, 1)]) == [len(buffer)] * 2


async def write_of_a_file_object(path: Path, engine: Any, buffer: Any) -> None:
    async with async_open(path, "wb", engine=engine) as file:
        assert await file.write(buffer) == len(buffer)


async def readinto_of_a_file_object(path: Path, engine: Any, buffer: Any) -> None:
    async with async_open(path, "rb", engine=engine) as file:
        await file.read(1)
        assert await file.readinto(buffer) == len(buffer)


async def writer(path: Path, engine: Any, buffer: Any) -> None:
    async with AIOFile(path, "rb+", engine=engine) as file:
        await Writer(file)(buffer)


async def append(path: Path, engine: Any, buffer: Any) -> None:
    async with LogWriter(path, framed=False, engine=engine) as log:
        await log.append(buffer)


async def write_whole(path: Path, engine: Any, buffer: Any) -> None:
    assert await write_bytes(path, buffer, engine=engine) == len(buffer)


@pytest.mark.parametrize("size", [1000, SIZE])
@pytest.mark.parametrize(
    "call",
    [
        write,
        write_many,
        readinto,
        readinto_many,
        write_of_a_file_object,
        readinto_of_a_file_object,
        writer,
        append,
        write_whole,
    ],
)
async def test_afterwards_a_buffer_can_be_resized(
    tmp_path: Path, engine: Any, call: Callable[[Path, Any, Any], Awaitable[None]], size: int
) -> None:
    """At once, also where references are not counted."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * SIZE))
    buffer = bytearray(size)
    await call(path, engine, buffer)
    buffer += b"more"
    with memoryview(buffer) as view:
        await call(path, engine, view)
    buffer += b"more"


async def test_in_use_it_cannot_be_resized(pipe: tuple[int, int], engine: Any) -> None:
    read_end, write_end = pipe
    buffer = bytearray(8)
    async with AIOFile(read_end, "rb", engine=engine) as file:
        file._stream_io = None  # into the buffer itself
        with memoryview(buffer) as view:
            task = asyncio.create_task(file.readinto(view))
            await asyncio.sleep(0.05)
        collect()
        with pytest.raises(BufferError):
            buffer.clear()
        os.write(write_end, b"12345678")
        assert await task == 8
    buffer.clear()


async def test_what_a_BytesIO_holds_can_be_written(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    with io.BytesIO(b"0123456789").getbuffer() as view:
        async with AIOFile(path, "wb", engine=engine) as file:
            assert await file.write(view) == 10
            assert await file.write_many([(view[:4], 10), (view[4:], 14)]) == [4, 6]
    assert path.read_bytes() == b"0123456789" * 2


async def test_a_name_stays_until_the_kernel_has_read_it(tmp_path: Path, engine: Any) -> None:
    """Which it does when the turn of the loop ends. Where objects move, memory of a name that
    nobody keeps is another's by then."""
    if engine == "posix_aio":
        pytest.skip("POSIX AIO has no names")
    paths = [tmp_path / (f"{i:03}" * 20) for i in range(40)]
    for path in paths:
        path.touch()
    tasks = [asyncio.create_task(unlink(path)) for path in paths]
    asyncio.get_running_loop().call_soon(churn)  # behind their first steps
    await asyncio.gather(*tasks)
    assert not any(path.exists() for path in paths)


def churn() -> None:
    collect()
    for i in range(50_000):
        f"{i:0300}".encode()
