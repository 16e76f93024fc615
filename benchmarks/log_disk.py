"""Ways to make an appended batch durable, without LogWriter and without an event loop.

``python -m benchmarks.log_disk [--dir DIR] [--rounds N]`` compares, by one thread: write and
fdatasync; a write with O_DSYNC; the same into blocks that were reserved by fallocate, or written
with zeros before (``once`` does not count that); and O_DIRECT into both. It is why LogWriter uses
O_DSYNC, and fills the blocks ahead with zeros for O_DIRECT. Ratios are to write and fdatasync.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

BLOCK = 4096
RESERVED = 32 << 20

#: Name: flags, how the blocks are made before, whether fdatasync follows each write.
WAYS = {
    "write + fdatasync": (0, "", True),
    "O_DSYNC": (os.O_DSYNC, "", False),
    "fallocate, O_DSYNC": (os.O_DSYNC, "fallocate", False),
    "fallocate, O_DIRECT + O_DSYNC": (os.O_DSYNC | os.O_DIRECT, "fallocate", False),
    "zeros once, O_DSYNC": (os.O_DSYNC, "zeros", False),
    "zeros once, O_DIRECT + O_DSYNC": (os.O_DSYNC | os.O_DIRECT, "zeros", False),
}


def batches_per_second(path: Path, way: str, size: int, batches: int) -> float:
    flags, blocks, fdatasync = WAYS[way]
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if blocks == "fallocate":
        os.posix_fallocate(fd, 0, RESERVED)
    elif blocks == "zeros":
        for _ in range(RESERVED >> 20):
            os.write(fd, bytes(1 << 20))
    os.fsync(fd)
    os.close(fd)
    fd = os.open(path, os.O_RDWR | flags)
    direct = bool(flags & os.O_DIRECT)
    # O_DIRECT writes whole blocks, the last of them again and again until it is full.
    memory = memoryview(mmap.mmap(-1, -(-size // BLOCK) * BLOCK))
    data = memory if direct else memory[:size]
    offset = 0
    start = time.perf_counter()
    for _ in range(batches):
        os.pwritev(fd, [data], offset // BLOCK * BLOCK if direct else offset)
        if fdatasync:
            os.fdatasync(fd)
        offset += size
    seconds = time.perf_counter() - start
    os.close(fd)
    return batches / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("."))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=300)
    args = parser.parse_args()
    print("| bytes | way | per second | ratio |\n| ---: | --- | ---: | --- |")
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="log-disk.") as directory:
        path = Path(directory) / "log"
        for size in (128, 16384, 32768):
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(args.rounds):
                for way, found in rates.items():
                    found.append(batches_per_second(path, way, size, args.batches))
            for way, found in rates.items():
                base = rates["write + fdatasync"]
                ratios = sorted(ours / floor for ours, floor in zip(found, base, strict=True))
                print(
                    f"| {size} | {way} | {statistics.median(found):,.0f} "
                    f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
