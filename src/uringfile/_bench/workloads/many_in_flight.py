"""10,000 reads of 4 KiB at once, from the disk: how fast, and how much memory they take.

The memory is the growth of the process's resident set (VmHWM, which is reset before) from the
open file to the height of it: tasks, futures, buffers, threads. What the kernel holds for a
request is not in it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, Contender, Gap
from uringfile._bench.cost import Cost, cost_of
from uringfile._bench.files import BLOCK, drop, make_random_file, shuffled_offsets
from uringfile._bench.workloads._workload import Run, Workload, together

READS = 10_000


class ManyInFlight(Workload):
    name = "in-flight-10000"
    title = f"{READS:,} random 4 KiB reads at once, not cached"
    unit = "read"
    per_loop = READS
    # aiofiles would need 10,000 open files.
    contenders = tuple(name for name in ASYNCIO if name != "aiofiles")
    only_reads = True
    needs_own_process = True

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "read.bin", size)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "read.bin"
        offsets = shuffled_offsets(path, 1)[0]
        async with contender.open(path) as (file,):
            await file.read(BLOCK, 0)
            yield _run(path, file.read, offsets)


def _run(path: Path, read: Callable[[int, int], Awaitable[bytes]], offsets: Iterator[int]) -> Run:
    before = _memory("VmRSS")

    async def run(loops: int) -> Cost:
        _reset_peak()
        costs = []
        for _ in range(loops):
            drop(path)
            tasks = [_read(read, next(offsets)) for _ in range(READS)]
            costs.append(await cost_of(together(tasks)))
        cost = Cost(sum(c.seconds for c in costs), sum(c.cpu_seconds for c in costs))
        return replace(cost, peak_bytes=_memory("VmHWM") - before)

    return run


async def _read(read: Callable[[int, int], Awaitable[bytes]], offset: int) -> None:
    await read(BLOCK, offset)


def _memory(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    if found is None:
        raise Gap(f"/proc/self/status has no {name}")
    return int(found[1]) * 1024


def _reset_peak() -> None:
    # proc(5): 5 resets the peak of the resident set, since Linux 4.0.
    Path("/proc/self/clear_refs").write_text("5")


WORKLOADS = [ManyInFlight()]
