"""The file handler that also rotates its files."""

from __future__ import annotations

import logging
import logging.handlers
import os
import time
from typing import cast

from uringfile._backlog import RETRY_SECONDS, Overflow
from uringfile._filehandler import FileHandler, RecordLine, Sync


class RotatingFileHandler(FileHandler, logging.handlers.RotatingFileHandler):
    """``logging.handlers.RotatingFileHandler`` whose ``emit`` formats the record and returns.

    The arguments are those of the standard handler, and those by keyword of ``FileHandler``.
    Files are rotated where the standard handler rotates them, by the thread that writes:
    ``doRollover``, ``rotate``, ``namer`` and ``rotator`` are called there. A ``shouldRollover``
    of a subclass is called there too, record by record.

    An empty file is never rotated (so the standard handler from Python 3.12.4 on). When a
    rollover fails, ``handleError`` is called, the lines go to the file that is there,
    and a second later it is tried again.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        mode: str = "a",
        maxBytes: int = 0,
        backupCount: int = 0,
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
        self._no_rollover_before = 0.0
        should_rollover = type(self).shouldRollover
        self._records_are_asked_for = should_rollover is not RotatingFileHandler.shouldRollover
        logging.handlers.RotatingFileHandler.__init__(
            self, filename, mode, maxBytes, backupCount, encoding, delay, errors
        )

    def shouldRollover(self, record: logging.LogRecord) -> int:
        """Whether this record would go to a new file, if nobody logged anything before it."""
        with self._backlog.lock:
            self._write_out()
            return super().shouldRollover(record)

    def doRollover(self) -> None:
        """What was emitted before goes to the old file; what is emitted later, to the new one."""
        with self._backlog.lock:
            self._write_out()
            self._sync_file()
            super().doRollover()

    def _place(self, lines: list[str]) -> int:
        """Rotate the files if the first line goes to a new one."""
        if self._records_are_asked_for:
            try:
                if self.shouldRollover(cast(RecordLine, lines[0]).record):
                    self._roll_over()
            except Exception:
                self._report("cannot tell whether to rotate %s", self.baseFilename)
            return 1
        if self.maxBytes <= 0:
            return len(lines)
        if time.monotonic() < self._no_rollover_before:
            return len(lines)
        n = self._count_that_fit(lines)
        if n:
            return n
        self._roll_over()
        return 1

    def _count_that_fit(self, lines: list[str]) -> int:
        stream = self._ready_stream()
        if stream is None:
            return len(lines)
        file = self._file
        if file is None or file.stream is not stream:
            return 0 if self._is_full(stream.tell(), lines[0]) else 1
        position = file.position()
        if file.keeps_ascii:
            text = "".join(lines)
            if text.isascii() and position + len(text) + 1 < self.maxBytes:
                return len(lines)
        for i, line in enumerate(lines):
            if self._is_full(position, line):
                return i
            position += file.length(line, position)
        return len(lines)

    def _is_full(self, position: int, line: str) -> bool:
        # The standard handler adds bytes and characters, and counts one for any terminator.
        return 0 < position >= self.maxBytes - (len(line) - len(self.terminator) + 1)

    def _roll_over(self) -> None:
        path = self.baseFilename
        if os.path.exists(path) and not os.path.isfile(path):
            self._no_rollover_before = time.monotonic() + RETRY_SECONDS
            return
        try:
            self.doRollover()
        except Exception:
            self._no_rollover_before = time.monotonic() + RETRY_SECONDS
            self._report("cannot rotate %s", path)
