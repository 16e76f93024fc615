"""The handler that formats a record for its caller, and writes it in a thread of its own."""

from __future__ import annotations

import locale
import logging
import os
from io import TextIOWrapper
from typing import Any, Literal, cast

from uringfile._backlog import Backlog, Lock, Overflow
from uringfile._linefile import LineFile

Sync = Literal["never", "always"]

# Lines that are written at once. Joining and encoding them keeps the GIL, for about 0.3 ms.
_BATCH = 16384


class RecordLine(str):
    """A line that keeps its record."""

    __slots__ = ("record",)

    record: logging.LogRecord

    def __new__(cls, line: str, record: logging.LogRecord) -> RecordLine:
        self = super().__new__(cls, line)
        self.record = record
        return self


class FileHandler(logging.FileHandler):
    """``logging.FileHandler`` whose ``emit`` formats the record and returns.

    The arguments are those of the standard handler, and by keyword:

    ``capacity``: how many records may wait to be written.

    ``overflow``: what happens to a record when so many wait. ``"block"``: its caller waits
    (in an event loop: the loop does). ``"drop"``: it is counted and forgotten; ``dropped`` is the
    count, and a line in the file tells of it when there is room again. ``"raise"``: the call
    that logs it raises ``queue.Full``.

    ``sync``: ``"always"`` has each batch followed by fdatasync(2); ``"never"`` leaves it to the
    kernel when data goes to the disk, as the standard handlers do.

    ``watch``: before each batch look whether the file was moved or deleted, and open
    it anew then, as ``logging.handlers.WatchedFileHandler`` does.

    ``flush()``, ``close()`` and the end of the interpreter write what waits. A process that is
    killed, or calls ``os._exit``, loses what it logged in its last 10 ms, or as long as busy
    threads have kept the interpreter from the one that writes.

    When writing fails (disk full, EIO) the records stay, in order, and are tried again each
    second. Once for each such time ``handleError`` is called. While it lasts, ``"block"``
    drops what there is no room for. ``flush()`` raises the ``OSError``. ``close()`` raises it
    too, and what it cannot write is lost and counted.
    """

    # A subclass may ask about records when their lines are written.
    _records_are_asked_for = False

    def __init__(
        self,
        filename: str | os.PathLike[str],
        mode: str = "a",
        encoding: str | None = None,
        delay: bool = False,
        errors: str | None = None,
        *,
        capacity: int = 65536,
        overflow: Overflow = "block",
        sync: Sync = "never",
        watch: bool = False,
    ) -> None:
        self._prepare(capacity, overflow, sync, watch)
        super().__init__(filename, mode, encoding, delay, errors)

    def _prepare(self, capacity: int, overflow: Overflow, sync: Sync, watch: bool) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        if overflow not in ("block", "drop", "raise"):
            raise ValueError(f"unknown overflow {overflow!r}: block, drop or raise")
        if sync not in ("never", "always"):
            raise ValueError(f"unknown sync {sync!r}: never or always")
        self._sync = sync
        self._watch = watch
        self._file: LineFile | None = None
        self._sync_error: OSError | None = None
        self._backlog = Backlog(self, capacity, overflow)

    @property
    def dropped(self) -> int:
        """How many records were not written, in this process."""
        return self._backlog.dropped

    # The caller's side. It takes no lock: self.lock is held while the disk is written to.

    def handle(self, record: logging.LogRecord) -> bool:
        passed = self.filter(record)
        if passed:
            # From Python 3.12 on a filter may answer with another record.
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and let it wait to be written.

        Errors in formatting and encoding go to ``handleError``.
        """
        try:
            line = self.format(record) + self.terminator
            if self._records_are_asked_for:
                line = RecordLine(line, record)
            if not line.isascii():
                self._check(line)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)
            return
        backlog = self._backlog
        lines = backlog.lines
        if len(lines) >= backlog.capacity and not backlog.make_room():
            return
        lines.append(line)
        if backlog.asleep:
            backlog.wake()

    def _check(self, line: str) -> None:
        """Raise now what writing would raise."""
        stream = self.stream
        if stream is not None:
            encoding, errors = getattr(stream, "encoding", None), getattr(stream, "errors", None)
        else:
            encoding, errors = self.encoding, self.errors
            if encoding == "locale":
                encoding = locale.getpreferredencoding(False)
        if encoding:
            line.encode(encoding, errors or "strict")

    # The writing side. It holds self.lock, and runs in the backlog's thread, or in the thread of
    # somebody who waits for it: flush(), close(), a full backlog, the end of the interpreter.

    def createLock(self) -> None:
        super().createLock()
        self._backlog.lock = cast(Lock, self.lock)

    def _open(self) -> TextIOWrapper[Any]:
        stream = super()._open()
        # A binary mode makes something else, of which write(str) says what is wrong.
        self._file = LineFile(stream) if type(stream) is TextIOWrapper else None
        return stream

    def flush(self) -> None:
        """Return when all that was emitted before is written (and synced, if ``sync`` says so).

        Raises the ``OSError`` of a write that failed; what is not written is kept. One of
        fdatasync(2) is raised by each later call: nobody knows what is missing on the disk.
        """
        try:
            self._write_out()
        except Exception:
            self._failed()
            raise
        super().flush()
        if self._sync_error is not None:
            raise self._sync_error

    def close(self) -> None:
        """Write what waits, end the thread, close the file.

        Raises the ``OSError`` of a write that failed; what is not written is lost and counted.
        What is emitted afterwards is written at once, as by the standard handler, which
        opens the file again (not in the mode "w").
        """
        with self._backlog.lock:
            self._backlog.end()
            try:
                self._write_out()
            except Exception:
                self._lose()
                raise
            finally:
                super().close()

    def __del__(self) -> None:
        backlog: Backlog | None = getattr(self, "_backlog", None)
        if backlog is not None:
            backlog.end()
            self._write_or_lose()

    def _write_behind(self) -> None:
        try:
            self._write_out()
        except Exception:
            if self._backlog.ended:
                self._lose()
            else:
                self._failed()

    def _write_or_lose(self) -> None:
        with self._backlog.lock:
            try:
                self._write_out()
            except Exception:
                self._lose()

    def _after_fork_in_child(self) -> None:
        if self._file is not None:
            self._file.forget_unfinished()

    def _write_out(self) -> None:
        """Write what waits now. Raises what the disk raises, and keeps what it does not take."""
        backlog = self._backlog
        with backlog.lock:
            if backlog.writing:  # a signal handler or a rotator logs something and flushes
                return
            backlog.writing = True
            try:
                n = len(backlog.lines)
                if n:
                    self._write_lines(n)
            finally:
                backlog.writing = False

    def _write_lines(self, n: int) -> None:
        backlog = self._backlog
        if self._watch:
            self._open_again_if_moved()
        while n > 0:
            n = self._write_some(n)
        backlog.failing = False
        self._sync_file()

    def _write_some(self, n: int) -> int:
        """Write some of the first ``n`` lines; the answer is how many are left to write."""
        backlog = self._backlog
        lines = backlog.lines[: min(n, _BATCH)]
        try:
            if not (self._file and self._file.unfinished):
                del lines[self._place(lines) :]
            written = self._write(lines)
        except Exception as error:
            if self._is_foreign() or not isinstance(error, OSError):
                backlog.drop(len(lines))  # nobody knows what has been written of them
            raise
        n -= written
        if backlog.dropped_since and self.stream is not None:
            # Where they were missed: behind all that was there before there is room again.
            backlog.lines.append(self._note_of_dropped())
            n = len(backlog.lines) - written
        backlog.remove(written)
        return n

    def _write(self, lines: list[str]) -> int:
        stream = self._ready_stream()
        if stream is None:
            self._backlog.count_dropped(len(lines))
        elif self._file is not None and self._file.stream is stream:
            return self._file.write(lines)
        else:
            stream.write("".join(lines))
            stream.flush()
        return len(lines)

    def _is_foreign(self) -> bool:
        """The stream is of setStream(), or of a subclass that has an ``_open`` of its own."""
        stream = self.stream
        return stream is not None and (self._file is None or self._file.stream is not stream)

    def _place(self, lines: list[str]) -> int:
        """How many of these lines go to the file as it is now."""
        return len(lines)

    def _ready_stream(self) -> TextIOWrapper[Any] | None:
        # The mode "w" would empty a file that was closed (as the standard handler says).
        if self.stream is None and not (self.mode == "w" and getattr(self, "_closed", False)):
            self.stream = self._open()
        return self.stream

    def _open_again_if_moved(self) -> None:
        file = self._file
        if file is None or self.stream is None or self._is_foreign() or file.unfinished:
            return
        if not file.is_at(self.baseFilename):
            self.stream.close()
            self.stream = None  # _open() may fail

    def _note_of_dropped(self) -> str:
        n = self._backlog.take_dropped_since()
        record = self._own_record(logging.WARNING, "%d log records were not written", n)
        try:
            line = self.format(record) + self.terminator
            self._check(line)
        except Exception:  # a formatter that wants what only the application's records have
            line = record.getMessage() + self.terminator
        return RecordLine(line, record)

    def _sync_file(self) -> None:
        if self._sync == "never" or self._file is None or self._file.stream is not self.stream:
            return
        try:
            self._file.sync()
        except OSError as error:
            if self._sync_error is None:
                self._sync_error = error
                self._report("cannot sync %s", self.baseFilename)

    def _failed(self) -> None:
        """Called where an exception is handled: report it, once until writing succeeds again."""
        backlog = self._backlog
        if not backlog.failing:
            backlog.failing = True
            backlog.wake_blocked()
            n = len(backlog.lines)
            self._report("%d log records wait for %s to be written", n, self.baseFilename)

    def _lose(self) -> None:
        """Called where an exception is handled: what waits cannot be written any more."""
        backlog = self._backlog
        n = len(backlog.lines)
        backlog.drop(n)
        if self._file is not None:
            self._file.forget_unfinished()
        self._report("%d log records are lost that %s should have got", n, self.baseFilename)

    def _report(self, message: str, *args: object) -> None:
        self.handleError(self._own_record(logging.ERROR, message, *args))

    def _own_record(self, level: int, message: str, *args: object) -> logging.LogRecord:
        return logging.LogRecord("uringfile.logging", level, __file__, 0, message, args, None)
