"""What was measured, by workload, contender and round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyperf


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    @property
    def percent(self) -> float:
        """Half of the way from the lowest to the highest, against the median."""
        return 50 * (self.high - self.low) / self.median


@dataclass(frozen=True)
class Series:
    """One contender at one workload: seconds for an operation, by round."""

    seconds: dict[int, float]
    cpu_seconds: dict[int, float]
    #: What was measured, with its version.
    contender: str

    def rate(self) -> Spread:
        return Spread.of([1 / value for value in self.seconds.values()])

    def delay(self) -> Spread:
        return Spread.of(list(self.seconds.values()))

    def cpu(self) -> Spread:
        return Spread.of(list(self.cpu_seconds.values()))

    def times(self, other: Series) -> Spread | None:
        """How many times as fast as the other, taken round by round."""
        rounds = self.seconds.keys() & other.seconds.keys()
        if not rounds:
            return None
        return Spread.of([other.seconds[n] / self.seconds[n] for n in rounds])


class Results:
    def __init__(self, suite: pyperf.BenchmarkSuite) -> None:
        self.series: dict[str, dict[str, Series]] = {}
        self.gaps: dict[str, str] = {}
        for bench in suite:
            workload, contender = bench.get_name().split("/")
            self.series.setdefault(workload, {})[contender] = _series(bench)
            self.gaps[workload] = bench.get_metadata()["gaps"]
        self.environment: dict[str, str] = suite.get_metadata()
        first, last = suite.get_dates()
        self.date = f"{first:%Y-%m-%d %H:%M} to {last:%H:%M}"

    @classmethod
    def load(cls, path: str | Path) -> Results:
        return cls(pyperf.BenchmarkSuite.load(str(path)))

    def times(self, workload: str, contender: str, baseline: str) -> Spread | None:
        """How many times as fast as the baseline; ``None`` when one was not measured."""
        series = self.series.get(workload, {})
        if contender not in series or baseline not in series:
            return None
        return series[contender].times(series[baseline])


def _series(bench: pyperf.Benchmark) -> Series:
    seconds: dict[int, float] = {}
    cpu: dict[int, float] = {}
    for run in bench.get_runs():
        metadata = run.get_metadata()
        number = metadata["round"]
        (seconds[number],) = run.values
        cpu[number] = metadata["cpu_seconds_per_operation"]
    return Series(seconds, cpu, bench.get_metadata()["contender"])
