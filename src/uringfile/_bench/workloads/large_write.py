"""One write of 32 MiB over a file that is there, into the page cache, one at a time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender, File
from uringfile._bench.files import MIB, descriptor, make_random_file, settle, warm
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling

SIZE = 32 * MIB


class LargeWrite(Workload):
    name = "write-32m-cached"
    title = "32 MiB writes, cached, 1 in flight"
    unit = "write"
    contenders = (SYNC, *ASYNCIO)

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "large.bin", SIZE)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "large.bin"
        warm(path)
        data = os.urandom(MIB) * (SIZE // MIB)
        if contender.name == SYNC:
            with descriptor(path, writable=True) as fd:
                yield calling(_pwrite, fd, data)
        else:
            async with contender.open(path, writable=True) as files:
                yield awaiting(_write, files[0], data)
        settle(path)


async def _write(file: File, data: bytes, count: int) -> None:
    for _ in range(count):
        await file.write(data, 0)


def _pwrite(fd: int, data: bytes, count: int) -> None:
    for _ in range(count):
        os.pwrite(fd, data, 0)


WORKLOADS = [LargeWrite()]
