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
from uringfile._bench.files import settle
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling

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
            yield calling(_write_files, path)
        else:
            path.unlink(missing_ok=True)
            await _append(contender, path, 10)
            if path.read_bytes() != _DATA * 10:
                raise RuntimeError("the file holds other bytes than were written")
            yield awaiting(_append_to_files, contender, path)
        settle(path)


async def _append_to_files(contender: Contender, path: Path, times: int) -> None:
    for _ in range(times):
        await _append(contender, path, WRITES)


async def _append(contender: Contender, path: Path, count: int) -> None:
    async with contender.appending(path) as write:
        for _ in range(count):
            await write(_DATA)


def _write_files(path: Path, times: int) -> None:
    for _ in range(times):
        with open(path, "wb") as file:
            for _ in range(WRITES):
                file.write(_DATA)


WORKLOADS = [Appends()]
