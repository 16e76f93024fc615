"""How late a 1 ms ticker comes while the same loop reads 64 MiB at a time and syncs a file.

The work is fixed (64 tasks, each reads its share of 1 MiB blocks from the page cache, and one
task writes and syncs all the while), so nobody is punctual by doing nothing. A value is the
longest delay of one run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter

from uringfile._bench.contenders import ASYNCIO, Contender, File
from uringfile._bench.cost import Cost, cost_of
from uringfile._bench.files import BLOCK, MIB, make_random_file, settle, size_of, warm
from uringfile._bench.workloads._workload import Run, Workload, together

READERS = 64
READS = 32
PERIOD = 0.001
_DATA = os.urandom(BLOCK)


class Ticker(Workload):
    name = "ticker-delay"
    title = f"Longest delay of a 1 ms ticker under {READERS} x 1 MiB reads and an fdatasync loop"
    unit = "run"
    contenders = ASYNCIO
    is_rate = False

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "read.bin", size)
        make_random_file(directory / "write.bin", max(size // 4, 64 * BLOCK))

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "read.bin"
        warm(path)
        async with (
            contender.open(path, handles=READERS) as files,
            contender.open(directory / "write.bin", writable=True) as (written,),
        ):
            yield _run(files, written, size_of(path))
        settle(directory / "write.bin")


def _run(files: list[File], written: File, size: int) -> Run:
    async def run(loops: int) -> Cost:
        longest = 0.0

        async def work() -> None:
            nonlocal longest
            ticker = asyncio.ensure_future(_tick())
            syncing = asyncio.ensure_future(_sync(written))
            await together([_read(file, size) for file in files])
            for task in (ticker, syncing):
                task.cancel()
            longest = max(await ticker)
            with suppress(asyncio.CancelledError):
                await syncing

        cost = await cost_of(work())
        return Cost(longest * loops, cost.cpu_seconds)

    return run


async def _tick() -> list[float]:
    delays = [0.0]
    while True:
        due = perf_counter() + PERIOD
        try:
            await asyncio.sleep(PERIOD)
        except asyncio.CancelledError:
            return [*delays, perf_counter() - due]
        delays.append(perf_counter() - due)


async def _sync(file: File) -> None:
    while True:
        await file.write(_DATA, 0)
        await file.datasync()


async def _read(file: File, size: int) -> None:
    blocks = size // MIB
    for i in range(READS):
        await file.read(MIB, i % blocks * MIB)


WORKLOADS = [Ticker()]
