"""The system call in a coroutine, on the loop's thread: nothing that asyncio awaits costs less.

It is no way to do I/O, since the loop waits with it (see the ticker). It is here for what it
says of a ratio: beyond this one no library can get, as long as a task awaits each call.
"""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders._contender import Contender, File
from uringfile._bench.files import descriptor, pread_direct, read_whole


class Blocking(Contender):
    name = "blocking"

    def version(self) -> str:
        return f"Python {platform.python_version()}, the system call in a coroutine"

    @asynccontextmanager
    async def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AsyncIterator[list[File]]:
        with descriptor(path, writable=writable, direct=direct) as fd:
            pread = pread_direct if direct else os.pread

            async def read(size: int, offset: int) -> bytes:
                return pread(fd, size, offset)

            async def write(data: bytes, offset: int) -> int:
                return os.pwrite(fd, data, offset)

            async def datasync() -> None:
                os.fdatasync(fd)

            async def read_many(requests: Sequence[tuple[int, int]]) -> list[bytes]:
                return [pread(fd, size, offset) for size, offset in requests]

            yield [File(read, write, datasync, read_many)] * handles

    async def read_whole(self, path: Path) -> bytes:
        return read_whole(path)


CONTENDERS = [Blocking()]
