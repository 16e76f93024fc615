"""What a block costs in ``read_many``: the kernel, and each thing that is done around it.

``python -m benchmarks.batch_parts [--dir DIR] [--rounds N]`` reads 256 random blocks of 4 KiB from
the page cache again and again, in alternation: ``os.pread`` in a list, the calls of preadv2(2) in C
and nothing else, these with the preparation of their arguments, these with the cut into bytes
objects, and ``read_many`` itself. It prints nanoseconds a block, and how many times as fast as
``os.pread``: the median of the rounds, the lowest and the highest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.run import new_directory
from uringfile import AIOFile
from uringfile._batch import GROUP, GROUP_BYTES, CachedReads, Requests
from uringfile._bench.files import BLOCK, MIB, make_random_file, warm
from uringfile._bench.results import Spread
from uringfile._native_engine import new_scratch, read_many_nowait

BATCH = 256
REPEATS = 200

Pairs = list[tuple[int, int]]
Way = Callable[[Pairs], Awaitable[object]]


def ways(file: AIOFile) -> dict[str, Way]:
    fd = file.fileno()
    memory = new_scratch(GROUP_BYTES)[0]
    reads = CachedReads()
    prepared: dict[int, Requests] = {}

    def calls(requests: Requests) -> None:
        for start in range(0, BATCH, GROUP):
            sizes, offsets = requests.c_sizes + start, requests.c_offsets + start
            read_many_nowait(fd, memory, GROUP_BYTES, sizes, offsets, GROUP)

    async def pread(pairs: Pairs) -> object:
        return [os.pread(fd, size, offset) for size, offset in pairs]

    async def preadv2(pairs: Pairs) -> object:
        if id(pairs) not in prepared:
            prepared[id(pairs)] = Requests(pairs)
        return calls(prepared[id(pairs)])

    async def prepare(pairs: Pairs) -> object:
        return calls(Requests(pairs))

    async def cut(pairs: Pairs) -> object:
        requests, found = Requests(pairs), []
        for start in range(0, BATCH, GROUP):
            found += reads.read(fd, requests, start, GROUP)
        return found

    return {
        "os.pread, in a list": pread,
        "preadv2 in C": preadv2,
        "and its arguments": prepare,
        "and bytes objects": cut,
        "read_many": file.read_many,
    }


async def measure(path: Path, rounds: int) -> None:
    blocks = range(0, path.stat().st_size, BLOCK)
    batches = [[(BLOCK, o) for o in random.sample(blocks, BATCH)] for _ in range(REPEATS)]
    found: dict[str, list[float]] = defaultdict(list)
    async with AIOFile(path, "rb") as file:
        for round_ in range(rounds + 1):
            for name, way in ways(file).items():
                start = time.perf_counter()
                for pairs in batches:
                    await way(pairs)
                if round_:  # the first one warms up
                    found[name].append((time.perf_counter() - start) / REPEATS / BATCH)
    floor = next(iter(found.values()))
    for name, seconds in found.items():
        times = Spread.of([a / b for a, b in zip(floor, seconds, strict=True)])
        print(
            f"{name:<22}{Spread.of(seconds).median * 1e9:>6.0f} ns"
            f"   x os.pread {times.median:.2f} ({times.low:.2f} to {times.high:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_parts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=int, default=256, help="of the file, in MiB")
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    args = parser.parse_args()
    with new_directory(args.dir) as directory:
        path = directory / "read.bin"
        make_random_file(path, args.size * MIB)
        warm(path)
        asyncio.run(measure(path, args.rounds))


if __name__ == "__main__":
    main()
