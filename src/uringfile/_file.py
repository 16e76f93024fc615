"""AIOFile: a file that is read and written at offsets."""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from typing import Any

from uringfile._blocks import as_bytes, new_block
from uringfile._codec import codec_at
from uringfile._driver import INLINE_SIZE, raise_for, runs_here
from uringfile._engine import READ, WRITE
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._gather import SHORT
from uringfile._manyfile import ManyFile, pin_writable
from uringfile._native_engine import copy, inside, pin, unpin
from uringfile._openfile import MAX_OFFSET
from uringfile._turns import COPY_SHIFT

# A cached read is copied on the loop's thread in pieces of this size (40 to 250 us), so that
# the turn's budget can step in between. Sequential reads of 1 MiB: 0.85 of a plain read();
# in pieces of 256 KiB 0.76, in pieces of 64 KiB 0.55.
_INLINE_PIECE = 1 << 20

# Reads to the end of a file that does not tell its size (/proc, pipes).
_UNSIZED_PIECE = 64 * 1024


class AIOFile(ManyFile):
    """A file whose reads and writes name their offset; there is no position.

    ``path`` is a path or an open descriptor (which this object then owns and closes).
    Offsets and sizes are bytes, also in text mode, where ``read`` decodes and ``write``
    encodes with ``encoding`` and ``errors``. ``direct=True`` opens with O_DIRECT; any size
    and offset still works. ``engine`` names ``"io_uring"`` or
    ``"posix_aio"``; by default the best one that starts here.

    Open it with ``async with``, with ``await AIOFile(...)`` or with ``open()``. It belongs
    to the event loop in which it was opened.

    Any method raises ``ClosedFileError`` (a ``ValueError``) when the file is not open,
    ``RuntimeError`` in a foreign event loop, and ``OSError`` with errno and filename for
    what the kernel refuses. Cancelling any call releases the caller at once; buffers and
    the descriptor stay until the kernel is done with them.
    """

    # ---- reading ------------------------------------------------------------------

    async def read(self, size: int = -1, offset: int = 0) -> Any:
        """Up to ``size`` bytes from ``offset``; ``-1``: to the end, whatever st_size says.

        ``bytes`` in binary mode; in text mode ``str``, decoded from those bytes. Less than
        ``size`` bytes come at the end of the file only; a stream (pipe, terminal, socket)
        gives what it has, at least one byte, and ignores the offset. Also raises
        ``io.UnsupportedOperation`` when the file is not open for reading and
        ``UnicodeDecodeError``.
        """
        data = self._read_cached(size, offset)
        if data is None:
            data = await self._read(size, offset)
        return data if self._binary else self.decode_bytes(data, offset)

    async def read_bytes(self, size: int = -1, offset: int = 0) -> bytes:
        """As ``read``, and ``bytes`` in any mode."""
        data = self._read_cached(size, offset)
        return await self._read(size, offset) if data is None else data

    def _read_cached(self, size: int, offset: int) -> bytes | None:
        """A short read that the page cache serves whole, or ``None``. Never suspends."""
        driver = self._driver
        if (
            not self._inline
            or not 0 < size <= INLINE_SIZE
            or not 0 <= offset <= MAX_OFFSET
            or driver is None
            or driver.budget <= 0
            or not runs_here(driver)
        ):
            return None
        fd = self._descriptor.fd  # type: ignore[union-attr]  # open, or not inline
        n = driver.read_nowait(fd, driver.scratch, size, offset)
        driver.budget -= 1
        if n != size and (n < 0 or driver.read_nowait(fd, driver.scratch_end, 1, offset + n) != 0):
            return None
        driver.inline += 1
        data: bytes = driver.scratch_buffer[:n]
        return data

    def _read(self, size: int, offset: int) -> Coroutine[Any, Any, bytes]:
        """No coroutine itself: each one costs whoever awaits through it."""
        descriptor = self._check(offset, readable=True)
        if size < -1:
            raise ValueError(f"size must be -1 or more, not {size}")
        # read(2) refuses a range that ends beyond the largest offset; nothing is there.
        size = min(size, MAX_OFFSET - offset)
        if self._direct_io is not None and size >= 0:
            return self._direct_io.read(size, offset)
        return self._read_held(descriptor, size, offset)

    async def _read_held(self, descriptor: Descriptor, size: int, offset: int) -> bytes:
        descriptor.holders += 1
        try:
            if size < 0:
                return await self._read_to_end(offset)
            return await self._read_block(descriptor, size, offset)
        finally:
            descriptor.release()

    def read_cached_rest(self, offset: int) -> bytes | None:
        """What is left behind ``offset``, if it is short and the page cache has it. Never
        suspends."""
        data = self._read_cached(INLINE_SIZE, offset)
        return data if data is not None and len(data) < INLINE_SIZE else None

    async def _read_to_end(self, offset: int) -> bytes:
        data = self.read_cached_rest(offset)
        if data is not None:
            return data
        if self._stream_io is not None:
            return await self._stream_io.read_all(_UNSIZED_PIECE)
        descriptor = self._open_descriptor()
        size = max(0, (await self.stat()).st_size - offset)
        data = await self._read_block(descriptor, size, offset)
        if len(data) < size:
            return data
        # To the end means to the end, also of a file that does not tell its size (/proc)
        # or has grown meanwhile.
        pieces = [data]
        offset += len(data)
        while piece := await self._read_block(
            descriptor, min(_UNSIZED_PIECE, MAX_OFFSET - offset), offset
        ):
            pieces.append(piece)
            offset += len(piece)
        return data if len(pieces) == 1 else b"".join(pieces)

    async def _read_block(self, descriptor: Descriptor, size: int, offset: int) -> bytes:
        if self._stream_io is not None:
            return await self._stream_io.read(size)
        if self._direct_io is not None:
            return await self._direct_io.read(size, offset)
        block = new_block(size)
        return as_bytes(block, await self._fill(descriptor, pin(block), size, offset))

    async def _fill(self, descriptor: Descriptor, pinned: Any, size: int, offset: int) -> int:
        """Read into pinned memory until it is full, or at the end of the file: how much.
        The caller holds the descriptor."""
        driver = self._driver_here()
        done = 0
        while done < size:
            n = -errno.EAGAIN
            if self._inline:
                if driver.budget <= 0:
                    await driver.yield_turn()
                    self._still(descriptor)
                n = driver.read_nowait(
                    descriptor.fd, pinned + done, min(size - done, _INLINE_PIECE), offset + done
                )
                driver.budget -= 1 + (max(n, 0) >> COPY_SHIFT)
                driver.inline += n >= 0
                if n in (-errno.EOPNOTSUPP, -errno.EINVAL, -errno.ENOSYS):
                    driver.demoted += 1
                    self._inline = False  # the file system cannot tell, or the kernel is old
            if n < 0:
                addr = inside(pinned, done)
                n = await self._fill_submitted(descriptor, addr, size - done, offset + done)
            done += n
            if not n:
                break
        return done

    async def _fill_submitted(
        self, descriptor: Descriptor, addr: Any, size: int, offset: int
    ) -> int:
        """One read(2) by the engine."""
        driver = self._driver_here()
        while True:
            n = await driver.run(READ | self._worker, descriptor, addr, size, offset)
            if n != -errno.EINTR:
                return raise_for(n, self.name)
            self._still(descriptor)

    async def readinto(self, buffer: Any, offset: int = 0) -> int:
        """Fill any writable buffer from ``offset``: how many bytes, fewer only at the end.

        The buffer is exported, and so cannot be resized, until the kernel is done; after
        a cancellation it may still be written to, and must not be reused. With ``direct=True``
        the kernel may also write behind what was read, within the buffer.
        """
        descriptor = self._check(offset, readable=True)
        pinned = pin_writable(buffer)
        size = min(len(pinned), MAX_OFFSET - offset)
        descriptor.holders += 1
        try:
            if self._stream_io is not None:
                data = await self._stream_io.read(size)
                copy(pinned, data, len(data))
                return len(data)
            if self._direct_io is not None:
                return await self._direct_io.readinto(pinned, size, offset)
            return await self._fill(descriptor, pinned, size, offset)
        except BaseException as error:
            pinned = None  # cancelled, the kernel may still use it
            raise error.with_traceback(None)  # noqa: B904  # the same one
        finally:
            descriptor.release()
            if pinned is not None:
                unpin(pinned)
            del buffer, pinned  # who keeps the exception must not keep the memory

    # ---- writing ------------------------------------------------------------------

    async def write(self, data: Any, offset: int = 0) -> int:
        """Write all of ``data`` at ``offset``: how many bytes.

        ``data`` is a buffer in binary mode, a ``str`` in text mode (``TypeError``
        otherwise). A file opened with "a" appends and ignores the offset. When an error
        strikes after a part was written, the ``OSError`` tells how much in its
        ``characters_written``. A write that is cancelled may land whole, in part or not
        at all. Also raises ``io.UnsupportedOperation`` and ``UnicodeEncodeError``.
        """
        data = self.as_written(data, offset)
        writing = self._write_held(self._check(offset, writable=True), data, offset)
        del data  # as in readinto()
        return await writing

    def as_written(self, data: Any, offset: int) -> Any:
        """``data`` as the bytes that ``write`` writes. Raises as that does."""
        if self._binary:
            if isinstance(data, str):
                raise TypeError("a bytes-like object is required, not 'str'")
            return data
        if not isinstance(data, str):
            raise TypeError(f"write() argument must be str, not {type(data).__name__}")
        return self.encode_bytes(data, offset)

    async def write_bytes(self, data: Any, offset: int = 0) -> int:
        """As ``write``, with a buffer in any mode."""
        writing = self._write_held(self._check(offset, writable=True), data, offset)
        del data  # as in readinto()
        return await writing

    async def _write_held(self, descriptor: Descriptor, data: Any, offset: int) -> int:
        """It goes on to its end when the file is closed meanwhile: close() waits for it."""
        gathered = self._gathered
        pinned: Any = None
        done = 0
        descriptor.holders += 1
        try:
            if gathered and gathered.in_flight and type(data) is bytes and 0 < len(data) <= SHORT:
                done = await gathered.add(data, offset)
                if done == len(data):
                    return done
            pinned = pin(data)
            if self._stream_io is not None:
                return await self._stream_io.write(pinned)
            while done < len(pinned):
                done += await self._write_some(descriptor, pinned, done, offset + done)
        except BaseException as error:
            pinned = None  # as in readinto()
            if isinstance(error, OSError) and self._stream_io is None:
                error.characters_written = done  # type: ignore[attr-defined]
            raise error.with_traceback(None)  # noqa: B904  # the same one
        finally:
            descriptor.release()
            if pinned is not None:
                unpin(pinned)
            del data, pinned  # as in readinto()
        return done

    async def _write_some(
        self, descriptor: Descriptor, pinned: Any, start: int, offset: int
    ) -> int:
        if self._direct_io is not None:
            return await self._direct_io.write_some(pinned, start, offset)
        driver = self._driver_here()
        addr, size = inside(pinned, start), len(pinned) - start
        if self._gathered:
            self._gathered.in_flight += 1
        try:
            while True:
                n = await driver.run(WRITE | self._worker, descriptor, addr, size, offset)
                if n != -errno.EINTR:
                    break
        finally:
            if self._gathered:
                self._gathered.came()
        if not n:
            raise os_error(-errno.EIO, self.name)
        return raise_for(n, self.name)

    def encode_bytes(self, data: str, offset: int = 0) -> bytes:
        """``data`` as the bytes that stand at ``offset`` (a byte order mark only at 0)."""
        return data.encode(codec_at(self._codec, offset), self.errors)

    def decode_bytes(self, data: bytes, offset: int = 0) -> str:
        """The text of ``data``, which stands at ``offset``."""
        return data.decode(codec_at(self._codec, offset), self.errors)
