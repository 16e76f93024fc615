"""Random reads of 4 KiB, from the page cache or with O_DIRECT, so many at a time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender
from uringfile._bench.cost import Cost
from uringfile._bench.files import (
    BLOCK,
    descriptor,
    drop,
    make_random_file,
    pread_direct,
    shuffled_offsets,
    warm,
)
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling, together


class RandomReads(Workload):
    unit = "read"
    per_loop = 64
    only_reads = True

    def __init__(self, in_flight: int, direct: bool) -> None:
        where = "direct" if direct else "cached"
        self.name = f"read-4k-{where}-{in_flight}"
        self.title = f"Random 4 KiB reads, {'O_DIRECT' if direct else where}, {in_flight} in flight"
        self.contenders = (SYNC, *ASYNCIO, *(["executor32"] if direct else []), "fio")
        self._in_flight = in_flight
        self._direct = direct

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "read.bin", size)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "read.bin"
        if self._direct:
            drop(path)
        else:
            warm(path)
        if contender.is_program:
            yield self._of_program(contender, path)
        elif contender.name == SYNC:
            with descriptor(path, direct=self._direct) as fd:
                pread = _pread_direct if self._direct else _pread
                yield calling(pread, fd, shuffled_offsets(path, 1)[0], self.per_loop)
        else:
            async with contender.open(path, direct=self._direct, handles=self._in_flight) as files:
                reads = [file.read for file in files]
                await _check(reads[0], path)
                yield self._in_tasks(reads, shuffled_offsets(path, self._in_flight))

    def _in_tasks(
        self, reads: list[Callable[[int, int], Awaitable[bytes]]], offsets: list[Iterator[int]]
    ) -> Run:
        async def read(loops: int) -> None:
            count = loops * self.per_loop // self._in_flight
            tasks = zip(reads, offsets, strict=True)
            await together([_read(*task, count) for task in tasks])

        return awaiting(read)

    def _of_program(self, program: Contender, path: Path) -> Run:
        async def run(loops: int) -> Cost:
            reads = loops * self.per_loop
            return program.random_reads(path, self._direct, self._in_flight, reads)

        return run


async def _read(
    read: Callable[[int, int], Awaitable[bytes]], offsets: Iterator[int], count: int
) -> None:
    for offset in islice(offsets, count):
        await read(BLOCK, offset)


def _pread(fd: int, offsets: Iterator[int], per_loop: int, loops: int) -> None:
    for offset in islice(offsets, loops * per_loop):
        os.pread(fd, BLOCK, offset)


def _pread_direct(fd: int, offsets: Iterator[int], per_loop: int, loops: int) -> None:
    for offset in islice(offsets, loops * per_loop):
        pread_direct(fd, BLOCK, offset)


async def _check(read: Callable[[int, int], Awaitable[bytes]], path: Path) -> None:
    """Whoever does not read what is there is out of the competition."""
    with open(path, "rb") as file:
        file.seek(BLOCK)
        expected = file.read(BLOCK)
    if await read(BLOCK, BLOCK) != expected:
        raise RuntimeError("read other bytes than there are in the file")


WORKLOADS = [RandomReads(in_flight, direct) for direct in (False, True) for in_flight in (1, 8, 64)]
