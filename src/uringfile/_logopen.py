"""Opening the file of a log: found, locked, its end repaired."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from functools import partial
from typing import Any, NamedTuple

from uringfile._driver import Driver
from uringfile._fd import Descriptor
from uringfile._frames import FrameSplitter
from uringfile._logdamage import check_torn
from uringfile._logdirect import DirectLogFile, block_size
from uringfile._logfile import LogFile, is_at
from uringfile._logpolicy import Shape
from uringfile._native_engine import Identity, identify
from uringfile._open import close_orphan, in_thread, is_local
from uringfile._rotation import rotate, sync_directory, undo_half_rotation

_SCAN = 1 << 16
_CHUNK = 1 << 20

# How long a lock is waited for, in seconds.
_PATIENCE = 0.5


class Opened(NamedTuple):
    """A locked file, its logical end, and what stands in the block there (with O_DIRECT)."""

    fd: int
    end: int
    tail: bytes


def open_locked(path: str, shape: Shape) -> Opened:
    """Open, or make, the file and become its one owner.

    What is in it then is durable, and so is its name.
    """
    while True:
        fd = os.open(path, shape.flags | os.O_CREAT, shape.permissions)
        try:
            _lock(fd, path)
            if not is_at(fd, path):  # it was rotated before we had the lock
                os.close(fd)
                continue
            undo_half_rotation(path)
            end = _repair(fd, path, shape)
            os.fsync(fd)
            sync_directory(path)
            tail = b""
            if shape.direct:
                start = end - end % block_size(identify(fd))
                tail = os.pread(fd, end - start, start)
                _set_direct(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return Opened(fd, end, tail)


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


def _set_direct(fd: int, path: str) -> None:
    """From here on O_DIRECT, which the search for the end does without."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:  # EINVAL: this file system has no O_DIRECT
        raise OSError(error.errno, error.strerror, path) from None


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


# ---- adopted ------------------------------------------------------------------------


async def open_log(driver: Driver, path: str, shape: Shape) -> LogFile:
    """Open the log at ``path``. Cancelled, it leaves no descriptor behind."""
    opened = await in_thread(
        driver, Descriptor(-1), open_locked, path, shape, on_orphan=_close_orphan
    )
    return await _adopt(driver, opened, path, shape)


async def rotate_log(file: LogFile) -> LogFile:
    """The new file at the path of ``file``, which has got a number."""
    shape = file.shape
    opened = await in_thread(
        file.driver, file.descriptor, _rotate, file.path, shape, on_orphan=_close_orphan
    )
    return await _adopt(file.driver, opened, file.path, shape)


def _rotate(path: str, shape: Shape) -> Opened:
    flags = shape.flags | (os.O_DIRECT if shape.direct else 0)
    return Opened(rotate(path, flags, shape.permissions), 0, b"")


async def _adopt(driver: Driver, opened: Opened, path: str, shape: Shape) -> LogFile:
    driver.forget(opened.fd)  # the number may have been another file's
    descriptor = Descriptor(opened.fd)
    try:
        identity: Identity = identify(opened.fd)
        local = await is_local(driver, descriptor, identity)
    except BaseException:
        descriptor.close_when_idle()
        raise
    if shape.direct:
        return DirectLogFile(
            *(driver, descriptor, path, shape, opened.end, local),
            identity=identity,
            tail=opened.tail,
        )
    return LogFile(driver, descriptor, path, shape, opened.end, local)


def _close_orphan(opened: Opened) -> None:
    close_orphan(opened.fd)
