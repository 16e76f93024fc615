"""What is asked of an open file besides its data: syncs, size, blocks, advice, status."""

from __future__ import annotations

import errno
import os
from typing import Any

from uringfile._driver import raise_for
from uringfile._engine import FADVISE, FALLOCATE, FDATASYNC, FSYNC, FTRUNCATE, STATX
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._native_engine import pin
from uringfile._open import in_thread
from uringfile._openfile import MAX_OFFSET, OpenFile
from uringfile._statx import STATX_SIZE, to_stat_result
from uringfile._uninterrupted import run_uninterrupted

# After these the kernel has dropped what it could not write, and says so only once.
_LASTING_SYNC_ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)

_ADVICE = frozenset(
    (
        os.POSIX_FADV_NORMAL,
        os.POSIX_FADV_SEQUENTIAL,
        os.POSIX_FADV_RANDOM,
        os.POSIX_FADV_WILLNEED,
        os.POSIX_FADV_DONTNEED,
        os.POSIX_FADV_NOREUSE,
    )
)


class InodeFile(OpenFile):
    """What AIOFile can do that moves no data."""

    async def fsync(self) -> None:
        """fsync(2): all writes that completed before this call are on the disk after it.

        The kernel reports a failed write-back once, drops the data and then says success
        (ext4, xfs); so the first EIO, ENOSPC or EDQUOT is raised by every later sync of
        this object, too: write the data again through a new one.
        """
        await self._sync(FSYNC)

    async def fdsync(self) -> None:
        """fdatasync(2): as ``fsync``, without metadata that reading does not need."""
        await self._sync(FDATASYNC)

    #: Another name of ``fdsync``.
    fdatasync = fdsync

    async def _sync(self, opcode: int) -> None:
        descriptor = self._check(0)
        if self._sync_error is not None:
            raise os_error(-self._sync_error, self.name)
        ret = await self._run_whole(opcode, descriptor)
        if -ret in _LASTING_SYNC_ERRORS and self._sync_error is None:
            self._sync_error = -ret
        raise_for(ret, self.name)

    async def truncate(self, length: int = 0) -> None:
        """Cut or extend the file to ``length`` bytes."""
        descriptor = self._check(length, writable=True)
        await self._perform(FTRUNCATE, os.ftruncate, descriptor, length)

    async def allocate(self, length: int, offset: int = 0) -> None:
        """Reserve disk blocks for ``length`` bytes at ``offset`` (fallocate(2), mode 0).

        The file grows to ``offset + length`` if it is shorter.
        """
        descriptor = self._check(offset, writable=True)
        if length <= 0 or offset + length > MAX_OFFSET:
            raise ValueError(f"length must be above 0 and end within 2**63-1, not {length}")
        try:
            await self._perform(FALLOCATE, os.posix_fallocate, descriptor, offset, length)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # As the C library does where the file system cannot.
            await self._in_thread(os.posix_fallocate, descriptor, offset, length)

    async def fadvise(self, offset: int, length: int, advice: int) -> None:
        """Tell the kernel how ``length`` bytes at ``offset`` will be used (posix_fadvise(2)).

        A ``length`` of 0 means up to the end. ``advice`` is one of ``os.POSIX_FADV_*``:
        ``WILLNEED`` begins to read the range into the page cache; ``DONTNEED`` drops it from
        there, but not what is not on the disk yet (``fdsync`` first). ``SEQUENTIAL`` doubles the
        read-ahead, ``RANDOM`` turns it off, ``NORMAL`` restores it, whatever the range, and
        for this open file alone.

        Done by io_uring (IORING_OP_FADVISE, Linux 5.6); in a thread for 4 GiB or more, and
        under POSIX AIO. Raises ``ValueError`` for a negative number and an unknown advice, and
        ``OSError`` (ESPIPE for a pipe). Cancelled, it may be done, or not.
        """
        descriptor = self._check(offset)
        if not 0 <= length <= MAX_OFFSET:
            raise ValueError(f"length must be from 0 to 2**63-1, not {length}")
        if advice not in _ADVICE:
            raise ValueError(f"advice must be one of os.POSIX_FADV_*, not {advice}")
        # Older kernels take 32 bits of length (io_uring_prep_fadvise(3)).
        if length >> 32 or not self._driver_here().serves(FADVISE):
            await self._in_thread(os.posix_fadvise, descriptor, offset, length, advice)
            return
        ret = await self._run_whole(FADVISE, descriptor, advice << 32 | length, offset)
        raise_for(ret, self.name)

    async def _perform(
        self, opcode: int, function: Any, descriptor: Descriptor, offset: int, length: int = 0
    ) -> None:
        """By the engine, or the system call in a thread where that has no such operation."""
        driver = self._driver_here()
        if not driver.serves(opcode):
            await self._in_thread(function, descriptor, offset, *([length] if length else []))
            return
        raise_for(await self._run_whole(opcode, descriptor, length, offset), self.name)

    async def _run_whole(
        self, opcode: int, descriptor: Descriptor, length: int = 0, offset: int = 0
    ) -> int:
        """Without data, and not interrupted; close() waits for it."""
        driver = self._driver_here()
        descriptor.holders += 1
        try:
            return await run_uninterrupted(driver, opcode, descriptor, length=length, offset=offset)
        finally:
            descriptor.release()

    async def _in_thread(self, function: Any, descriptor: Descriptor, *args: Any) -> Any:
        try:
            return await in_thread(self._driver_here(), descriptor, function, descriptor.fd, *args)
        except OSError as error:
            raise os_error(-(error.errno or errno.EIO), self.name) from None

    async def stat(self) -> os.stat_result:
        """fstat(2)."""
        descriptor = self._check(0)
        driver = self._driver_here()
        if self._local:
            return os.fstat(descriptor.fd)
        if not driver.serves(STATX):
            result: os.stat_result = await self._in_thread(os.fstat, descriptor)
            return result
        out = bytearray(STATX_SIZE)
        ret = -errno.EINTR
        while ret == -errno.EINTR:
            self._still(descriptor)
            ret = await driver.run(STATX, descriptor, pin(out))
        raise_for(ret, self.name)
        return to_stat_result(out)
