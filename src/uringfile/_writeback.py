"""What was written into memory, on its way to the kernel."""

from __future__ import annotations

import copy
import os
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from typing import cast

from uringfile._background import Background
from uringfile._file import AIOFile


class WriteBack:
    """Extents of a file, written one after the other in the order in which they came.

    An extent stays in the queue until all of it is written. After an error the rest of it
    is the first thing that is tried again, so nothing later can land behind a gap.
    ``on_failure`` is called when a write in the background fails.
    """

    def __init__(self, file: AIOFile, on_failure: Callable[[], None]) -> None:
        self._file = file
        self._on_failure = on_failure
        self._queue: deque[tuple[int, bytes]] = deque()
        self._running: Background[None] | None = None
        #: Bytes that are not written yet.
        self.size = 0
        #: How far the file reaches at least with all that was ever queued.
        self.reached = 0
        # An error that no call has raised yet, and the first since all was well.
        self._unraised: Exception | None = None
        self._failure: Exception | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, in flight or to be raised."""
        return not self.size and self._failure is None and self._unraised is None

    @property
    def failed(self) -> bool:
        """Whether a write has failed since all was well."""
        return self._failure is not None

    @property
    def end(self) -> int:
        """Where the file ends at least, once everything is written."""
        return max((offset + len(data) for offset, data in self._queue), default=0)

    def put(self, offset: int, data: bytes) -> None:
        """Queue ``data`` for writing."""
        self._queue.append((offset, data))
        self.size += len(data)
        self.reached = max(self.reached, offset + len(data))

    def start(self, loop: AbstractEventLoop) -> None:
        """See to it that the queue is being written."""
        if self._queue and (self._running is None or self._running.done):
            self._running = Background(loop, self._write_queue())

    async def _write_queue(self) -> None:
        queue = self._queue
        while queue:
            offset, data = queue[0]
            try:
                await self._file.write_bytes(data, offset)
            except Exception as error:
                done = getattr(error, "characters_written", 0)
                queue[0] = (offset + done, data[done:])
                self.size -= done
                # Without the frames, which refer to this object.
                self._unraised = error.with_traceback(None)
                self._failure = self._failure or self._unraised
                self._on_failure()
                return
            queue.popleft()
            self.size -= len(data)

    def raise_error(self) -> None:
        """Raise the error of a write in the background, unless a call has raised it."""
        error, self._unraised = self._unraised, None
        if error is not None:
            raise copy.copy(error)  # close may raise it once more

    async def shrink(self, loop: AbstractEventLoop, size: int) -> None:
        """Write until at most ``size`` bytes are queued."""
        self.raise_error()
        while self.size > size:
            self.start(loop)
            assert self._running is not None
            await self._running.wait()
            self.raise_error()

    async def drain(self, loop: AbstractEventLoop) -> None:
        """Write everything. When that succeeds, earlier failures are made good."""
        await self.shrink(loop, 0)
        self._failure = None

    async def finish(self, loop: AbstractEventLoop) -> None:
        """Try once more to write everything, and raise the first failure there was."""
        self.start(loop)
        if self._running is not None:
            await self._running.wait()
        error, self._failure, self._unraised = self._failure, None, None
        if error is not None:
            raise error

    @property
    def in_flight(self) -> tuple[int, int] | None:
        """Offset and end of the extent that is being written."""
        if self._running is None or self._running.done or not self._queue:
            return None
        offset, data = self._queue[0]
        return offset, offset + len(data)

    def take_rest(self, landed: int | None = None) -> list[tuple[int, bytes]]:
        """What is queued and not in flight, for a last attempt without a loop; when the engine
        has ended, also what was in flight, but for the ``landed`` first bytes of it."""
        rest = list(self._queue)
        if self.in_flight and landed is None:
            del rest[:1]
        elif self.in_flight:
            offset, data = rest[0]
            rest[0] = (offset + (landed or 0), data[landed:])
        self._queue.clear()
        return rest


#: Of a file that is not open for writing.
NOTHING_WRITTEN = WriteBack(cast(AIOFile, None), lambda: None)


def write_now(fd: int, extents: list[tuple[int, bytes]], seekable: bool) -> None:
    """Write without a loop, where there is none any more."""
    for offset, data in extents:
        done = 0
        while done < len(data):
            rest = data[done:]
            done += os.pwrite(fd, rest, offset + done) if seekable else os.write(fd, rest)
