"""The functions of ``os`` that name files, for asyncio.

Names, arguments, results and exceptions are those of the standard module; each is awaited.
``path`` has those of ``os.path``. What the functions do:

- ``stat`` and what is made of it: a name that the kernel has cached, on a local file system,
  is answered at once (openat2 with RESOLVE_CACHED, mount numbers of Linux 6.8). Else it is
  as with the next ones.
- ``open``, ``close``, ``unlink``, ``rename``, ``replace``, ``mkdir``, ``rmdir``, ``link``,
  ``symlink``, ``ftruncate`` and ``posix_fallocate`` are operations of io_uring, each as far
  as the kernel has it (all but ``ftruncate``, Linux 6.9, since 5.15).
- The rest, and these under POSIX AIO, are calls in the loop's default executor.

None of them waits on the loop's thread. Cancelling one releases the caller at once; what it
asked for may still happen. A descriptor that is passed (``dir_fd``, or in the place of a path)
may be closed as soon as the call has ended, also by cancellation.
"""

from uringfile import _ospath as path
from uringfile._osfiles import (
    access,
    chmod,
    close,
    ftruncate,
    link,
    listdir,
    lstat,
    mkdir,
    open,
    posix_fallocate,
    readlink,
    remove,
    rename,
    replace,
    rmdir,
    sendfile,
    stat,
    statvfs,
    symlink,
    truncate,
    unlink,
    utime,
)
from uringfile._ospath import exists, getsize, isdir, isfile, islink, lexists
from uringfile._ostree import makedirs, removedirs, renames, walk
from uringfile._scandir import DirEntry, ScandirIterator, scandir

__all__ = [
    "DirEntry",
    "ScandirIterator",
    "access",
    "chmod",
    "close",
    "exists",
    "ftruncate",
    "getsize",
    "isdir",
    "isfile",
    "islink",
    "lexists",
    "link",
    "listdir",
    "lstat",
    "makedirs",
    "mkdir",
    "open",
    "path",
    "posix_fallocate",
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
    "truncate",
    "unlink",
    "utime",
    "walk",
]
