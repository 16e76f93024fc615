"""One driver for each event loop: from futures to the engine and back.

Down:  start() puts an operation into the in-flight table and stages it; one flush for
       each turn of the loop makes the kernel see all that was staged in that turn.
Back:  the eventfd wakes the loop; reap copies the completions out, and only then
       resolves futures. No user code runs in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from uringfile._batch import CachedReads
from uringfile._ending import close_dropped, drivers, end_engine, leak_all
from uringfile._engine import KIND, OPCODE_NAMES, READ, Engine, EngineInfo
from uringfile._errors import ClosedFileError, Filename, os_error
from uringfile._fd import Descriptor, close_unasked
from uringfile._held import HeldBack
from uringfile._inflight import InFlight, Operation, leaked_buffers
from uringfile._native_engine import new_scratch, pin
from uringfile._poll import AdaptivePoll
from uringfile._stats import Stats
from uringfile._turns import Turns
from uringfile._watch import PendingOperation, describe, watch_of

# Inline reads up to this size go through scratch memory and are copied out of it: cheaper
# than a fresh bytes object (measured: 0.84 against 1.08 us at 4 KiB, even at 32 KiB).
INLINE_SIZE = 32 * 1024

# What is staged in one turn is flushed at its end, at once if nothing else is in flight, and
# whenever so many have gathered: the device then works on the first while the rest is still
# being prepared. O_DIRECT reads, 64 in flight: 80,000/s; with one flush for all 50,000/s.
FLUSH_BATCH = 8

# A flush that the kernel refuses for lack of memory is tried again after this.
RETRY_SECONDS = 0.001

# For operations that move no data.
NO_BUFFER = pin(b"")

_TRANSIENT = (-errno.EAGAIN, -errno.EBUSY, -errno.ENOMEM, -errno.EINTR)


if sys.version_info >= (3, 12):

    def runs_here(driver: Driver) -> bool:
        """Whether the driver's loop is the one that is running in this thread."""
        return driver.loop is asyncio.get_running_loop()

else:

    def runs_here(driver: Driver) -> bool:
        # Before Python 3.12 get_running_loop() makes a system call (getpid) each time.
        return get_ident() == driver.thread_id and driver.loop.is_running()


class Driver(Turns):
    """Owned by its loop, through the reader that it registers; freed with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine, reason: str | None) -> None:
        super().__init__(loop)
        self.engine = engine
        self.thread_id = threading.get_ident()
        self.reason = reason
        self.inline = 0
        self.read_nowait = engine.read_nowait
        self.scratch, self.scratch_buffer = new_scratch(INLINE_SIZE)
        self.scratch_end, _ = new_scratch(1)
        self.cached_reads = CachedReads()
        self._in_flight: InFlight = {}
        # Who waits. Not in the table: that outlives the driver, and this refers to tasks.
        self._futures: dict[int, asyncio.Future[int]] = {}
        # Cancellations that the engine had no room for.
        self._refused_cancels: list[Operation] = []
        # In call order; refused by a full engine, or not offered to it yet.
        self._queue: OrderedDict[int, Operation] = OrderedDict()
        # And those that their descriptor's share has no room for.
        self._held = HeldBack(engine)
        # What other threads have collected, for the loop's thread, or the end, to close.
        self._dropped: deque[Descriptor] = deque()
        self._capacity = engine.capacity
        self._unoffered = False  # whether there is room for what is in the queue
        self._tokens = itertools.count()
        self._flush_scheduled = False
        self._submitted = self._cancelled = 0
        self._flushes = self._wakeups = self._retried = self._strays = 0
        self.in_threads = self.demoted = 0
        self._staged = 0  # since the last flush
        self._ready = 0  # what the last flush answered, until it is dealt with
        try:
            self._watch = watch_of(loop)
            self._poll = AdaptivePoll(loop)
            loop.add_reader(engine.eventfd, self._on_eventfd)
        except BaseException:
            engine.destroy()
            raise
        self._thread = threading.current_thread()
        # It must not refer to self. Interpreter exit is _ending's.
        self._finalizer = weakref.finalize(
            self, end_engine, engine, self._in_flight, self._queue, self._held, self._dropped
        )
        self._finalizer.atexit = False
        drivers.add(self)

    # ---- down ---------------------------------------------------------------

    async def run(
        self,
        opcode: int,
        descriptor: Descriptor,
        addr: Any = NO_BUFFER,
        length: int = 0,
        offset: int = 0,
        on_orphan: Callable[[int], None] | None = None,
    ) -> int:
        """Perform one operation: its result, or a negative errno.

        On cancellation the caller is released at once, while the buffer and the
        descriptor stay held until the kernel has let go of them.
        """
        operation, future = self.start(opcode, descriptor, addr, length, offset, on_orphan)
        try:
            return await future
        except BaseException:  # also a coroutine that is closed instead of cancelled
            self.abandon(operation, future)
            raise

    def start(
        self,
        opcode: int,
        descriptor: Descriptor,
        addr: Any = NO_BUFFER,
        length: int = 0,
        offset: int = 0,
        on_orphan: Callable[[int], None] | None = None,
    ) -> tuple[Operation, asyncio.Future[int]]:
        """Stage an operation; the future resolves to what the system call returns.

        Raises ``ClosedFileError`` for a read of a descriptor that is being closed.
        """
        if descriptor.closing and opcode & KIND == READ:
            raise ClosedFileError("the file was closed during read()")
        token = next(self._tokens)
        future: asyncio.Future[int] = self.loop.create_future()
        request = (opcode, descriptor.fd, addr, length, offset, token)
        operation = Operation(token, descriptor, request, on_orphan)
        self._futures[token] = future
        # An interrupt comes behind a call, or at its beginning; there is none before the try.
        descriptor.holders += 1
        try:
            if self._watch is not None:
                self._watch.started(operation)
            if (
                opcode <= KIND
                and descriptor.admitted + len(self._in_flight) < self._capacity
                and descriptor not in self._held
            ):
                operation.weight = 1
                descriptor.admitted += 1
                if self._queue:
                    self._queue[token] = operation
                else:
                    self._offer(operation)
            else:
                self._held.add(operation)
                self._let_in(descriptor)
                if self._unoffered:
                    self._offer_queued()
            self._flush_later()
        except BaseException:
            self._take_back(operation)
            raise
        return operation, future

    def _take_back(self, operation: Operation) -> None:
        """start() was interrupted: nobody waits for the operation. What the engine may have
        goes on."""
        token = operation.token
        if self._futures.pop(token, None) is not None and token not in self._in_flight:
            if self._queue.pop(token, None) is None:
                self._held.remove(operation)
            self._resolve(operation, -errno.ECANCELED)

    def _offer(self, operation: Operation) -> bool:
        """Give the operation to the engine; False when that is full, and it queues."""
        submit = self.engine.submit
        token = operation.token
        # In the table before the engine has it: an interrupt may come behind any call.
        self._in_flight[token] = operation
        if token in self._queue:
            del self._queue[token]
        try:
            ret = submit(*operation.request)
        except (TypeError, OverflowError) as error:  # no number: the engine has not seen it
            del self._in_flight[token]
            future = self._futures.get(token)
            if future is not None and not future.done():
                future.set_exception(error)
            self._resolve(operation, -errno.EINVAL)
            return True
        if ret == -errno.EAGAIN:
            self._flush_engine()  # the submission queue may be full, and nothing else
            ret = submit(*operation.request)
        if ret:
            del self._in_flight[token]
            if ret == -errno.EAGAIN:
                self._queue[token] = operation
                self._queue.move_to_end(token, last=False)
                return False
            self._resolve(operation, ret)
        else:
            self._submitted += 1
            self._staged += 1
            if self._staged == FLUSH_BATCH or len(self._in_flight) == 1:
                self._flush_engine()
        return True

    def _flush_later(self) -> None:
        """At the end of the turn, if then something is to be flushed or reaped."""
        if self._staged or self._ready:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self.loop.call_soon(self._flush)
            self._flush_scheduled = True

    def _flush_engine(self) -> None:
        self._flushes += 1
        self._ready = self.engine.flush()
        if self._ready >= 0:
            self._staged = 0
        else:
            self._retried += 1
        if not self._ready:
            self._poll.expect()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._unoffered:
            self._offer_queued()
        if self._refused_cancels:
            self._cancel_again()
        if self._staged:
            self._flush_engine()
        ready, self._ready = self._ready, 0
        if ready:
            self._settle(self.engine.reap(False))
        if ready in _TRANSIENT and not self._flush_scheduled:
            self.loop.call_later(RETRY_SECONDS, self._flush)
            self._flush_scheduled = True

    # ---- back ---------------------------------------------------------------

    def _on_eventfd(self) -> None:
        self._wakeups += 1
        self._settle(self.engine.reap(True))

    def _settle(self, pairs: list[int]) -> None:
        in_flight = self._in_flight
        each = iter(pairs)
        try:
            for token, result in zip(each, each, strict=True):
                operation = in_flight.pop(token, None)
                if operation is None:
                    self._strays += 1
                else:
                    self._resolve(operation, result)
        except BaseException:  # an interrupt: the rest comes no second time
            self._settle([*each])
            raise
        if pairs:
            self._poll.came()
        if self._queue:
            self._offer_queued()

    def _resolve(self, operation: Operation, result: int) -> None:
        descriptor = operation.descriptor
        descriptor.admitted -= operation.weight
        if self._held:
            self._let_in(descriptor)
        operation.holds.release()
        if self._watch is not None:
            self._watch.ended(operation.token)
        if result == -errno.EINTR:  # whoever waits for it asks again
            self._retried += 1
        future = self._futures.pop(operation.token, None)
        if future is not None and not future.done():
            future.set_result(result)
        elif operation.on_orphan is not None:
            operation.on_orphan(result)

    def _let_in(self, descriptor: Descriptor) -> None:
        """Operations of the descriptor that were held back join the queue."""
        while operation := self._held.take(descriptor, len(self._in_flight) + len(self._queue)):
            self._queue[operation.token] = operation
            self._unoffered = True
            self._flush_soon()

    def _offer_queued(self) -> None:
        self._unoffered = False
        queue = self._queue
        while queue and self._offer(queue[next(iter(queue))]):
            pass
        self._flush_later()

    # ---- cancellation ---------------------------------------------------------

    def abandon(self, operation: Operation, future: asyncio.Future[int]) -> None:
        """Nobody waits for the operation any more."""
        if self._futures.pop(operation.token, None) is not None:
            if not self.loop.is_closed():  # else the end of the driver cancels it
                self.cancel(operation)
        elif operation.on_orphan is not None and not future.cancelled():
            # It completed in the very turn in which its task was cancelled.
            operation.on_orphan(future.result())

    def cancel(self, operation: Operation) -> None:
        """Ask for it to be stopped, at once: data must not come to it that others wait for."""
        token = operation.token
        if self._queue.pop(token, None) is not None or self._held.remove(operation):
            self._cancelled += 1
            self._resolve(operation, -errno.ECANCELED)
        elif token in self._in_flight:
            self._cancelled += 1
            self._cancel_in_flight(operation)

    def _cancel_in_flight(self, operation: Operation) -> None:
        ret = self.engine.cancel(operation.token)
        if ret == -errno.EAGAIN:
            self._flush_engine()
            ret = self.engine.cancel(operation.token)
        if ret == -errno.EAGAIN:
            self._refused_cancels.append(operation)
            self._flush_soon()
        elif ret == -errno.EALREADY:
            # It goes on, on a descriptor that the engine duplicated.
            operation.holds.release()
            operation.holds = Descriptor(-1)
            operation.holds.holders = 1
        self._flush_engine()
        self._flush_later()

    def _cancel_again(self) -> None:
        refused, self._refused_cancels = self._refused_cancels, []
        for operation in refused:
            if operation.token in self._in_flight:
                self._cancel_in_flight(operation)

    def cancel_holders(self, descriptor: Descriptor, *, writes: bool, filename: Filename) -> None:
        """The descriptor is being closed: whoever waits for a read of it is told so."""
        waiting = [*self._queue.values(), *self._held.get(descriptor, {}).values()]
        for operation in [*waiting, *self._in_flight.values()]:
            if operation.descriptor is not descriptor:
                continue
            if not writes and operation.opcode & KIND != READ:
                continue
            future = self._futures.pop(operation.token, None)
            if future is not None and not future.done():
                future.set_exception(
                    ClosedFileError(f"{filename!r} was closed during {_name(operation)}()")
                )
                future.exception()  # perhaps nobody waits, which is no oversight
            self.cancel(operation)

    def drop(self, descriptor: Descriptor) -> None:
        """Close a descriptor whose file was never closed, from whatever thread collects it."""
        if threading.get_ident() != self.thread_id and self.loop.is_running():
            self._dropped.append(descriptor)
            with contextlib.suppress(RuntimeError):  # closed just now
                self.loop.call_soon_threadsafe(self._drop_waiting)
            if not self.alive:
                close_dropped(self._dropped)
        else:
            self._drop(descriptor)

    def _drop_waiting(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._drop(self._dropped.popleft())

    def _drop(self, descriptor: Descriptor) -> None:
        self.forget(descriptor.fd, at_once=descriptor.at_once)
        descriptor.close_when_idle()

    def forget(self, fd: int, *, at_once: bool = False) -> None:
        """The number is, or will be, another file's: the engine keeps nothing made from it."""
        for lane in self.engine.forget_fd(fd):
            close_unasked(lane, at_once=at_once)

    def holds_only_lost_reads(self, descriptor: Descriptor) -> bool:
        """Whether what holds the descriptor are reads that nobody waits for any more."""
        lost = sum(
            operation.holds is descriptor
            and operation.opcode & KIND == READ
            and operation.token not in self._futures
            for operation in self._in_flight.values()
        )
        return lost == descriptor.holders

    # ---- about ------------------------------------------------------------------

    def serves(self, opcode: int) -> bool:
        return bool(self.engine.opcodes >> opcode & 1)

    @property
    def alive(self) -> bool:
        return self._finalizer.alive

    def info(self) -> EngineInfo:
        return self.engine.describe(self.reason)

    def stats(self) -> Stats:
        return Stats(
            inline=self.inline,
            submitted=self._submitted,
            completed=self._submitted - len(self._in_flight),
            cancelled=self._cancelled,
            flushes=self._flushes,
            wakeups=self._wakeups,
            in_flight=len(self._in_flight),
            queued=len(self._queue) + sum(map(len, self._held.values())),
            retried=self._retried,
            strays=self._strays,
            in_threads=self.in_threads,
            demoted=self.demoted,
            leaked=leaked_buffers(),
        )

    def pending(self) -> list[PendingOperation]:
        """What is in flight, or waits for room."""
        operations = [*self._in_flight.values(), *self._queue.values(), *self._held.operations()]
        explain = describe if self._watch is None else self._watch.describe
        return [explain(operation) for operation in operations]

    def end_at_exit(self) -> None:
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            # Its loop still runs in another thread: not ours to touch.
            leak_all(self._in_flight)
        elif self._finalizer.detach():
            # Called by name: by now weakref may have shut its finalizers down.
            end_engine(self.engine, self._in_flight, self._queue, self._held, self._dropped)

    def forget_after_fork(self) -> None:
        """In the child: drop its copies of the parent's descriptors, and nothing else."""
        self.budget = 0  # no inline read either: the file is the parent's
        if self._finalizer.detach():
            self.engine.destroy()

    def close(self) -> None:
        """End the engine now; for a loop that is closed or will not run again."""
        self._finalizer()


def _name(operation: Operation) -> str:
    return OPCODE_NAMES[operation.opcode & KIND]


def raise_for(result: int, filename: Filename) -> int:
    """``result``, or the ``OSError`` that it stands for."""
    if result < 0:
        raise os_error(result, filename)
    return result
