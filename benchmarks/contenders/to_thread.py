"""asyncio.to_thread with the system call."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders._contender import Contender, File
from uringfile._bench.files import descriptor, pread_direct, read_whole


class ToThread(Contender):
    name = "to_thread"

    def version(self) -> str:
        return f"Python {platform.python_version()}, asyncio.to_thread"

    @asynccontextmanager
    async def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AsyncIterator[list[File]]:
        with descriptor(path, writable=writable, direct=direct) as fd:
            pread = pread_direct if direct else os.pread
            one = File(
                lambda size, offset: asyncio.to_thread(pread, fd, size, offset),
                lambda data, offset: asyncio.to_thread(os.pwrite, fd, data, offset),
                lambda: asyncio.to_thread(os.fdatasync, fd),
            )
            yield [one] * handles

    async def read_whole(self, path: Path) -> bytes:
        return await asyncio.to_thread(read_whole, path)


CONTENDERS = [ToThread()]
