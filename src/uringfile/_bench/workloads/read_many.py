"""256 random blocks of 4 KiB from the page cache, asked for at once and waited for together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender, File
from uringfile._bench.files import BLOCK, descriptor, make_random_file, shuffled_offsets, warm
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling

BATCH = 256


class ReadMany(Workload):
    name = "read-many-256"
    title = f"{BATCH} random 4 KiB reads in one await, cached"
    unit = "read"
    per_loop = BATCH
    only_reads = True
    contenders = (SYNC, *ASYNCIO)

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "read.bin", size)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "read.bin"
        warm(path)
        offsets = shuffled_offsets(path, 1)[0]
        if contender.name == SYNC:
            with descriptor(path) as fd:
                yield calling(_pread_many, fd, offsets)
        else:
            async with contender.open(path, handles=BATCH) as files:
                read_many = files[0].read_many
                if read_many is None:
                    yield awaiting(_read_together, files, offsets)
                else:
                    yield awaiting(_read_many, read_many, offsets)


async def _read_many(
    read_many: Callable[[list[tuple[int, int]]], Awaitable[list[bytes]]],
    offsets: Iterator[int],
    count: int,
) -> None:
    for _ in range(count):
        await read_many([(BLOCK, offset) for offset in islice(offsets, BATCH)])


async def _read_together(files: list[File], offsets: Iterator[int], count: int) -> None:
    """For those that have no call for many."""
    for _ in range(count):
        await asyncio.gather(
            *[file.read(BLOCK, offset) for file, offset in zip(files, offsets, strict=False)]
        )


def _pread_many(fd: int, offsets: Iterator[int], count: int) -> None:
    for _ in range(count):
        [os.pread(fd, BLOCK, offset) for offset in islice(offsets, BATCH)]


WORKLOADS = [ReadMany()]
