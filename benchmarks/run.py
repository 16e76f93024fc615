"""All contenders at all workloads, in alternating rounds: A B C A B C ...

Each measurement is a process of its own. A machine drifts (its clock, its neighbours, its
disk), so that what was measured minutes apart cannot be compared; here each round holds every
contender once, next to the others, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pyperf

from benchmarks import measure
from benchmarks.contenders import NAMES, Gap
from benchmarks.files import MIB
from benchmarks.report import render
from benchmarks.results import Results
from benchmarks.workloads import ALL, Workload

# A contender that needs longer for one measurement is a gap.
TIMEOUT_SECONDS = 300


class Failure(Gap):
    """A measurement that ended with an error."""


def main() -> None:
    args = _arguments()
    failures = 0
    benchmarks: list[pyperf.Benchmark] = []
    with _directory(args.dir) as directory:
        for workload in args.workloads:
            workload.prepare(directory, args.size * MIB)
            contenders = [name for name in workload.contenders if name in args.contenders]
            found, gaps = _rounds(workload, contenders, directory, args.rounds, args.seconds)
            failures += sum(isinstance(gap, Failure) for gap in gaps.values())
            reasons = "; ".join(f"{name}: {gap}" for name, gap in gaps.items())
            for bench in found.values():
                bench.update_metadata({"gaps": reasons or "none"})
                benchmarks.append(bench)
    if not benchmarks:
        sys.exit("nothing could be measured")
    suite = pyperf.BenchmarkSuite(benchmarks)
    if args.json:
        suite.dump(args.json, replace=True)
    print(render(Results(suite)))
    sys.exit(1 if failures else 0)


def _rounds(
    workload: Workload, contenders: list[str], directory: Path, rounds: int, seconds: float
) -> tuple[dict[str, pyperf.Benchmark], dict[str, Gap]]:
    """The benchmark of each contender, one run in it for each round; and who could not."""
    loops: dict[str, int] = {}
    found: dict[str, pyperf.Benchmark] = {}
    gaps: dict[str, Gap] = {}
    for number in range(rounds + 1):
        for name in contenders:
            if name in gaps:
                continue
            try:
                if number == 0:
                    loops[name] = _calibrate(workload, name, directory, seconds)
                    continue
                bench = _worker(
                    workload, name, directory, f"--loops={loops[name]}", "--values=1", "--warmups=1"
                )
            except Gap as gap:
                gaps[name] = gap
                _progress(f"{workload.name}: {name}: {gap}")
                continue
            bench.update_metadata({"round": number})
            if name in found:
                found[name].add_runs(bench)
            else:
                found[name] = bench
            value = bench.format_value(bench.median())
            _progress(f"{workload.name}: round {number} of {rounds}: {name}: {value}")
    return found, gaps


def _calibrate(workload: Workload, contender: str, directory: Path, seconds: float) -> int:
    """How many loops take so many seconds; pyperf doubles them until they do."""
    if not workload.is_rate:
        return 1
    bench = _worker(
        workload,
        contender,
        directory,
        "--calibrate-loops",
        f"--min-time={seconds}",
        "--values=1",
        "--warmups=0",
    )
    loops: int = bench.get_runs()[0].get_loops()
    return loops


def _worker(workload: Workload, contender: str, directory: Path, *options: str) -> pyperf.Benchmark:
    """One measurement, in a process of its own."""
    result = directory / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.measure", workload.name, contender]
    command += ["--directory", str(directory), "--worker", "--result", str(result), *options]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"took more than {TIMEOUT_SECONDS} seconds") from None
    if done.returncode == measure.GAP:
        raise Gap(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise Failure(f"failed: {last}")
    return pyperf.Benchmark.load(str(result))


@contextmanager
def _directory(parent: Path) -> Iterator[Path]:
    """A new folder for the files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="uringfile-bench-", dir=parent) as name:
        yield Path(name)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--workloads", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--contenders", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of one measurement, at least (default: 0.5)"
    )
    parser.add_argument("--size", type=int, default=256, help="of the data, in MiB (default: 256)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path.cwd(),
        help="where to make the data's folder; its file system is what is measured (default: here)",
    )
    parser.add_argument("--json", help="where to write the results, as pyperf does")
    args = parser.parse_args()
    names = _matching(parser, ALL, args.workloads)
    args.workloads = [ALL[name] for name in names]
    args.contenders = _matching(parser, NAMES, args.contenders)
    args.dir = args.dir.resolve()
    return args


def _matching(
    parser: argparse.ArgumentParser, names: dict[str, Workload] | tuple[str, ...], given: list[str]
) -> list[str]:
    for pattern in given:
        if not any(fnmatch(name, pattern) for name in names):
            parser.error(f"nothing is named {pattern}; there are: {', '.join(names)}")
    return [name for name in names if any(fnmatch(name, pattern) for pattern in given)]


if __name__ == "__main__":
    main()
