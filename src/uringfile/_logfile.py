"""The file below a log, open: written at its end, synced, cut."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from typing import Any

from uringfile._driver import Driver
from uringfile._engine import ASYNC, FALLOCATE, FDATASYNC, FTRUNCATE, WRITE
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._inflight import Operation
from uringfile._logpolicy import Shape
from uringfile._native_engine import inside, pin
from uringfile._open import close_descriptor, in_thread
from uringfile._uninterrupted import run_uninterrupted

Begun = tuple[Operation, "asyncio.Future[int]"]

# From here on a write is not tried on the loop's thread, which would copy it there (XFS, btrfs).
_INLINE_WRITE = 64 * 1024


class LogFile:
    """Written by one write at a time; its owner sees to that."""

    def __init__(
        self, driver: Driver, descriptor: Descriptor, path: str, shape: Shape, end: int, local: bool
    ) -> None:
        self.driver = driver
        self.descriptor = descriptor
        self.path = path
        self.shape = shape
        #: The logical end at the time of opening.
        self.opened_at = end
        self.local = local
        self._allocated = end if shape.preallocate else -1  # -1: never again
        self._padded = False
        # A short write goes on at a multiple of this.
        self._unit = 1
        # A durable write would wait for the disk where it is tried; elsewhere than on local
        # disks any write may wait.
        self._worker = ASYNC if shape.dsync or not local else 0

    def begin(self, data: bytearray, offset: int) -> Begun | None:
        """Begin to write, if nothing else is to be done first; ``write`` goes on."""
        if not data or 0 <= self._allocated < offset + len(data):
            return None
        worker = ASYNC if len(data) >= _INLINE_WRITE else self._worker
        return self.driver.start(WRITE | worker, self.descriptor, pin(data), len(data), offset)

    async def write(self, data: bytearray, offset: int, begun: Begun | None = None) -> None:
        """All of it, at that offset; durable afterwards if the file is O_DSYNC.

        Short writes are continued. O_DSYNC makes each of them durable before it completes:
        there is no separate sync that could overtake it.
        """
        size = len(data)
        if 0 <= self._allocated < offset + size:
            await self._allocate(offset + size)
        if begun is None:
            begun = self.begin(data, offset)
        if begun is not None:
            await self._finish(begun, data, size, offset)

    async def _finish(self, begun: Begun, memory: Any, length: int, offset: int) -> None:
        """To the end of a write of ``memory`` that was begun: a short one is continued."""
        done = 0
        while True:
            operation, future = begun
            try:
                n = await future
            except BaseException:
                self.driver.abandon(operation, future)
                raise
            if n == length - done:
                return
            n -= n % self._unit if n > 0 else 0
            if n > 0:
                done += n
            elif n != -errno.EINTR:
                raise os_error(n or -errno.EIO, self.path)
            begun = self.driver.start(
                *(WRITE | self._worker, self.descriptor),
                *(inside(pin(memory), done), length - done, offset + done),
            )

    async def _allocate(self, end: int) -> None:
        """Blocks ahead of the end, in steps; what goes wrong here the write itself will tell."""
        start, step = self._allocated, self.shape.preallocate
        length = -(-(end - start) // step) * step
        self._padded = True
        ret = await self._reserve(start, length)
        self._allocated = -1 if ret else start + length

    async def _reserve(self, start: int, length: int) -> int:
        """fallocate(2): 0 or a negative errno."""
        if self.driver.serves(FALLOCATE):
            return await self._run(FALLOCATE, length, start)
        return await self._in_thread(_fallocate, start, length)

    async def sync(self) -> None:
        """fdatasync(2): what was written before is on the disk. No error is tried again."""
        ret = await self._run(FDATASYNC)
        if ret < 0:
            raise os_error(ret, self.path)

    async def cut(self, end: int) -> None:
        """End the file there: behind its last good record."""
        if self.driver.serves(FTRUNCATE):
            ret = await self._run(FTRUNCATE, 0, end)
        else:
            ret = await self._in_thread(_ftruncate, end)
        if ret < 0:
            raise os_error(ret, self.path)

    async def _run(self, opcode: int, length: int = 0, offset: int = 0) -> int:
        return await run_uninterrupted(
            self.driver, opcode, self.descriptor, length=length, offset=offset
        )

    async def _in_thread(self, function: Any, *args: int) -> int:
        result: int = await in_thread(
            self.driver, self.descriptor, function, self.descriptor.fd, *args
        )
        return result

    def is_at_path(self) -> bool:
        """Whether the path still names this file; two system calls that may wait where the
        file is not local."""
        return is_at(self.descriptor.fd, self.path)

    async def trim(self, end: int) -> None:
        """Cut what was allocated behind ``end``, where no record follows any more."""
        if self._padded:
            await self.cut(end)
            await self.sync()
            self._padded = False

    async def close(self, end: int | None) -> None:
        """Trim it (``None``: leave it as it is), and close."""
        failure: Exception | None = None
        try:
            if end is not None:
                await self.trim(end)
        except Exception as error:
            failure = error
        except BaseException:  # the loop is ending
            self.driver.drop(self.descriptor)
            raise
        await self._release()
        if failure is not None:
            raise failure

    async def _release(self) -> None:
        try:
            await self.descriptor.idle()
            # By name: a child between fork and exec may have the descriptor for a moment.
            await self._in_thread(_unlock)
        except BaseException:  # the loop is ending
            self.driver.drop(self.descriptor)
            raise
        await close_descriptor(self.driver, self.descriptor, self.path)


def is_at(fd: int, path: str) -> bool:
    """Whether the path names this file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _fallocate(fd: int, start: int, length: int) -> int:
    try:
        os.posix_fallocate(fd, start, length)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def _unlock(fd: int) -> int:
    fcntl.flock(fd, fcntl.LOCK_UN)
    return 0


def _ftruncate(fd: int, end: int) -> int:
    try:
        os.ftruncate(fd, end)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0
