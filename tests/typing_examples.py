"""What type checkers are to make of async_open; mypy and pyright read it, nothing runs it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, TextIO

from typing_extensions import assert_type

from uringfile import BinaryFileWrapper, TextFileWrapper, async_open, clone


async def text(path: Path) -> None:
    assert_type(async_open(path), TextFileWrapper)
    assert_type(async_open("name", "w", encoding="utf-16", newline=""), TextFileWrapper)
    assert_type(async_open(b"name", "a+", "latin-1", errors="replace"), TextFileWrapper)
    assert_type(await async_open(path, "r+"), TextFileWrapper)
    async with async_open(path, "r", engine="io_uring") as file:
        assert_type(file, TextFileWrapper)
        assert_type(await file.read(), str)
        assert_type(await file.read(10), str)
        assert_type(await file.readline(), str)
        assert_type(await file.readlines(), list[str])
        assert_type(await file.write("text"), int)
        assert_type(await file.truncate(), int)
        assert_type(file.tell(), int)
        assert_type(file.seek(0, 2), int)
        assert_type(file.newlines, "str | tuple[str, ...] | None")
        await file.writelines(["a", "b"])
        async for line in file:
            assert_type(line, str)
        async for chunk in file.iter_chunked(100):
            assert_type(chunk, str)
        await file.write(b"bytes")  # type: ignore[arg-type]
        async with clone(file) as second:
            assert_type(second, TextFileWrapper)
        assert_type(await clone(file), TextFileWrapper)


async def binary(path: Path) -> None:
    assert_type(async_open(path, "rb"), BinaryFileWrapper)
    assert_type(async_open(3, "wb", closefd=False), BinaryFileWrapper)
    assert_type(await async_open(path, "ab+", buffering=0), BinaryFileWrapper)
    async with async_open(path, "rb+", direct=True) as file:
        assert_type(file, BinaryFileWrapper)
        assert_type(await file.read(), bytes)
        assert_type(await file.read1(), bytes)
        assert_type(await file.peek(), bytes)
        assert_type(await file.readline(5), bytes)
        assert_type(await file.readlines(), list[bytes])
        assert_type(await file.readinto(bytearray(10)), int)
        assert_type(await file.write(memoryview(b"bytes")), int)
        await file.writelines([b"a", bytearray(b"b")])
        async for line in file:
            assert_type(line, bytes)
        async for chunk in file.iter_chunked():
            assert_type(chunk, bytes)
        await file.write("text")  # type: ignore[arg-type]
        async with clone(file) as second:
            assert_type(second, BinaryFileWrapper)


def open_file_objects(text_file: TextIO, binary_file: BinaryIO, buffer: io.BytesIO) -> None:
    assert_type(async_open(text_file), TextFileWrapper)
    assert_type(async_open(binary_file), BinaryFileWrapper)


def any_mode(path: str, mode: str) -> None:
    assert_type(async_open(path, mode), "BinaryFileWrapper | TextFileWrapper")


def refused(path: str) -> None:
    async_open(path, "r", engine="threads")  # type: ignore[call-overload]
