"""The file below a log: found, locked, its end repaired, written at that end, synced, cut."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
import time
from functools import partial
from typing import Any, Literal, NamedTuple

from uringfile._driver import NO_BUFFER, Driver
from uringfile._engine import ASYNC, FALLOCATE, FDATASYNC, FTRUNCATE, WRITE
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._frames import FrameSplitter
from uringfile._inflight import Operation
from uringfile._logdamage import check_torn
from uringfile._native_engine import Identity, identify, inside, pin
from uringfile._open import close_descriptor, in_thread, is_local
from uringfile._rotation import rotate, sync_directory, undo_half_rotation

TornLine = Literal["newline", "cut", "keep"]
Begun = tuple[Operation, "asyncio.Future[int]"]

_SCAN = 1 << 16
_CHUNK = 1 << 20

# How long a lock is waited for, in seconds.
_PATIENCE = 0.5

# From here on a write is not tried on the loop's thread, which would copy it there (XFS, btrfs).
_INLINE_WRITE = 64 * 1024


class Shape(NamedTuple):
    """How the file of a log is opened, and what may stand at its end."""

    permissions: int
    dsync: bool
    framed: bool
    torn_line: TornLine
    preallocate: int

    @property
    def flags(self) -> int:
        return os.O_RDWR | os.O_CLOEXEC | (os.O_DSYNC if self.dsync else 0)


def open_locked(path: str, shape: Shape) -> tuple[int, int]:
    """Open, or make, the file and become its one owner: descriptor and logical end.

    What is in it then is durable, and so is its name.
    """
    while True:
        fd = os.open(path, shape.flags | os.O_CREAT, shape.permissions)
        try:
            _lock(fd, path)
            if not _is_at(fd, path):  # it was rotated before we had the lock
                os.close(fd)
                continue
            undo_half_rotation(path)
            end = _repair(fd, path, shape)
            os.fsync(fd)
            sync_directory(path)
        except BaseException:
            os.close(fd)
            raise
        return fd, end


def _lock(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "a log must be a regular file", path)
    # Of a process that was killed the kernel ends the operations, and only then its lock;
    # with io_uring that takes until some 20 ms after its end can be seen.
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BlockingIOError(
                    error.errno, "the log has another owner, in this process or another", path
                ) from None
        time.sleep(0.005)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


# ---- the end of the file -----------------------------------------------------------


def _repair(fd: int, path: str, shape: Shape) -> int:
    """Cut what no record is; the offset at which the next one goes. Raises
    ``CorruptLogError`` where records would be cut that no crash has torn."""
    size = os.fstat(fd).st_size
    end = _end_of_frames(fd) if shape.framed else _end_of_lines(fd, size, shape)
    if end < size:
        if shape.framed:
            check_torn(partial(os.pread, fd), end, size, path)
        os.ftruncate(fd, end)
    ends_lines = not shape.framed and shape.torn_line == "newline"
    if ends_lines and end and os.pread(fd, 1, end - 1) != b"\n":
        end += os.pwrite(fd, b"\n", end)
    return end


def _end_of_frames(fd: int) -> int:
    splitter = FrameSplitter()
    offset = 0
    while not splitter.invalid and (piece := os.pread(fd, _CHUNK, offset)):
        splitter.feed(piece)
        offset += len(piece)
    return splitter.offset


def _end_of_lines(fd: int, size: int, shape: Shape) -> int:
    """Behind the last byte that is not NUL; behind the last newline, if that is asked for."""
    if shape.torn_line == "keep" and not shape.preallocate:
        return size
    end = _rfind(fd, size, _not_nul)
    return _rfind(fd, end, _newline) if shape.torn_line == "cut" else end


def _not_nul(piece: bytes) -> int:
    return len(piece.rstrip(b"\0"))


def _newline(piece: bytes) -> int:
    return piece.rfind(b"\n") + 1


def _rfind(fd: int, end: int, last: Any) -> int:
    """Behind the last byte before ``end`` that ``last`` finds, searched from the end."""
    while end:
        start = max(0, end - _SCAN)
        found: int = last(os.pread(fd, end - start, start))
        if found:
            return start + found
        end = start
    return 0


# ---- the open file -----------------------------------------------------------------


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
        done = 0
        if begun is None:
            begun = self.begin(data, offset)
        while begun is not None:
            operation, future = begun
            try:
                n = await future
            except BaseException:
                self.driver.abandon(operation, future)
                raise
            if n > 0:
                done += n
            elif n != -errno.EINTR:
                raise os_error(n or -errno.EIO, self.path)
            if done == size:
                return
            begun = self.driver.start(
                *(WRITE | self._worker, self.descriptor),
                *(inside(pin(data), done), size - done, offset + done),
            )

    async def _allocate(self, end: int) -> None:
        """Blocks ahead of the end, in steps; what goes wrong here the write itself will tell."""
        start, step = self._allocated, self.shape.preallocate
        length = -(-(end - start) // step) * step
        self._padded = True
        if self.driver.serves(FALLOCATE):
            ret = await self.driver.run(FALLOCATE, self.descriptor, NO_BUFFER, length, start)
        else:
            ret = await self._in_thread(_fallocate, start, length)
        self._allocated = -1 if ret else start + length

    async def sync(self) -> None:
        """fdatasync(2): what was written before is on the disk. No error is tried again."""
        ret = -errno.EINTR
        while ret == -errno.EINTR:
            ret = await self.driver.run(FDATASYNC, self.descriptor)
        if ret < 0:
            raise os_error(ret, self.path)

    async def cut(self, end: int) -> None:
        """End the file there: behind its last good record."""
        if self.driver.serves(FTRUNCATE):
            ret = await self.driver.run(FTRUNCATE, self.descriptor, NO_BUFFER, 0, end)
        else:
            ret = await self._in_thread(_ftruncate, end)
        if ret < 0:
            raise os_error(ret, self.path)

    async def _in_thread(self, function: Any, *args: int) -> int:
        result: int = await in_thread(
            self.driver, self.descriptor, function, self.descriptor.fd, *args
        )
        return result

    def is_at_path(self) -> bool:
        """Whether the path still names this file; two system calls that may wait where the
        file is not local."""
        return _is_at(self.descriptor.fd, self.path)

    async def close(self, end: int | None) -> None:
        """Cut what was allocated behind ``end`` (``None``: leave it), and close."""
        try:
            if self._padded and end is not None:
                await self.cut(end)
                await self.sync()
        finally:
            await self.descriptor.idle()
            # By name: a child between fork and exec may have the descriptor for a moment.
            await self._in_thread(_unlock)
            await close_descriptor(self.driver, self.descriptor, self.path, at_once=False)


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


async def open_log(driver: Driver, path: str, shape: Shape) -> LogFile:
    """Open the log at ``path``. Cancelled, it leaves no descriptor behind."""
    fd, end = await in_thread(
        driver, Descriptor(-1), open_locked, path, shape, on_orphan=_close_orphan
    )
    return await _adopt(driver, fd, path, shape, end)


async def rotate_log(file: LogFile) -> LogFile:
    """The new file at the path of ``file``, which has got a number."""
    flags, permissions = file.shape.flags, file.shape.permissions
    fd = await in_thread(
        file.driver,
        file.descriptor,
        rotate,
        file.path,
        flags,
        permissions,
        on_orphan=lambda fd: _close_orphan((fd, 0)),
    )
    return await _adopt(file.driver, fd, file.path, file.shape, 0)


async def _adopt(driver: Driver, fd: int, path: str, shape: Shape, end: int) -> LogFile:
    driver.forget(fd)  # the number may have been another file's
    descriptor = Descriptor(fd)
    try:
        identity: Identity = identify(fd)
        local = await is_local(driver, descriptor, identity)
    except BaseException:
        descriptor.close_when_idle()
        raise
    return LogFile(driver, descriptor, path, shape, end, local)


def _close_orphan(opened: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        os.close(opened[0])
