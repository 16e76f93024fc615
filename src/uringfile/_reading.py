"""Reading bytes through a buffer: ahead of the position, and lines out of it."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, TypeVar

from uringfile._background import Background
from uringfile._file import AIOFile
from uringfile._fileobject import unsupported
from uringfile._shared import Shared
from uringfile._writing import BufferedWriting

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Self = TypeVar("Self", bound="BufferedReading")

# What is read ahead: the first time, and at most, by factors of 4 while reads go on in
# sequence. A block of the largest size is copied from the page cache in about 20 us.
FIRST_BLOCK = 8 * 1024
LARGEST_BLOCK = 128 * 1024

# Reads of this size go straight into the caller's bytes object.
_DIRECT_SIZE = 64 * 1024

# What one block's worth of lines may cost the loop's other tasks, in the units of the
# driver's budget for a turn.
_LINES_COST = 64


class BufferedReading(BufferedWriting):
    """Bytes of a file in any mode, buffered both ways."""

    def __init__(self, file: AIOFile, buffering: int = -1, *, shared: Shared | None = None) -> None:
        self._block_size = self._first_block = buffering if buffering > 0 else FIRST_BLOCK
        self._largest_block = buffering if buffering > 0 else LARGEST_BLOCK
        # Whether what is read ahead ends with a newline.
        self._whole_lines = False
        # A stream's read in flight: its bytes are gone from the stream, whoever is cancelled.
        self._incoming: Background[bytes] | None = None
        super().__init__(file, buffering, shared=shared)

    def _twin(self: Self) -> Self:
        return type(self)(self.file, self._buffering, shared=self._shared)

    def _jumped(self) -> None:
        self._block_size = self._first_block

    async def _begin(self) -> int:
        """Make ready for reading: the position."""
        self._check_open()
        if not self.file.mode.readable:
            raise unsupported("read")
        if self._unsent or self._writes.size:
            await self._drain()
            self._check_open()
        return self._position()

    async def _get(self, size: int, position: int, least: int = 1) -> bytes | None:
        """Bytes of the file, at most ``size``, and fewer than ``least`` only at its end; ``None``
        if the position has changed meanwhile."""
        here = self._position()
        data = await self._fetch(size, position)
        # A device gives less than it has when a signal comes, or work of io_uring (/dev/zero).
        while self.file._stream_io is not None and 0 < len(data) < least:
            more = await self._fetch(size - len(data), position + len(data))
            if not more:
                break
            data += more
        self._check_open()
        if self._position() != here or self._unsent or self._writes.size:
            return None
        return data

    async def _fetch(self, size: int, position: int) -> bytes:
        if self._seekable:
            return await self.file.read_bytes(size, position)
        # Of a stream nothing may be lost: a read in flight is everybody's next read.
        if self._incoming is None:
            self._incoming = Background(self._loop, self.file.read_bytes(size))
        incoming = self._incoming
        try:
            data = await incoming.wait()
        except Exception:
            self._incoming = None
            raise
        if self._incoming is not incoming:  # another task was first
            return await self._fetch(size, position)
        self._incoming = None
        return data

    def _next_block_size(self) -> int:
        size = self._block_size
        self._block_size = min(size * 4, self._largest_block)
        return size

    def _set_ahead(self, base: int, block: bytes, used: int = 0) -> None:
        super()._set_ahead(base, block, used)
        self._whole_lines = False

    def _put_ahead(self, base: int, block: bytes, used: int = 0) -> None:
        """As ``_set_ahead``, but nothing stays ahead of an unbuffered file."""
        self._set_ahead(base, block, used)
        if not self._write_size and self._seekable:
            self._end_of_block()  # unbuffered

    # ---- read ---------------------------------------------------------------------

    async def read(self, size: int | None = -1) -> bytes:
        """``size`` bytes, fewer only at the end of the file; all there are by default.

        ``b""`` at the end. Large reads go straight to the kernel, without a copy.
        """
        if size is not None and size > 0:
            data = self._ahead.read(size)
            if len(data) == size:
                return data
            self._ahead.seek(-len(data), 1)
        elif size is None or size == -1:
            rest = self._read_cached_rest()
            if rest is not None:
                return rest
            size = -1
        return await self._read(operator.index(size))

    def _read_cached_rest(self) -> bytes | None:
        """All there is, of a short file that the page cache has, if nothing is buffered."""
        if self._closed or self._ahead_size or self._unsent or self._writes.size:
            return None
        position = self._position()
        data = self.file.read_cached_rest(position)
        if data is not None:
            self._set_ahead(position + len(data), b"")
        return data

    async def _read(self, size: int) -> bytes:
        if size < -1 and self._write_size:  # an unbuffered file reads to the end
            raise ValueError("read length must be non-negative or -1")
        while True:
            position = await self._begin()
            rest = self._remaining()
            if 0 <= size <= len(rest):
                return self._ahead.read(size)
            if not self._seekable:
                return await self._read_stream(size)
            if size < 0 or size - len(rest) >= min(_DIRECT_SIZE, self._largest_block):
                data = await self._read_direct(size, rest, position)
            else:
                data = await self._read_ahead(size, rest, position)
            if data is not None:
                return data

    async def _read_direct(self, size: int, rest: bytes, position: int) -> bytes | None:
        missing = -1 if size < 0 else size - len(rest)
        data = await self._get(missing, position + len(rest), missing)
        if data is None:
            return None
        if rest:
            data = rest + data
        self._set_ahead(position + len(data), b"")
        return data

    async def _read_ahead(self, size: int, rest: bytes, position: int) -> bytes | None:
        wanted = max(self._next_block_size(), size - len(rest))
        block = await self._get(wanted, position + len(rest), size - len(rest))
        if block is None:
            return None
        if rest:
            block = rest + block
        self._put_ahead(position, block, min(size, len(block)))
        return block[:size]

    def _remaining(self) -> bytes:
        return self._ahead.getvalue()[self._ahead.tell() :] if self._ahead_size else b""

    async def read1(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes with at most one read; what is read ahead by default."""
        size = operator.index(size)
        if not size:
            await self._begin()
            return b""
        if not await self._fill():
            return b""
        return self._ahead.read(size if size > 0 else -1)

    async def peek(self, size: int = 0) -> bytes:
        """What is read ahead, without moving the position; ``b""`` at the end only.

        ``size`` is taken because that of ``io`` takes one, and changes nothing there, either.
        """
        operator.index(size)
        await self._fill()
        return self._remaining()

    async def _fill(self) -> bool:
        """Have something ahead: ``False`` at the end of the file."""
        if not self._seekable:
            async with self._one_at_a_time:
                return await self._fill_from_stream()
        while True:
            position = await self._begin()
            if position < self._base + self._ahead_size:
                return True
            block = await self._get(self._next_block_size(), position)
            if block is not None:
                self._set_ahead(position, block)
                return bool(block)

    async def _fill_from_stream(self) -> bool:
        position = await self._begin()
        if position < self._base + self._ahead_size:
            return True
        block = await self._fetch(self._largest_block, 0)
        self._check_open()
        self._set_ahead(position, block)
        return bool(block)

    async def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer``: how many bytes, fewer only at the end of the file.

        Cancelled, the kernel may still write into the buffer; the position stays.
        """
        with memoryview(buffer) as shown, shown.cast("B") as view:
            if view.readonly:
                raise TypeError(
                    "readinto() argument must be read-write bytes-like object, not "
                    + type(buffer).__name__
                )
            return await self._readinto(view)

    async def _readinto(self, view: memoryview) -> int:
        while True:
            position = await self._begin()
            rest = self._remaining()
            missing = len(view) - len(rest)
            if missing < _DIRECT_SIZE or self.file._stream_io is not None:
                data = await self.read(len(view))
                view[: len(data)] = data
                return len(data)
            with view[len(rest) :] as missed:
                done = len(rest) + await self.file.readinto(missed, position + len(rest))
            self._check_open()
            if self._position() == position and not self._unsent and not self._writes.size:
                view[: len(rest)] = rest
                self._set_ahead(position + done, b"")
                return done

    async def readinto1(self, buffer: WriteableBuffer) -> int:
        """As ``readinto``, with at most one read."""
        with memoryview(buffer) as shown, shown.cast("B") as view:
            data = await self.read1(len(view))
            view[: len(data)] = data
            return len(data)

    # ---- lines --------------------------------------------------------------------

    async def readline(self, size: int | None = -1) -> bytes:
        """The next line with its ``\\n``, at most ``size`` bytes of it; ``b""`` at the end."""
        line = self._ahead.readline(size)
        if line and (line[-1] == 10 or len(line) == size):
            return line
        self._ahead.seek(-len(line), 1)
        return await self._readline(-1 if size is None else operator.index(size))

    async def _readline(self, size: int) -> bytes:
        self._check_open()
        if not size:
            return b""
        line = None
        while line is None:
            position = await self._begin()
            if not self._seekable:
                return await self._read_stream(size, line=True)
            line = await self._long_line(size, position)
        return line

    async def _long_line(self, size: int, position: int) -> bytes | None:
        """A line that may not end in what is ahead. Each byte is looked at once."""
        start = position
        block = self._remaining()
        pieces = []
        while (end := _cut(block, size, start - position, line=True)) < 0:
            pieces.append(block)
            start += len(block)
            more = await self._get(self._next_block_size(), start)
            if more is None:
                return None
            block = more
            if not block:
                break
        self._put_ahead(start, block, max(end, 0))
        return _join(pieces, block[:end] if end > 0 else b"")

    async def _read_stream(self, size: int, *, line: bool = False) -> bytes:
        """What ``read`` or ``readline`` give, of a file that cannot be read twice."""
        async with self._one_at_a_time:
            await self._begin()
            block = self._remaining()
            self._end_of_block()
            self._set_ahead(self._base + len(block), b"")  # taken: no other call may have it
            pieces: list[bytes] = []
            total = 0
            try:
                while (end := _cut(block, size, total, line=line)) < 0:
                    pieces.append(block)
                    total += len(block)
                    block = await self._fetch(self._largest_block, 0)
                    self._check_open()
                    if not block:
                        break
            except BaseException:
                if not self._closed:
                    self._set_ahead(self._base, b"".join(pieces))
                raise
            self._put_ahead(self._base, block, max(end, 0))
            return _join(pieces, block[:end] if end > 0 else b"")

    def _take_in_memory(self, size: int) -> bytes:
        """``size`` bytes that are read ahead, or ``b""`` if there are fewer."""
        data = self._ahead.read(size)
        if len(data) < size:
            self._ahead.seek(-len(data), 1)
            return b""
        return data

    def _unread(self, data: bytes) -> None:
        """Put back what was taken from a stream."""
        self._set_ahead(self._position(), data + self._remaining())

    # ---- iteration ----------------------------------------------------------------

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        # The state is that of the file object, so that between two lines any other call
        # may come: what replaces self._ahead ends the inner loop.
        while True:
            if self._whole_lines or self._trim():
                for line in self._ahead:
                    yield line
                self.file._charge(_LINES_COST)
            if not await self._fill_lines():
                line = await self.readline()
                if not line:
                    return
                yield line

    def _trim(self) -> bool:
        """Cut what is ahead to whole lines; the rest comes again with the next block."""
        block = self._remaining()
        end = block.rfind(b"\n") + 1
        if not end or not self._seekable:
            return False
        self._set_ahead(self._position(), block[:end])
        self._whole_lines = True
        return True

    async def _fill_lines(self) -> bool:
        """Have whole lines ahead: ``False`` at the end, or if the next line is too long."""
        if not self._seekable or not self._write_size:
            return False
        position = await self._begin()
        if position < self._base + self._ahead_size:
            return False
        block = await self._get(self._next_block_size(), position)
        if block is None:
            return True  # the position has changed: look again
        end = block.rfind(b"\n") + 1
        self._set_ahead(position, block[:end] if end else block)
        self._whole_lines = end > 0
        return self._whole_lines


def _cut(block: bytes, size: int, total: int, *, line: bool) -> int:
    """Where in ``block`` ends what was asked for, if ``total`` bytes came before; or -1."""
    end = block.find(b"\n") + 1 if line else 0
    if 0 <= size <= total + (end or len(block)):
        return size - total
    return end or -1


def _join(pieces: list[bytes], last: bytes) -> bytes:
    if len(pieces) == 1 and not last:
        return pieces[0]
    return b"".join([*pieces, last]) if pieces else last
