"""What was measured of one contender at one workload, by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


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
    """One contender at one workload: what an operation takes, by round."""

    #: Or the longest delay, for a workload that is not a rate.
    seconds: dict[int, float]
    cpu_seconds: dict[int, float]
    #: What was measured, with its version.
    contender: str
    #: The growth of memory at its height, where that is measured.
    peak_bytes: dict[int, int]
    #: System calls for an operation; ``None`` where they were not counted.
    syscalls: float | None = None

    def rate(self) -> Spread:
        return Spread.of([1 / value for value in self.seconds.values()])

    def delay(self) -> Spread:
        return Spread.of(list(self.seconds.values()))

    def cpu(self) -> Spread:
        return Spread.of(list(self.cpu_seconds.values()))

    def peak(self) -> Spread | None:
        return Spread.of(list(self.peak_bytes.values())) if any(self.peak_bytes.values()) else None

    def times(self, other: Series) -> Spread | None:
        """How many times as fast as the other, taken round by round."""
        return _ratios(other.seconds, self.seconds)

    def times_cpu(self, other: Series) -> Spread | None:
        """How much processor time for an operation, against the other."""
        return _ratios(self.cpu_seconds, other.cpu_seconds)


def _ratios(ones: dict[int, float], others: dict[int, float]) -> Spread | None:
    rounds = ones.keys() & others.keys()
    if not rounds:
        return None
    return Spread.of([ones[n] / others[n] for n in rounds])


def short(value: float) -> str:
    """A ratio, to as many digits as mean something."""
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
