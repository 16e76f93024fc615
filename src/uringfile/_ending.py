"""The end of engines: with their loop, at interpreter exit, and in forked children."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import time
import warnings
import weakref
from collections import deque
from typing import TYPE_CHECKING

from uringfile._engine import CLOSE, KIND, READ, Engine
from uringfile._fd import Descriptor, close_unasked
from uringfile._held import HeldBack
from uringfile._inflight import InFlight, Operation, leak
from uringfile._native_engine import closing

if TYPE_CHECKING:
    from uringfile._driver import Driver

# How long the end of a loop waits for operations that do not stop; and if only what may take
# for ever is left: reads that run and cannot be stopped (POSIX AIO), close(2) by threads.
LINGER_SECONDS = 0.5
STUBBORN_SECONDS = 0.05


def end_engine(
    engine: Engine,
    in_flight: InFlight,
    queue: InFlight,
    held: HeldBack,
    dropped: deque[Descriptor],
) -> None:
    """Refuse, cancel, reap until nothing is in flight; keep for ever what does not stop.
    What is queued never was in flight; descriptors that it should close are closed here."""
    try:
        engine.shutdown()
        queued = [*queue.values(), *held.operations()]
        queue.clear()
        held.clear()
        for operation in queued:
            _settle(operation, _take_back(operation))
        stubborn = _cancel_all(engine, in_flight)
        start = time.monotonic()
        while in_flight:
            engine.flush()
            pairs = engine.reap(True)
            for token, result in zip(pairs[::2], pairs[1::2], strict=True):
                reaped = in_flight.pop(token, None)
                if reaped is not None:  # else it came twice
                    _settle(reaped, result)
            patience = LINGER_SECONDS if in_flight.keys() - stubborn else STUBBORN_SECONDS
            left = start + patience - time.monotonic()
            if not in_flight or left <= 0:
                break
            engine.wait(max(1, int(left * 1000)))
    finally:
        leak_all(in_flight)
        engine.destroy()
        close_dropped(dropped)
        _wait_for_closes()
    if in_flight:
        warnings.warn(
            f"{len(in_flight)} operations did not stop; their buffers are kept for ever",
            ResourceWarning,
            stacklevel=2,
        )


def close_dropped(dropped: deque[Descriptor]) -> None:
    """Descriptors whose files were never closed. Several threads may do this at once."""
    with contextlib.suppress(IndexError):
        while True:
            dropped.popleft().close_when_idle()


def _wait_for_closes() -> None:
    """What threads are about to close is closed when the loop has ended, unless that waits."""
    deadline = time.monotonic() + STUBBORN_SECONDS
    while closing() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _cancel_all(engine: Engine, in_flight: InFlight) -> set[int]:
    """Those among them that are reads, run, and cannot be stopped."""
    stubborn = set()
    for token, operation in in_flight.items():
        if operation.opcode & KIND == CLOSE:
            continue  # nobody would close it then
        if engine.cancel(token) == -errno.EALREADY and operation.opcode & KIND == READ:
            stubborn.add(token)
    return stubborn


def leak_all(in_flight: InFlight) -> None:
    for operation in list(in_flight.values()):
        leak(operation)


def _take_back(operation: Operation) -> int:
    """The result of what the engine never had."""
    if operation.opcode & KIND == CLOSE:
        close_unasked(operation.descriptor.fd, at_once=True)
    return -errno.ECANCELED


def _settle(operation: Operation, result: int) -> None:
    operation.holds.forget_waiters()
    operation.holds.release()
    if operation.on_orphan is not None:
        operation.on_orphan(result)


# Every driver alive, for interpreter exit and for forked children.
drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


def _all_drivers() -> list[Driver]:
    while True:
        try:
            return list(drivers)
        except RuntimeError:  # a thread has added one meanwhile
            continue


@atexit.register
def _end_all() -> None:
    with contextlib.ExitStack() as ends:  # each, though a ResourceWarning may be an error
        for driver in _all_drivers():
            ends.callback(driver.end_at_exit)


def _forget_all() -> None:
    for driver in _all_drivers():
        driver.forget_after_fork()
    drivers.clear()


os.register_at_fork(after_in_child=_forget_all)
