"""What registered buffers and registered files would be worth; uringfile uses neither.

``python -m benchmarks.registered`` compiles ``registered.c`` (with ``cc``), which reads a file with
nothing but io_uring, and prints the rate with each of them against plain reads: the median of
the rounds' ratios, the lowest and the highest. All of it also into memory of huge pages.
"""

from __future__ import annotations

import argparse
import subprocess
from collections import defaultdict
from pathlib import Path

from benchmarks.run import ROOT, new_directory
from uringfile._bench.files import MIB, drop, make_random_file, warm
from uringfile._bench.results import Spread

# Size, in flight, O_DIRECT.
CASES = [
    (4096, 1, True),
    (4096, 64, True),
    (65536, 1, True),
    (65536, 64, True),
    (MIB, 8, True),
    (4096, 1, False),
    (4096, 64, False),
]


def main() -> None:
    args = _arguments()
    with new_directory(args.dir) as directory:
        program, path = directory / "registered", directory / "read.bin"
        sources = [ROOT / "benchmarks" / "registered.c", ROOT / "csrc" / "ring.c"]
        cc = ["cc", "-O2", "-std=gnu11", f"-I{ROOT / 'csrc'}", "-o", program, *sources]
        subprocess.run(cc, check=True)
        make_random_file(path, args.size * MIB)
        for size, depth, direct in CASES:
            (drop if direct else warm)(path)
            numbers = [size, depth, int(direct), args.rounds, args.seconds]
            out = subprocess.check_output([program, path, *map(str, numbers)], text=True)
            kind = "O_DIRECT" if direct else "cached"
            print(f"\n{size // 1024} KiB {kind} reads, {depth} in flight")
            print("\n".join(_lines(out)))


def _lines(out: str) -> list[str]:
    rates: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    for line in out.splitlines():
        _, name, rate, nanoseconds = line.split()
        rates[name].append(float(rate))
        cpu[name].append(float(nanoseconds) / 1000)
    lines = []
    for name, values in rates.items():
        times = Spread.of([a / b for a, b in zip(values, rates["plain"], strict=True)])
        lines.append(
            f"{name:<14}{Spread.of(values).median:>10,.0f}/s"
            f"{Spread.of(cpu[name]).median:>8.2f} us CPU"
            f"   x plain {times.median:.3f} ({times.low:.3f} to {times.high:.3f})"
        )
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registered", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--size", type=int, default=256, help="of the file, in MiB")
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    return parser.parse_args()


if __name__ == "__main__":
    main()
