"""The aiofiles package: a file object whose every call is made in a thread.

A file has one position, so each task has a file of its own, and a read elsewhere is a seek
and a read. Unbuffered, as all the others are; it has no fdatasync, but wraps one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiofiles
import aiofiles.os

from uringfile._bench.contenders._contender import Contender, File, Lines

_fdatasync = aiofiles.os.wrap(os.fdatasync)


def _open_direct(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)


class _Handle:
    def __init__(self, file: Any, direct: bool) -> None:
        self._file = file
        self._position = 0
        self._aligned = mmap.mmap(-1, mmap.PAGESIZE) if direct else None

    async def _seek(self, offset: int) -> None:
        if offset != self._position:
            await self._file.seek(offset)

    async def read(self, size: int, offset: int) -> bytes:
        await self._seek(offset)
        if self._aligned is None:
            data: bytes = await self._file.read(size)
        else:
            data = self._aligned[: await self._file.readinto(self._aligned)]
        self._position = offset + len(data)
        return data

    async def write(self, data: bytes, offset: int) -> None:
        await self._seek(offset)
        self._position = offset + await self._file.write(data)


class Aiofiles(Contender):
    name = "aiofiles"

    def version(self) -> str:
        return f"aiofiles {version('aiofiles')}"

    @asynccontextmanager
    async def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AsyncIterator[list[File]]:
        mode = "rb+" if writable else "rb"
        opener = _open_direct if direct else None
        async with AsyncExitStack() as stack:
            files = []
            for _ in range(handles):
                file = await stack.enter_async_context(
                    aiofiles.open(path, mode, buffering=0, opener=opener)
                )
                handle = _Handle(file, direct)
                files.append(File(handle.read, handle.write, partial(_fdatasync, file.fileno())))
            yield files

    @asynccontextmanager
    async def file_lines(self, path: Path, *, text: bool) -> AsyncIterator[Lines]:
        if text:
            async with aiofiles.open(path, encoding="utf-8") as lines:
                yield lines
        else:
            async with aiofiles.open(path, "rb") as blines:
                yield blines

    @asynccontextmanager
    async def appending(self, path: Path) -> AsyncIterator[Callable[[bytes], Awaitable[Any]]]:
        async with aiofiles.open(path, "wb") as file:
            yield file.write

    async def read_whole(self, path: Path) -> bytes:
        async with aiofiles.open(path, "rb") as file:
            data: bytes = await file.read()
            return data


CONTENDERS = [Aiofiles()]
