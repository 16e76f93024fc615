"""The aiofile package on the engine that it chooses by default."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiofile
import caio

from uringfile._bench.contenders._contender import Contender, File, Gap, Lines


class Aiofile(Contender):
    name = "aiofile"

    def version(self) -> str:
        engine = caio.AsyncioContext.__module__.rpartition(".")[2]
        return f"aiofile {version('aiofile')}, caio {version('caio')} ({engine})"

    @asynccontextmanager
    async def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AsyncIterator[list[File]]:
        if direct:
            raise Gap("aiofile has no O_DIRECT")
        async with aiofile.AIOFile(path, "rb+" if writable else "rb") as file:
            one = File(file.read, file.write, file.fdsync)  # type: ignore[arg-type]  # binary
            yield [one] * handles

    @asynccontextmanager
    async def lines(self, path: Path, *, text: bool) -> AsyncIterator[Lines]:
        async with aiofile.AIOFile(path, "r" if text else "rb", encoding="utf-8") as file:
            yield aiofile.LineReader(file)

    @asynccontextmanager
    async def file_lines(self, path: Path, *, text: bool) -> AsyncIterator[Lines]:
        async with aiofile.async_open(path, "r" if text else "rb", encoding="utf-8") as file:
            yield file  # type: ignore[misc]  # text or bytes

    @asynccontextmanager
    async def appending(self, path: Path) -> AsyncIterator[Callable[[bytes], Awaitable[Any]]]:
        async with aiofile.async_open(path, "wb") as file:
            yield file.write

    async def read_whole(self, path: Path) -> bytes:
        async with aiofile.async_open(path, "rb") as file:
            data: bytes = await file.read()
            return data


CONTENDERS = [Aiofile()]
