"""uringfile.aiofiles beside aiofiles: the same programs, with each of them.

``python -m benchmarks.drop_in [--dir DIR] [--rounds N] [--files N] [--lines N]`` prints rates and
ratios. In each round both run each program, one behind the other; a ratio is the median of the
rounds, with the lowest and highest. Many short rounds tell more than a few long ones on a machine
that others use. Its exit code is 0 when all targets are met.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiofiles as theirs
import aiofiles.os
import aiofiles.tempfile

from uringfile import aiofiles as ours

TASKS = 64
LINE = b"x" * 99 + b"\n"


@dataclass(frozen=True)
class Files:
    directory: Path
    small: list[str]
    lines: Path
    #: How many lines that file has, and how many are written.
    count: int


#: A program does its work with a module, and answers how much of it that was.
Program = Callable[[Any, Files], Awaitable[int]]
PROGRAMS: dict[str, tuple[Program, str, float | None]] = {}


def program(name: str, unit: str, at_least: float | None = None) -> Callable[[Program], Program]:
    """``at_least``: how many times as fast as with aiofiles."""

    def add(work: Program) -> Program:
        PROGRAMS[name] = work, unit, at_least
        return work

    return add


async def read_all(module: Any, paths: Sequence[str]) -> None:
    for path in paths:
        async with module.open(path, "rb") as file:
            await file.read()


@program("open and read small files, one after the other", "file", 4)
async def small_files(module: Any, files: Files) -> int:
    await read_all(module, files.small)
    return len(files.small)


@program("open and read small files, 64 tasks", "file", 2)
async def small_files_in_tasks(module: Any, files: Files) -> int:
    await asyncio.gather(*[read_all(module, files.small[i::TASKS]) for i in range(TASKS)])
    return len(files.small)


@program("os.stat of cached names", "stat", 5)
async def stats(module: Any, files: Files) -> int:
    for path in files.small:
        await module.os.stat(path)
    return len(files.small)


@program("os.path.exists of cached names", "name")
async def exists(module: Any, files: Files) -> int:
    for path in files.small:
        await module.os.path.exists(path)
    return len(files.small)


@program("async for over the lines of a text", "line")
async def lines(module: Any, files: Files) -> int:
    count = 0
    async with module.open(files.lines, encoding="utf-8") as file:
        async for _ in file:
            count += 1
    return count


@program("readline", "line")
async def readline(module: Any, files: Files) -> int:
    count = 0
    async with module.open(files.lines, "rb") as file:
        while await file.readline():
            count += 1
    return count


@program("write of 100 bytes", "write")
async def writes(module: Any, files: Files) -> int:
    async with module.open(files.directory / "written", "wb") as file:
        for _ in range(files.count):
            await file.write(LINE)
    return files.count


async def new_files(module: Any, files: Files) -> int:
    count = len(files.small) // 10
    for i in range(count):
        async with module.open(files.directory / f"new{i}", "wb") as file:
            await file.write(LINE * 10)
    return count


@program("write a new file of 1 KiB, and os.remove", "file")
async def remove(module: Any, files: Files) -> int:
    count = await new_files(module, files)
    for i in range(count):
        await module.os.remove(files.directory / f"new{i}")
    return count


@program("read 64 KiB blocks of a cached file", "block")
async def blocks(module: Any, files: Files) -> int:
    count = 0
    async with module.open(files.lines, "rb") as file:
        while await file.read(65536):
            count += 1
    return count


@program("tempfile.TemporaryFile", "file")
async def temporary(module: Any, files: Files) -> int:
    count = len(files.small) // 20
    for _ in range(count):
        async with module.tempfile.TemporaryFile(dir=files.directory) as file:
            await file.write(LINE)
    return count


async def rate(work: Program, module: Any, files: Files) -> float:
    start = time.perf_counter()
    count = await work(module, files)
    return count / (time.perf_counter() - start)


def measure(files: Files, rounds: int) -> bool:
    """Print the table; whether all targets are met."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, (work, _, _) in PROGRAMS.items():
            pair = (
                asyncio.run(rate(work, ours, files)),
                asyncio.run(rate(work, theirs, files)),
            )
            if number:  # the first round warms up
                found[name].append(pair)
    print(
        "| | uringfile.aiofiles | aiofiles | ratio | target |\n| --- | ---: | ---: | ---: | --- |"
    )
    met = True
    for name, pairs in found.items():
        _, unit, at_least = PROGRAMS[name]
        ratios = [a / b for a, b in pairs]
        ratio = statistics.median(ratios)
        verdict = ""
        if at_least is not None:
            verdict = f"{at_least:g}: {'met' if ratio >= at_least else 'MISSED'}"
            met &= ratio >= at_least
        a, b = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(f"| {name} | {a:,.0f} {unit}s/s | {b:,.0f} | {ratio:.1f} ({spread}) | {verdict} |")
    return met


def main() -> int:
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="uringfile-bench-", dir=args.dir) as name:
        directory = Path(name)
        small = [str(directory / f"{i:04}") for i in range(args.files)]
        for path in small:
            Path(path).write_bytes(os.urandom(1024))
        lines = directory / "lines"
        lines.write_bytes(LINE * args.lines)
        files = Files(directory, small, lines, args.lines)
        return 0 if measure(files, args.rounds) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drop_in", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--files", type=int, default=400, help="of 1 KiB each")
    parser.add_argument("--lines", type=int, default=4_000, help="and writes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
