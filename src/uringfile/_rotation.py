"""Rotated logs: their names, the change to a new file, what is kept of them. Blocking calls.

The log ``app.log`` is rotated to ``app.log.000001``, then to ``app.log.000002``: the highest
number is the newest, and no file is renamed twice. A compressed one ends in ``.gz``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import re
import shutil
import stat

_NEW = ".new"
_GZ = ".gz"
_PARTIAL = ".gz.partial"


def sync_directory(path: str) -> None:
    """Make the name durable: fsync(2) of the directory that ``path`` stands in."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(fd)


def rotated_files(path: str) -> list[tuple[int, str]]:
    """Number and name of each, the oldest first; one that is compressed and still there
    as it was comes twice."""
    directory, base = os.path.split(path)
    pattern = re.compile(re.escape(base) + r"\.([0-9]{6,})(?:\.gz)?")
    found = []
    for name in os.listdir(directory or "."):
        match = pattern.fullmatch(name)
        if match:
            found.append((int(match[1]), os.path.join(directory, name)))
    return sorted(found)


def undo_half_rotation(path: str) -> None:
    """After a crash between the two steps of ``rotate`` the log has two names: drop the new."""
    for _, name in rotated_files(path)[-2:]:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samefile(name, path):
                os.unlink(name)


def rotate(path: str, flags: int, permissions: int) -> int:
    """Give the log its number and put a new, empty, locked file in its place: its descriptor.

    ``path`` names one of the two at any moment, and whoever opens it finds it locked.
    """
    found = rotated_files(path)
    name = f"{path}.{found[-1][0] + 1 if found else 1:06d}"
    new = path + _NEW
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # a crash has left it
    fd = os.open(new, flags | os.O_CREAT | os.O_EXCL, permissions)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):
            os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode))
        _set_aside(path, name)
        os.rename(new, path)
        sync_directory(path)
    except BaseException:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
    return fd


def _set_aside(path: str, name: str) -> None:
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError:
        os.rename(path, name)  # a file system without hard links; path is missing for a moment


def tidy(path: str, keep: int | None, packed: bool) -> None:
    """Delete, then compress."""
    if keep is not None:
        prune(path, keep)
    if packed:
        compress(path)


def prune(path: str, keep: int) -> None:
    """Delete all but the ``keep`` newest."""
    found = rotated_files(path)
    kept = sorted({number for number, _ in found})[-keep:] if keep else []
    for number, name in found:
        if number not in kept:
            os.unlink(name)


def compress(path: str) -> None:
    """Compress those that are not, also what a crash has left: each is complete under one
    of its two names at any moment."""
    for _, name in rotated_files(path):
        if name.endswith(_GZ):
            continue
        target = name + _GZ
        if not os.path.exists(target):
            _compress_one(name, target)
        os.unlink(name)
    sync_directory(path)


def _compress_one(name: str, target: str) -> None:
    partial = name + _PARTIAL
    status = os.stat(name)
    fd = os.open(
        partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, stat.S_IMODE(status.st_mode)
    )
    try:
        with open(name, "rb") as source, open(fd, "wb") as raw:
            with gzip.GzipFile(os.path.basename(name), "wb", fileobj=raw) as packed:
                shutil.copyfileobj(source, packed, 1 << 18)
            raw.flush()
            os.fsync(raw.fileno())
        os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(partial, target)
        sync_directory(name)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
