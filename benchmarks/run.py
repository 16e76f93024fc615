"""All contenders at all workloads, in alternating rounds: A B C A B C ...

Each measurement is a process of its own. A machine drifts (its clock, its neighbours, its
disk), so that what was measured minutes apart cannot be compared; here each round holds every
contender once, next to the others, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pyperf

from benchmarks import measure
from benchmarks.calls import Counter, find_counter
from benchmarks.contenders import NAMES
from benchmarks.report import render, write
from benchmarks.results import Results
from uringfile._bench.contenders import Gap
from uringfile._bench.files import MIB
from uringfile._bench.workloads import ALL, Workload

# A contender that needs longer for one measurement is a gap.
TIMEOUT_SECONDS = 300

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Program:
    """A benchmark with a form of its own, whose output goes into the report."""

    title: str
    module: str
    arguments: tuple[str, ...] = ()
    is_markdown: bool = True


#: Those that are not here are left out.
PROGRAMS = (
    Program(
        "Ways to ask the page cache",
        "benchmarks.settings",
        ("URINGFILE_INLINE=ring", "URINGFILE_INLINE=off", "--workloads", "read-4k-cached-1"),
        is_markdown=False,
    ),
    Program("The log writer", "benchmarks.log"),
    Program("Handlers for logging", "benchmarks.logging_handlers"),
)


class Failure(Gap):
    """A measurement that ended with an error."""


def main() -> None:
    args = _arguments()
    failures = 0
    benchmarks: list[pyperf.Benchmark] = []
    counter_name, counter = find_counter()
    with new_directory(args.dir) as directory:
        for workload in args.workloads:
            workload.prepare(directory, args.size * MIB)
            contenders = [name for name in workload.contenders if name in args.contenders]
            loops: dict[str, int] = {}
            found, gaps = _rounds(workload, contenders, directory, args.rounds, args.seconds, loops)
            failures += sum(isinstance(gap, Failure) for gap in gaps.values())
            reasons = "; ".join(f"{name}: {gap}" for name, gap in gaps.items())
            for name, bench in found.items():
                bench.update_metadata({"gaps": reasons or "none", "syscalls_by": counter_name})
                if counter is not None and workload.is_rate and workload.is_timed:
                    more = max(1, loops[name] // 4)
                    calls = _syscalls(counter, workload, name, directory, more)
                    if calls is not None:
                        bench.update_metadata({"syscalls_per_operation": calls})
                benchmarks.append(bench)
    if not benchmarks:
        sys.exit("nothing could be measured")
    suite = pyperf.BenchmarkSuite(benchmarks)
    if args.json:
        suite.dump(args.json, replace=True)
    results = Results(suite)
    if args.report:
        write(results, args.report, list(_sections(args.dir)))
    print(render(results))
    sys.exit(1 if failures else 0)


def _rounds(
    workload: Workload,
    contenders: list[str],
    directory: Path,
    rounds: int,
    seconds: float,
    loops: dict[str, int],
) -> tuple[dict[str, pyperf.Benchmark], dict[str, Gap]]:
    """The benchmark of each contender, one run in it for each round; and who could not.

    ``loops`` is filled with how many of them a measurement was."""
    found: dict[str, pyperf.Benchmark] = {}
    gaps: dict[str, Gap] = {}
    for number in range(rounds + 1):
        for name in contenders:
            if name in gaps:
                continue
            try:
                if number == 0:
                    loops[name] = calibrate(workload, name, directory, seconds)
                    continue
                bench = worker(
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


def calibrate(
    workload: Workload,
    contender: str,
    directory: Path,
    seconds: float,
    environment: dict[str, str] | None = None,
) -> int:
    """How many loops take so many seconds; pyperf doubles them until they do."""
    if not workload.is_rate:
        return 1
    bench = worker(
        workload,
        contender,
        directory,
        "--calibrate-loops",
        f"--min-time={seconds}",
        "--values=1",
        "--warmups=0",
        environment=environment,
    )
    loops: int = bench.get_runs()[0].get_loops()
    return loops


def _syscalls(
    counter: Counter, workload: Workload, contender: str, directory: Path, more: int
) -> float | None:
    """System calls for an operation: a process of so many loops more than one, less a process
    of one loop, so that what comes before and after is not in it."""
    counts = []
    for loops in (1, 1 + more):
        options = (f"--loops={loops}", "--values=1", "--warmups=0")
        counts.append(counter(_command(workload, contender, directory, *options)))
    one, many = counts
    if one is None or many is None:
        return None
    calls: float = max(0, many - one) / (more * workload.per_loop)
    _progress(f"{workload.name}: {contender}: {calls:.3g} system calls")
    return calls


def _command(workload: Workload, contender: str, directory: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.measure", workload.name, contender]
    return [*command, "--directory", str(directory), "--worker", *options]


def worker(
    workload: Workload,
    contender: str,
    directory: Path,
    *options: str,
    environment: dict[str, str] | None = None,
) -> pyperf.Benchmark:
    """One measurement, in a process of its own; with such variables in its environment."""
    result = directory / "result.json"
    result.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            _command(workload, contender, directory, "--result", str(result), *options),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
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


def _sections(directory: Path) -> Iterator[str]:
    for program in PROGRAMS:
        if find_spec(program.module) is None:
            continue
        command = ["-m", program.module, *program.arguments]
        shown = shlex.join(["python", *command])
        _progress(shown)
        done = subprocess.run(
            [sys.executable, *command, "--dir", str(directory)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        # A status other than 0 may mean that a target is missed.
        said = done.stdout.strip()
        if not said:
            said = f"It printed nothing, and ended with status {done.returncode}."
        elif not program.is_markdown:
            said = f"```\n{said}\n```"
        yield f"## {program.title}\n\n`{shown}`:\n\n{said}"


@contextmanager
def new_directory(parent: Path) -> Iterator[Path]:
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
        "--seconds", type=float, default=0.25, help="of one measurement, at least (default: 0.25)"
    )
    parser.add_argument("--size", type=int, default=256, help="of the data, in MiB (default: 256)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path.cwd(),
        help="where to make the data's folder; its file system is what is measured (default: here)",
    )
    parser.add_argument("--json", help="where to write the results, as pyperf does")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="a folder for REPORT.md and its plots"
    )
    args = parser.parse_args()
    names = _matching(parser, ALL, args.workloads)
    args.workloads = [ALL[name] for name in names]
    args.contenders = _matching(parser, NAMES, args.contenders)
    args.dir = args.dir.resolve()
    if args.report and not args.report.is_dir():
        parser.error(f"--report: {args.report} is not a folder")
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
