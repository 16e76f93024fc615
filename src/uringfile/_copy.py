"""copyfile: the data of a file to another one, in a thread that can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from typing import Any

from uringfile._background import settle, shield
from uringfile._executor import call_in_thread
from uringfile._loop import running_driver
from uringfile._native_engine import copy_data, fd_is_local, new_scratch
from uringfile._paths import StrOrBytesPath

Progress = Callable[[int, int], object]

# Between two looks at whether to go on. On a slow disk it takes a second.
_PIECE = 8 << 20

# Small enough to stay in the processor's cache: 1 GiB by read(2) and write(2) in 0.8 of the time
# of copy_file_range(2) or sendfile(2) on ext4, which move 64 KiB at a time.
_BUFFER = 256 * 1024

# _IOW(0x94, 9, int), ioctl_ficlone(2): the copy shares the blocks (btrfs, XFS, bcachefs).
_FICLONE = 0x40049409

# What copy_file_range(2) and ioctl_ficlone(2) say where they do not serve.
_NOT_HERE = (
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
    errno.EISDIR,
)


class _Stopped(Exception):
    """The caller was cancelled."""


async def copyfile(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    follow_symlinks: bool = True,
    progress: Progress | None = None,
) -> StrOrBytesPath:
    """Copy the data of ``src`` to ``dst``, as ``shutil.copyfile``: ``dst``.

    A file at ``dst`` is overwritten, and keeps its permissions. With ``follow_symlinks=False`` a
    link is copied as a link. Blocks are shared where the file system can (FICLONE), or copied
    by its server (copy_file_range(2)); else they go through memory. All that in a thread of
    the loop's default executor.

    ``progress(copied, size)`` is called in the loop, in bytes, after each 8 MiB and at the end.

    Raises what ``shutil.copyfile`` raises: ``OSError``, ``shutil.SameFileError``,
    ``shutil.SpecialFileError``. When it fails or is cancelled, a destination that it has created is
    removed, and one that was there is left with what has been copied. A cancelled call waits
    for the piece under way and for that, at most a second; then they go on without it.
    """
    driver = running_driver()
    copy = _Copy(os.fspath(src), os.fspath(dst), follow_symlinks)
    if progress is not None:
        copy.report = lambda *amounts: driver.loop.call_soon_threadsafe(progress, *amounts)
    driver.in_threads += 1
    work = call_in_thread(driver.loop, copy.run)
    try:
        await shield(work)
    except asyncio.CancelledError:
        copy.stopped = True
        await settle(_end_of(work))
        raise
    return dst


async def _end_of(work: asyncio.Future[None]) -> None:
    with contextlib.suppress(_Stopped):
        await work


class _Copy:
    """The thread's side."""

    def __init__(self, src: Any, dst: Any, follow_symlinks: bool) -> None:
        self._src = src
        self._dst = dst
        self._follow = follow_symlinks
        self.stopped = False
        self.report: Callable[[int, int], object] = lambda copied, size: None

    def run(self) -> None:
        if self.stopped:
            raise _Stopped
        if not self._follow and os.path.islink(self._src):
            self._check_same()
            os.symlink(os.readlink(self._src), self._dst)
            return
        self._check_same()
        for path in (self._src, self._dst):
            if _is_fifo(path):
                raise shutil.SpecialFileError(f"`{os.fsdecode(path)}` is a named pipe")
        source = os.open(self._src, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._copy_from(source)
        finally:
            os.close(source)

    def _check_same(self) -> None:
        try:
            same = os.path.samefile(self._src, self._dst)
        except OSError:  # one of them is missing
            return
        if same:
            raise self._same()

    def _copy_from(self, source: int) -> None:
        status = os.fstat(source)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._src)
        target, created = self._open_target()  # the path, if the file is new
        try:
            try:
                self._empty(target, status)
                self._move(source, target, status.st_size)
            finally:
                os.close(target)
        except BaseException as error:
            if created:
                with contextlib.suppress(OSError):
                    os.unlink(created)
            if isinstance(error, OSError) and error.filename is None:
                error.filename, error.filename2 = self._src, self._dst
            raise

    def _open_target(self) -> tuple[int, str | bytes | None]:
        flags = os.O_WRONLY | os.O_CLOEXEC
        path = self._dst
        while True:
            try:
                return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), path
            except FileExistsError:
                pass
            try:
                return os.open(path, flags), None
            except FileNotFoundError:  # a link that leads nowhere; or it was removed just now
                path = os.path.realpath(path)

    def _empty(self, target: int, source_status: os.stat_result) -> None:
        """Not by O_TRUNC: by now it could be the source."""
        status = os.fstat(target)
        if os.path.samestat(status, source_status):
            raise self._same()
        if stat.S_ISREG(status.st_mode) and status.st_size:
            os.ftruncate(target, 0)

    def _same(self) -> shutil.SameFileError:
        return shutil.SameFileError(f"{self._src!r} and {self._dst!r} are the same file")

    def _move(self, source: int, target: int, size: int) -> None:
        if _clone(source, target):
            self.report(size, size)
            return
        memory, _ = new_scratch(_BUFFER)
        # What is on a disk of this machine nobody copies better than we do.
        by_range = size > 0 and not (fd_is_local(source) and fd_is_local(target))
        copied = 0
        while True:
            if self.stopped:
                raise _Stopped
            n = 0
            if by_range:
                n = _copy_range(source, target)
                by_range = n > 0
            if not n:
                n = copy_data(source, target, _PIECE, memory, _BUFFER)
            if n < 0:
                raise OSError(-n, os.strerror(-n))
            copied += n
            if n < _PIECE and not by_range:
                break
            self.report(copied, max(copied, size))
        self.report(copied, copied)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def _copy_range(source: int, target: int) -> int:
    """0: at the end, or not here; some file systems tell 0 for what they cannot copy."""
    if not hasattr(os, "copy_file_range"):  # PyPy
        return 0
    try:
        return os.copy_file_range(source, target, _PIECE)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return 0


def _is_fifo(path: str | bytes) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False
