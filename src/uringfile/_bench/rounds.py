"""Contenders in one process, by turns: A B C A B C ...

A machine drifts, and neighbours in time do so least; so each round holds every contender once,
and ratios are taken within a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from uringfile._bench.contenders import Contender, Gap
from uringfile._bench.results import Series
from uringfile._bench.workloads import Run, Workload


@dataclass(frozen=True)
class Measured:
    workload: Workload
    #: By the contender's name.
    series: dict[str, Series]
    #: Who could not take part, and why.
    gaps: dict[str, str]


async def measure(
    workload: Workload,
    contenders: Sequence[Contender],
    directory: Path,
    rounds: int,
    seconds: float,
    progress: Callable[[], object],
) -> Measured:
    """So many rounds; a measurement takes about so many seconds. ``progress`` is called after
    each measurement and after each warm-up, whether they took place or not."""
    series: dict[str, Series] = {}
    gaps: dict[str, str] = {}
    jobs: dict[str, tuple[Run, int]] = {}
    async with AsyncExitStack() as stack:
        for contender in contenders:
            try:
                job = await stack.enter_async_context(workload.job(contender, directory))
                jobs[contender.name] = job, await _loops(workload, job, seconds)
                series[contender.name] = Series({}, {}, contender.version(), {})
            except (Gap, OSError) as error:
                gaps[contender.name] = str(error)
            progress()
        for number in range(rounds):
            for name in [contender.name for contender in contenders]:
                if name in jobs:
                    job, loops = jobs[name]
                    cost = await job(loops)
                    operations = loops * workload.per_loop
                    series[name].seconds[number] = cost.seconds / operations
                    series[name].cpu_seconds[number] = cost.cpu_seconds / operations
                progress()
                await asyncio.sleep(0)
    return Measured(workload, series, gaps)


async def _loops(workload: Workload, job: Run, seconds: float) -> int:
    """How many loops take so long; the first ones warm up."""
    loops = 1
    while True:
        took = (await job(loops)).seconds
        if not workload.is_rate or took >= seconds / 2:
            break
        loops = min(ceil(loops * seconds / max(took, 1e-9)), loops * 16)
    return max(1, round(loops * seconds / took)) if workload.is_rate else 1
