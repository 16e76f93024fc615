"""``aiofiles.os``: functions of ``os``, those of ``uringfile.os``.

``loop`` and ``executor`` are accepted, and ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, AnyStr, Generic

from uringfile import os as uringfile_os
from uringfile._loop import running_driver
from uringfile._open import NO_DESCRIPTOR, in_thread
from uringfile.aiofiles import ospath as path
from uringfile.aiofiles.base import accepting_executor, wrap

__all__ = [
    "access",
    "getcwd",
    "link",
    "listdir",
    "makedirs",
    "mkdir",
    "path",
    "readlink",
    "remove",
    "removedirs",
    "rename",
    "renames",
    "replace",
    "rmdir",
    "scandir",
    "sendfile",
    "stat",
    "statvfs",
    "symlink",
    "unlink",
    "wrap",
]

access = accepting_executor(uringfile_os.access)
link = accepting_executor(uringfile_os.link)
listdir = accepting_executor(uringfile_os.listdir)
makedirs = accepting_executor(uringfile_os.makedirs)
mkdir = accepting_executor(uringfile_os.mkdir)
readlink = accepting_executor(uringfile_os.readlink)
remove = accepting_executor(uringfile_os.remove)
removedirs = accepting_executor(uringfile_os.removedirs)
rename = accepting_executor(uringfile_os.rename)
renames = accepting_executor(uringfile_os.renames)
replace = accepting_executor(uringfile_os.replace)
rmdir = accepting_executor(uringfile_os.rmdir)
sendfile = accepting_executor(uringfile_os.sendfile)
stat = accepting_executor(uringfile_os.stat)
statvfs = accepting_executor(uringfile_os.statvfs)
symlink = accepting_executor(uringfile_os.symlink)
unlink = accepting_executor(uringfile_os.unlink)


@accepting_executor
async def getcwd() -> str:
    """The working directory."""
    return os.getcwd()


class Entries(Generic[AnyStr]):
    """What ``os.scandir`` gives, read to the end already: nothing is open, nothing waits."""

    def __init__(self, entries: list[os.DirEntry[AnyStr]]) -> None:
        self._entries: Iterator[os.DirEntry[AnyStr]] = iter(entries)

    def __iter__(self) -> Iterator[os.DirEntry[AnyStr]]:
        return self

    def __next__(self) -> os.DirEntry[AnyStr]:
        return next(self._entries)

    def __enter__(self) -> Entries[AnyStr]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration."""
        self._entries = iter(())


@accepting_executor
async def scandir(path: Any = None) -> Entries[Any]:
    """The entries of a directory, the standard ``os.DirEntry``-s, for a plain ``for``.

    All have been read, in a thread, when this returns; for large directories, and to ask for
    more about an entry, there is ``uringfile.os.scandir``.
    """
    return Entries(await in_thread(running_driver(), NO_DESCRIPTOR, _read, path))


def _read(path: Any) -> list[os.DirEntry[Any]]:
    with os.scandir(path) as entries:
        return list(entries)
