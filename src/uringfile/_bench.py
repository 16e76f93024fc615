"""``python -m uringfile bench``: this machine's disk, by uringfile and by a thread pool."""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from uringfile._engine import EngineInfo
from uringfile._file import AIOFile
from uringfile._loop import engine_info

BLOCK = 4096
PIECE = 1 << 20


class Way(Protocol):
    """A way to read and write one open file from asyncio."""

    async def read_bytes(self, size: int, offset: int) -> bytes: ...
    async def write_bytes(self, data: bytes, offset: int) -> int: ...
    async def fdatasync(self) -> None: ...
    async def close(self) -> None: ...


class ThreadPool:
    """The usual way: each call in a thread of the loop's default executor."""

    def __init__(self, path: Path, direct: bool) -> None:
        self._fd = os.open(path, os.O_RDWR | (os.O_DIRECT if direct else 0))
        self._direct = direct

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, self._fd, *args)

    async def read_bytes(self, size: int, offset: int) -> bytes:
        data: bytes = await self._call(_pread_direct if self._direct else os.pread, size, offset)
        return data

    async def write_bytes(self, data: bytes, offset: int) -> int:
        written: int = await self._call(os.pwrite, data, offset)
        return written

    async def fdatasync(self) -> None:
        await self._call(os.fdatasync)

    async def close(self) -> None:
        os.close(self._fd)


def _pread_direct(fd: int, size: int, offset: int) -> bytes:
    with mmap.mmap(-1, size) as aligned:
        return aligned[: os.preadv(fd, [aligned], offset)]


async def _uringfile(path: Path, direct: bool) -> Way:
    return await AIOFile(path, "rb+", direct=direct)


async def _thread_pool(path: Path, direct: bool) -> Way:
    return ThreadPool(path, direct)


@dataclass(frozen=True)
class Workload:
    name: str
    tasks: int
    #: One operation on a file of so many bytes.
    operation: Callable[[Way, int], Awaitable[object]]
    direct: bool = False


async def _read_block(way: Way, size: int) -> None:
    await way.read_bytes(BLOCK, random.randrange(size // BLOCK) * BLOCK)


async def _write_block(way: Way, size: int) -> None:
    await way.write_bytes(_DATA, random.randrange(size // BLOCK) * BLOCK)


async def _write_and_sync(way: Way, size: int) -> None:
    await _write_block(way, size)
    await way.fdatasync()


async def _read_piece(way: Way, size: int) -> None:
    await way.read_bytes(PIECE, random.randrange(size // PIECE) * PIECE)


_DATA = bytes(range(256)) * (BLOCK // 256)

WORKLOADS = (
    Workload("4 KiB reads, cached", 1, _read_block),
    Workload("4 KiB reads, cached", 64, _read_block),
    Workload("4 KiB reads, O_DIRECT", 1, _read_block, direct=True),
    Workload("4 KiB reads, O_DIRECT", 64, _read_block, direct=True),
    Workload("1 MiB reads, cached", 1, _read_piece),
    Workload("4 KiB writes", 1, _write_block),
    Workload("4 KiB writes", 64, _write_block),
    Workload("4 KiB write + fdatasync", 1, _write_and_sync),
    Workload("4 KiB write + fdatasync", 16, _write_and_sync),
)


@dataclass(frozen=True)
class Result:
    """Operations a second, the medians of alternating rounds."""

    workload: str
    tasks: int
    uringfile: float
    thread_pool: float
    #: The median of the rounds' own ratios: machines drift, neighbours in time do less.
    ratio: float


async def _rate(way: Way, workload: Workload, size: int, seconds: float) -> float:
    done = 0
    start = time.perf_counter()
    end = start + seconds

    async def task() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await workload.operation(way, size)
            done += 1

    await asyncio.gather(*[task() for _ in range(workload.tasks)])
    return done / (time.perf_counter() - start)


async def _measure(workload: Workload, path: Path, rounds: int, seconds: float) -> Result:
    size = path.stat().st_size
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        for open_way, rates in ((_uringfile, ours), (_thread_pool, theirs)):
            way = await open_way(path, workload.direct)
            try:
                rates.append(await _rate(way, workload, size, seconds))
            finally:
                await way.close()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    medians = statistics.median(ours), statistics.median(theirs)
    return Result(workload.name, workload.tasks, *medians, ratio)


async def _measure_all(path: Path, rounds: int, seconds: float) -> list[Result]:
    results = []
    for workload in WORKLOADS:
        print(f"\r\033[K{workload.name} ...", end="", file=sys.stderr, flush=True)
        try:
            results.append(await _measure(workload, path, rounds, seconds))
        except OSError as error:
            print(f"\r\033[K{workload.name}: left out, {error}", file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)
    return results


def _table(results: list[Result], info: EngineInfo) -> str:
    name = f"uringfile ({info.engine})"
    width = max(len(name), 12)
    lines = [
        f"{'operations a second':<24} {'tasks':>5}  {name:>{width}}  {'thread pool':>12}  ratio"
    ]
    lines += [
        f"{r.workload:<24} {r.tasks:>5}  {r.uringfile:>{width},.0f}  "
        f"{r.thread_pool:>12,.0f}  {r.ratio:>5.1f}"
        for r in results
    ]
    return "\n".join(lines)


def _meaning(results: list[Result], info: EngineInfo) -> str:
    faster = sum(result.ratio > 1 for result in results)
    text = f"uringfile is faster in {faster} of {len(results)} workloads"
    if results:
        text += f", at the median {statistics.median(r.ratio for r in results):.1f} times as fast"
    if info.reason:
        text += f"; io_uring does not serve here: {info.reason}"
    return text + "."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a few seconds; small file")
    parser.add_argument("--dir", type=Path, help="where to put the file (the disk to measure)")
    parser.add_argument("--rounds", type=int, default=None, metavar="N", help="default 5, quick 3")
    parser.add_argument("--seconds", type=float, default=None, help="for each measurement")
    parser.add_argument("--json", action="store_true", help="figures for programs")


def main(args: argparse.Namespace) -> int:
    rounds = args.rounds or (3 if args.quick else 5)
    seconds = args.seconds or (0.1 if args.quick else 1.0)
    size = (16 if args.quick else 256) * PIECE
    info = engine_info()
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="uringfile-bench-") as folder:
        path = Path(folder) / "file"
        with open(path, "wb") as file:
            for _ in range(size // PIECE):
                file.write(os.urandom(PIECE))
            os.fsync(file.fileno())
        results = asyncio.run(_measure_all(path, rounds, seconds))
    if args.json:
        print(json.dumps({"engine": asdict(info), "results": [asdict(r) for r in results]}))
    else:
        print(_table(results, info))
        print()
        print(_meaning(results, info))
    return 0
