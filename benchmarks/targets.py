"""What uringfile promises, most of it as ratios of rates measured side by side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """How many times as fast as the baseline."""

    workload: str
    contender: str
    baseline: str
    at_least: float


@dataclass(frozen=True)
class CpuTarget:
    """How much of the baseline's processor time for an operation."""

    workload: str
    contender: str
    baseline: str
    at_most: float


URING = "uringfile-io_uring"
POSIX_AIO = "uringfile-posix_aio"

TARGETS = [
    Target("read-4k-cached-1", URING, "sync", 0.45),
    Target("read-4k-cached-1", URING, "aiofile", 12),
    Target("read-4k-cached-1", URING, "executor", 30),
    Target("read-4k-cached-8", URING, "aiofile", 1),
    Target("read-4k-cached-8", URING, "executor", 1),
    Target("read-4k-cached-64", URING, "aiofile", 2.5),
    Target("read-4k-cached-64", URING, "executor", 1),
    Target("read-4k-cached-1", POSIX_AIO, "executor", 1),
    Target("read-4k-cached-8", POSIX_AIO, "executor", 1),
    Target("read-4k-cached-64", POSIX_AIO, "executor", 1),
    Target("read-many-256", URING, "sync", 1),
    Target("read-4k-direct-64", URING, "fio", 0.9),
    Target("read-4k-direct-64", POSIX_AIO, "fio", 0.45),
    Target("read-4k-direct-64", POSIX_AIO, "executor32", 1.2),
    Target("read-1m-sequential", URING, "sync", 0.85),
    Target("write-4k-cached-1", URING, "aiofile", 1),
    Target("write-4k-cached-64", URING, "aiofile", 2.5),
    Target("small-files", URING, "sync", 0.6),
    Target("small-files", URING, "aiofiles", 8),
]

#: aiofile's ring has a thread of the kernel that spins (SQPOLL).
CPU_TARGETS = [CpuTarget("write-4k-cached-1", URING, "aiofile", 1)]

#: The longest delay of the ticker, in seconds.
LONGEST_DELAY = 0.005

#: Seconds of processor time in a second with an open file and no work. None is the promise;
#: this is what the timer that ends the second may cost.
IDLE_CPU = 0.0005
