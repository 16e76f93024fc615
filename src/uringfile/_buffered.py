"""A position in a file, with memory on both sides of it: read ahead, and not yet written.

1. The position is ``_base + _ahead.tell() + len(_unsent)``. One of the last two is zero:
   reading begins when everything is written, writing when what was read ahead is dropped.
2. A call changes the position only when all its I/O is done, and in one step. So a call
   that is cancelled has changed nothing, and a call that finds the position changed after
   it was suspended (another task called ``seek``) starts again from there.
3. A write is accepted whole when there is room for it, and not at all before.
"""

from __future__ import annotations

import asyncio
import errno
import io
import operator
import os
import stat
import warnings
import weakref
from contextlib import suppress
from functools import cached_property
from typing import Any

from uringfile import _kernel
from uringfile._background import NOTHING_TO_DO, Background, Done
from uringfile._errors import ClosedFileError, os_error
from uringfile._file import AIOFile
from uringfile._fileobject import FileIOWrapperBase, unsupported
from uringfile._openfile import MAX_OFFSET
from uringfile._shared import Shared
from uringfile._writeback import NOTHING_WRITTEN, WriteBack, write_now

#: What is collected before it is written, by default. A write to ext4 takes a worker
#: thread about 50 us, in which time a loop of 100-byte writes makes some 30 KiB.
WRITE_SIZE = 128 * 1024


class Buffered(FileIOWrapperBase):
    """The position and the buffers; ``_writing`` and ``_reading`` add what moves the data."""

    _ahead: io.BytesIO
    _loop: asyncio.AbstractEventLoop
    _process: int  # that opened it

    def __init__(self, file: AIOFile, buffering: int = -1, *, shared: Shared | None = None) -> None:
        self.file = file
        self._buffering = buffering
        self._shared = Shared(file) if shared is None else shared
        self._write_size = WRITE_SIZE if buffering < 0 else buffering
        # Up to this much fits into _unsent without a look at anything else; 0 while the
        # file is not in the state in which that is so.
        self._room = 0
        self._unsent = bytearray()
        self._ahead = io.BytesIO()
        self._ahead.close()  # its methods raise ValueError until the file is open
        self._ahead_size = 0
        self._base = 0
        self._closed = True
        self._closing: Background[None] | Done | None = None
        self._seekable = False
        self._known_size = 0
        self._fp: Any = None  # the file object that lent its descriptor
        self._writes = NOTHING_WRITTEN
        if file.mode.writable:
            this = weakref.ref(self)
            self._writes = WriteBack(file, lambda: _stop_fast_writes(this))
        if not file.closed:
            self._attach_open_file()

    @cached_property
    def _one_at_a_time(self) -> asyncio.Lock:
        return asyncio.Lock()

    # ---- opening and closing ------------------------------------------------------

    async def _attach(self) -> None:
        if self._closing is not None:
            raise ClosedFileError(f"{self.name!r} was closed; make a new object to open it")
        if not self._closed:
            return
        if not self.file.open_at_once():
            await self.file.open()
        try:
            if not self.file._local:
                self._known_size = (await self.file.stat()).st_size
            if self._closed:  # or another task has done it meanwhile
                self._attach_open_file()
        except BaseException:
            if not self._shared.users:
                await self.file.close()
            raise

    def _attach_open_file(self) -> None:
        file = self.file
        fd = file.fileno()
        position: int | None = 0
        if not file.at_start:
            try:
                position = os.lseek(fd, 0, os.SEEK_CUR)
            except OSError:
                position = None
        self._seekable = position is not None
        mode = file.mode
        if not self._seekable and mode.plus:
            raise unsupported("File or stream is not seekable.")
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        if self._shared.users or self._fp is not None:
            position = 0  # a clone starts at the beginning; the other is told later
        self._shared.users += 1
        self._closed = False
        file._file_objects += 1
        self._base = self._end() if mode.appending and self._seekable else position or 0
        self._borrowed_at = self._base
        self._ahead = io.BytesIO()

    def _start(self) -> None:
        pass

    def _check_open(self) -> None:
        if self._closed:
            state = "closed" if self._closing is not None else "not open"
            raise ClosedFileError(f"I/O operation on a file that is {state}: {self.name!r}")

    def _check_here(self) -> None:
        """Raise ``RuntimeError`` in a foreign loop, before anything is changed there."""
        if not self.file.closed:
            self.file._driver_here()

    async def _close(self, position: int | None = None) -> None:
        """``position``: what the owner of a borrowed file goes on from, if not this one's."""
        if self._closing is None:
            if self._closed:
                return
            self._check_here()
            self._seal()
            if position is None:
                position = self._position()
            # From here on no other call finds the file open; the rest goes on in the background.
            self._closed = True
            self.file._release_from_file_object()
            self._room = 0
            self._end_of_block()
            self._ahead.close()
            if self._writes.idle and self.file._owner:
                self._closing = NOTHING_TO_DO
                if not self._shared.release_at_once():
                    await self._shared.release()
            else:
                self._closing = Background(self._loop, self._write_and_release(position))
                await self._closing.wait()
        elif isinstance(self._closing, Background) and not self._closing.done:
            with suppress(Exception):  # the other call raises it
                await self._closing.wait()

    async def _write_and_release(self, position: int) -> None:
        failure = None
        try:
            await self._writes.finish(self._loop)
        except Exception as error:
            failure = error
        if not self.file._owner and self._seekable and position != self._borrowed_at:
            self._give_back(position)
        await self._shared.release()
        if failure is not None:
            raise failure

    def _give_back(self, position: int) -> None:
        """Whoever lent the descriptor goes on where this object stopped."""
        with suppress(OSError, ValueError):
            if self._fp is None:
                os.lseek(self.file.fileno(), position, os.SEEK_SET)
            else:
                self._fp.seek(position)

    def __del__(self) -> None:
        writes = getattr(self, "_writes", None)
        if writes is None or self._closed or self.file.closed:
            return
        self._seal()
        here = os.getpid() == self._process  # in a forked child it is the parent's to write
        try:
            rest = writes.take_rest(self._landed() if here else None)
            if rest and here:
                with suppress(OSError):
                    write_now(self.file.fileno(), rest, self._seekable)
                warnings.warn(
                    f"{self!r} was never closed; what it had buffered is written now",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )
        finally:
            self.file._release_from_file_object()

    def _landed(self) -> int | None:
        """How much of the write in flight is in the file, if that will not change any more."""
        extent = self._writes.in_flight
        driver = self.file._driver
        if extent is None or driver is None or not self._loop.is_closed() or not self._seekable:
            return None
        driver.close()  # it may have been cancelled
        if not self.file.mode.appending:
            return 0  # once more, in its place
        offset, end = extent
        return min(max(os.fstat(self.file.fileno()).st_size, offset), end) - offset

    # ---- the position -------------------------------------------------------------

    def tell(self) -> int:
        """The position, in bytes from the start of the file.

        In the modes "a" it is at the end of the file after a write.
        """
        self._check_open()
        if not self._seekable:
            raise os_error(-errno.ESPIPE, self.name)
        return self._position()

    def _position(self) -> int:
        return self._base + self._ahead.tell() + len(self._unsent)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, and return it. No I/O happens here.

        ``whence``: 0 from the start, 1 from the position, 2 from the end, which counts
        what is buffered; also ``os.SEEK_DATA`` and ``os.SEEK_HOLE``, which do not.
        Raises ``OSError`` (EINVAL) for a position before the start.
        """
        offset = operator.index(offset)
        whence = operator.index(whence)
        self._check_open()
        if not self._seekable:
            raise unsupported("File or stream is not seekable.")
        if whence == os.SEEK_SET:
            target = offset
        elif whence == os.SEEK_CUR:
            target = self.tell() + offset
        elif whence == os.SEEK_END:
            target = self._end() + offset
        elif whence in (_kernel.SEEK_DATA, _kernel.SEEK_HOLE):
            target = os.lseek(self.file.fileno(), offset, whence)
        else:
            raise ValueError(f"whence value {whence} unsupported")
        if target < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if target > MAX_OFFSET:
            raise ValueError("cannot fit 'int' into an offset-sized integer")
        self._seal()
        if 0 <= target - self._base <= self._ahead_size:
            self._ahead.seek(target - self._base)
        else:
            self._set_ahead(target, b"")
            self._jumped()
        self._room = 0
        return target

    def _jumped(self) -> None:
        """The position has left what was read ahead."""

    def _end(self) -> int:
        """The size of the file with everything that is buffered."""
        file = self.file
        if file._local:
            status = os.fstat(file.fileno())
            size = status.st_size
            if stat.S_ISBLK(status.st_mode):
                size = os.lseek(file.fileno(), 0, os.SEEK_END)
        else:
            size = max(self._known_size, self._writes.reached)
        if file.mode.appending:
            # What is in flight may be in the file already, or not yet.
            return (self._writes.end if self._writes.size else size) + len(self._unsent)
        return max(size, self._writes.end, self._base + len(self._unsent) if self._unsent else 0)

    def _set_ahead(self, base: int, block: bytes, used: int = 0) -> None:
        """Replace what is read ahead by ``block``, which stands at ``base`` in the file."""
        self._end_of_block()
        self._base = base
        if block or self._ahead_size:
            self._ahead = io.BytesIO(block)
            self._ahead_size = len(block)
        self._ahead.seek(used)
        if block:
            self._room = 0

    def _end_of_block(self) -> None:
        """Drop what is read ahead, and end the iterations over it; the position stays."""
        if self._ahead_size:
            self._base += self._ahead.tell()
            self._ahead.seek(0, 2)
            self._ahead = io.BytesIO()
            self._ahead_size = 0

    def _seal(self) -> None:
        """Queue what is in the buffer for writing."""
        if self._unsent:
            self._writes.put(self._base, bytes(self._unsent))
            self._base += len(self._unsent)
            self._unsent = bytearray()


def _stop_fast_writes(this: weakref.ref[Buffered]) -> None:
    core = this()
    if core is not None:
        core._room = 0
