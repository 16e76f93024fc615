"""What a piece of work costs: seconds on the clock, and seconds of processor time.

The processor time is that of the process, by CLOCK_PROCESS_CPUTIME_ID, which counts every
thread of it. io_uring's kernel threads are threads of the process that owns the ring (Linux
5.12): a polling thread (SQPOLL, "iou-sqp") and the workers ("iou-wrk") are in it. Interrupts
and the kernel's write-back are in nobody's account.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_seconds: float
    #: How far the memory grew, in bytes, where that is measured.
    peak_bytes: int = 0


async def cost_of(work: Awaitable[object]) -> Cost:
    cpu = time.process_time()
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    return Cost(seconds, time.process_time() - cpu)


def cost_of_call(function: Callable[..., object], *args: object) -> Cost:
    cpu = time.process_time()
    start = time.perf_counter()
    function(*args)
    seconds = time.perf_counter() - start
    return Cost(seconds, time.process_time() - cpu)
