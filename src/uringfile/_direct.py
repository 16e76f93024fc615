"""O_DIRECT at any size and offset.

The kernel wants offset, length and memory aligned. What is aligned goes to and from the
caller's memory. Otherwise reads fetch the aligned range around the request through an
aligned bounce buffer, and the aligned middle of a write goes through one, too. The ends of
a write that do not fill a block go through the page cache, on a second descriptor without
O_DIRECT. The kernel keeps the two coherent as long as they share no page, so blocks here
are never smaller than a page; no read-modify-write can then lose a concurrent update, and
the file never grows past what was written. fsync covers both.

A file opened with "a" is written through the page cache alone: where its end is, and so
the alignment, is known only to the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
from typing import Any, Protocol

from uringfile._driver import Driver, raise_for
from uringfile._engine import ASYNC, READ, WRITE
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._mode import Mode
from uringfile._native_engine import address, copy, inside, pin
from uringfile._open import close_descriptor, open_path
from uringfile._uninterrupted import run_uninterrupted

#: The largest piece that goes through one bounce buffer.
PIECE = 1 << 20

#: The largest piece that goes in place: its submission takes 40 us for each MiB, or 10 where the
#: memory is in huge pages. Reads of 32 MiB: 20 % slower than in pieces of 16 MiB.
IN_PLACE = 4 << 20

# An aligned range must not end beyond the largest offset; no file is nearly so long.
_LAST_OFFSET = 2**63 - 1 - 2 * PIECE

# Bounce buffers that a file keeps for reuse, of each size (powers of two).
_KEPT_BYTES = 1 << 20


class _File(Protocol):
    mode: Mode

    @property
    def name(self) -> str | bytes | int: ...


class _Bounce:
    """Page-aligned memory, and its address for the kernel, which is the dearer of the two."""

    __slots__ = ("address", "memory")

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, size)
        self.address = pin(self.memory)


class DirectIO:
    """The reads and writes of one file that is open with O_DIRECT."""

    def __init__(
        self, driver: Driver, descriptor: Descriptor, file: _File, align: int, local: bool
    ) -> None:
        self._driver = driver
        self._descriptor = descriptor
        self._name = file.name
        self._appending = file.mode.appending
        self._buffered_flags = file.mode.flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
        self.align = max(align, mmap.PAGESIZE)
        self._worker = 0 if local else ASYNC  # elsewhere even a submission can wait
        self._opening = asyncio.Lock()
        self._buffered: Descriptor | None = None
        self._free: dict[int, list[_Bounce]] = {}

    # ---- reading --------------------------------------------------------------------

    async def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end of the file."""
        pieces: list[bytes] = []
        self._descriptor.holders += 1
        try:
            while size > 0:
                bounce, start, end = await self._fetch(min(size, PIECE), offset)
                piece = bounce.memory[start:end]
                self.give(bounce)
                if len(piece) == size and not pieces:
                    return piece
                if not piece:
                    break
                pieces.append(piece)
                size -= len(piece)
                offset += len(piece)
            return b"".join(pieces)
        finally:
            self._descriptor.release()

    async def readinto(self, pinned: Any, size: int, offset: int) -> int:
        """Fill ``size`` bytes: how many came, fewer only at the end of the file.

        What is aligned is read in place, and then the kernel may also write behind what came,
        within ``size``.
        """
        done = 0
        while done < size:
            whole = self._in_place(pinned, done, size - done, offset + done)
            if whole:
                n = await self._run(READ, inside(pinned, done), whole, offset + done)
                if n > 0:
                    done += n
                    continue
                if not n:
                    break
            wanted = min(size - done, PIECE)
            bounce, start, end = await self._fetch(wanted, offset + done)
            copy(pinned + done, bounce.address + start, end - start)
            self.give(bounce)
            if end == start:
                break
            done += end - start
        return done

    async def _fetch(self, size: int, offset: int) -> tuple[_Bounce, int, int]:
        """A bounce buffer, and where in it the bytes from ``offset`` start and end. There may
        be fewer than ``size``, and none at the end of the file only."""
        if offset > _LAST_OFFSET:
            return self.take(self.align), 0, 0
        ahead = offset % self.align
        length = -(-(ahead + size) // self.align) * self.align
        bounce = self.take(length)
        # As Driver.run(), without its coroutine: 64 reads in flight are 4 % faster.
        operation, future = self._driver.start(
            READ | self._worker, self._descriptor, bounce.address, length, offset - ahead
        )
        try:
            n = await future
        except BaseException:
            self._driver.abandon(operation, future)
            raise
        if n < 0:
            if n == -errno.EINTR:
                return await self._fetch(size, offset)
            raise_for(n, self._name)
        return bounce, ahead, max(ahead, min(n, ahead + size))

    # ---- writing --------------------------------------------------------------------

    async def write_some(self, pinned: Any, start: int, offset: int) -> int:
        """Write a part of the pinned data, from ``start`` on: how much."""
        size = len(pinned) - start
        ahead = -offset % self.align
        if self._appending or ahead or size < self.align:
            piece = size if self._appending or not ahead else min(size, ahead)
            return await self._write_buffered(inside(pinned, start), piece, offset)
        whole = self._in_place(pinned, start, size, offset)
        if whole:
            n = await self._run(WRITE, inside(pinned, start), whole, offset)
            if n >= 0:
                return n
        piece = min(size - size % self.align, PIECE)
        bounce = self.take(piece)
        copy(bounce.address, pinned + start, piece)
        n = await self._driver.run(
            WRITE | self._worker, self._descriptor, bounce.address, piece, offset
        )
        if n == -errno.EINTR:
            return 0
        self.give(bounce)
        return raise_for(n, self._name)

    # ---- in place -------------------------------------------------------------------

    def _in_place(self, pinned: Any, start: int, size: int, offset: int) -> int:
        """How much of it can be read or written without a bounce buffer; 0: nothing."""
        if size < self.align or offset % self.align or offset > _LAST_OFFSET:
            return 0
        if (address(pinned) + start) % self.align:
            return 0
        return min(size - size % self.align, IN_PLACE)

    async def _run(self, opcode: int, addr: Any, size: int, offset: int) -> int:
        """The result; -EFAULT when this memory does not do, whatever its alignment."""
        n = -errno.EINTR
        while n == -errno.EINTR:
            n = await self._driver.run(opcode | self._worker, self._descriptor, addr, size, offset)
        return n if n in (-errno.EFAULT, -errno.EINVAL) else raise_for(n, self._name)

    async def _write_buffered(self, addr: Any, size: int, offset: int) -> int:
        descriptor = await self._buffered_descriptor()
        opcode = WRITE | self._worker
        ret = await run_uninterrupted(self._driver, opcode, descriptor, addr, size, offset)
        return raise_for(ret, self._name)

    async def _buffered_descriptor(self) -> Descriptor:
        async with self._opening:
            if self._buffered is None:
                path = f"/proc/self/fd/{self._descriptor.fd}"
                try:
                    fd = await open_path(self._driver, path, self._buffered_flags, 0)
                except OSError as error:
                    raise os_error(-(error.errno or errno.EIO), self._name) from None
                self._driver.forget(fd)  # the number may have been another file's
                self._buffered = Descriptor(fd)
            return self._buffered

    async def close(self) -> None:
        """Close the second descriptor, if it was ever needed. No call is under way, but what
        a cancelled one has begun may be."""
        descriptor = self._buffered
        if descriptor is not None:
            await descriptor.idle()
            self._buffered = None
            await close_descriptor(self._driver, descriptor, self._name)

    def drop(self) -> None:
        """Close it without waiting, when its operations have let go."""
        if self._buffered is not None:
            self._driver.drop(self._buffered)

    # ---- bounce buffers -------------------------------------------------------------

    def take(self, size: int) -> _Bounce:
        capacity = max(1 << (size - 1).bit_length(), mmap.PAGESIZE)
        free = self._free.get(capacity)
        return free.pop() if free else _Bounce(capacity)

    def give(self, bounce: _Bounce) -> None:
        """For reuse. A buffer whose operation was cancelled is not given back: the in-flight
        table keeps it as long as the kernel may touch it."""
        capacity = len(bounce.memory)
        free = self._free.setdefault(capacity, [])
        if len(free) < max(1, _KEPT_BYTES // capacity):
            free.append(bounce)
