"""LogWriter beside aiofile, a synchronous loop, and a C program that writes the same batches.

``python -m benchmarks.log [--dir DIR] [--rounds N] [--seconds S]`` prints a table of ratios. In
each round every contender runs once, one behind the other, on a new file; what is shown is the
median of the rounds' ratios, and the lowest and highest. Where a contender is missing it says
so. The file system of ``--dir`` is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ratios import Missing, Pair, Rates, show_ratios, take_turns, ticking
from uringfile import LogWriter
from uringfile._logfile import LogFile

RECORD = b"x" * 127 + b"\n"
TASKS = 256
C_SOURCE = Path(__file__).with_name("log_batches.c")


# What LogWriter promises.
PAIRS = [
    Pair("256 tasks", "aiofile, 256 tasks", 8),
    Pair("256 tasks", "write + fdatasync", 30),
    Pair("256 tasks", "C, the same batches", 0.5),
    Pair("256 tasks, posix_aio", "write + fdatasync", 30),
    Pair("256 tasks, preallocated", "write + fdatasync", 30),
    Pair("1 task", "write + fdatasync", 1),
    Pair("1 task, preallocated", "write + fdatasync", 1),
    Pair("256 tasks, direct", "write + fdatasync", 30),
    Pair("1 task, direct", "write + fdatasync", 1),
    Pair("nowait", "open().write", 0.5),
]

#: The longest delay of a 1 ms ticker beside append_nowait, in seconds.
LONGEST_DELAY = 0.005


@dataclass
class Bench:
    path: Path
    seconds: float
    program: Path | None
    batches: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    #: Of each contender: seconds of processor time for each record.
    costs: dict[str, list[float]] = field(default_factory=dict)

    # Each answers records per second.

    def synchronous(self) -> float:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT)
        try:
            os.fsync(fd)
            return rate(self.seconds, lambda: (os.write(fd, RECORD), os.fdatasync(fd)))
        finally:
            os.close(fd)

    def buffered(self) -> float:
        with open(self.path, "ab") as file:
            write = file.write

            def thousand() -> None:
                for _ in range(1000):
                    write(RECORD)

            return 1000 * rate(self.seconds, thousand)

    def log(self, tasks: int, **options: Any) -> float:
        return asyncio.run(self._log(tasks, **options))

    async def _log(self, tasks: int, **options: Any) -> float:
        async with LogWriter(self.path, **options) as log:
            return await tasks_rate(tasks, self.seconds, lambda: log.append(RECORD))

    def log_256(self) -> float:
        """Beside the rate it keeps the sizes of the batches."""
        real = LogFile.write
        batches = self.batches = []

        async def write(file: LogFile, data: bytearray, offset: int, begun: Any = None) -> None:
            batches.append(len(data))
            await real(file, data, offset, begun)

        LogFile.write = write  # type: ignore[method-assign,assignment]
        try:
            return self.log(TASKS)
        finally:
            LogFile.write = real  # type: ignore[method-assign,assignment]

    def c_program(self) -> float:
        if self.program is None:
            raise Missing("needs a C compiler (cc)")
        sizes = "\n".join(map(str, self.batches))
        done = subprocess.run(
            [str(self.program), str(self.path)],
            input=sizes,
            capture_output=True,
            text=True,
            check=True,
        )
        return sum(self.batches) / len(RECORD) / float(done.stdout)

    def aiofile(self) -> float:
        try:
            import aiofile
        except ImportError:
            raise Missing("the package aiofile is not installed") from None

        async def main() -> float:
            async with aiofile.AIOFile(str(self.path), "wb") as file:
                end = 0

                async def append() -> None:
                    nonlocal end
                    offset, end = end, end + len(RECORD)
                    await file.write(RECORD, offset)
                    await file.fdsync()

                return await tasks_rate(TASKS, self.seconds, append)

        return asyncio.run(main())

    def nowait(self) -> float:
        return asyncio.run(self._nowait())

    async def _nowait(self) -> float:
        async with LogWriter(self.path, sync="interval", interval=0.1) as log:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            async with ticking(self.delays):
                start = time.perf_counter()
                records = 0
                while time.perf_counter() - start < self.seconds:
                    try:
                        for _ in range(1000):
                            log.append_nowait(RECORD)
                            records += 1
                    except BufferError:
                        await log.drain()
                    await asyncio.sleep(0)
                await log.drain()
                seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.rss.append(after - before)
            return records / seconds


def rate(seconds: float, call: Callable[[], object]) -> float:
    start = time.perf_counter()
    calls = 0
    while True:
        call()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= seconds:
            return calls / passed


async def tasks_rate(tasks: int, seconds: float, call: Callable[[], Any]) -> float:
    calls = 0
    stop = False

    async def work() -> None:
        nonlocal calls
        while not stop:
            await call()
            calls += 1

    start = time.perf_counter()
    running = [asyncio.ensure_future(work()) for _ in range(tasks)]
    await asyncio.sleep(seconds)
    stop = True
    await asyncio.gather(*running)
    return calls / (time.perf_counter() - start)


def contenders(bench: Bench) -> dict[str, Callable[[], float]]:
    return {
        "write + fdatasync": bench.synchronous,
        "256 tasks": bench.log_256,
        "C, the same batches": bench.c_program,
        "256 tasks, preallocated": lambda: bench.log(TASKS, preallocate=4 << 20),
        "256 tasks, direct": lambda: bench.log(TASKS, direct=True),
        "256 tasks, posix_aio": lambda: bench.log(TASKS, engine="posix_aio"),
        "aiofile, 256 tasks": bench.aiofile,
        "1 task": lambda: bench.log(1),
        "1 task, preallocated": lambda: bench.log(1, preallocate=4 << 20),
        "1 task, direct": lambda: bench.log(1, direct=True),
        "nowait": bench.nowait,
        "open().write": bench.buffered,
    }


def measure(bench: Bench, rounds: int) -> Rates:
    """The rates; beside them it keeps what a record costs each contender."""

    def run(name: str, contender: Callable[[], float]) -> float:
        bench.path.unlink(missing_ok=True)
        os.sync()  # nobody pays for the one before
        cost = time.process_time()
        start = time.perf_counter()
        rate = contender()
        records = rate * (time.perf_counter() - start)
        bench.costs.setdefault(name, []).append((time.process_time() - cost) / records)
        return rate

    works = {name: partial(run, name, work) for name, work in contenders(bench).items()}
    return take_turns(works, rounds, warm_ups=0)


def show(rates: Rates, bench: Bench) -> bool:
    """Print the tables; whether all targets are met."""
    print("| appends of 128 bytes | per second | us of processor each |\n| --- | ---: | ---: |")
    for name, found in rates.items():
        cost = statistics.median(bench.costs[name]) * 1e6
        shown = "" if name.startswith("C, ") else f"{cost:.2f}"  # that is another process
        print(f"| {name} | {statistics.median(found):,.0f} | {shown} |")
    met = show_ratios(rates, PAIRS)
    delay = statistics.median(bench.delays)
    met &= delay < LONGEST_DELAY
    print(f"\nBeside nowait a 1 ms ticker was late by {delay * 1000:.1f} ms at most (the median of")
    print(
        f"the rounds; target: {LONGEST_DELAY * 1000:.0f} ms), and resident memory grew by at most"
    )
    print(f"{max(bench.rss) / 1024:.0f} MiB. Median batch of 256 tasks: ", end="")
    print(f"{statistics.median(bench.batches) / len(RECORD):.0f} records.")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("."))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="log-bench.") as directory:
        bench = Bench(Path(directory) / "log", args.seconds, build(Path(directory)))
        rates = measure(bench, args.rounds)
    return 0 if show(rates, bench) else 1


def build(directory: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = directory / "log_batches"
    subprocess.run([compiler, "-O2", "-o", str(program), str(C_SOURCE)], check=True)
    return program


if __name__ == "__main__":
    sys.exit(main())
