"""LogWriter: what is acknowledged is in the log, in call order, once, and durable as promised."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from itertools import pairwise
from typing import Any

from simulation.actor import Actor
from simulation.world import World
from uringfile import ClosedFileError, LogWriter


class Record:
    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.data = b"%d " % number + b"x" * size + b"\n"
        self.acknowledged = False
        #: Its append was cancelled, or told that the log is closed.
        self.uncertain = False
        #: Its append raised the error that ended the log.
        self.lost = False


class LogUser(Actor):
    """A log, and when it has ended another."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        world.engine.keeps_durable = True
        self.log: LogWriter | None = None
        self.has_direct = _has_direct(world.folder)
        self.changing = False
        self.lives = 0
        self.path = ""
        self.sync = "always"
        self.accepted: list[Record] = []
        self.error: OSError | None = None
        self.moved = 0
        self.errors_at_open = 0
        self.first_lost = sys.maxsize

    # ---- what is done -------------------------------------------------------------------

    def act(self) -> None:
        rng = self.rng
        log = self.log
        if log is None:
            if not self.changing:
                self.changing = True
                self.spawn("open a log", self._open())
            return
        if len(self.calls) >= self.world.most_calls:
            return
        r = rng.random()
        if r < (0.2 if self.error else 0.01):
            self.spawn("close a log", self._close(log))
        elif r < 0.03:
            self.spawn("sync a log", self._sync(log))
        elif r < 0.06:
            self.spawn("drain", self._drain(log))
        elif r < 0.065:
            self._move_away(log)
        elif r < 0.1:
            self._append_nowait(log)
        else:
            for _ in range(rng.choice([1, 1, 1, 5, 20])):
                self.spawn("append", self._append(log))

    def _record(self) -> Record:
        return Record(len(self.accepted), self.rng.randrange(self.rng.choice([2, 40, 300])))

    def _options(self) -> dict[str, Any]:
        rng = self.rng
        self.sync = rng.choice(["always", "always", "interval", "never"])
        return {
            "sync": self.sync,
            "interval": rng.choice([0.001, 1.0]),
            "max_buffered": rng.choice([1, 100, 1000, 1 << 20]),
            "preallocate": rng.choice([0, 0, 4096]),
            "direct": self.has_direct and rng.random() < 0.3,
            "rotate_size": rng.choice([None, None, 500, 3000]),
            "rotate_seconds": rng.choice([None, None, 0.01, 1.0]),
        }

    async def _open(self) -> None:
        self.lives += 1
        self.path = os.path.join(self.world.folder, f"log{self.number}-{self.lives}")
        self.accepted, self.error, self.moved = [], None, 0
        self.first_lost = sys.maxsize
        self.errors_at_open = self._errors()
        log = LogWriter(self.path, **self._options())
        try:
            await log.open()
            self.log = log
        except OSError as error:
            self._ended(error)
        finally:
            self.changing = False

    def _errors(self) -> int:
        """How many there were of everything; a log lives in many files."""
        states = self.world.engine.files.values()
        return sum(state.errors for state in states) + self.world.refused

    def _ended(self, error: OSError) -> None:
        """It is final: what any other call raises is the same."""
        if self.error is None:
            self.error = error
            moved_under_it = self.moved and error.errno == errno.ENOENT
            if self._errors() == self.errors_at_open and not moved_under_it:
                raise self.world.fail(f"{error!r}, which nothing has given") from error
        elif error.errno != self.error.errno:
            raise self.world.fail(f"{error!r} after {self.error!r}") from error

    # ---- appending ------------------------------------------------------------------------

    async def _append(self, log: LogWriter) -> None:
        if log is not self.log:
            await self._too_late(log)
            return
        record = self._record()
        self.accepted.append(record)
        had_ended = self.error is not None
        try:
            end = await log.append(record.data)
        except asyncio.CancelledError:
            record.uncertain = True
            raise
        except ClosedFileError:
            record.uncertain = True
            if not log.closed:
                raise
        except OSError as error:
            record.lost = True
            self.first_lost = min(self.first_lost, record.number)
            self._ended(error)
        else:
            if had_ended:
                raise self.world.fail("a record is acknowledged after an error")
            self._acknowledged(record, end)

    async def _too_late(self, log: LogWriter) -> None:
        try:
            await log.append(b"late\n")
        except ClosedFileError:
            return
        raise self.world.fail("a record is acknowledged after close()")

    def _append_nowait(self, log: LogWriter) -> None:
        record = self._record()
        try:
            log.append_nowait(record.data)
        except BufferError:
            return
        except OSError as error:
            self._ended(error)
        else:
            self.accepted.append(record)
            self.world.note("append_nowait", self.number)

    def _acknowledged(self, record: Record, end: int) -> None:
        record.acknowledged = True
        if record.number > self.first_lost:
            raise self.world.fail(f"record {record.number} is acknowledged, one before it is lost")
        if self.sync == "always" and not self._durable(record, end):
            raise self.world.fail(f"record {record.number} is acknowledged and not durable")
        if self.rng.random() < 0.01:
            self.verify()

    def _durable(self, record: Record, end: int | None = None) -> bool:
        for state in reversed(self.world.engine.files.values()):  # most likely the newest
            if state.durable is None:
                continue
            if end is None:
                if record.data in state.durable:
                    return True
            elif state.durable[end - len(record.data) : end] == record.data:
                return True
        return False

    # ---- waiting ----------------------------------------------------------------------------

    async def _drain(self, log: LogWriter) -> None:
        await self._wait_with(log, log.drain())

    async def _sync(self, log: LogWriter) -> None:
        before = self.accepted[-20:]
        if await self._wait_with(log, log.sync()):
            for record in before:
                if not record.uncertain and not self._durable(record):
                    raise self.world.fail(f"record {record.number} is not durable after sync()")

    async def _wait_with(self, log: LogWriter, call: Any) -> bool:
        try:
            await call
        except ClosedFileError:
            if not log.closed:
                raise
        except OSError as error:
            self._ended(error)
        else:
            return True
        return False

    def _move_away(self, log: LogWriter) -> None:
        """As logrotate does, and as its postrotate script does or does not."""
        if self.changing or any("log" in call.name for call in self.calls):
            return
        if self.world.loop.jobs or not os.path.exists(self.path):
            return
        self.moved += 1
        # In the order of names; what is rotated later gets a number of its own.
        os.rename(self.path, f"{self.path}.moved{len(self.accepted):06d}")
        self.world.note("move", self.number)
        if self.rng.random() < 0.7:
            self.spawn("reopen a log", self._reopen(log))

    async def _reopen(self, log: LogWriter) -> None:
        await self._wait_with(log, log.reopen())

    # ---- the end -----------------------------------------------------------------------------

    async def _close(self, log: LogWriter, *, again: bool = False) -> None:
        self.log = None
        self.changing = True
        try:
            try:
                await log.close()
            except OSError as error:
                self._ended(error)
            await asyncio.sleep(0.001)  # in which who has waited hears of it
            self.verify(complete=self.error is None and not again)
        except asyncio.CancelledError:
            if not self.world.ending:
                self.spawn("go on closing a log", self._close(log, again=True))
            raise
        self.changing = False

    async def finish(self) -> None:
        while self.changing:
            await asyncio.sleep(0.01)
        if self.log is not None:
            await self._close(self.log)

    def forget(self) -> None:
        self.log = None

    def check_at_end(self) -> None:
        self.verify()

    # ---- what is in the log --------------------------------------------------------------------

    def verify(self, *, complete: bool = False) -> None:
        """Whole records, in call order, each at most once, and all that are acknowledged.
        ``complete``: it was closed, without an error."""
        found = self._found(complete)
        if any(a >= b for a, b in pairwise(found)):
            raise self.world.fail(f"{self.path}: records out of order, or twice: {found}")
        there = set(found)
        for record in self.accepted:
            if record.number in there:
                if record.lost and not self._failed_cuts():
                    raise self.world.fail(f"record {record.number} raised an error, and is there")
            elif record.acknowledged:
                raise self.world.fail(f"record {record.number} is acknowledged, and is not there")
            elif complete and not record.uncertain:
                raise self.world.fail(f"record {record.number} is not in a log that was closed")

    def _failed_cuts(self) -> bool:
        return any(state.failed_cuts for state in self.world.engine.files.values())

    def _found(self, complete: bool) -> list[int]:
        """The numbers of the records in all files of the log, those in the order of their
        first record."""
        files = {}
        base = os.path.basename(self.path)
        for name in os.listdir(self.world.folder):
            if name == base or (name.startswith(base + ".") and not name.endswith(".new")):
                with open(os.path.join(self.world.folder, name), "rb") as file:
                    files[os.fstat(file.fileno()).st_ino] = file.read()
        if complete and any(content.endswith(b"\0") for content in files.values()):
            raise self.world.fail(f"{self.path}: preallocated bytes are left at the end")
        numbers = [self._numbers(content.rstrip(b"\0"), complete) for content in files.values()]
        return [number for part in sorted(filter(None, numbers)) for number in part]

    def _numbers(self, content: bytes, complete: bool) -> list[int]:
        *lines, torn = content.split(b"\n")
        numbers = []
        for line in lines:
            digits, _, _ = line.partition(b" ")
            number = int(digits) if digits.isdigit() else -1
            if not 0 <= number < len(self.accepted) or (self.accepted[number].data != line + b"\n"):
                raise self.world.fail(f"{self.path}: a record that nobody wrote: {line!r}")
            numbers.append(number)
        if torn and complete:
            raise self.world.fail(f"{self.path}: a torn record: {torn!r}")
        return numbers


def _has_direct(folder: str) -> bool:
    """Not so with tmpfs before Linux 6.6."""
    try:
        os.close(os.open(os.path.join(folder, "probe"), os.O_CREAT | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True
