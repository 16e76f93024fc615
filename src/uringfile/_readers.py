"""Reading a file from an offset on: in chunks, and line by line."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Iterator
from typing import Any

from uringfile._codec import codec_at, new_incremental_decoder
from uringfile._file import AIOFile
from uringfile._splitter import LineSplitter

# What splitting a chunk, and the caller's loop over its lines, count in the budget of a turn:
# a unit, some 2 us, for each 2 KiB.
_LINES_SHIFT = 11


class Reader:
    """The chunks of a file from ``offset`` (bytes) on: ``async for`` or ``read_chunk()``.

    ``bytes`` of at most ``chunk_size`` in binary mode. In text mode ``str``, decoded from
    reads of ``chunk_size`` bytes; a character that is cut by the end of a read comes with
    the next chunk. Concurrent callers get the chunks one after another. A call that is
    cancelled or fails consumes nothing.
    """

    #: How many bytes are read at a time, unless ``chunk_size`` says so.
    CHUNK_SIZE = 64 * 1024

    def __init__(self, aio_file: AIOFile, offset: int = 0, chunk_size: int = CHUNK_SIZE) -> None:
        if chunk_size < 1 and chunk_size != -1:
            raise ValueError(f"chunk_size must be above 0, or -1 for all, not {chunk_size}")
        if offset < 0:
            raise ValueError(f"offset must not be negative, not {offset}")
        self.file = aio_file
        self.encoding = aio_file.encoding
        self._chunk_size = chunk_size
        self._offset = offset
        self._lock = asyncio.Lock()
        self._decoder: codecs.IncrementalDecoder | None = None
        if not aio_file.mode.binary:
            codec = codec_at(codecs.lookup(aio_file.encoding).name, offset)
            self._decoder = new_incremental_decoder(codec, aio_file.errors)

    async def read_chunk(self) -> Any:
        """The next chunk; empty at the end of the file."""
        async with self._lock:
            if self._decoder is None:
                return await self._read()
            return await self._read_text(self._decoder)

    async def _read(self) -> bytes:
        data = await self.file.read_bytes(self._chunk_size, self._offset)
        self._offset += len(data)
        return data

    async def _read_text(self, decoder: codecs.IncrementalDecoder) -> str:
        while True:
            data = await self.file.read_bytes(self._chunk_size, self._offset)
            state = decoder.getstate()
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                decoder.setstate(state)
                raise
            self._offset += len(data)
            if text or not data:
                return text

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Any:
        chunk = await self.read_chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk


class LineReader:
    """The lines of a file from ``offset`` (bytes) on: ``async for`` or ``readline()``.

    A line ends with ``line_sep``, which may have any length; it stays in the line, and
    only the last line may lack it. ``bytes`` in binary mode (``line_sep`` is encoded with
    the encoding of the file), ``str`` in text mode, without newline translation. Reads
    ``chunk_size`` bytes at a time. Takes linear time however long the lines are. Nothing
    is lost by a call that is cancelled or fails, nor by leaving an ``async for``.
    """

    #: How many bytes are read at a time, unless ``chunk_size`` says so.
    CHUNK_SIZE = 64 * 1024

    def __init__(
        self,
        aio_file: AIOFile,
        offset: int = 0,
        chunk_size: int = CHUNK_SIZE,
        line_sep: str = "\n",
    ) -> None:
        self._reader = Reader(aio_file, offset, chunk_size)
        self.linesep: Any = (
            line_sep.encode(codec_at(codecs.lookup(aio_file.encoding).name, 1))
            if aio_file.mode.binary
            else line_sep
        )
        self._splitter: LineSplitter[Any] = LineSplitter(self.linesep)
        # The lines that are split already. An iterator goes on where it was left, so that
        # leaving an ``async for`` loses nothing.
        self._lines: Iterator[Any] = iter(())
        self._lock = asyncio.Lock()

    async def readline(self) -> Any:
        """The next line; empty at the end of the file."""
        for line in self._lines:
            return line
        async with self._lock:
            return await self._readline()

    async def _readline(self) -> Any:
        for line in self._lines:  # another task may have read meanwhile
            return line
        while chunk := await self._reader.read_chunk():
            self._reader.file._charge(len(chunk) >> _LINES_SHIFT)
            lines = self._splitter.feed(chunk)
            if lines:
                self._lines = iter(lines)
                return next(self._lines)
        return self._splitter.finish()

    async def __aiter__(self) -> AsyncIterator[Any]:
        # A generator costs a third of an __anext__ coroutine for each line.
        while line := await self.readline():
            yield line
            for line in self._lines:
                yield line

    async def __anext__(self) -> Any:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def batches(self) -> AsyncIterator[list[Any]]:
        """The lines as non-empty lists, one for each chunk that was read."""
        while line := await self.readline():
            yield [line, *self._lines]
