"""Small writes one after the other through a file object: a log, a report.

Opening the file and closing it are counted; nothing is synced by us (aiofile's close is an
fdatasync).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders import OURS, SYNC, Contender
from uringfile._bench.cost import Cost, cost_of, cost_of_call
from uringfile._bench.files import settle
from uringfile._bench.workloads._workload import Run, Workload

SIZE = 100
WRITES = 10_000
_DATA = os.urandom(SIZE)


class Appends(Workload):
    name = f"file-write-{SIZE}"
    title = f"Writes of {SIZE} bytes through a file object, {WRITES:,} to a file"
    unit = "write"
    per_loop = WRITES
    contenders = (SYNC, *OURS, "aiofiles", "aiofile")

    def prepare(self, directory: Path, size: int) -> None:
        (directory / "appended.bin").write_bytes(_DATA * WRITES)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "appended.bin"
        if contender.name == SYNC:
            yield _in_a_loop(path)
        else:
            path.unlink(missing_ok=True)
            await _write(contender, path, 10)
            if path.read_bytes() != _DATA * 10:
                raise RuntimeError("the file holds other bytes than were written")
            yield _in_a_task(contender, path)
        settle(path)


def _in_a_task(contender: Contender, path: Path) -> Run:
    async def write(times: int) -> None:
        for _ in range(times):
            await _write(contender, path, WRITES)

    async def run(loops: int) -> Cost:
        return await cost_of(write(loops))

    return run


def _in_a_loop(path: Path) -> Run:
    async def run(loops: int) -> Cost:
        return cost_of_call(_write_file, path, loops)

    return run


async def _write(contender: Contender, path: Path, count: int) -> None:
    async with contender.appending(path) as write:
        for _ in range(count):
            await write(_DATA)


def _write_file(path: Path, times: int) -> None:
    for _ in range(times):
        with open(path, "wb") as file:
            for _ in range(WRITES):
                file.write(_DATA)


WORKLOADS = [Appends()]
