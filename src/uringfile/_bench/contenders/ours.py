"""uringfile on each of its engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import uringfile
from uringfile._bench.contenders._contender import Contender, File, Gap, Lines


class Ours(Contender):
    def __init__(self, engine: Literal["io_uring", "posix_aio"]) -> None:
        self.name = f"uringfile-{engine}"
        self._engine = engine

    def version(self) -> str:
        return f"uringfile {uringfile.__version__} ({self._engine})"

    def _file(self, path: Path, mode: str, **options: Any) -> uringfile.AIOFile:
        return uringfile.AIOFile(path, mode, engine=self._engine, **options)

    @asynccontextmanager
    async def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AsyncIterator[list[File]]:
        file = self._file(path, "rb+" if writable else "rb", direct=direct)
        try:
            await file.open()
        except uringfile.EngineUnavailable as error:
            raise Gap(str(error)) from None
        async with file:
            one = File(file.read, file.write, file.fdatasync, file.read_many)
            yield [one] * handles

    @asynccontextmanager
    async def lines(self, path: Path, *, text: bool) -> AsyncIterator[Lines]:
        async with self._file(path, "r" if text else "rb") as file:
            yield uringfile.LineReader(file)

    @asynccontextmanager
    async def file_lines(self, path: Path, *, text: bool) -> AsyncIterator[Lines]:
        if text:
            async with uringfile.async_open(path, "r", engine=self._engine) as lines:
                yield lines
        else:
            async with uringfile.async_open(path, "rb", engine=self._engine) as blines:
                yield blines

    @asynccontextmanager
    async def appending(self, path: Path) -> AsyncIterator[Callable[[bytes], Awaitable[Any]]]:
        async with uringfile.async_open(path, "wb", engine=self._engine) as file:
            yield file.write

    async def read_whole(self, path: Path) -> bytes:
        async with uringfile.async_open(path, "rb", engine=self._engine) as file:
            return await file.read()


CONTENDERS = [Ours("io_uring"), Ours("posix_aio")]
