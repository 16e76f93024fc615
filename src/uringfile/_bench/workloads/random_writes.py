"""Random writes of 4 KiB over a file that is there, so many at a time; alone, or each with an
fdatasync of its own behind it. The page cache takes the writes; the disk takes the syncs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender, File
from uringfile._bench.cost import Cost, cost_of, cost_of_call
from uringfile._bench.files import (
    BLOCK,
    descriptor,
    make_random_file,
    settle,
    shuffled_offsets,
    warm,
)
from uringfile._bench.workloads._workload import Run, Workload, together

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
                yield self._in_a_loop(fd, shuffled_offsets(path, 1)[0])
        else:
            async with contender.open(path, writable=True, handles=self._in_flight) as files:
                yield self._in_tasks(files, shuffled_offsets(path, self._in_flight))
        settle(path)

    def _in_tasks(self, files: list[File], offsets: list[Iterator[int]]) -> Run:
        work = _write_durably if self._durable else _write

        async def run(loops: int) -> Cost:
            count = loops * self.per_loop // self._in_flight
            tasks = zip(files, offsets, strict=True)
            return await cost_of(together([work(*task, count) for task in tasks]))

        return run

    def _in_a_loop(self, fd: int, offsets: Iterator[int]) -> Run:
        async def run(loops: int) -> Cost:
            work = _pwrite_durably if self._durable else _pwrite
            return cost_of_call(work, fd, offsets, loops * self.per_loop)

        return run


async def _write(file: File, offsets: Iterator[int], count: int) -> None:
    write = file.write
    for offset in islice(offsets, count):
        await write(_DATA, offset)


async def _write_durably(file: File, offsets: Iterator[int], count: int) -> None:
    for offset in islice(offsets, count):
        await file.write(_DATA, offset)
        await file.datasync()


def _pwrite(fd: int, offsets: Iterator[int], count: int) -> None:
    for offset in islice(offsets, count):
        os.pwrite(fd, _DATA, offset)


def _pwrite_durably(fd: int, offsets: Iterator[int], count: int) -> None:
    for offset in islice(offsets, count):
        os.pwrite(fd, _DATA, offset)
        os.fdatasync(fd)


WORKLOADS = [RandomWrites(in_flight, durable) for durable in (False, True) for in_flight in (1, 64)]
