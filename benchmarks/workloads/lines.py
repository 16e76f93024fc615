"""Lines of 70 bytes, iterated over from the first to the last; opening the file included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.contenders import OURS, SYNC, Contender
from benchmarks.cost import Cost, cost_of, cost_of_call
from benchmarks.files import warm
from benchmarks.workloads._workload import Run, Workload

LINES = 20_000
_LINE = b"%069d\n"


class Lines(Workload):
    name = "lines"
    title = f"Lines of 70 bytes, a file of {LINES:,}, cached"
    unit = "line"
    per_loop = LINES
    contenders = (SYNC, *OURS, "aiofiles", "aiofile")

    def prepare(self, directory: Path, size: int) -> None:
        (directory / "lines.txt").write_bytes(b"".join(_LINE % i for i in range(LINES)))

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "lines.txt"
        warm(path)
        if contender.name == SYNC:
            yield _in_a_loop(path)
        else:
            await _check(contender, path)
            yield _in_a_task(contender, path)


def _in_a_task(contender: Contender, path: Path) -> Run:
    async def run(loops: int) -> Cost:
        return await cost_of(_iterate(contender, path, loops))

    return run


def _in_a_loop(path: Path) -> Run:
    async def run(loops: int) -> Cost:
        return cost_of_call(_iterate_file, path, loops)

    return run


async def _iterate(contender: Contender, path: Path, times: int) -> None:
    for _ in range(times):
        async with contender.lines(path) as lines:
            async for _line in lines:
                pass


def _iterate_file(path: Path, times: int) -> None:
    for _ in range(times):
        with open(path, "rb") as lines:
            for _line in lines:
                pass


async def _check(contender: Contender, path: Path) -> None:
    async with contender.lines(path) as lines:
        if [line async for line in lines] != path.read_bytes().splitlines(keepends=True):
            raise RuntimeError("found other lines than there are in the file")


WORKLOADS = [Lines()]
