"""What the simulated kernel knows of operations and files, and what may happen to them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from uringfile import _engine

ERRORS = {
    _engine.READ: (errno.EIO, errno.EINTR),
    _engine.WRITE: (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EFBIG),
    _engine.FSYNC: (errno.EIO, errno.ENOSPC, errno.EINTR, errno.EINVAL),
    _engine.FDATASYNC: (errno.EIO, errno.EDQUOT, errno.EINTR, errno.EINVAL),
    _engine.OPENAT: (errno.EIO, errno.EMFILE),
    _engine.CLOSE: (errno.EIO, errno.EDQUOT),
    _engine.STATX: (errno.EIO,),
    _engine.FTRUNCATE: (errno.EIO, errno.EINTR),
    _engine.FALLOCATE: (errno.ENOSPC, errno.EOPNOTSUPP, errno.EINTR),
    _engine.FADVISE: (errno.EIO, errno.EINTR),
}


@dataclass
class Faults:
    """How often each of them happens."""

    errors: float = 0.0
    short: float = 0.0
    full: float = 0.0
    flush: float = 0.0
    hang: float = 0.0
    at_once: float = 0.0
    cached: float = 0.0
    reap_max: int = 256


@dataclass
class FileState:
    """What the kernel knows of an inode."""

    #: Operations that ended with an error, EINTR and ECANCELED aside.
    errors: int = 0
    failed_syncs: int = 0
    #: Writes that were performed, and how many of them a sync has made durable.
    writes: int = 0
    synced: int = 0
    failed_cuts: int = 0
    #: What a power cut leaves, where somebody looks at that.
    durable: bytearray | None = None


@dataclass
class Op:
    opcode: int
    flags: int
    fd: int
    memory: Any  # a weak reference, or None
    length: int
    offset: int
    token: int
    mark: int
    inode: int
    lane: int = -1
    flushed: bool = False
    cancel_asked: bool = False
    cancel_seen: bool = False
    answered: int = 0  # to the cancellation
    hangs: bool = False
    result: int | None = None
    name: bytes = b""
    address: int = 0  # where somebody asks for that
    exported: bytearray | None = None  # the user's, which must not be resizable

    @property
    def shown(self) -> int | None:
        """The result, if it is the same in each process."""
        return 0 if self.opcode == _engine.OPENAT and (self.result or 0) > 0 else self.result

    @property
    def number(self) -> int:
        return self.lane if self.lane >= 0 else self.fd
