"""uringfile on each of its engines."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import uringfile
from benchmarks.contenders._contender import Contender, File, Gap


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
    async def lines(self, path: Path) -> AsyncIterator[AsyncIterable[bytes]]:
        if not hasattr(uringfile, "LineReader"):
            raise Gap("this version of uringfile has no LineReader")
        async with self._file(path, "rb") as file:
            yield uringfile.LineReader(file)

    async def read_whole(self, path: Path) -> bytes:
        # Some versions have no file objects yet.
        opened = getattr(uringfile, "async_open", uringfile.AIOFile)
        async with opened(path, "rb", engine=self._engine) as file:
            data: bytes = await file.read()
            return data


CONTENDERS = [Ours("io_uring"), Ours("posix_aio")]
