"""What was measured, by workload, contender and round."""

from __future__ import annotations

from pathlib import Path

import pyperf

from uringfile._bench.results import Series


class Results:
    def __init__(self, suite: pyperf.BenchmarkSuite) -> None:
        self.series: dict[str, dict[str, Series]] = {}
        self.gaps: dict[str, str] = {}
        for bench in suite:
            workload, contender = bench.get_name().split("/")
            self.series.setdefault(workload, {})[contender] = series_of(bench)
            self.gaps[workload] = bench.get_metadata()["gaps"]
            self.counter: str = bench.get_metadata()["syscalls_by"]
        self.environment: dict[str, str] = suite.get_metadata()
        first, last = suite.get_dates()
        self.date = f"{first:%Y-%m-%d %H:%M} to {last:%H:%M}"

    @classmethod
    def load(cls, path: str | Path) -> Results:
        return cls(pyperf.BenchmarkSuite.load(str(path)))


def series_of(bench: pyperf.Benchmark) -> Series:
    series = Series({}, {}, bench.get_metadata()["contender"], {}, _syscalls(bench))
    for run in bench.get_runs():
        metadata = run.get_metadata()
        number = metadata["round"]
        (series.seconds[number],) = run.values
        series.cpu_seconds[number] = metadata["cpu_seconds_per_operation"]
        series.peak_bytes[number] = metadata["peak_bytes"]
    return series


def _syscalls(bench: pyperf.Benchmark) -> float | None:
    found: float | None = bench.get_metadata().get("syscalls_per_operation")
    return found
