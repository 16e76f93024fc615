"""What a piece of work costs: seconds on the clock, and seconds of processor time.

RUSAGE_SELF counts every thread of the process, and io_uring's kernel threads are threads of
the process that owns the ring: a polling thread (SQPOLL, "iou-sqp") and the workers
("iou-wrk") are in it. Interrupts and the kernel's write-back are in nobody's account.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_seconds: float


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def cost_of(work: Awaitable[object]) -> Cost:
    cpu = cpu_seconds()
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    return Cost(seconds, cpu_seconds() - cpu)


def cost_of_call(function: Callable[..., object], *args: object) -> Cost:
    cpu = cpu_seconds()
    start = time.perf_counter()
    function(*args)
    seconds = time.perf_counter() - start
    return Cost(seconds, cpu_seconds() - cpu)
