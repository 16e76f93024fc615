"""A batch of records, and the tasks that wait until it is acknowledged.

A future for each task, and a trip through the loop for each of their callbacks, is what most
of an append would cost. Here the tasks of a batch await one future, and are resumed one after
another in one callback of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

# How many tasks share a future: all of them wake when one is cancelled.
_SHARING = 128

_Callback = Callable[[Any], object]
Waiter = asyncio.Future[None]


class Batch:
    """Records that go out in one write."""

    __slots__ = (
        "_loop",
        "_shared",
        "acknowledgement",
        "data",
        "failed",
        "settled",
        "shift",
        "start",
        "then",
        "waiters",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, start: int) -> None:
        self._loop = loop
        self.data = bytearray()
        #: The offset of the first record, and by how much it turned out to be wrong.
        self.start = start
        self.shift = 0
        #: What happens to the file behind these records.
        self.then: str | None = None
        #: Whether the records are acknowledged, or never will be.
        self.settled = False
        self.failed = False
        #: Who waits for the batch with a future of his own.
        self.waiters: list[Waiter] = []
        self._shared: list[Acknowledgement] = []
        self.renew()

    def renew(self) -> None:
        """The future to await, again and again until the batch is settled."""
        self.acknowledgement = Acknowledgement(self, self._loop)
        self._shared.append(self.acknowledgement)

    def drop(self, shared: Acknowledgement) -> None:
        self._shared.remove(shared)
        if self.acknowledgement is shared:
            self.renew()

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for it, with records or without."""
        return bool(self.waiters or self.acknowledgement.awaited or len(self._shared) > 1)

    def settle_half(self) -> None:
        """The records are acknowledged; half of those who wait are told now, the others by
        ``settle``."""
        self.settled = True
        for _ in range(len(self._shared) // 2):
            self._shared.pop(0).resume()

    def settle(self) -> None:
        """The records are acknowledged. Called by the loop, not by a task."""
        self.settled = True
        wake_all(self.waiters)
        while self._shared:
            self._shared.pop(0).resume()

    def fail(self, error: Callable[[], Exception]) -> None:
        """The records are lost; called from anywhere."""
        self.settled = self.failed = True
        fail_all(self.waiters, error)
        self.waiters = []
        for shared in self._shared:
            self._loop.call_soon(shared.resume)
        self._shared = []


class Queued:
    """A record that waits for room."""

    __slots__ = ("batch", "end", "record", "waiter")

    def __init__(self, record: bytes, waiter: Waiter) -> None:
        self.record = record
        self.waiter = waiter
        self.end = 0
        self.batch: Batch | None = None


def wake_all(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


def fail_all(waiters: list[Waiter], error: Callable[[], Exception]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error())
            waiter.exception()  # perhaps nobody waits any more


class Acknowledgement(asyncio.Future[None]):
    """Wakes tasks that wait for a batch. It may do so for no reason: they look at the batch."""

    def __init__(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._batch: Batch | None = batch
        self._resumed: list[tuple[_Callback, contextvars.Context | None]] = []

    @property
    def awaited(self) -> bool:
        return bool(self._resumed)

    def add_done_callback(
        self, fn: _Callback, /, *, context: contextvars.Context | None = None
    ) -> None:
        if self._batch is None:
            super().add_done_callback(fn, context=context)
            return
        self._resumed.append((fn, context))
        if len(self._resumed) == _SHARING:
            self._batch.renew()

    def cancel(self, msg: Any | None = None) -> bool:
        """One of the waiting tasks is cancelled; asyncio does not say which, and resumes it
        when this wakes. So all wake: that one ends, the others wait on."""
        self.get_loop().call_soon(self._wake_for_nothing)
        return False

    def _wake_for_nothing(self) -> None:
        if self._batch is not None:
            if not self._batch.settled:
                self._batch.drop(self)
            self.resume()

    def resume(self) -> None:
        """Run the waiting tasks until each waits again; called by the loop, not by a task."""
        if self._batch is None:
            return
        self._batch = None
        self.set_result(None)
        callbacks, self._resumed = self._resumed, []
        for callback, context in callbacks:
            try:
                if context is None:
                    callback(self)
                else:
                    context.run(callback, self)
            except BaseException as error:  # a task's own KeyboardInterrupt or SystemExit
                self.get_loop().call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error
