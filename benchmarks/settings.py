"""What a setting is worth: uringfile with and without it, in alternating rounds.

``python -m benchmarks.settings URINGFILE_SQPOLL_MS=10 --workloads "write-*-cached*"``

measures the default, then each of the settings (environment variables; several for one
measurement are joined by commas), then ``--beside``, each in a process of its own, and again.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

import pyperf

from benchmarks.contenders import NAMES
from benchmarks.results import series_of
from benchmarks.run import calibrate, new_directory, worker
from benchmarks.targets import URING
from uringfile._bench.contenders import Gap
from uringfile._bench.files import MIB
from uringfile._bench.results import Series
from uringfile._bench.workloads import ALL, Workload

DEFAULT = "default"


def main() -> None:
    args = _arguments()
    with new_directory(args.dir) as directory:
        for name in (n for n in ALL if any(fnmatch(n, p) for p in args.workloads)):
            ALL[name].prepare(directory, args.size * MIB)
            print(f"\n{name}\n" + "\n".join(_lines(_measure(ALL[name], args, directory))))


def _measure(
    workload: Workload, args: argparse.Namespace, directory: Path
) -> dict[str, pyperf.Benchmark]:
    subjects = {DEFAULT: (args.contender, {})}
    for setting in args.settings:
        pairs = [pair.partition("=") for pair in setting.split(",")]
        subjects[setting] = (args.contender, {name: value for name, _, value in pairs})
    subjects |= {name: (name, {}) for name in args.beside}
    found: dict[str, pyperf.Benchmark] = {}
    loops: dict[str, int] = {}
    for number in range(args.rounds + 1):
        for name, (contender, environment) in list(subjects.items()):
            try:
                if number == 0:
                    loops[name] = calibrate(
                        workload, contender, directory, args.seconds, environment
                    )
                    continue
                options = (f"--loops={loops[name]}", "--values=1", "--warmups=1")
                bench = worker(workload, contender, directory, *options, environment=environment)
            except Gap as gap:
                print(f"{workload.name}: {name}: {gap}")
                del subjects[name]
                continue
            bench.update_metadata({"round": number})
            if name in found:
                found[name].add_runs(bench)
            else:
                found[name] = bench
    return found


def _lines(found: dict[str, pyperf.Benchmark]) -> list[str]:
    all_series: dict[str, Series] = {name: series_of(bench) for name, bench in found.items()}
    lines = [f"{'':<48}{'rate':>12}{'CPU us':>9}   x {DEFAULT} (lowest to highest round)"]
    for name, series in all_series.items():
        times = series.times(all_series[DEFAULT])
        assert times is not None
        lines.append(
            f"{name:<48}{series.rate().median:>10,.0f}/s{series.cpu().median * 1e6:>9,.1f}"
            f"   {times.median:.2f} ({times.low:.2f} to {times.high:.2f})"
        )
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.settings")
    parser.add_argument("settings", nargs="+", metavar="VARIABLE=VALUE[,...]")
    parser.add_argument("--workloads", nargs="+", required=True, metavar="PATTERN")
    parser.add_argument("--contender", default=URING, choices=NAMES)
    parser.add_argument("--beside", nargs="+", default=[], choices=NAMES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--dir", type=Path, default=Path.cwd())
    args = parser.parse_args()
    args.dir = args.dir.resolve()
    return args


if __name__ == "__main__":
    main()
