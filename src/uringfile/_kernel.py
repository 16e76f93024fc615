"""What the kernel tells of itself and of the limits on this process."""

from __future__ import annotations

import os
import resource

#: Of ``Seccomp:`` in /proc/self/status (proc(5)).
_SECCOMP_MODES = {"0": "none", "1": "strict", "2": "filter"}

# What the os module of PyPy does not have (asm-generic/fcntl.h, <linux/fs.h>).
O_ACCMODE: int = getattr(os, "O_ACCMODE", 0o3)
O_PATH: int = getattr(os, "O_PATH", 0o10000000)
O_TMPFILE: int = getattr(os, "O_TMPFILE", 0o20000000 | os.O_DIRECTORY)
SEEK_DATA: int = getattr(os, "SEEK_DATA", 3)
SEEK_HOLE: int = getattr(os, "SEEK_HOLE", 4)


def release() -> str:
    return os.uname().release


def io_uring_disabled() -> int | None:
    """``kernel.io_uring_disabled``: 0, 1 (for the unprivileged), 2 (for all).

    ``None`` where there is no such switch: before Linux 6.6, or without /proc.
    """
    try:
        with open("/proc/sys/kernel/io_uring_disabled") as file:
            return int(file.read())
    except OSError:
        return None


def seccomp() -> str | None:
    """Whether system calls are filtered: "none", "strict" or "filter"; ``None`` if unknown."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("Seccomp:"):
                    return _SECCOMP_MODES.get(line.split()[1])
    except OSError:
        pass
    return None


def memlock() -> int | None:
    """How many bytes this user may lock (``RLIMIT_MEMLOCK``); ``None`` when unlimited."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft
