"""Group commit: records gather while a write is in flight, and go out as the next one.

A batch is acknowledged as a whole, in order, behind the write (and sync) that covers it. The
first error is final. Where the file is to change (rotation), a batch is sealed: what it holds
goes to the old file, what comes later to the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections import deque

from uringfile._background import Background
from uringfile._driver import Driver
from uringfile._logbatch import Batch, Queued, Waiter, fail_all, wake_all
from uringfile._logfile import Begun, LogFile
from uringfile._logopen import open_log, rotate_log
from uringfile._logpolicy import Policy, Shape
from uringfile._open import in_thread
from uringfile._rotation import tidy

# How often the path is looked at: has somebody moved the file away?
LOOK_SECONDS = 1.0

# How many commits overlap before it is measured again whether that pays.
OVERLAPS = 64

ROTATE = "rotate"
REOPEN = "reopen"


class GroupCommit:
    """From the acceptance of a record to its acknowledgement."""

    _file: LogFile
    _driver: Driver
    _batch: Batch
    _data: bytearray
    #: The offset behind the last record that was accepted.
    _end = 0

    def __init__(self, name: str | bytes, policy: Policy, shape: Shape) -> None:
        self.name = name
        self._policy = policy
        self._shape = shape
        self._closed = False
        self._error: BaseException | None = None
        #: The offset behind the last record that is in the file.
        self.written = 0
        #: The offset behind the last record that is known to be on the disk.
        self.durable = 0
        # Up to which offset append() has nothing else to think of; -1: it always has.
        self._limit = -1
        self._sealed: deque[Batch] = deque()
        self._flying: Batch | None = None
        self._room: deque[Queued] = deque()
        self._committing = False
        self._overlaps = 0  # how many commits may overlap before it is measured again
        self._syncing = False
        self._sync_waiters: list[Waiter] = []
        self._sync_timer: asyncio.TimerHandle | None = None
        self._rotation_timer: asyncio.TimerHandle | None = None
        self._looked = 0.0
        self._tidying: Background[None] | None = None

    def _begin(self, file: LogFile) -> None:
        self._file, self._driver = file, file.driver
        self._looked = self._driver.loop.time()
        self.written = self.durable = file.opened_at
        self._new_batch(file.opened_at)
        self._arm_rotation()
        self._tidy()

    def _new_waiter(self) -> Waiter:
        return self._driver.loop.create_future()

    # ---- gathering --------------------------------------------------------------------

    def _new_batch(self, start: int) -> None:
        self._batch = Batch(self._driver.loop, start)
        self._data = self._batch.data
        self._end = start

    def _place(self, size: int) -> int | None:
        """The offset behind a record of that size, which comes next; ``None``: no room."""
        if self._end and self._end + size > self._policy.rotate_size:
            self._seal(ROTATE)
        buffered = self._buffered()
        room = self._policy.max_buffered - buffered
        if self._room or (size > room and buffered):
            return None
        self._start()
        if not self._closed:
            self._limit = min(self._end + max(room, size), self._policy.rotate_size)
        return self._end + size

    def _buffered(self) -> int:
        size = sum([len(batch.data) for batch in self._sealed]) + len(self._data)
        return size + (len(self._flying.data) if self._flying is not None else 0)

    def _give_room(self) -> None:
        """Records that wait for room take their places, in the order of their calls."""
        room, self._room = self._room, deque()
        while room:
            queued = room[0]
            if not queued.waiter.done():  # not cancelled
                end = self._place(len(queued.record))
                if end is None:
                    break
                self._data += queued.record
                self._end = queued.end = end
                queued.batch = self._batch
                self._batch.waiters.append(queued.waiter)
            room.popleft()
        self._room = room

    def _seal(self, then: str) -> None:
        """What comes from now on goes to another file."""
        self._batch.then = then
        self._sealed.append(self._batch)
        self._new_batch(0)
        self._limit = -1
        self._start()

    def _open_limit(self) -> None:
        """A batch has been written: there is room again."""
        free = self._error is None and not (self._closed or self._room or self._sealed)
        room = self.written + self._policy.max_buffered
        self._limit = min(room, self._policy.rotate_size) if free else -1

    async def _drain(self) -> None:
        """Until all that is accepted, or waits for room, is written."""
        if not self._committing:
            return
        waiter = self._new_waiter()
        if self._room:
            self._room.append(Queued(b"", waiter))
        else:
            self._batch.waiters.append(waiter)
        await waiter

    # ---- writing ----------------------------------------------------------------------

    def _start(self) -> None:
        if not self._committing:
            self._committing = True
            # At the end of the turn: what all its tasks append is one batch.
            self._driver.loop.call_soon(self._run)

    def _run(self) -> None:
        Background(self._driver.loop, self._commit())

    async def _commit(self) -> None:
        """Write batches until there is none."""
        try:
            batch, begun = self._take(), None
            while batch is not None:
                self._flying = batch
                start = time.perf_counter()
                await self._write(batch, begun)
                written = time.perf_counter()
                if self._driver.loop.time() - self._looked > LOOK_SECONDS:
                    with contextlib.suppress(OSError):  # it is asked again
                        await self._look()  # before those go on who have waited
                self._flying = None
                following, begun = self._overlap(batch)
                self._open_limit()
                batch.settle()
                if following is None:
                    self._measure(written - start, time.perf_counter() - written)
                    if batch.then is not None:
                        await self._change_file(batch.then)
                    if self._room:
                        self._give_room()
                        self._open_limit()
                    if self._error is None:
                        following = self._take()
                batch = following
            if self._error is not None:
                await self._end_all(self._error)
        except BaseException as error:
            self._set_error(error)
            await self._end_all(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._committing = False
            self._limit = -1

    def _overlap(self, batch: Batch) -> tuple[Batch | None, Begun | None]:
        """Begin the next write before those go on who have waited for this one.

        While they run, it is under way: two groups of tasks take turns. Worth it where a
        write takes less time than they do; where it takes more, one write for all is better.
        """
        special = batch.then or self._sealed or self._room or self._error is not None
        if special or not self._overlaps:
            return None, None
        self._overlaps -= 1
        if not self._data:
            batch.settle_half()
        if not self._data or self._sealed:
            return None, None
        following = self._take()
        assert following is not None
        self._flying = following
        return following, self._file.begin(following.data, following.start)

    def _measure(self, write: float, resume: float) -> None:
        """Seconds that the write took, and those who waited; now and then anew."""
        if not self._overlaps and write < resume:
            self._overlaps = OVERLAPS

    def _take(self) -> Batch | None:
        if self._sealed:
            return self._sealed.popleft()
        batch = self._batch
        if not batch.data and not batch.awaited:
            return None
        self._new_batch(self._end)
        return batch

    async def _write(self, batch: Batch, begun: Begun | None) -> None:
        if not batch.data:
            return
        await self._file.write(batch.data, batch.start, begun)
        self.written = batch.start + len(batch.data)
        if self._shape.dsync:
            self.durable = self.written
        elif self._policy.sync == "interval" and self._sync_timer is None:
            self._sync_timer = self._driver.loop.call_later(
                self._policy.interval, self._on_interval
            )

    # ---- syncing ----------------------------------------------------------------------

    def _on_interval(self) -> None:
        self._sync_timer = None
        if self._error is None and self.durable < self.written:
            self._start_sync()

    async def _sync_once(self) -> None:
        """Until a sync that begins from now on is complete."""
        waiter = self._new_waiter()
        self._sync_waiters.append(waiter)
        self._start_sync()
        await waiter

    def _start_sync(self) -> None:
        if not self._syncing:
            self._syncing = True
            Background(self._driver.loop, self._sync_loop())

    async def _sync_loop(self) -> None:
        """One sync at a time; who comes while it runs waits for the next."""
        waiters: list[Waiter] = []
        try:
            while True:
                waiters, self._sync_waiters = self._sync_waiters, []
                file, written = self._file, self.written
                await file.sync()
                if file is self._file:
                    self.durable = max(self.durable, written)
                wake_all(waiters)
                if not self._sync_waiters:
                    break
        except BaseException as error:
            self._sync_waiters += waiters
            self._set_error(error)
            if not self._committing:  # otherwise the end comes when the write is complete
                await self._end_all(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._syncing = False

    # ---- errors -----------------------------------------------------------------------

    def _set_error(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._limit = -1

    async def _end_all(self, cause: BaseException) -> None:
        """No record goes on from here: cut what was not acknowledged, then tell all."""
        if isinstance(cause, GeneratorExit):  # the loop is gone, nobody can be told
            return
        if isinstance(self._error, Exception):
            with contextlib.suppress(Exception):  # the first error is the one to tell
                await self._file.cut(self.written)
        batches = [*self._sealed, self._batch]
        if self._flying is not None:
            batches.insert(0, self._flying)
        waiters = [queued.waiter for queued in self._room] + self._sync_waiters
        self._forget_records()
        for batch in batches:
            batch.fail(self._again)
        fail_all(waiters, self._again)

    def _forget_records(self) -> None:
        self._flying = None
        self._sealed.clear()
        self._room.clear()
        self._sync_waiters = []
        self._new_batch(self.written)
        self._limit = -1

    def _again(self) -> Exception:
        """The error that ended the log, anew: an exception that is raised twice grows."""
        error = self._error
        if isinstance(error, OSError):
            return OSError(error.errno or errno.EIO, error.strerror, self.name)
        if isinstance(error, Exception):
            return error
        return RuntimeError(f"{self.name!r} was ended by {error!r}")

    # ---- another file -----------------------------------------------------------------

    def _look_at_once(self) -> None:
        """Has the file been moved away? Asked when no record has a place in it yet."""
        now = self._driver.loop.time()
        if self._file.local and now - self._looked > LOOK_SECONDS:
            self._looked = now
            with contextlib.suppress(OSError):
                if not self._file.is_at_path():
                    self._seal(REOPEN)

    async def _look(self) -> None:
        file = self._file
        self._looked = self._driver.loop.time()
        if file.local:
            there = file.is_at_path()
        else:
            there = await in_thread(self._driver, file.descriptor, file.is_at_path)
        if not there and not (self._sealed or self._closed):
            self._seal(REOPEN)

    def _on_rotation_time(self) -> None:
        if self._error is None and not self._closed:
            if self._end:
                self._seal(ROTATE)
            self._arm_rotation()

    def _arm_rotation(self) -> None:
        if self._rotation_timer is not None:
            self._rotation_timer.cancel()
        if self._policy.rotate_seconds is not None and not self._closed:
            self._rotation_timer = self._driver.loop.call_later(
                self._policy.rotate_seconds, self._on_rotation_time
            )

    async def _change_file(self, then: str) -> None:
        """The old file is complete and durable before the new one gets its first record."""
        old = self._file
        there = await in_thread(self._driver, old.descriptor, old.is_at_path)
        if there and then == REOPEN:
            self._shift(self.written)  # nothing has changed
            return
        await old.trim(self.written)
        await old.sync()
        if there:
            new = await rotate_log(old)
        else:
            new = await open_log(self._driver, old.path, self._shape)
        self._file = new
        end, self.written = self.written, new.opened_at
        self.durable = new.opened_at
        self._shift(new.opened_at)
        await old.close(end)
        self._arm_rotation()
        self._tidy()

    def _shift(self, start: int) -> None:
        """The file that comes next is not empty: its records go behind what is there."""
        for batch in [*self._sealed, self._batch]:
            batch.start += start
            batch.shift += start
            if batch.then is not None:
                return
        end = self._end + start
        if self._batch.awaited or self._data:
            self._sealed.append(self._batch)  # the offsets of what comes now are right
        self._new_batch(end)

    def _tidy(self) -> None:
        """Delete and compress rotated files in the background, one after another."""
        if self._policy.compress or self._policy.keep is not None:
            work = self._tidy_up(self._file, self._tidying)
            self._tidying = Background(self._driver.loop, work)

    async def _tidy_up(self, file: LogFile, before: Background[None] | None) -> None:
        if before is not None:
            with contextlib.suppress(Exception):  # what it has left is done now
                await before.wait()
        keep, packed = self._policy.keep, self._policy.compress
        await in_thread(self._driver, file.descriptor, tidy, file.path, keep, packed)
