"""Lines that wait to be written, and the thread that writes them behind their callers' backs."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

Overflow = Literal["block", "drop", "raise"]


class Lock(Protocol):
    """As ``threading.RLock()`` makes it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> object: ...
    def __exit__(self, *error: object) -> None: ...


# How long the thread lets lines gather before it writes them: one write for all of them, and
# while it is awake nobody has to wake it.
GATHER_SECONDS = 0.01

# After so many turns with nothing to write it sleeps until it is woken.
IDLE_TURNS = 5

# Between two attempts while writing fails.
RETRY_SECONDS = 1.0

# How long the end of the interpreter waits for the thread, which only a disk that hangs, or a busy
# machine, holds up.
EXIT_SECONDS = 5.0

# How long a caller that waits for room, or the thread, sleeps at most. Without a GIL one thread
# may see another's stores late, and a signal between them may be missed.
BACKSTOP_SECONDS = 0.1
SLEEP_SECONDS = -1 if getattr(sys, "_is_gil_enabled", lambda: True)() else BACKSTOP_SECONDS


class Owner(Protocol):
    """Who writes the lines out: a handler."""

    def _write_behind(self) -> None:
        """Write what waits. Errors are reported, not raised."""
        ...

    def _write_or_lose(self) -> None:
        """Write what waits; what cannot be written is dropped, and reported."""
        ...

    def _after_fork_in_child(self) -> None: ...


class Backlog:
    """Lines in the order in which they were emitted.

    Whoever has a line appends it to ``lines`` (after ``make_room`` if there are ``capacity``
    of them), and then calls ``wake`` if ``asleep``. Whoever writes them holds ``lock``, and
    removes from the front what has been written. List operations are atomic, so that
    appending takes no lock, and works in a signal handler wherever that interrupts.
    """

    __slots__ = (
        "__weakref__",
        "_blocked",
        "_gate",
        "_overflow",
        "_owner",
        "_room",
        "_thread",
        "asleep",
        "capacity",
        "dropped",
        "dropped_since",
        "ended",
        "failing",
        "lines",
        "lock",
        "writing",
    )

    def __init__(self, owner: Owner, capacity: int, overflow: Overflow) -> None:
        self.lines: list[str] = []
        self.capacity = capacity
        #: How many lines were not written, in all.
        self.dropped = 0
        #: How many of them no note in the file tells of.
        self.dropped_since = 0
        #: Writing has failed, and not succeeded since.
        self.failing = False
        #: ``wake`` writes in its caller's thread.
        self.ended = False
        #: Held by whoever writes; reentrant. The owner puts its own in this place.
        self.lock = cast(Lock, threading.RLock())
        self._overflow = overflow
        # Weak, so that a handler which nobody uses any more is not kept by its thread.
        self._owner = weakref.ref(owner)
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self.asleep = True
        self._thread: threading.Thread | None = None
        self._gate = threading.Lock()  # locked; whoever wakes the thread releases it
        self._gate.acquire()
        self._room = threading.Condition(threading.RLock())
        self._blocked = 0
        #: Whoever holds the lock is in the middle of writing.
        self.writing = False

    def make_room(self) -> bool:
        """Whether a line may be appended although there are ``capacity`` of them."""
        if self._overflow == "raise":
            raise queue.Full(f"{self.capacity} log records wait to be written")
        if self._overflow == "block" and self._wait_for_room():
            return True
        self.count_dropped(1)
        return False

    def _wait_for_room(self) -> bool:
        """Write, if nobody else does, or wait; ``False`` when writing fails."""
        owner = self._owner()
        while owner is not None and len(self.lines) >= self.capacity:
            if self.failing:
                return False
            if self.lock.acquire(blocking=False):
                try:
                    if self.writing:  # and it logs something meanwhile
                        return True
                    owner._write_behind()
                finally:
                    self.lock.release()
                continue
            with self._room:
                self._blocked += 1
                try:
                    if len(self.lines) >= self.capacity and not self.failing:
                        self._room.wait(BACKSTOP_SECONDS)
                finally:
                    self._blocked -= 1
        return True

    def remove(self, n: int) -> None:
        """The first ``n`` lines have been written."""
        del self.lines[:n]
        self.wake_blocked()

    def wake_blocked(self) -> None:
        if self._blocked:
            with self._room:
                self._room.notify_all()

    def drop(self, n: int) -> None:
        """The first ``n`` lines cannot be written."""
        self.count_dropped(n)
        self.remove(n)

    def count_dropped(self, n: int) -> None:
        with self._room:
            self.dropped += n
            self.dropped_since += n

    def take_dropped_since(self) -> int:
        """How many no note tells of, of which one is written now."""
        with self._room:
            n, self.dropped_since = self.dropped_since, 0
        return n

    def wake(self) -> None:
        """To be called after an append while ``asleep``."""
        # If end() comes between these two, its asleep = True is the later one.
        self.asleep = False
        if self.ended or not self._start():
            self.asleep = True
            owner = self._owner()
            if owner is not None:
                owner._write_behind()
            return
        self._open_gate()

    def _open_gate(self) -> None:
        with contextlib.suppress(RuntimeError):  # somebody else has just done so
            self._gate.release()

    def _start(self) -> bool:
        """Start the thread; ``False`` when it cannot be: no thread is left, or at exit."""
        if self._thread is not None:
            return True
        with self._room:
            if self._thread is not None:
                return True
            thread = threading.Thread(target=self._run, name="uringfile-logging", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:
                self._thread = None
                return False
        _end_with_worker_process()
        return True

    def _run(self) -> None:
        gate = self._gate
        try:
            while not self.ended and self._owner() is not None:
                self._write_until_idle()
                self.asleep = True
                if self.lines:  # appended while asleep was False
                    self.asleep = False
                else:
                    self._sleep(gate)
        finally:
            self._thread = None
            self.asleep = True
            owner = self._owner()
            if owner is not None and self.lines:
                owner._write_behind()

    def _sleep(self, gate: threading.Lock) -> None:
        while not self.ended:  # end() opens the gate afterwards
            if gate.acquire(timeout=SLEEP_SECONDS) or self.lines:
                return

    def _write_until_idle(self) -> None:
        idle = 0
        pause = GATHER_SECONDS
        while idle < IDLE_TURNS:
            self._gate.acquire(timeout=pause)
            owner = self._owner()
            if owner is None or self.ended:
                return
            idle = 0 if self.lines else idle + 1
            if self.lines:
                owner._write_behind()
            pause = RETRY_SECONDS if self.failing else GATHER_SECONDS
            del owner  # or a sleeping thread would keep it

    def end(self) -> None:
        """The thread ends; from now on ``wake`` writes in its caller's thread."""
        self.ended = True
        self.asleep = True
        self._open_gate()

    def end_at_exit(self) -> None:
        thread = self._thread
        self.end()
        if thread is not None:
            # Stopped with the interpreter while it writes, it would keep the lock from what is
            # logged when modules are torn down. On PyPy it crashes at times.
            thread.join(EXIT_SECONDS)
        owner = self._owner()
        if owner is not None:
            owner._write_or_lose()

    def after_fork_in_child(self) -> None:
        # What waits is the parent's to write. Emptied in place: a signal handler may have
        # forked in the middle of an append.
        self.lines.clear()
        self.dropped = self.dropped_since = 0
        self._reset()
        owner = self._owner()
        if owner is not None:
            owner._after_fork_in_child()


# Every backlog alive, for interpreter exit and for forked children.
_all: weakref.WeakSet[Backlog] = weakref.WeakSet()


def _for_each(action: Callable[[Backlog], None]) -> None:
    while True:
        try:
            backlogs = list(_all)
        except RuntimeError:  # a thread has added one meanwhile
            continue
        for backlog in backlogs:
            action(backlog)
        return


# Runs before logging.shutdown (last in, first out), which then finds nothing left to write.
@atexit.register
def _end_all() -> None:
    _for_each(Backlog.end_at_exit)


def _forget_all() -> None:
    _for_each(Backlog.after_fork_in_child)


os.register_at_fork(after_in_child=_forget_all)

_finalizer: Any = None


def _end_with_worker_process() -> None:
    """A worker of multiprocessing ends with os._exit: atexit does nothing there."""
    global _finalizer
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return
    if _finalizer is None or not _finalizer.still_active():
        from multiprocessing.util import Finalize

        # After the finalizers of others, which may log something.
        _finalizer = Finalize(None, _end_all, exitpriority=-100)
