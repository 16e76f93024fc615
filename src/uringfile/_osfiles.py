"""What ``uringfile.os`` does with one name or two: each function is a system call."""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from typing import Any

from uringfile import _kernel
from uringfile._engine import (
    ASYNC,
    FALLOCATE,
    FTRUNCATE,
    LINKAT,
    MKDIRAT,
    OPENAT,
    RENAMEAT,
    SYMLINKAT,
    UNLINKAT,
)
from uringfile._errors import os_error_of
from uringfile._fd import Descriptor
from uringfile._loop import running_driver
from uringfile._names import (
    c_integer,
    encoded,
    lease,
    on_duplicates,
    on_executor,
    on_path,
    on_two_paths,
    perform,
    stat_any,
    stat_path,
)
from uringfile._open import close_descriptor, close_orphan, open_cached
from uringfile._paths import FileDescriptorOrPath, StrOrBytesPath
from uringfile._uninterrupted import run_uninterrupted

_AT_REMOVEDIR = 0x200
_AT_SYMLINK_FOLLOW = 0x400

# With these open(2) of a cached path is the same as ours, and may be done at once.
_PLAIN_FLAGS = _kernel.O_ACCMODE | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW


async def stat(
    path: FileDescriptorOrPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """stat(2), lstat(2), fstat(2) or fstatat(2). A cached name on a local file system is
    answered without suspending."""
    return await stat_any(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)


async def lstat(path: StrOrBytesPath, *, dir_fd: int | None = None) -> os.stat_result:
    """As ``stat``, of a symbolic link itself."""
    return await stat_path(path, dir_fd=dir_fd, follow_symlinks=False)


async def open(
    path: StrOrBytesPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
) -> int:
    """openat(2), with O_CLOEXEC: a descriptor. Cancelled, it leaves none open."""
    flags, mode = c_integer(flags) | os.O_CLOEXEC, c_integer(mode)
    if dir_fd is None and not flags & ~_PLAIN_FLAGS:
        fd = open_cached(running_driver(), os.fspath(path), flags)
        if fd >= 0:
            return fd
    found: int = await on_path(
        OPENAT | ASYNC,
        os.open,
        path,
        flags,
        mode,
        dir_fd=dir_fd,
        length=mode & 0o7777,
        offset=flags,
        on_orphan=close_orphan,
    )
    return found


async def close(fd: int) -> None:
    """close(2). The descriptor is closed in any case, also if this is cancelled."""
    fd = c_integer(fd)
    await close_descriptor(running_driver(), Descriptor(fd), fd)


async def unlink(path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """unlinkat(2): remove a name that is no directory's."""
    await on_path(UNLINKAT, os.unlink, path, dir_fd=dir_fd)


async def remove(path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """The same as ``unlink``."""
    await on_path(UNLINKAT, os.remove, path, dir_fd=dir_fd)


async def rmdir(path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """unlinkat(2) with AT_REMOVEDIR: remove an empty directory."""
    await on_path(UNLINKAT, os.rmdir, path, dir_fd=dir_fd, offset=_AT_REMOVEDIR)


async def mkdir(path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    """mkdirat(2)."""
    length = c_integer(mode) & 0o7777
    await on_path(MKDIRAT, os.mkdir, path, mode, dir_fd=dir_fd, length=length)


async def rename(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """renameat(2): what ``dst`` named before is replaced, all at once."""
    await on_two_paths(RENAMEAT, os.rename, src, dst, src_dir_fd, dst_dir_fd)


async def replace(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """The same as ``rename``."""
    await on_two_paths(RENAMEAT, os.replace, src, dst, src_dir_fd, dst_dir_fd)


async def link(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    """linkat(2). Before Python 3.14 a link at ``src`` is followed only if a ``dir_fd`` is given,
    as by the ``os.link`` of these versions (CPython gh-81793)."""
    at = src_dir_fd is not None or dst_dir_fd is not None
    follows = follow_symlinks and (at or sys.version_info >= (3, 14))
    flags = _AT_SYMLINK_FOLLOW if follows else 0
    await on_two_paths(
        LINKAT,
        os.link,
        src,
        dst,
        src_dir_fd,
        dst_dir_fd,
        flags,
        follow_symlinks=follow_symlinks,
    )


async def symlink(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    target_is_directory: bool = False,
    *,
    dir_fd: int | None = None,
) -> None:
    """symlinkat(2): ``dst`` then leads to ``src``. ``target_is_directory`` means nothing here."""
    names = os.fspath(src), os.fspath(dst)
    target, path = encoded(names[0]), encoded(names[1])
    held, (number,) = lease(dir_fd)
    call = partial(os.symlink, *names, dir_fd=number)
    await perform(SYMLINKAT, held, target + path, len(target), 0, names, call)


async def ftruncate(fd: int, length: int) -> None:
    """ftruncate(2)."""
    fd, length = c_integer(fd), c_integer(length, 64)
    if running_driver().serves(FTRUNCATE):
        await _perform_on(fd, FTRUNCATE, 0, length)
    else:
        await on_duplicates(os.ftruncate, [fd], length)


async def truncate(path: FileDescriptorOrPath, length: int) -> None:
    """truncate(2), in a thread; of a descriptor ftruncate(2)."""
    if isinstance(path, int):
        await ftruncate(path, length)
    else:
        await on_executor(os.truncate, path, length)


async def posix_fallocate(fd: int, offset: int, length: int, /) -> None:
    """posix_fallocate(3): the file has room on the disk for these bytes, and is as long."""
    fd, offset, length = c_integer(fd), c_integer(offset, 64), c_integer(length, 64)
    if min(offset, length) >= 0 and running_driver().serves(FALLOCATE):
        try:
            await _perform_on(fd, FALLOCATE, length, offset)
            return
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
    # As the C library does where the file system cannot.
    await on_duplicates(os.posix_fallocate, [fd], offset, length)


async def _perform_on(fd: int, opcode: int, length: int, offset: int) -> None:
    """The kernel finds the file when it takes the operation, and then needs no number."""
    ret = await run_uninterrupted(
        running_driver(), opcode, Descriptor(fd), length=length, offset=offset
    )
    if ret < 0:
        raise os_error_of(ret)


# ---- in threads --------------------------------------------------------------------


async def readlink(path: StrOrBytesPath, *, dir_fd: int | None = None) -> str | bytes:
    """readlink(2), in a thread."""
    found: str | bytes = await on_executor(os.readlink, os.fspath(path), dir_fd=dir_fd)
    return found


async def access(
    path: StrOrBytesPath,
    mode: int,
    *,
    dir_fd: int | None = None,
    effective_ids: bool = False,
    follow_symlinks: bool = True,
) -> bool:
    """access(2), in a thread."""
    found: bool = await on_executor(
        os.access,
        os.fspath(path),
        mode,
        dir_fd=dir_fd,
        effective_ids=effective_ids,
        follow_symlinks=follow_symlinks,
    )
    return found


async def chmod(
    path: FileDescriptorOrPath,
    mode: int,
    *,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    """chmod(2), in a thread."""
    await on_executor(os.chmod, path, mode, dir_fd=dir_fd, follow_symlinks=follow_symlinks)


async def utime(
    path: FileDescriptorOrPath,
    times: tuple[float, float] | None = None,
    *,
    ns: tuple[int, int] | None = None,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    """utimensat(2), in a thread."""
    options: dict[str, Any] = {} if ns is None else {"ns": ns}
    await on_executor(
        os.utime, path, times, dir_fd=dir_fd, follow_symlinks=follow_symlinks, **options
    )


async def statvfs(path: FileDescriptorOrPath) -> os.statvfs_result:
    """statvfs(3), in a thread."""
    found: os.statvfs_result = await on_executor(os.statvfs, path)
    return found


async def listdir(path: Any = None) -> list[Any]:
    """The names in a directory, in a thread; bytes if the path is bytes."""
    found: list[Any] = await on_executor(os.listdir, "." if path is None else path)
    return found


async def sendfile(out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
    """sendfile(2), in a thread: how many bytes, which may be fewer than ``count``.

    On a descriptor that does not block it raises ``BlockingIOError``, as ``os.sendfile`` does.
    Cancelled, it may go on with what it was doing.
    """
    found: int = await on_duplicates(os.sendfile, [out_fd, in_fd], offset, count)
    return found
