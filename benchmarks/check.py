"""Has the fast case become slow? ``python -m benchmarks.check`` says so in under a minute.

In one process, short slices of the synchronous floor and of uringfile take turns, and the
fastest slice of each is compared: noise only ever makes a slice slower. It fails when a ratio
is below half of what ``targets`` promises, and still so when measured again for longer.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.targets import POSIX_AIO, TARGETS, URING, Target
from uringfile._bench.contenders import SYNC, Gap, load
from uringfile._bench.files import MIB
from uringfile._bench.workloads import ALL, Run

SLICE_SECONDS = 0.02
SECONDS = 2.0
SECONDS_AGAIN = 4.0
# Half of the target: what is below is no noise.
TOLERANCE = 0.5
DATA_SIZE = 32 * MIB


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="uringfile-check-", dir=Path.cwd()) as name:
        passed = [_check(target, Path(name)) for target in _targets()]
    sys.exit(0 if all(passed) else 1)


def _targets() -> list[Target]:
    """Those against the floor, on both engines: what the page cache serves, both serve alike."""
    floor = [target for target in TARGETS if target.baseline == SYNC]
    return [
        Target(target.workload, engine, SYNC, target.at_least)
        for target in floor
        for engine in (URING, POSIX_AIO)
    ]


def _check(target: Target, directory: Path) -> bool:
    limit = target.at_least * TOLERANCE
    about = f"{target.workload}: {target.contender} against {target.baseline}"
    ALL[target.workload].prepare(directory, DATA_SIZE)
    try:
        ratio = asyncio.run(_ratio(target, directory, SECONDS))
        if ratio < limit:
            ratio = asyncio.run(_ratio(target, directory, SECONDS_AGAIN))
    except Gap as gap:
        print(f"skip  {about}: {gap}")
        return True
    passed = ratio >= limit
    print(
        f"{'ok  ' if passed else 'FAIL'}  {about}: {ratio:.2f}"
        f" (target {target.at_least:g}, fails below {limit:g})",
        flush=True,
    )
    return passed


async def _ratio(target: Target, directory: Path, seconds: float) -> float:
    """How many times as fast as the baseline, best slice against best slice."""
    workload = ALL[target.workload]
    async with (
        workload.job(load(target.baseline), directory) as baseline,
        workload.job(load(target.contender), directory) as contender,
    ):
        jobs = (baseline, contender)
        loops = [await _loops(job) for job in jobs]
        best = [float("inf"), float("inf")]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for i, job in enumerate(jobs):
                best[i] = min(best[i], (await job(loops[i])).seconds / loops[i])
        return best[0] / best[1]


async def _loops(job: Run) -> int:
    """How many loops make a slice."""
    loops = 1
    while (await job(loops)).seconds < SLICE_SECONDS:
        loops *= 2
    return loops


if __name__ == "__main__":
    main()
