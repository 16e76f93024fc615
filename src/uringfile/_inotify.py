"""inotify(7): which watched files have changed, and which names in watched directories."""

from __future__ import annotations

import errno
import os
import struct

from uringfile import _native_engine
from uringfile._errors import os_error
from uringfile._fd import Descriptor

MODIFY = 0x2
ATTRIB = 0x4
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800

#: What may happen to a file that is followed.
FILE_EVENTS = MODIFY | ATTRIB | MOVE_SELF | DELETE_SELF
#: What may happen to the names in its directory.
NAME_EVENTS = CREATE | MOVED_TO | MOVED_FROM | DELETE | MOVE_SELF | DELETE_SELF

# wd, mask, cookie, length of the name that follows.
_EVENT = struct.Struct("=iIII")

# The longest event has 16 + 256 bytes; read(2) gives whole events only.
_READ_SIZE = 16 * 1024

Event = tuple[int, int, bytes]


class Inotify:
    """An inotify instance; there are 128 for each user by default (fs.inotify)."""

    def __init__(self) -> None:
        """Raises ``OSError``: EMFILE when the user has no instance left, ENOSYS, ..."""
        fd = _native_engine.inotify_open()
        if fd < 0:
            raise os_error(fd, None)
        #: On lease, because a path is followed in a thread.
        self.descriptor = Descriptor(fd)

    def fileno(self) -> int:
        return self.descriptor.fd

    def add(self, path: bytes, mask: int) -> int:
        """Watch what the path leads to: the number of the watch, the same one as before
        for the same file. Follows the path, and so may wait. Raises ``OSError``."""
        watch = _native_engine.inotify_add(self.fileno(), path + b"\0", mask)
        if watch < 0:
            raise os_error(watch, path)
        return watch

    def add_descriptor(self, fd: int, mask: int) -> int:
        """Watch the file that is open as ``fd``, wherever its name is by now."""
        return self.add(b"/proc/self/fd/%d" % fd, mask)

    def remove(self, watch: int) -> None:
        """Forget a watch; one that the kernel has dropped by itself is no error."""
        _native_engine.inotify_remove(self.fileno(), watch)

    def events(self) -> list[Event]:
        """``(watch, mask, name)`` of what has happened since the last call; never waits."""
        events: list[Event] = []
        while data := self._read():
            start = 0
            while start < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, start)
                start += _EVENT.size
                events.append((watch, mask, data[start : start + length].rstrip(b"\0")))
                start += length
            if len(data) < _READ_SIZE // 2:
                break
        return events

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno(), _READ_SIZE)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close, once, when nothing holds the descriptor any more."""
        if not self.descriptor.closing:
            self.descriptor.closing = True
            self.descriptor.close_when_idle()

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            self.close()


def open_inotify() -> Inotify | None:
    """An instance, or ``None`` where none can be had."""
    try:
        return Inotify()
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPERM):
            return None
        raise
