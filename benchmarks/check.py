"""Has a path of uringfile become slow? ``python -m benchmarks.check`` says so within a minute.

In one process, slices of some milliseconds take turns: the synchronous floor, uringfile on each
engine, the floor again. Noise only ever makes a slice slower, so the best slice of each counts.
Processor time is compared, which other programs hardly change, and the clock with so wide a limit
that only a wait explains a failure. What fails is measured again, for longer, and fails if it
does so again.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from uringfile._bench.contenders import OURS, SYNC, Gap, load
from uringfile._bench.cost import Cost
from uringfile._bench.files import MIB
from uringfile._bench.workloads import ALL, Run, Workload

SLICE_SECONDS = 0.01
SECONDS = 0.75
SECONDS_AGAIN = 5.0
DATA_SIZE = 32 * MIB

#: How many times as fast as the floor uringfile is, io_uring and POSIX AIO.
NORMAL = {
    "read-4k-cached-1": (0.48, 0.48),
    "read-4k-cached-64": (0.46, 0.46),
    "read-many-256": (0.85, 0.85),
    "read-1m-sequential": (0.84, 0.84),
    "small-files": (0.34, 0.34),
    "write-4k-cached-64": (0.20, 0.16),
    "file-write-100": (0.70, 0.66),
    "lines-bytes": (0.45, 0.45),
    "lines-text": (0.38, 0.38),
    "file-lines-bytes": (0.46, 0.46),
    "file-lines-text": (0.30, 0.30),
}
WITHOUT_WORK = ("idle",)
#: Of the normal ratio; what is below fails.
LEAST_BY_CPU = 0.7
LEAST_BY_CLOCK = 0.1
#: Seconds of processor time in a second without work.
MOST_IDLE_CPU = 0.01


@dataclass
class Best:
    """The least that an operation took, of all slices."""

    seconds: float = float("inf")
    cpu_seconds: float = float("inf")

    def add(self, cost: Cost, loops: int) -> None:
        self.seconds = min(self.seconds, cost.seconds / loops)
        self.cpu_seconds = min(self.cpu_seconds, cost.cpu_seconds / loops)


@dataclass(frozen=True)
class Verdict:
    text: str
    passed: bool


def main() -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="uringfile-check-", dir=Path.cwd()) as name:
        failed = 0
        for workload in [ALL[name] for name in (*NORMAL, *WITHOUT_WORK)]:
            workload.prepare(Path(name), DATA_SIZE)
            verdicts = _verdicts(workload, Path(name), SECONDS)
            if not all(verdict.passed for verdict in verdicts):
                verdicts = _verdicts(workload, Path(name), SECONDS_AGAIN)
            for verdict in verdicts:
                failed += not verdict.passed
                print("ok  " if verdict.passed else "FAIL", verdict.text, flush=True)
    print(f"{failed} failed, {time.monotonic() - start:.0f} seconds")
    sys.exit(1 if failed else 0)


def _verdicts(workload: Workload, directory: Path, seconds: float) -> list[Verdict]:
    if workload.name in WITHOUT_WORK:
        return list(_idle(workload, directory))
    best = asyncio.run(_best(workload, directory, seconds))
    return [
        _verdict(f"{workload.name}: {ours}", best[SYNC], best[ours], normal)
        for ours, normal in zip(OURS, NORMAL[workload.name], strict=True)
        if ours in best
    ]


def _verdict(about: str, floor: Best, ours: Best, normal: float) -> Verdict:
    by_cpu = floor.cpu_seconds / ours.cpu_seconds
    by_clock = floor.seconds / ours.seconds
    limits = normal * LEAST_BY_CPU, normal * LEAST_BY_CLOCK
    text = f"{about}: {by_cpu:.2f} by CPU, {by_clock:.2f} by the clock, normal {normal:.2f}"
    text += f", fails below {limits[0]:.2f} and {limits[1]:.3f}"
    return Verdict(text, by_cpu >= limits[0] and by_clock >= limits[1])


async def _best(workload: Workload, directory: Path, seconds: float) -> dict[str, Best]:
    """By contender; an engine that does not start here is told and left out."""
    jobs: dict[str, tuple[Run, int]] = {}
    async with AsyncExitStack() as stack:
        for name in (SYNC, *OURS):
            try:
                job = await stack.enter_async_context(workload.job(load(name), directory))
            except Gap as gap:
                print(f"skip {workload.name}: {name}: {gap}", flush=True)
                continue
            jobs[name] = job, await _loops(job)
        best = {name: Best() for name in jobs}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, (job, loops) in jobs.items():
                best[name].add(await job(loops), loops)
                await asyncio.sleep(0)
    return best


async def _loops(job: Run) -> int:
    """How many loops make a slice. By processor time: what the clock shows may be the time in
    which others ran; unless it shows that the job does nothing but wait."""
    loops = 1
    while True:
        costs = [await job(loops) for _ in range(3)]
        waits = min(cost.seconds for cost in costs) >= 20 * SLICE_SECONDS
        if waits or min(cost.cpu_seconds for cost in costs) >= SLICE_SECONDS:
            return loops
        loops *= 2


def _idle(workload: Workload, directory: Path) -> Iterator[Verdict]:
    """Alone in the process, as the processor time is that of all of it."""
    for name in OURS:
        try:
            cpu = asyncio.run(_cpu(workload, name, directory))
        except Gap as gap:
            print(f"skip {workload.name}: {name}: {gap}", flush=True)
            continue
        text = f"{workload.name}: {name}: {cpu * 1e3:.2f} ms of CPU in a second,"
        yield Verdict(f"{text} fails above {MOST_IDLE_CPU * 1e3:.0f}", cpu <= MOST_IDLE_CPU)


async def _cpu(workload: Workload, name: str, directory: Path) -> float:
    async with workload.job(load(name), directory) as job:
        return (await job(1)).cpu_seconds


if __name__ == "__main__":
    main()
