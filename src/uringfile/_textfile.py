"""The file object of the text modes."""

from __future__ import annotations

import operator
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from uringfile._decoding import Decoding
from uringfile._fileobject import unsupported
from uringfile._newlines import line_end, split_lines
from uringfile._textposition import TextPosition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


# What decoding a chunk and giving its lines may cost the loop's other tasks, in the units
# of the driver's budget for a turn.
_CHUNK_COST = 8


class _Moved(Exception):
    """``seek`` was called while a call was waiting for data."""


class TextFileWrapper(TextPosition):
    """What ``open`` gives in a text mode, with ``await``.

    ``encoding`` and ``errors`` are those of the file by default. Sizes are characters.
    """

    # ---- what is known of the file ------------------------------------------------

    @property
    def mode(self) -> str:
        """The mode, as it was given."""
        return str(self.file.mode)

    @property
    def encoding(self) -> str:
        """The codec, as it was named."""
        return self._encoding

    @property
    def errors(self) -> str:
        """What happens to bytes or characters that the codec does not know."""
        return self._errors

    @property
    def line_buffering(self) -> bool:
        """Whether a write that ends a line is flushed."""
        return self._line_buffering

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines seen so far, with universal newlines."""
        if self._decoding is None:
            return None
        seen: str | tuple[str, ...] | None = getattr(self._decoding.decoder, "newlines", None)
        return seen

    # ---- writing ------------------------------------------------------------------

    async def write(self, text: str) -> int:
        """Write ``text``: how many characters.

        As with binary files it is buffered, and an error of a write in the background is
        raised by the next call that is awaited, and by ``close``. Cancelled, or with an
        exception, nothing of it is accepted; but with line buffering it is, if only the
        flush at the end of the line was cancelled or failed.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        core = self._buffer
        room = core._room - len(core._unsent)
        if len(text) >= room or self._target is not None or self._turn.locked():
            await self._prepare_to_write(len(text))
        data = self._encoder.encode(
            text if self._write_end is None else text.replace("\n", self._write_end)
        )
        if self._decoding is not None:
            self._settle()
            self._decoding.forget()
            self._decoding.decoder.reset()
            self._note_write(len(data))
        core._accept(data)
        if self._line_buffering and ("\n" in text or "\r" in text):
            await self.flush()
        return len(text)

    async def _prepare_to_write(self, size: int) -> None:
        async with self._turn:
            self._buffer._check_open()
            if self._encoder is None:
                raise unsupported("not writable")
            await self._get_there()
            await self._buffer._make_room(size)

    def _note_write(self, size: int) -> None:
        """What is written joins into pieces of the chunk size before the window sees it."""
        position = self._buffer._position()
        if self._unflushed + size > self._CHUNK_SIZE:
            self._window.write(position - self._unflushed, self._unflushed)
            self._unflushed = 0
        self._unflushed += size
        if self._unflushed >= self._CHUNK_SIZE:
            self._window.write(position + size - self._unflushed, self._unflushed)
            self._unflushed = 0

    async def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file to ``size`` bytes, by default to the position of the bytes.

        That position is, as in ``io``, behind the chunk that was decoded last, unless
        ``seek`` was called. Returns the size.
        """
        async with self._turn:
            await self._get_there()
            self._flush_window()
            return await self._buffer.truncate(size)

    async def flush(self, sync_metadata: bool = False) -> None:
        """Write out what is buffered, and raise what went wrong with it.

        That hands it to the kernel. With ``sync_metadata`` it is also on the disk
        afterwards (fsync).
        """
        self._flush_window()
        await super().flush(sync_metadata)

    # ---- reading ------------------------------------------------------------------

    async def _get_there(self) -> None:
        """Read up to where the last ``seek`` leads."""
        self._settle()
        while (target := self._target) is not None:
            assert self._decoding is not None
            fed = await self._read_bytes(target.feed)
            if fed is None:
                continue
            self._target = None
            self._window.read(target.start, target.feed, self._buffer._end())
            self._decoding.replay(target, fed)

    async def _read_bytes(self, size: int) -> bytes | None:
        """Bytes from the position; ``None`` if a ``seek`` came between."""
        core = self._buffer
        moves = self._moves
        data = await (core.read(size) if core._seekable or size < 0 else core.read1(size))
        if moves == self._moves:
            return data
        core.seek(-len(data), os.SEEK_CUR)  # they were read where that leads to
        return None

    async def _next_chunk(self, characters: int = 0) -> bool:
        """Decode the next chunk, one that may hold so many characters: ``False`` at the end."""
        decoding = self._decoding
        assert decoding is not None
        size = max(self._CHUNK_SIZE, int(max(decoding.ratio, 1.0) * characters))
        chunk = await self._read_bytes(self._window.limit(self._buffer._position(), size))
        if chunk is None:
            raise _Moved
        if not self._buffer._seekable:
            self._consumed.append(chunk)
        return decoding.feed(chunk)

    async def _in_turn(self, call: Callable[[Decoding, int], Awaitable[str]], size: int) -> str:
        """Perform a reading call alone, and from the start again if a ``seek`` comes between."""
        async with self._turn:
            while True:
                self._buffer._check_open()
                decoding = self._decoding
                if decoding is None:
                    raise unsupported("not readable")
                await self._get_there()
                if self._unflushed:
                    end = self._buffer._position()
                    self._window.write(end - self._unflushed, self._unflushed)
                    self._unflushed = 0
                moves = self._moves
                before = decoding.save(), self._buffer._position(), self._window.save()
                self._consumed.clear()
                try:
                    return await call(decoding, size)
                except _Moved:
                    continue
                except BaseException as error:
                    by_codec = isinstance(error, Exception) and not isinstance(error, OSError)
                    if not by_codec and moves == self._moves and not self._buffer._closed:
                        self._undo(decoding, *before)
                    raise

    def _undo(self, decoding: Decoding, saved: Any, position: int, window: Any) -> None:
        decoding.restore(saved)
        self._window.restore(window)
        if self._buffer._seekable:
            self._buffer.seek(position)
        else:
            self._buffer._unread(b"".join(self._consumed))

    async def read(self, size: int | None = -1) -> str:
        """``size`` characters, fewer only at the end of the file; all there are by default."""
        size = -1 if size is None else operator.index(size)
        decoding = self._decoding
        if (
            decoding is not None
            and 0 < size <= len(decoding.text) - decoding.used
            and self._split is None
            and not self._turn.locked()
        ):
            return decoding.take(size)
        return await self._in_turn(self._read_all if size < 0 else self._read, size)

    async def _read_all(self, decoding: Decoding, _: int) -> str:
        data = await self._read_bytes(-1)
        if data is None:
            raise _Moved
        self._window.clear()
        text: str = decoding.decoder.decode(data, True)
        text = decoding.take(-1) + text
        decoding.forget()
        return text

    async def _read(self, decoding: Decoding, size: int) -> str:
        text = decoding.take(size)
        if len(text) == size:
            return text
        pieces = [text]
        size -= len(text)
        while size > 0 and await self._next_chunk(size):
            text = decoding.take(size)
            pieces.append(text)
            size -= len(text)
        return "".join(pieces)

    async def readline(self, size: int = -1) -> str:
        """The next line with its end, at most ``size`` characters of it; ``""`` at the end."""
        size = operator.index(size)
        decoding = self._decoding
        if (
            size < 0
            and decoding is not None
            and self._split is None
            and not self._turn.locked()
            and (end := line_end(decoding.text, decoding.used, self._line_end)) >= 0
        ):
            line = decoding.text[decoding.used : end]
            decoding.used = end
            return line
        return await self._in_turn(self._readline, size)

    async def _readline(self, decoding: Decoding, size: int) -> str:
        newline = self._line_end
        pieces: list[str] = []
        total = 0
        # What may be the first half of "\r\n" waits for the next chunk.
        half = ""
        while True:
            while not decoding.text:
                if not await self._next_chunk():
                    decoding.forget()
                    return "".join([*pieces, half])
            text, start = decoding.text, decoding.used
            if half:
                text, start = half + text, 0
            end = line_end(text, start, newline)
            found = end >= 0
            if not found:
                end = len(text)
                if newline == "\r\n" and text.endswith("\r", start):
                    end -= 1
            if 0 <= size <= total + end - start:
                end = start + size - total
                found = True
            pieces.append(text[start:end])
            if found:
                decoding.used = end - len(half)
                return "".join(pieces)
            total += end - start
            half = text[end:]
            decoding.text = ""
            decoding.used = 0

    # ---- lines ------------------------------------------------------------------

    async def _lines(self) -> AsyncGenerator[str, None]:
        # The lines that are left are part of the state of the file object (_settle), so
        # that between two lines any other call may come.
        while True:
            if (lines := self._split_more()) is not None:
                for line in lines:
                    yield line
                if self._split is lines:
                    self._settle()
            else:
                line = await self.readline()
                if not line:
                    return
                yield line

    def _split_more(self) -> Iterator[str] | None:
        """The lines that end in what is decoded, or in the next chunk if that is in memory.

        The first of them must be taken at once.
        """
        decoding = self._decoding
        if (
            decoding is None
            or self._line_end != "\n"
            or self._split is not None
            or self._target is not None
            or self._turn.locked()
        ):
            return None
        text = decoding.text
        start = decoding.used
        end = text.rfind("\n", start) + 1
        rest = ""
        if not end:
            rest = text[start:]
            text = self._decode_from_memory(decoding)
            start = 0
            end = text.rfind("\n") + 1
            if not end:
                return None
        lines = split_lines(text[start:end])
        if rest:
            lines[0] = rest + lines[0]
        self._split = iter(lines)
        self._split_end = end
        return self._split

    def _decode_from_memory(self, decoding: Decoding) -> str:
        """The next chunk's text, if it ends a line and nothing has to be read for it."""
        core = self._buffer
        if self._unflushed or self._window.active:
            return ""
        chunk = core._take_in_memory(self._CHUNK_SIZE)
        if not chunk:
            return ""
        saved = decoding.save()
        decoding.text = ""
        decoding.used = 0
        decoding.feed(chunk)
        if "\n" not in decoding.text:
            decoding.restore(saved)
            core._ahead.seek(-len(chunk), 1)
            return ""
        core.file._charge(_CHUNK_COST)
        return decoding.text

    if TYPE_CHECKING:

        async def readlines(self, hint: int | None = -1) -> list[str]: ...
        async def writelines(self, lines: Iterable[str]) -> None: ...
        def iter_chunked(self, chunk_size: int = ...) -> AsyncGenerator[str, None]: ...
        def __aiter__(self) -> AsyncIterator[str]: ...
