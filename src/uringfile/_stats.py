"""What an event loop's engine has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """Counters of one loop's engine since it was opened."""

    #: Reads that the page cache served without an operation.
    inline: int
    #: Operations that the engine accepted.
    submitted: int
    #: Operations whose completion was reaped.
    completed: int
    #: Operations whose cancellation was asked for.
    cancelled: int
    #: Flushes: system calls that submit (io_uring).
    flushes: int
    #: Times that the eventfd woke the loop.
    wakeups: int
    #: Operations in flight now.
    in_flight: int
    #: Operations that wait for room in the engine now, or in their file's share of it.
    queued: int
    #: Operations and flushes that were interrupted or refused for the moment (EINTR, EAGAIN,
    #: EBUSY, ENOMEM), and tried again.
    retried: int
    #: Completions of nothing that was in flight: of a defect in the kernel, and ignored.
    strays: int
    #: Calls that a thread of the loop's executor performed, because the engine cannot.
    in_threads: int
    #: Files whose reads are all submitted, because their file system cannot tell what is cached.
    demoted: int
    #: Buffers that are kept for ever, because an operation did not stop; of the whole process.
    leaked: int
