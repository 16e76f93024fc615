"""An AIOFile that is opened and closed, and what must be in the file."""

from __future__ import annotations

import asyncio
import errno
import os

from simulation.actor import Actor
from simulation.model import FileModel
from simulation.world import World
from uringfile import AIOFile, ClosedFileError
from uringfile._engine import CLOSE, OPENAT, READ


class OpenFileUser(Actor):
    """A file that is opened and closed again and again, and the model of it."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        rng = self.rng
        self.path = os.path.join(world.folder, f"file{number}")
        content = rng.randbytes(rng.choice([0, 1, 700, 5000]))
        with open(self.path, "wb") as file:
            file.write(content)
        self.inode = os.stat(self.path).st_ino
        self.kernel = world.engine.state(self.inode)
        self.model = FileModel(content)
        self.file: AIOFile | None = None
        self.changing = False  # it is being opened or closed
        self.sync_error: int | None = None
        self.appending: int | None = None  # where the one append that is under way goes
        # Of reads and of writes.
        self.weights = rng.choice([(1, 1), (3, 1), (1, 3)])

    # ---- what is in it ------------------------------------------------------------

    def _quiet(self) -> bool:
        """Nothing that changes the file is under way, nor in flight."""
        if self.appending is not None or not self.model.may_write:
            return False
        if self.model.changes and not self._nothing_in_flight():
            return False
        if self.model.changes and all(call.name.startswith("read") for call in self.calls):
            self.settle()
        return not self.model.changes

    def _nothing_in_flight(self) -> bool:
        engine = self.world.engine
        return (
            all(op.inode != self.inode for op in engine.ops.values())
            and not engine.done
            and not self.world.driver._queue
            and not self.world.driver._held
            and not self.world.driver._held
            and not self.world.loop.jobs
        )

    def settle(self) -> None:
        """If nothing is in flight: what the file holds is what it may hold."""
        if self.calls and not all(call.name.startswith("read") for call in self.calls):
            return
        if self.changing or not self._nothing_in_flight() or self.model._cut is not None:
            return
        with open(self.path, "rb") as file:
            self._claim(self.model.settle(file.read()))

    def _claim(self, wrong: str | None) -> None:
        if wrong is not None:
            raise self.world.fail(f"{self.path}: {wrong}")

    # ---- open and close -----------------------------------------------------------------

    def _open(self) -> None:
        rng = self.rng
        self.settle()
        modes = ["rb+", "rb+", "rb+", "rb"]
        if not self.model.changes and self.model.may_write:
            modes += ["wb+", "ab+"]
        if not self._nothing_in_flight():
            return
        mode = rng.choice(modes)
        direct = rng.random() < 0.2
        self.spawn("open", self._opened(AIOFile(self.path, mode, direct=direct)))

    async def _opened(self, file: AIOFile) -> None:
        self.changing = True
        truncates = file.mode.flags & os.O_TRUNC
        if truncates:
            self.model.begin_truncate(0)
        outcome: bool | None = None
        try:
            await file.open()
            outcome = True
            self.sync_error = None
            self.file = file
        except OSError:
            if not self.world.faults.errors:
                raise
        finally:
            if truncates:
                self.model.end_truncate(outcome)
            self.changing = False

    async def _close(self, file: AIOFile) -> None:
        self.changing = True
        self.file = None
        before = self.kernel.errors
        ended = False
        try:
            await file.close()
            ended = True
        except OSError as error:
            ended = True
            self._judge(error, before)
        finally:
            self.changing = False
            if ended:
                self._nothing_left(file)

    def _nothing_left(self, file: AIOFile) -> None:
        """Only reads that nobody waits for, and what the engine does on its own descriptor."""
        if not file.closed:
            raise self.world.fail("not closed after close()")
        for op in self.world.engine.ops.values():
            if op.inode != self.inode or op.opcode in (READ, OPENAT, CLOSE):
                continue
            if op.answered != -errno.EALREADY:
                raise self.world.fail(f"close() has not waited for {op}")

    async def finish(self) -> None:
        while self.changing:
            await asyncio.sleep(0.01)
        if self.file is not None:
            await self._close(self.file)

    def forget(self) -> None:
        self.file = None

    def check_at_end(self) -> None:
        if not self.model.may_write:
            self.model.frozen, self.model._cut = True, None
            self.model.low = 0  # a truncation was cancelled with the loop
            return
        with open(self.path, "rb") as file:
            self._claim(self.model.settle(file.read()))

    # ---- errors ----------------------------------------------------------------------------

    def _judge(self, error: Exception, before: int, file: AIOFile | None = None) -> None:
        """Whether that was a right thing to raise."""
        if isinstance(error, ClosedFileError):
            if file is None or not file.closed:
                raise error
        elif isinstance(error, OSError):
            if self.kernel.errors == before:
                raise self.world.fail(f"{error!r}, which no operation has given") from error
            if error.filename != self.path:
                raise self.world.fail(f"{error!r} is of {error.filename!r}") from error
        else:
            raise error
