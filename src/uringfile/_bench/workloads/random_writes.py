"""Random writes of 4 KiB over a file that is there, so many at a time; alone, or each with an
fdatasync of its own behind it. The page cache takes the writes; the disk takes the syncs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender, File
from uringfile._bench.files import (
    BLOCK,
    descriptor,
    make_random_file,
    settle,
    shuffled_offsets,
    warm,
)
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling, together

_DATA = os.urandom(BLOCK)


class RandomWrites(Workload):
    contenders = (SYNC, *ASYNCIO)

    def __init__(self, in_flight: int, durable: bool) -> None:
        self.name = f"write-4k-{'fdatasync' if durable else 'cached'}-{in_flight}"
        self.unit = "write+fdatasync" if durable else "write"
        self.title = f"Random 4 KiB {self.unit}, {in_flight} in flight"
        self.per_loop = 64
        self._in_flight = in_flight
        self._durable = durable

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "write.bin", max(size // 4, 64 * BLOCK))

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "write.bin"
        warm(path)
        if contender.name == SYNC:
            with descriptor(path, writable=True) as fd:
                pwrite = _pwrite_durably if self._durable else _pwrite
                yield calling(pwrite, fd, shuffled_offsets(path, 1)[0], self.per_loop)
        else:
            async with contender.open(path, writable=True, handles=self._in_flight) as files:
                yield self._in_tasks(files, shuffled_offsets(path, self._in_flight))
        settle(path)

    def _in_tasks(self, files: list[File], offsets: list[Iterator[int]]) -> Run:
        work = _write_durably if self._durable else _write

        async def write(loops: int) -> None:
            count = loops * self.per_loop // self._in_flight
            tasks = zip(files, offsets, strict=True)
            await together([work(*task, count) for task in tasks])

        return awaiting(write)


async def _write(file: File, offsets: Iterator[int], count: int) -> None:
    write = file.write
    for offset in islice(offsets, count):
        await write(_DATA, offset)


async def _write_durably(file: File, offsets: Iterator[int], count: int) -> None:
    for offset in islice(offsets, count):
        await file.write(_DATA, offset)
        await file.datasync()


def _pwrite(fd: int, offsets: Iterator[int], per_loop: int, loops: int) -> None:
    for offset in islice(offsets, loops * per_loop):
        os.pwrite(fd, _DATA, offset)


def _pwrite_durably(fd: int, offsets: Iterator[int], per_loop: int, loops: int) -> None:
    for offset in islice(offsets, loops * per_loop):
        os.pwrite(fd, _DATA, offset)
        os.fdatasync(fd)


WORKLOADS = [RandomWrites(in_flight, durable) for durable in (False, True) for in_flight in (1, 64)]
