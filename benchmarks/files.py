"""Whole files and their names: uringfile beside aiofiles and plain blocking calls.

``python -m benchmarks.files [--dir DIR] [--rounds N] [--files N] [--size MIB]`` prints rates and
ratios. In each round every contender runs once, one behind the other; a ratio is the median of
the rounds, with the lowest and highest. Beside a copy a 1 ms ticker runs in the same loop, and
beside the same loop at rest, which shows what the machine itself does to it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ratios import Missing, Pair, Rates, show_ratios, take_turns, ticking
from uringfile import atomic_write, copyfile, read_bytes, read_files
from uringfile import os as ours
from uringfile._bench.files import MIB, make_random_file, warm
from uringfile._bench.results import Spread

TASKS = 64
STATS = 2_000

Work = Callable[["Bench"], Coroutine[Any, Any, float]]
OnPath = Callable[[str], Coroutine[Any, Any, Any]]


PAIRS = [
    Pair("read_files", "open, read, close", 0.8),
    Pair("read_files", "aiofiles, 64 tasks", 10),
    Pair("stat", "aiofiles.os.stat", 5),
    Pair("copyfile", "shutil.copyfile", 1),
    Pair("read_files", "os.open, os.read, os.close"),
    Pair("read_bytes, 64 tasks", "open, read, close"),
    Pair("read_bytes, 64 tasks", "aiofiles, 64 tasks"),
    Pair("stat", "os.stat"),
    Pair("atomic_write", "the same system calls"),
]

#: The longest delay of the ticker beside copyfile, in seconds.
LONGEST_DELAY = 0.005


@dataclass
class Bench:
    directory: Path
    small: list[str]
    large: Path
    delays: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def copy(self) -> Path:
        return self.directory / "copy"

    def remove_copy(self) -> None:
        """And nobody pays for the one before."""
        self.copy.unlink(missing_ok=True)
        os.sync()


CONTENDERS: dict[str, tuple[str, Work]] = {}


def contender(name: str, unit: str) -> Callable[[Work], Work]:
    """Its function answers how many of the unit it does in a second."""

    def add(work: Work) -> Work:
        CONTENDERS[name] = (unit, work)
        return work

    return add


def aiofiles() -> Any:
    try:
        import aiofiles
        import aiofiles.os
    except ImportError:
        raise Missing("the package aiofiles is not installed") from None
    return aiofiles


async def in_tasks(paths: list[str], read: OnPath) -> float:
    async def work(share: list[str]) -> None:
        for path in share:
            await read(path)

    start = time.perf_counter()
    await asyncio.gather(*[work(paths[task::TASKS]) for task in range(TASKS)])
    return len(paths) / (time.perf_counter() - start)


# ---- small files -----------------------------------------------------------------------


@contender("open, read, close", "file")
async def synchronous(bench: Bench) -> float:
    start = time.perf_counter()
    for path in bench.small:
        with open(path, "rb") as file:
            file.read()
    return len(bench.small) / (time.perf_counter() - start)


@contender("os.open, os.read, os.close", "file")
async def system_calls(bench: Bench) -> float:
    start = time.perf_counter()
    for path in bench.small:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 4096)
        os.close(fd)
    return len(bench.small) / (time.perf_counter() - start)


@contender("read_files", "file")
async def many_files(bench: Bench) -> float:
    start = time.perf_counter()
    n = 0
    async for _ in read_files(bench.small):
        n += 1
    return n / (time.perf_counter() - start)


@contender("read_bytes, 64 tasks", "file")
async def each_file(bench: Bench) -> float:
    return await in_tasks(bench.small, read_bytes)


@contender("aiofiles, 64 tasks", "file")
async def aiofiles_read(bench: Bench) -> float:
    module = aiofiles()

    async def read(path: str) -> None:
        async with module.open(path, "rb") as file:
            await file.read()

    return await in_tasks(bench.small, read)


# ---- names -----------------------------------------------------------------------------


async def stats_rate(bench: Bench, stat: OnPath) -> float:
    paths = (bench.small * (STATS // len(bench.small) + 1))[:STATS]
    start = time.perf_counter()
    for path in paths:
        await stat(path)
    return STATS / (time.perf_counter() - start)


@contender("stat", "stat")
async def stat(bench: Bench) -> float:
    return await stats_rate(bench, ours.stat)


@contender("aiofiles.os.stat", "stat")
async def aiofiles_stat(bench: Bench) -> float:
    return await stats_rate(bench, aiofiles().os.stat)


@contender("os.stat", "stat")
async def os_stat(bench: Bench) -> float:
    start = time.perf_counter()
    for _ in range(STATS // len(bench.small) + 1):
        for path in bench.small:
            os.stat(path)
    n = (STATS // len(bench.small) + 1) * len(bench.small)
    return n / (time.perf_counter() - start)


# ---- one file ----------------------------------------------------------------------------


@contender("copyfile", "MiB")
async def copy(bench: Bench) -> float:
    bench.remove_copy()
    await ours.stat(bench.large)
    async with ticking(bench.delays["copyfile"]):
        start = time.perf_counter()
        await copyfile(bench.large, bench.copy)
        seconds = time.perf_counter() - start
    async with ticking(bench.delays["at rest"]):
        await asyncio.sleep(seconds)
    return bench.large.stat().st_size / MIB / seconds


@contender("shutil.copyfile", "MiB")
async def copy_synchronously(bench: Bench) -> float:
    bench.remove_copy()
    start = time.perf_counter()
    shutil.copyfile(bench.large, bench.copy)
    return bench.large.stat().st_size / MIB / (time.perf_counter() - start)


@contender("atomic_write", "file")
async def replace(bench: Bench) -> float:
    start = time.perf_counter()
    for _ in range(10):
        async with atomic_write(bench.directory / "replaced", "wb") as file:
            await file.write(b"x" * 4096)
    return 10 / (time.perf_counter() - start)


@contender("the same system calls", "file")
async def replace_synchronously(bench: Bench) -> float:
    path, temporary = bench.directory / "replaced", bench.directory / "replaced.tmp"
    folder = os.open(bench.directory, os.O_RDONLY)
    start = time.perf_counter()
    for _ in range(10):
        with open(temporary, "wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        os.fsync(folder)
    seconds = time.perf_counter() - start
    os.close(folder)
    return 10 / seconds


# ---- rounds ------------------------------------------------------------------------------


def measure(bench: Bench, rounds: int) -> Rates:
    def run(work: Work) -> float:
        return asyncio.run(work(bench))

    works = {name: partial(run, work) for name, (_, work) in CONTENDERS.items()}
    return take_turns(works, rounds, warm_ups=1)


def show(rates: Rates, bench: Bench) -> bool:
    """Print the tables; whether all targets are met."""
    print("| | per second | | lowest to highest |\n| --- | ---: | --- | --- |")
    for name, found in rates.items():
        rate, unit = Spread.of(found), CONTENDERS[name][0]
        print(f"| {name} | {rate.median:,.0f} | {unit} | {rate.low:,.0f} to {rate.high:,.0f} |")
    met = show_ratios(rates, PAIRS)
    print("\n| longest delay of a 1 ms ticker | median | lowest to highest |\n| --- | ---: | --- |")
    for name, delays in bench.delays.items():
        delay = Spread.of([1000 * seconds for seconds in delays])
        print(f"| {name} | {delay.median:.1f} ms | {delay.low:.1f} to {delay.high:.1f} ms |")
    return met and Spread.of(bench.delays["copyfile"]).median < LONGEST_DELAY


def main() -> int:
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="uringfile-bench-", dir=args.dir) as name:
        directory = Path(name)
        folder = directory / "small"
        folder.mkdir()
        small = [str(folder / f"{i:04}") for i in range(args.files)]
        for path in small:
            Path(path).write_bytes(os.urandom(1024))
        large = directory / "large"
        make_random_file(large, args.size * MIB)
        warm(large)
        bench = Bench(directory, small, large)
        return 0 if show(measure(bench, args.rounds), bench) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=4_000, help="of 1 KiB each")
    parser.add_argument("--size", type=int, default=1024, help="of the large file, in MiB")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
