"""os.scandir for asyncio: a directory is read by the loop's default executor."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Generator
from itertools import islice
from typing import Any, AnyStr, Generic, TypeVar, overload

from uringfile._errors import os_error_of
from uringfile._fd import Descriptor
from uringfile._loop import running_driver
from uringfile._names import lease, stat_path
from uringfile._open import NO_DESCRIPTOR, in_thread

# How many entries one call of a thread reads.
_GROUP = 1024

Self = TypeVar("Self", bound="ScandirIterator[Any]")


class DirEntry(Generic[AnyStr]):
    """An entry of a directory, as ``os.DirEntry``; ``stat`` is awaited.

    What kind of file it is, and a link's target, the thread that read the directory has found
    out, so that ``is_dir``, ``is_file`` and ``is_symlink`` are plain calls that never wait.
    """

    __slots__ = ("_dir_fd", "_inode", "_kinds", "_stats", "name", "path")

    def __init__(self, entry: Any, dir_fd: int | None) -> None:
        #: The name alone.
        self.name: AnyStr = entry.name
        #: The name behind the path that ``scandir`` was given.
        self.path: AnyStr = entry.path
        self._dir_fd = dir_fd
        self._inode: int = entry.inode()
        self._stats: dict[bool, os.stat_result] = {}
        own = _kind(entry, False)
        self._kinds = {False: own, True: _kind(entry, True) if own == stat.S_IFLNK else own}

    def inode(self) -> int:
        """The number of its inode."""
        return self._inode

    def _is(self, kind: int, follow_symlinks: bool) -> bool:
        found = self._kinds[bool(follow_symlinks)]
        if isinstance(found, OSError):
            raise found
        return found == kind

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory, or a link to one."""
        return self._is(stat.S_IFDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a link to one."""
        return self._is(stat.S_IFREG, follow_symlinks)

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link, also one that leads nowhere."""
        return self._is(stat.S_IFLNK, False)

    def is_junction(self) -> bool:
        """Always false: Windows has junctions."""
        return False

    async def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """stat(2) of it, or of what a link leads to; asked once."""
        follow = bool(follow_symlinks)
        if follow not in self._stats:
            name = self.path if self._dir_fd is None else self.name
            self._stats[follow] = await stat_path(name, dir_fd=self._dir_fd, follow_symlinks=follow)
        return self._stats[follow]

    def __fspath__(self) -> AnyStr:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"


def _kind(entry: Any, follow_symlinks: bool) -> int | OSError:
    """S_IFDIR, S_IFREG, S_IFLNK, 0 for what else there is, or is not; in a thread."""
    try:
        if not follow_symlinks and entry.is_symlink():
            return stat.S_IFLNK
        if entry.is_dir(follow_symlinks=follow_symlinks):
            return stat.S_IFDIR
        return stat.S_IFREG if entry.is_file(follow_symlinks=follow_symlinks) else 0
    except OSError as error:
        return error


if sys.version_info >= (3, 11):

    def letting_others_run(entry: os.DirEntry[Any]) -> Any:
        return entry

else:

    class letting_others_run:
        """Before Python 3.11 an os.DirEntry that has to ask the file system, for the kind of a
        link's target or of what readdir(3) does not tell, keeps all threads waiting
        (CPython gh-89175)."""

        def __init__(self, entry: os.DirEntry[Any]) -> None:
            self.name, self.path, self.inode = entry.name, entry.path, entry.inode
            self._entry = entry
            self._modes: dict[bool, int] = {}

        def _mode(self, follow_symlinks: bool) -> int | None:
            """``None`` where it cannot be asked for; the entry may know it all the same."""
            if follow_symlinks not in self._modes:
                try:
                    status = os.stat(self.path, follow_symlinks=follow_symlinks)
                except OSError as error:
                    return 0 if isinstance(error, FileNotFoundError) else None
                self._modes[follow_symlinks] = status.st_mode
            return self._modes[follow_symlinks]

        def is_symlink(self) -> bool:
            mode = self._mode(False)
            return self._entry.is_symlink() if mode is None else stat.S_ISLNK(mode)

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            mode = self._mode(follow_symlinks)
            if mode is None:
                return self._entry.is_dir(follow_symlinks=follow_symlinks)
            return stat.S_ISDIR(mode)

        def is_file(self, *, follow_symlinks: bool = True) -> bool:
            mode = self._mode(follow_symlinks)
            if mode is None:
                return self._entry.is_file(follow_symlinks=follow_symlinks)
            return stat.S_ISREG(mode)


class _Directory:
    """The thread's side: an open directory, read a group of entries at a time."""

    def __init__(self, path: Any) -> None:
        self._path = path
        self._dir_fd: int | None = None
        self._entries: Any = None
        #: Whether there is nothing to read any more, and nothing to close.
        self.ended = False
        # Of a call that was cancelled the thread may still be at work.
        self._lock = threading.Lock()

    def lease_path(self) -> Descriptor:
        """On the loop's thread, before ``read``."""
        if self._dir_fd is not None or not isinstance(self._path, int):
            return NO_DESCRIPTOR
        held, (number,) = lease(self._path)
        if number == -1:
            raise os_error_of(-errno.EBADF)
        self._dir_fd, self._path = self._path, number
        return held

    def read(self) -> list[DirEntry[Any]]:
        with self._lock:
            if self.ended:
                return []
            try:
                if self._entries is None:
                    self._entries = os.scandir(self._path)
                group = [self._entry(entry) for entry in islice(self._entries, _GROUP)]
            except BaseException:
                self._close()
                raise
            if len(group) < _GROUP:
                self._close()
            return group

    def _entry(self, entry: Any) -> DirEntry[Any]:
        # Of a directory that is passed as a descriptor there is no path to the entry, and the
        # descriptor may have been closed.
        facts = entry if self._dir_fd is not None else letting_others_run(entry)
        return DirEntry(facts, self._dir_fd)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        self.ended = True
        if self._entries is not None:
            self._entries.close()


class ScandirIterator(Generic[AnyStr]):
    """The entries of a directory, without ``.`` and ``..``, in the order of the disk.

    ``async for`` iterates, ``async with`` also closes, and ``await`` opens, so that errors
    come there; without it they come with the first entry. A call that is cancelled loses no
    entry. As with ``os.scandir`` an iterator that is neither exhausted nor closed makes a
    ``ResourceWarning``.
    """

    def __init__(self, path: Any) -> None:
        self._directory = _Directory(path)
        self._entries: deque[DirEntry[AnyStr]] = deque()

    def __await__(self: Self) -> Generator[Any, None, Self]:
        yield from self._fill().__await__()
        return self

    async def __aenter__(self: Self) -> Self:
        await self._fill()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self: Self) -> Self:
        return self

    async def __anext__(self) -> DirEntry[AnyStr]:
        if not self._entries:
            await self._fill()
        if not self._entries:
            raise StopAsyncIteration
        return self._entries.popleft()

    async def _fill(self) -> None:
        """Have entries, if there are any left."""
        if self._entries or self._directory.ended:
            return
        driver = running_driver()
        held = self._directory.lease_path()
        came = self._entries.extend
        try:
            came(await in_thread(driver, held, self._directory.read, on_orphan=came))
        finally:
            held.close_when_idle()

    async def aclose(self) -> None:
        """Close the directory, and forget what was read of it; a second call does nothing."""
        self._entries.clear()
        if not self._directory.ended:
            await in_thread(running_driver(), NO_DESCRIPTOR, self._directory.close)


@overload
def scandir(path: int | None = None) -> ScandirIterator[str]: ...
@overload
def scandir(path: AnyStr | os.PathLike[AnyStr]) -> ScandirIterator[AnyStr]: ...
def scandir(path: Any = None) -> ScandirIterator[Any]:
    """The entries of a directory, read in threads, some thousand at a time.

    ``async for``, ``async with`` or ``await`` (which opens); not a coroutine itself.
    """
    if path is None:
        path = "."
    return ScandirIterator(path if isinstance(path, int) else os.fspath(path))
