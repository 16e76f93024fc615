"""The functions of ``os.path`` that ask the file system, for asyncio (``uringfile.os.path``).

Names, arguments and results are those of the standard module; each is awaited. What the
kernel has cached is answered without suspending, as with ``uringfile.os.stat``.
"""

from __future__ import annotations

import os
import stat as _stat

from uringfile._names import (
    c_integer,
    on_executor,
    stat_any,
    stat_descriptor,
)
from uringfile._paths import FileDescriptorOrPath, StrOrBytesPath

__all__ = [
    "exists",
    "getatime",
    "getctime",
    "getmtime",
    "getsize",
    "isdir",
    "isfile",
    "islink",
    "ismount",
    "lexists",
    "realpath",
    "samefile",
    "sameopenfile",
]


async def _mode(path: FileDescriptorOrPath, follow_symlinks: bool = True) -> int:
    """st_mode, or 0 where there is nothing."""
    try:
        return (await stat_any(path, follow_symlinks=follow_symlinks)).st_mode
    except (OSError, ValueError):
        return 0


async def exists(path: FileDescriptorOrPath) -> bool:
    """Whether the path, or the descriptor, leads to something; a dangling link does not."""
    return bool(await _mode(path))


async def lexists(path: StrOrBytesPath) -> bool:
    """Whether there is something at the path, were it a dangling link."""
    return bool(await _mode(os.fspath(path), False))


async def isfile(path: FileDescriptorOrPath) -> bool:
    """Whether the path leads to a regular file."""
    return _stat.S_ISREG(await _mode(path))


async def isdir(path: FileDescriptorOrPath) -> bool:
    """Whether the path leads to a directory."""
    return _stat.S_ISDIR(await _mode(path))


async def islink(path: StrOrBytesPath) -> bool:
    """Whether there is a symbolic link at the path."""
    return _stat.S_ISLNK(await _mode(os.fspath(path), False))


async def ismount(path: StrOrBytesPath) -> bool:
    """Whether something is mounted at the path."""
    return bool(await on_executor(os.path.ismount, os.fspath(path)))


async def getsize(path: FileDescriptorOrPath) -> int:
    """The size in bytes."""
    return (await stat_any(path)).st_size


async def getmtime(path: FileDescriptorOrPath) -> float:
    """When the data was changed last, in seconds since the epoch."""
    return (await stat_any(path)).st_mtime


async def getatime(path: FileDescriptorOrPath) -> float:
    """When the data was read last (see relatime in mount(8)), in seconds since the epoch."""
    return (await stat_any(path)).st_atime


async def getctime(path: FileDescriptorOrPath) -> float:
    """When the inode was changed last, in seconds since the epoch."""
    return (await stat_any(path)).st_ctime


async def samefile(path1: FileDescriptorOrPath, path2: FileDescriptorOrPath) -> bool:
    """Whether both lead to the same file."""
    return os.path.samestat(await stat_any(path1), await stat_any(path2))


async def sameopenfile(fd1: int, fd2: int) -> bool:
    """Whether both descriptors are of the same file."""
    return os.path.samestat(await _fstat(fd1), await _fstat(fd2))


async def _fstat(fd: int) -> os.stat_result:
    try:
        return await stat_descriptor(c_integer(fd))
    except OSError as error:
        error.filename = None
        raise


async def realpath(path: StrOrBytesPath, *, strict: bool = False) -> str | bytes:
    """The path without symbolic links; with ``strict`` it must exist. In a thread."""
    found: str | bytes = await on_executor(os.path.realpath, os.fspath(path), strict=strict)
    return found
