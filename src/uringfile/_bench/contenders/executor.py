"""loop.run_in_executor with the system call: on the loop's own pool, and on 32 threads."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from uringfile._bench.contenders._contender import Contender, File
from uringfile._bench.files import descriptor, pread_direct, read_whole


def _pread_all(fd: int, requests: Sequence[tuple[int, int]]) -> list[bytes]:
    return [os.pread(fd, size, offset) for size, offset in requests]


class Executor(Contender):
    def __init__(self, name: str, threads: int | None) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(threads) if threads else None

    def version(self) -> str:
        threads = f"{self._pool._max_workers} threads" if self._pool else "the default pool"
        return f"Python {platform.python_version()}, run_in_executor, {threads}"

    @asynccontextmanager
    async def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AsyncIterator[list[File]]:
        with descriptor(path, writable=writable, direct=direct) as fd:
            run = partial(asyncio.get_running_loop().run_in_executor, self._pool)
            one = File(
                partial(run, pread_direct if direct else os.pread, fd),
                partial(run, os.pwrite, fd),
                partial(run, os.fdatasync, fd),
                partial(run, _pread_all, fd),
            )
            yield [one] * handles

    async def read_whole(self, path: Path) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._pool, read_whole, path)


CONTENDERS = [Executor("executor", None), Executor("executor32", 32)]
