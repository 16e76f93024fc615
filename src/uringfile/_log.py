"""LogWriter: an append-only file whose records are durable when they are acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Generator
from typing import Any

from uringfile._background import Background
from uringfile._blocks import as_copy
from uringfile._commit import GroupCommit
from uringfile._driver import runs_here
from uringfile._engine import EngineName
from uringfile._errors import ClosedFileError
from uringfile._fd import refuse_copy
from uringfile._frames import crc32c, frame
from uringfile._logbatch import Queued
from uringfile._logdirect import STEP
from uringfile._logopen import open_log
from uringfile._logpolicy import Policy, Shape, SyncPolicy, TornLine
from uringfile._loop import running_driver
from uringfile._open import NO_DESCRIPTOR, in_thread

Record = bytes | bytearray | memoryview | str


class LogWriter(GroupCommit):
    """An append-only file with one owner, for any number of tasks.

    Records land whole, one behind another, in call order, each exactly once. Those that
    arrive while a write is in flight gather, and go out as one write and one sync.

    ``sync`` says when ``append`` returns: ``"always"``, when the record is on the disk (it
    is written with O_DSYNC, which is a write and an fdatasync in one); ``"interval"`` and
    ``"never"``, when it is written, that is safe from the end of this process but not from
    that of the machine. With ``"interval"`` an fdatasync follows within ``interval`` seconds.

    ``max_buffered``: bytes of records that may be accepted and not written yet.
    ``preallocate``: bytes of disk that are reserved ahead, in such steps; a log that is
    synced often gets faster by it. The reserved part reads as zeros: ``close`` cuts it, and
    after a crash the next open does.
    ``direct=True``: written with O_DIRECT in whole blocks, the last of them again until it
    is full, into blocks that are reserved and filled with zeros ahead (``preallocate``, 1 MiB
    by default). Worth it only where it measures faster, with ``sync="always"`` on a local
    disk; see ``python -m benchmarks.log --dir DIR``. There, on ext4, beside a loop of write
    and fdatasync, 256 tasks were 65 times as fast with it, 62 with ``preallocate`` alone and
    55 with neither; one task 1.13 times, 1.08 and 0.79; on a disk that others kept busy it
    gave nothing. In return each byte goes to the disk twice, where records are small far
    more often, and who reads the log finds it less often in the page cache. Opening raises
    ``OSError`` (EINVAL) where the file system has no O_DIRECT.
    ``framed=True``: each record gets its length and CRC-32C (needs ``uringfile[framed]``);
    when such a log is opened, what no whole record is at its end is cut, as ``recover`` does
    it (``CorruptLogError`` for damage that comes from no crash). Otherwise records are
    written verbatim, the caller includes the newline, and a ``str`` is UTF-8. If such a log
    does not end with a newline when it is opened, then by ``torn_line``: ``"newline"`` ends
    that line, ``"cut"`` removes it, ``"keep"`` appends to it. Zeros at the end are cut in
    any case but ``"keep"`` without ``preallocate``.
    ``mode``: permissions of a new file.

    Rotation: when the next record would end behind ``rotate_size`` bytes, or the file is
    older than ``rotate_seconds`` (since it was opened) and not empty, it is renamed to
    PATH.000001 (the next time .000002 and so on) and a new one takes its place. ``keep``
    is how many of them are kept, all by default; ``compress=True`` packs them with gzip,
    off the loop. A file that somebody else moves away or deletes (logrotate without
    ``copytruncate``) is noticed within a second, and a new one is made; ``reopen`` does so
    at once. Offsets begin at 0 in each file.

    Open it with ``async with``, ``await LogWriter(...)`` or ``open()``. It belongs to the
    event loop in which it was opened. Opening takes an flock(2) on the file:
    ``BlockingIOError`` if it has another owner for half a second (that of a process that
    was killed lasts until the kernel has ended its writes).

    The first ``OSError`` of a write, a sync or a rotation is final: all who wait and all
    later calls raise the same, and the tail that was not acknowledged is cut off, as far
    as the disk lets. A kernel that has lost data says so once, and success thereafter.
    To go on, make a new ``LogWriter``.

    Cancelling an ``append`` releases the caller; its record still lands, in its place
    (unless it was waiting for room).
    """

    __reduce_ex__ = refuse_copy

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        sync: SyncPolicy = "always",
        interval: float = 1.0,
        max_buffered: int = 2 << 20,
        preallocate: int = 0,
        direct: bool = False,
        framed: bool = False,
        torn_line: TornLine = "newline",
        mode: int = 0o644,
        rotate_size: int | None = None,
        rotate_seconds: float | None = None,
        keep: int | None = None,
        compress: bool = False,
        engine: EngineName | None = None,
    ) -> None:
        _one_of("sync", sync, ("always", "interval", "never"))
        _one_of("torn_line", torn_line, ("newline", "cut", "keep"))
        _positive(interval=interval, max_buffered=max_buffered)
        _positive(rotate_size=rotate_size, rotate_seconds=rotate_seconds)
        if preallocate < 0 or (keep is not None and keep < 0):
            raise ValueError("preallocate and keep must not be negative")
        if framed:
            crc32c()  # its ImportError now, not at the first record
        super().__init__(
            os.fspath(path),
            Policy(
                sync=sync,
                interval=interval,
                max_buffered=max_buffered,
                rotate_size=rotate_size or sys.maxsize,
                rotate_seconds=rotate_seconds,
                keep=keep,
                compress=compress,
            ),
            Shape(
                *(mode, sync == "always", framed, torn_line),
                *(preallocate or (STEP if direct else 0), direct),
            ),
        )
        self._path = os.path.abspath(os.fsdecode(self.name))
        self._frame: Callable[[Any], bytes] | None = frame if framed else None
        self._engine = engine
        self._is_open = False
        self._opening = asyncio.Lock()
        self._closing: Background[None] | None = None

    # ---- appending ------------------------------------------------------------------

    async def append(self, record: Record) -> int:
        """Append one record: the offset behind it, when ``sync`` is fulfilled for it.

        Waits for room when ``max_buffered`` is reached. Raises ``ClosedFileError`` (a
        ``ValueError``) when the log is not open, ``RuntimeError`` in a foreign event loop,
        ``TypeError``, and the ``OSError`` that ended the log.
        """
        if type(record) is not bytes or self._frame is not None:
            record = self._as_bytes(record)
        end = self._end + len(record)
        if end > self._limit or not runs_here(self._driver):
            place = self._admit(len(record))
            if place is None:
                return await self._append_later(record)
            end = place
        batch = self._batch
        self._data += record
        self._end = end
        while not batch.settled:
            await batch.acknowledgement
        if batch.failed:
            raise self._again()
        return end + batch.shift

    def append_nowait(self, record: Record) -> int:
        """Append one record without waiting: the offset at which it will end.

        It is written soon; ``drain`` or ``sync`` wait for that, and an error is raised by
        the next call. Raises ``BufferError`` when ``max_buffered`` is reached (await
        ``drain`` then), and what ``append`` raises.
        """
        if type(record) is not bytes or self._frame is not None:
            record = self._as_bytes(record)
        end = self._end + len(record)
        if end > self._limit or not runs_here(self._driver):
            place = self._admit(len(record))
            if place is None:
                raise BufferError(
                    f"{self._policy.max_buffered} bytes wait to be written to {self.name!r}: "
                    "await drain()"
                )
            end = place
        self._data += record
        self._end = end
        return end

    def _as_bytes(self, record: Record) -> bytes:
        if isinstance(record, str):
            record = record.encode()
        elif type(record) is not bytes:
            record = as_copy(record)
        return record if self._frame is None else self._frame(record)

    def _admit(self, size: int) -> int | None:
        """The place behind a record of that size, ``None`` if there is no room for it."""
        self._check()
        if not self._committing:
            self._look_at_once()
        return self._place(size)

    async def _append_later(self, record: bytes) -> int:
        queued = Queued(record, self._new_waiter())
        self._room.append(queued)
        self._limit = -1  # nobody overtakes it
        await queued.waiter
        assert queued.batch is not None
        return queued.end + queued.batch.shift

    # ---- waiting --------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until every record so far is written (with ``sync="always"``: durable)."""
        self._check()
        await self._drain()

    async def sync(self) -> None:
        """Wait until every record so far is on the disk."""
        self._check()
        await self._drain()
        if self.durable < self.written:
            self._check()
            await self._sync_once()

    async def reopen(self) -> None:
        """If the path names another file by now, or none, go on there.

        Then every record so far is in the old file, and durable, when this returns. For a
        signal handler, after the file was moved away.
        """
        self._check()
        await self._look()
        await self.drain()

    # ---- open and close -------------------------------------------------------------

    async def open(self) -> int | None:
        """Open the log: its descriptor, or ``None`` when it is open already.

        Its name and what is in it are durable then. Raises what ``open`` raises,
        ``BlockingIOError`` if the log has another owner, ``CorruptLogError`` if a framed log
        is damaged, ``ClosedFileError`` after ``close``, also when that is called meanwhile.
        Cancelled, it leaves nothing open; the file it may have made, or may make a moment later.
        """
        async with self._opening:
            if self._closed:
                raise ClosedFileError(f"{self.name!r} was closed; make a new object to open it")
            if self._is_open:
                return None
            driver = running_driver(self._engine)
            path = await in_thread(driver, NO_DESCRIPTOR, os.path.realpath, self._path)
            file = await open_log(driver, path, self._shape)
            if self._closed:  # meanwhile
                await file.close(None)
                raise ClosedFileError(f"{self.name!r} was closed during open()")
            self._begin(file)
            self._is_open = True
            _open_logs.add(self)
            return self._file.descriptor.fd

    async def close(self) -> None:
        """Write what is accepted, sync it (unless ``sync="never"``), and close.

        Raises the error that ended the log, or those of its last steps. Cancelled, it goes
        on. A second call does nothing.
        """
        if self._closing is not None:
            if not self._closing.done:
                await self._closing.wait()
        elif not self._is_open or self._file.descriptor.fd < 0:
            self._closed = True  # in a forked child there is nothing to write
        elif not runs_here(self._driver):
            raise RuntimeError(f"{self.name!r} belongs to a different event loop")
        else:
            self._closed = True
            self._limit = -1
            self._closing = Background(self._driver.loop, self._close())
            await self._closing.wait()

    async def _close(self) -> None:
        failure: Exception | None = None
        try:
            while self._committing:  # the change to another file may follow what is drained
                await self._drain()
            if self._policy.sync != "never" and self.durable < self.written:
                await self._sync_once()
        except Exception as error:
            failure = error
        if self._error is not None:
            failure = self._again()
        for timer in (self._sync_timer, self._rotation_timer):
            if timer is not None:
                timer.cancel()
        self._is_open = False
        try:
            await self._file.close(self.written if self._error is None else None)
            if self._tidying is not None:
                await self._tidying.wait()
        except Exception as error:
            failure = failure or error
        if failure is not None:
            raise failure

    def _check(self) -> None:
        """The log is open, here, and no error has ended it."""
        if self._closed or not self._is_open:
            state = "closed" if self._closed else "not open"
            raise ClosedFileError(f"I/O operation on a log that is {state}: {self.name!r}")
        if self._file.descriptor.fd < 0:  # first of all: such a process has no running loop
            raise RuntimeError(f"{self.name!r} belongs to the process that forked this one")
        if not runs_here(self._driver):
            raise RuntimeError(f"{self.name!r} belongs to a different event loop")
        if self._error is not None:
            raise self._again()

    @property
    def closed(self) -> bool:
        """Whether the log is not open: closed, or not opened yet."""
        return self._closed or not self._is_open

    def fileno(self) -> int:
        """The descriptor of the present file."""
        if self.closed:
            self._check()
        return self._file.descriptor.fd

    def __repr__(self) -> str:
        return f"<LogWriter {self.name!r} {'closed' if self.closed else 'open'}>"

    def __await__(self) -> Generator[Any, None, LogWriter]:
        yield from self.open().__await__()
        return self

    async def __aenter__(self) -> LogWriter:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_open", False) or self._file.descriptor.fd < 0:
            return
        self._driver.drop(self._file.descriptor)
        left = f", {size} bytes not known to be written" if (size := self._buffered()) else ""
        warnings.warn(f"unclosed log {self!r}{left}", ResourceWarning, stacklevel=2, source=self)

    def _forget(self) -> None:
        """In a forked child: the records are its parent's to write, and so is the lock,
        which would last as long as this descriptor."""
        self._forget_records()
        os.close(self._file.descriptor.fd)
        self._file.descriptor.fd = -1


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0, not {value!r}")


_open_logs: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _forget_all() -> None:
    for log in list(_open_logs):
        if log._is_open:
            log._forget()
    _open_logs.clear()


os.register_at_fork(after_in_child=_forget_all)
