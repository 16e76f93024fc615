"""What it costs to have an open file and nothing to do.

One read comes first, so that a ring, its threads or a pool are there. What remains is the
event loop's own timer; the synchronous floor is a sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender
from uringfile._bench.files import BLOCK, make_random_file
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling


class Idle(Workload):
    name = "idle"
    title = "A second with an open file and no work"
    unit = "second"
    contenders = (SYNC, *ASYNCIO)
    is_timed = False
    only_reads = True
    needs_own_process = True

    def prepare(self, directory: Path, size: int) -> None:
        make_random_file(directory / "read.bin", size)

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        if contender.name == SYNC:
            yield calling(time.sleep)
        else:
            async with contender.open(directory / "read.bin") as (file,):
                await file.read(BLOCK, 0)
                yield awaiting(asyncio.sleep)


WORKLOADS = [Idle()]
