"""One simulated process: a loop, a driver, an engine, files, and those who use them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import shutil
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any
from unittest import mock

from simulation.actor import Actor, Call, Finding
from simulation.kernel import SimulatedEngine
from simulation.loop import Clock, SimulatedLoop
from simulation.operations import ERRORS, Faults
from uringfile import (
    _batch,
    _commit,
    _ending,
    _fd,
    _file,
    _gather,
    _log,
    _logopen,
    _manyfile,
    _openfile,
    _poll,
    _turns,
)
from uringfile._driver import Driver
from uringfile._engine import CLOSE, FDATASYNC
from uringfile._fd import Descriptor
from uringfile._inflight import Operation
from uringfile._open import in_thread

# Calls in threads that may fail in the simulation: those that do nothing then.
_FALLIBLE = (_logopen.open_locked, _logopen.rotate)

# Steps in which what is under way must have ended when nothing new is called.
MOST_TO_END = 200_000


class World:
    def __init__(self, seed: int, steps: int, kinds: list[Callable[[World, int], Actor]]) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.limit = steps
        self.steps = 0
        self.now = 1000.0
        self.hash = 0
        self.events: deque[tuple[Any, ...]] = deque(maxlen=4000)
        self.failure: Finding | None = None
        self.draining = False
        self.refused = 0  # system calls in threads
        self.closing: list[int] = []  # descriptors, each by a thread
        self.ending = False
        self.folder = ""
        self.busy_rate = rng.choice([0.2, 0.5, 0.9])
        self.kernel_rate = rng.choice([0.3, 0.5, 0.7])
        self.most_calls = rng.choice([2, 6, 16, 40])
        self.cancel_rate = rng.choice([0.0, 0.01, 0.1])
        self.local_rate = rng.choice([0.0, 0.5, 1.0, 1.0])
        self.faults = Faults(
            errors=rng.choice([0.0, 0.0, 0.01, 0.1]),
            short=rng.choice([0.0, 0.1, 0.5]),
            full=rng.choice([0.0, 0.0, 0.1]),
            flush=rng.choice([0.0, 0.0, 0.1]),
            hang=rng.choice([0.0, 0.0, 0.02]),
            cached=rng.choice([0.0, 0.3, 0.9]),
            at_once=rng.choice([0.0, 0.1, 0.7]),
            reap_max=rng.choice([1, 2, 256]),
        )
        entries = rng.choice([1, 2, 4, 16])
        opcodes = 0
        lacking = rng.random() < 0.3
        for opcode in ERRORS:
            if opcode <= FDATASYNC or not lacking or rng.randrange(2):
                opcodes |= 1 << opcode
        self.posix = rng.random() < 0.35
        self.engine = SimulatedEngine(
            rng,
            self.faults,
            self.fail,
            posix=self.posix,
            entries=entries,
            capacity=entries * rng.choice([1, 2, 8]),
            opcodes=opcodes,
        )
        self.engine.worker_share = rng.choice([1, 3, 1 << 30])
        self.engine.log = self.note
        self.engine.on_waiting = self._while_the_loop_ends
        self.loop = SimulatedLoop(self, {os.open: self.engine.open})
        self.kinds = kinds
        self.actors: list[Actor] = []
        self.over: asyncio.Future[None]

    # ---- what happened ------------------------------------------------------------------

    def note(self, *event: Any) -> None:
        self.events.append(event)
        self.hash = zlib.crc32(repr(event).encode(), self.hash)

    def fail(self, what: str) -> Finding:
        """To be raised; found also where the library swallows it."""
        if self.failure is None:
            self.failure = Finding(what)
        return self.failure

    async def guard(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        call.begun = True
        try:
            await work
        except asyncio.CancelledError:
            if not call.cancelled and not self.ending:
                raise self.fail(f"{call.name} was cancelled by nobody") from None
        except (Finding, GeneratorExit):
            raise
        except BaseException as error:
            raise self.fail(f"{call.name} raised {error!r}") from error
        finally:
            call.actor.calls.remove(call)
            self.note("end", call.name)

    # ---- one turn of the loop ----------------------------------------------------------

    def turn(self, timeout: float | None) -> set[int]:
        if self.failure is not None:
            raise self.failure
        if not self.actors:
            return set()
        rng = self.rng
        self.now += 1e-5
        idle = timeout is None or timeout > 0
        if (idle and not self.engine.readable) or rng.random() < self.busy_rate:
            self.step(timeout if idle else 0.0)
        if self.engine.readable:
            return {self.engine.eventfd}
        if rng.random() < 0.001:
            return {self.engine.eventfd}  # a wake-up may be spurious
        return set()

    def step(self, timeout: float | None) -> None:
        """One thing happens, of those that can."""
        self.steps += 1
        self._check()
        rng = self.rng
        if not self.draining:
            if self.steps >= self.limit:
                self._start_to_drain()
                return
            if rng.random() >= self.kernel_rate:
                actor = rng.choice(self.actors)
                if self.cancel_rate and rng.random() < self.cancel_rate:
                    actor.cancel_one()
                else:
                    actor.act()
                return
        elif self.steps > self.limit + MOST_TO_END:
            raise self.fail("it does not end")
        if timeout and rng.random() < 0.02:
            self.now += timeout
        elif not self._kernel_step():
            if timeout:
                self.now += timeout
            elif timeout is None:
                if self.draining:
                    raise self.fail("nothing is left that could happen, and somebody waits")
                rng.choice(self.actors).act()

    def _kernel_step(self) -> bool:
        """One operation or one thread goes on; ``False`` if there is none."""
        rng = self.rng
        jobs = self.loop.jobs
        if self.closing and rng.random() < 0.3:
            os.close(self.closing.pop(rng.randrange(len(self.closing))))
            return True
        pending = self.engine.pending_ops()
        if jobs and (not pending or rng.random() < 0.3):
            job = rng.choice(jobs)
            if job.outcome is None:
                job.run(self._refuse)
                self.note("job", type(job.outcome[1]) if job.outcome else None)
                if rng.random() < 0.5:
                    return True
            jobs.remove(job)
            job.deliver()
            return True
        if not pending:
            return False
        op = rng.choice(pending)
        if op.result is None:
            self.engine.perform(op)
            if rng.random() < 0.3:
                return True
        self.engine.finish(op)
        self.note("finish", op.token, op.shown)
        return True

    def _refuse(self, function: Callable[..., Any]) -> Exception | None:
        """The error of a system call in a thread."""
        if function in _FALLIBLE and self.rng.random() < self.faults.errors:
            self.refused += 1
            return OSError(errno.EIO, os.strerror(errno.EIO))
        return None

    def _close_in_thread(self, fd: int) -> int:
        if self.rng.random() < 0.1:
            return -errno.EAGAIN
        self.closing.append(fd)
        return 0

    def _start_to_drain(self) -> None:
        self.draining = True
        self._stop_hanging()
        self.note("drain")
        self.over.set_result(None)

    def _stop_hanging(self) -> None:
        self.faults.hang = 0.0
        for op in self.engine.ops.values():
            op.hangs = False

    def _while_the_loop_ends(self) -> None:
        self.now += 0.01
        self.loop.jobs.clear()  # nobody hears of them any more
        for _ in range(self.rng.randrange(16)):
            self._kernel_step()

    # ---- what holds at any time ----------------------------------------------------------

    def _check(self) -> None:
        engine, driver = self.engine, self.driver
        in_flight = driver._in_flight
        if len(in_flight) != len(engine.ops) + len(engine.done):
            raise self.fail("the in-flight table is not what is in flight")
        if engine.accepted != engine.finished + len(in_flight):
            raise self.fail("an accepted operation has got lost")
        if driver._strays:
            raise self.fail("a completion came twice")
        if self.steps & 15:
            return
        tokens = {*engine.ops, *(token for token, _ in engine.done)}
        if in_flight.keys() != tokens:
            raise self.fail("the in-flight table has other operations than the engine")
        held: dict[int, int] = {}
        descriptors: dict[int, Descriptor] = {}
        operation: Operation
        held_back = {operation.token: operation for operation in driver._held.operations()}
        for operation in [*in_flight.values(), *driver._queue.values(), *held_back.values()]:
            descriptor = operation.holds
            held[id(descriptor)] = held.get(id(descriptor), 0) + 1
            descriptors[id(descriptor)] = descriptor
        for key, n in held.items():
            if descriptors[key].holders < n and descriptors[key].fd != -100:
                raise self.fail(
                    f"{n} operations hold a descriptor, it says {descriptors[key].holders}"
                )
        if not driver._futures.keys() <= {*in_flight, *driver._queue, *held_back}:
            raise self.fail("somebody waits for an operation that is neither queued nor in flight")
        for op in engine.ops.values():
            if op.flushed and op.opcode != CLOSE:
                engine.check(op)
        for actor in self.actors:
            actor.check()

    # ---- a life ---------------------------------------------------------------------------

    def run(self) -> None:
        """Raises ``Finding``."""
        self.folder = tempfile.mkdtemp(prefix="simulation", dir=_memory())
        before = _open_fds()
        unraisable: list[Any] = []
        hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
        collecting = gc.isenabled()
        gc.disable()  # at moments of its own it would not be the same each time
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    with self._in_place_of_the_system():
                        self._run()
                except Finding as failure:
                    traceback.clear_frames(failure.__traceback__)
                    raise
                except Exception as error:
                    raise self.fail(f"raised {error!r}") from error
                finally:
                    self._forget()
            for what in unraisable:
                raise self.fail(f"unraisable: {what.exc_value!r} in {what.object!r}")
        finally:
            sys.unraisablehook = hook
            if collecting:
                gc.enable()
            shutil.rmtree(self.folder, ignore_errors=True)
        while self.closing:
            os.close(self.closing.pop())
        self._check_descriptors(_open_fds() - before)

    def _forget(self) -> None:
        """So that a file that is open still is collected now."""
        while self.actors:
            self.actors.pop().forget()
        del self.driver, self.loop
        for _ in range(4):  # what a finalizer has let go of comes next
            gc.collect()

    def _check_descriptors(self, left: set[str]) -> None:
        if self.engine.ops:  # it did not stop: its memory and its descriptor are kept for ever
            for op in self.engine.ops.values():
                self.engine.check(op)
            for fd in left:
                os.close(int(fd.partition(":")[0]))
        elif left:
            raise self.fail(f"left open: {sorted(left)}")

    def _run(self) -> None:
        loop = self.loop
        loop.set_exception_handler(self._on_exception)
        ends_early = self.rng.random() < 0.2
        self.driver = Driver(loop, self.engine, None)
        try:
            main = loop.create_task(self._main(ends_early))
            loop.run_until_complete(main)
            self.ending = True
            if self.failure is None:
                self._end_loop()
        finally:
            self.ending = True
            loop.close()
            self.driver.close()
        if self.failure is not None:
            raise self.failure
        if not self.engine.destroyed:
            raise self.fail("the loop is closed, and its engine is not destroyed")
        for actor in self.actors:
            actor.check_at_end()

    async def _main(self, ends_early: bool) -> None:
        self.over = self.loop.create_future()
        self.actors = [kind(self, i) for i, kind in enumerate(self.kinds)]
        await self.over
        if ends_early:
            return
        for actor in self.actors:
            await actor.finish()
        while any(actor.calls for actor in self.actors):
            await asyncio.sleep(0.01)

    def _end_loop(self) -> None:
        """As asyncio.run does."""
        loop = self.loop
        loop.run_until_complete(self._cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sorted(tasks, key=lambda task: int(task.get_name()[5:])):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Finding):
            self.fail(f"unhandled: {context['message']} {error!r}").__cause__ = error

    # ---- instead of the system -------------------------------------------------------------

    @contextlib.contextmanager
    def _in_place_of_the_system(self) -> Iterator[None]:
        clock = Clock(self)
        rng = self.rng
        replaced = [
            *[(module, "time", clock) for module in (_poll, _commit, _ending, _logopen)],
            (_openfile, "running_driver", lambda engine: self.driver),
            (_log, "running_driver", lambda engine: self.driver),
            (_openfile, "open_cached", self._open_cached),
            (_openfile, "is_local", self._is_local),
            (_logopen, "is_local", self._is_local),
            (_fd, "close_in_thread", self._close_in_thread),
            (_batch, "read_many_nowait", self.engine.read_many_nowait),
            # Smaller, so that a short simulation gets to see both sides of them.
            (_turns, "TURN_BUDGET", rng.choice([2, 16, 256])),
            (_file, "_INLINE_PIECE", rng.choice([64, 1 << 20])),
            (_file, "_UNSIZED_PIECE", rng.choice([64, 1 << 16])),
            (_manyfile, "_SHORT", rng.choice([128, 1 << 16])),
            (_manyfile, "_MOST_PARTS", rng.choice([2, 512])),
            (_gather, "SHORT", rng.choice([64, 1 << 16])),
            (_file, "SHORT", rng.choice([64, 1 << 16])),
            (_gather, "_ENOUGH", rng.choice([2, 16])),
            (_gather, "_ENOUGH_BYTES", rng.choice([256, 1 << 18])),
            (_gather, "_MOST_IN_FLIGHT", rng.choice([1, 4])),
        ]
        with contextlib.ExitStack() as stack:
            for module, name, value in replaced:
                stack.enter_context(mock.patch.object(module, name, value))
            yield

    def _open_cached(self, driver: Driver, path: str | bytes, flags: int) -> int:
        if flags & (os.O_CREAT | os.O_TRUNC | os.O_EXCL) or self.rng.random() < 0.5:
            return -1
        if driver.budget <= 0 or self.local_rate < 1.0:
            return -1
        driver.budget -= 2
        try:
            return self.engine.open(path, flags)
        except OSError:
            return -1

    async def _is_local(self, driver: Driver, descriptor: Descriptor, identity: Any) -> bool:
        local = self.rng.random() < self.local_rate
        if self.rng.random() < 0.5:
            return local
        found: bool = await in_thread(driver, descriptor, lambda fd: local, descriptor.fd)
        return found


def _open_fds() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the list itself
            found.add(f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def _memory() -> str | None:
    """Where files are not on a disk, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
