"""The files that are read and written: making them, and getting them into or out of the cache."""

from __future__ import annotations

import mmap
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

BLOCK = 4096
MIB = 1 << 20
#: Of a file of the user that is larger, so much is read.
LARGEST = 1 << 30


def make_random_file(path: Path, size: int) -> None:
    """A file of that many random bytes, on the disk; what is there already is left as it is."""
    if path.exists():
        return
    with open(path, "wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))
        file.flush()
        os.fsync(file.fileno())


def size_of(path: Path) -> int:
    """How much of the file is measured."""
    return min(path.stat().st_size, LARGEST)


def warm(path: Path) -> None:
    """Bring into the page cache what is measured of the file."""
    with open(path, "rb", buffering=0) as file:
        for _ in range(0, size_of(path), MIB):
            file.read(MIB)


def drop(path: Path) -> None:
    """Put the file out of the page cache, so that O_DIRECT finds no page to care for."""
    with open(path, "rb", buffering=0) as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def settle(path: Path) -> None:
    """Write out what is dirty, so that the next one measured does not pay for it."""
    with open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())


def shuffled_offsets(path: Path, parts: int) -> list[Iterator[int]]:
    """Every whole block of the file once, in an order of its own in each process, dealt out to
    so many readers, for ever."""
    offsets = list(range(0, size_of(path) - BLOCK + 1, BLOCK))
    random.shuffle(offsets)
    return [cycle(offsets[part::parts]) for part in range(parts)]


@contextmanager
def descriptor(path: Path, *, writable: bool = False, direct: bool = False) -> Iterator[int]:
    flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_DIRECT if direct else 0)
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


_aligned = threading.local()


def pread_direct(fd: int, size: int, offset: int) -> bytes:
    """pread for O_DIRECT: into aligned memory of this thread's own, and copied out of it."""
    buffer: mmap.mmap | None = getattr(_aligned, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _aligned.buffer = mmap.mmap(-1, size)
    return buffer[: os.preadv(fd, [buffer], offset)]


def read_whole(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()
