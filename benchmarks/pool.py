"""What a ``BufferPool`` is worth: O_DIRECT reads into it, beside other memory.

``python -m benchmarks.pool`` reads a file at random offsets with ``direct=True`` in alternating
rounds: ``read`` (a bytes object, copied out of a bounce buffer), ``readinto`` a bytearray
(copied, too), an mmap (in place) and a pool's buffer (in place, huge pages from 1 MiB on).
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.run import new_directory
from uringfile import AIOFile, BufferPool
from uringfile._bench.cost import Cost, cost_of
from uringfile._bench.files import MIB, drop, make_random_file
from uringfile._bench.results import Spread

# Size, in flight.
CASES = [(4096, 64), (65536, 1), (65536, 16), (MIB, 1), (MIB, 8), (32 * MIB, 1)]


def _pool(size: int, count: int) -> list[Any]:
    pool = BufferPool(size, count)
    return [asyncio.run(pool.acquire()) for _ in range(count)]


MEMORY: dict[str, Callable[[int, int], list[Any]]] = {
    "bytearray": lambda size, count: [bytearray(size) for _ in range(count)],
    "read": lambda size, count: [None] * count,
    "mmap": lambda size, count: [mmap.mmap(-1, size) for _ in range(count)],
    "pool": _pool,
}


def main() -> None:
    args = _arguments()
    with new_directory(args.dir) as directory:
        path = directory / "read.bin"
        make_random_file(path, args.size * MIB)
        drop(path)
        for size, in_flight in CASES:
            memory = {name: make(size, in_flight) for name, make in MEMORY.items()}
            rates: dict[str, list[float]] = defaultdict(list)
            cpu: dict[str, list[float]] = defaultdict(list)
            for number in range(args.rounds + 1):
                for name, buffers in memory.items():
                    count, cost = asyncio.run(_measure(path, buffers, size, args.seconds))
                    if number:  # the first round warms up
                        rates[name].append(count / cost.seconds)
                        cpu[name].append(cost.cpu_seconds / count * 1e6)
            print(f"\n{size // 1024} KiB, {in_flight} in flight")
            for name in memory:
                pairs = zip(rates[name], rates["bytearray"], strict=True)
                times = Spread.of([a / b for a, b in pairs])
                print(
                    f"{name:<10}{Spread.of(rates[name]).median:>10,.0f}/s"
                    f"{Spread.of(cpu[name]).median:>9,.1f} us CPU   x bytearray"
                    f" {times.median:.2f} ({times.low:.2f} to {times.high:.2f})"
                )


async def _measure(path: Path, buffers: list[Any], size: int, seconds: float) -> tuple[int, Cost]:
    count = 0
    blocks = path.stat().st_size // size

    async def work(file: AIOFile, buffer: Any) -> None:
        nonlocal count
        while True:  # at least one
            offset = random.randrange(blocks) * size
            if buffer is None:
                await file.read(size, offset)
            else:
                await file.readinto(buffer, offset)
            count += 1
            if time.perf_counter() >= end:
                return

    async with AIOFile(path, "rb", direct=True) as file:
        end = time.perf_counter() + seconds
        cost = await cost_of(asyncio.gather(*[work(file, buffer) for buffer in buffers]))
    return count, cost


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--size", type=int, default=256, help="of the file, in MiB")
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    return parser.parse_args()


if __name__ == "__main__":
    main()
