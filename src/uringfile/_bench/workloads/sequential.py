"""A file in the page cache, read from its start to its end by 1 MiB, one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import FileIO
from itertools import cycle, islice
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender
from uringfile._bench.files import MIB, make_random_file, size_of, warm
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling


class Sequential(Workload):
    name = "read-1m-sequential"
    title = "Sequential 1 MiB reads, cached, 1 in flight"
    unit = "MiB"
    only_reads = True
    contenders = (SYNC, *ASYNCIO)

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "read.bin", size)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "read.bin"
        warm(path)
        offsets = cycle(range(0, size_of(path) - MIB + 1, MIB))
        if contender.name == SYNC:
            with open(path, "rb", buffering=0) as file:
                yield calling(_read_file, file, offsets)
        else:
            async with contender.open(path) as files:
                yield awaiting(_read, files[0].read, offsets)


async def _read(
    read: Callable[[int, int], Awaitable[bytes]], offsets: Iterator[int], count: int
) -> None:
    for offset in islice(offsets, count):
        await read(MIB, offset)


def _read_file(file: FileIO, offsets: Iterator[int], count: int) -> None:
    for offset in islice(offsets, count):
        if offset == 0:
            file.seek(0)
        file.read(MIB)


WORKLOADS = [Sequential()]
