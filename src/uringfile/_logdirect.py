"""A log's file with O_DIRECT: whole blocks, the last of them again until it is full.

The last block is kept in memory. A write begins with it, goes on with the new records and ends
with zeros up to the end of a block. What was acknowledged in that block is written once more,
with the same bytes: if the power fails, each of its sectors holds the old content or the new
one, and both have these bytes. That a sector is written whole is all that is assumed of the
disk; a block may be torn. There is one write at a time, so none finds an older block behind a
newer one.

The blocks ahead are reserved and filled with zeros, in steps. Reserved alone they would be
unwritten extents: the first write into each of them changes the file's metadata, and that costs
a commit of the file system's journal.
"""

from __future__ import annotations

import errno
import mmap

from uringfile._driver import Driver
from uringfile._engine import ASYNC, WRITE
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._logfile import Begun, LogFile
from uringfile._logpolicy import Shape
from uringfile._native_engine import Identity, pin

#: Bytes of disk that are reserved ahead, unless ``preallocate`` says otherwise.
STEP = 1 << 20

# The most that goes out in one write.
_PIECE = 1 << 20

# Never written to: all of it is one page of memory.
_ZEROS = mmap.mmap(-1, _PIECE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)

_UNSUPPORTED = (-errno.EOPNOTSUPP, -errno.EINVAL, -errno.ENOSYS)

# A smaller block would be read and written again by many disks, and file systems.
_LEAST_BLOCK = 4096


def block_size(identity: Identity) -> int:
    return max(identity.dio_align, _LEAST_BLOCK)


class DirectLogFile(LogFile):
    """``tail`` is what stands in the last block."""

    def __init__(
        self,
        driver: Driver,
        descriptor: Descriptor,
        path: str,
        shape: Shape,
        end: int,
        local: bool,
        *,
        identity: Identity,
        tail: bytes,
    ) -> None:
        super().__init__(driver, descriptor, path, shape, end, local)
        self._block = block_size(identity)
        self._unit = identity.dio_align or self._block
        self._memory = mmap.mmap(-1, _PIECE)
        self._pinned = pin(self._memory)
        self._memory[: len(tail)] = tail
        #: Where the memory stands in the file; how much data is the latest part of it, and
        #: how much of it is to be written.
        self._base = end - len(tail)
        self._taken = self._length = 0
        self._allocated = self._up(end)
        # Tried at its submission; what would wait there the kernel hands to a worker itself.
        self._worker = 0 if local else ASYNC

    def _up(self, offset: int) -> int:
        return -(-offset // self._block) * self._block

    # ---- writing --------------------------------------------------------------------

    def begin(self, data: bytearray, offset: int) -> Begun | None:
        if not data or self._allocated < offset + len(data):
            return None
        return self._begin(data, 0, offset)

    def _begin(self, data: bytearray, done: int, offset: int) -> Begun:
        """The next piece, behind the records in the last block."""
        memory = self._memory
        ahead = offset % self._block
        base = offset - ahead
        if base != self._base:
            memory.move(0, base - self._base, ahead)
            self._base = base
        taken = min(len(data) - done, _PIECE - ahead)
        end = ahead + taken
        memory[ahead:end] = data if taken == len(data) else data[done : done + taken]
        length = self._up(end)
        memory[end:length] = bytes(length - end)
        self._taken, self._length = taken, length
        self._padded = True
        return self.driver.start(WRITE | self._worker, self.descriptor, self._pinned, length, base)

    async def write(self, data: bytearray, offset: int, begun: Begun | None = None) -> None:
        """As that of ``LogFile``; what is larger than the memory goes in pieces."""
        if self._allocated < offset + len(data):
            await self._allocate(offset + len(data))
        done = 0
        while done < len(data):
            if begun is None:
                begun = self._begin(data, done, offset + done)
            await self._finish(begun, self._memory, self._length, self._base)
            done += self._taken
            begun = None

    # ---- blocks ahead ---------------------------------------------------------------

    async def _allocate(self, end: int) -> None:
        """In steps; where there is no room for a step, as little as is needed."""
        start, step = self._allocated, self._up(self.shape.preallocate)
        least = self._up(end) - start
        length = -(-least // step) * step
        self._padded = True
        ret = await self._reserve(start, length)
        if ret < 0 and ret not in _UNSUPPORTED and length > least:
            length = least
            ret = await self._reserve(start, length)
        if ret < 0 and ret not in _UNSUPPORTED:
            raise os_error(ret, self.path)
        await self._fill(start, start + length)
        self._allocated = start + length

    async def _fill(self, start: int, end: int) -> None:
        """With zeros, in place of what only reads so."""
        while start < end:
            length = min(end - start, _PIECE)
            begun = self.driver.start(WRITE | ASYNC, self.descriptor, pin(_ZEROS), length, start)
            await self._finish(begun, _ZEROS, length, start)
            start += length
