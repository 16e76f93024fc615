"""The file object of the text modes."""

from __future__ import annotations

import asyncio
import codecs
import io
import locale
import operator
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from uringfile._buffered import Shared
from uringfile._cookie import Cookie
from uringfile._decoding import Decoding, new_decoder
from uringfile._file import AIOFile
from uringfile._fileobject import FileIOWrapperBase, unsupported
from uringfile._newlines import check_newline, line_end, split_lines
from uringfile._reading import BufferedReading
from uringfile._window import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

Self = TypeVar("Self", bound="TextFileWrapper")

# Bytes that are decoded at a time, as in io.TextIOWrapper.
_CHUNK_SIZE = 8192


class TextFileWrapper(FileIOWrapperBase):
    """What ``open`` gives in a text mode, with ``await``.

    ``encoding`` and ``errors`` are those of the file by default. Sizes are characters.
    """

    _CHUNK_SIZE = _CHUNK_SIZE

    def __init__(
        self,
        file: AIOFile,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        shared: Shared | None = None,
    ) -> None:
        if file.mode.binary:
            raise ValueError("a text file object needs a file in a text mode")
        check_newline(newline)
        self.file = file
        self._encoding = encoding or file.encoding
        if self._encoding == "locale":
            self._encoding = locale.getpreferredencoding(False)
        self._errors = errors or file.errors
        if not codecs.lookup(self._encoding)._is_text_encoding:
            raise LookupError(
                f"{self._encoding!r} is not a text encoding; use codecs.open() to handle "
                "arbitrary codecs"
            )
        self._newline = newline
        self._line_end = "\n" if newline is None else newline
        self._write_end = newline if newline in ("\r", "\r\n") else None
        self._line_buffering = buffering == 1
        self._decoding: Decoding | None = None
        self._encoder: Any = None
        # Lines of the decoded text that an iteration has not given yet.
        self._split: Iterator[str] | None = None
        self._split_end = 0
        # Of a stream: what the call that is being performed has taken from it.
        self._consumed: list[bytes] = []
        # Where the last seek leads to, if getting there takes reading.
        self._target: Cookie | None = None
        # Counts the calls that move the position without waiting for their turn.
        self._moves = 0
        self._turn = asyncio.Lock()
        self._buffer = BufferedReading(file, -1 if buffering == 1 else buffering, shared=shared)
        self._buffering = buffering
        self._window = Window(max(self._buffer._buffering, 1))
        self._unflushed = 0
        if not self._buffer._closed:
            self._start()

    @property
    def _core(self) -> BufferedReading:
        return self._buffer

    def _twin(self: Self) -> Self:
        return type(self)(
            self.file,
            self._buffering,
            self._encoding,
            self._errors,
            self._newline,
            shared=self._buffer._shared,
        )

    # ---- opening and closing ------------------------------------------------------

    def _start(self) -> None:
        core = self._buffer
        if self._decoding is not None or self._encoder is not None:
            return
        mode = self.file.mode
        if core._buffering < 1:
            self._window = Window(_python_buffer_size(self.file.fileno()))
        if mode.readable:
            decoder = new_decoder(self._encoding, self._errors, self._newline)
            self._decoding = Decoding(decoder, locating=core._seekable)
        if mode.writable:
            self._encoder = codecs.getincrementalencoder(self._encoding)(self._errors)
            if core._seekable and core._position():
                self._encoder.setstate(0)  # no mark in front of what is appended
        self._line_buffering = self._line_buffering or (
            self._buffering < 0 and os.isatty(self.file.fileno())
        )

    async def close(self) -> None:
        core = self._buffer
        cookie = None
        if not core._closed:
            self._settle()
            if core._fp is not None and core._seekable:
                cookie = self.tell()
            if self._decoding is not None:
                self._decoding.forget()
        await core._close(cookie)

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

    # ---- the position -------------------------------------------------------------

    def tell(self) -> int:
        """The position, for ``seek``. The number need not be an offset."""
        core = self._buffer
        core._check_open()
        if not core._seekable:
            raise unsupported("underlying stream is not seekable")
        self._settle()
        self._flush_window()
        if self._target is not None:
            return self._target.pack()
        position = core._position()
        return position if self._decoding is None else self._decoding.locate(position)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position that ``tell`` gave; or with 0 to the start (``whence`` 0), the
        position (1) or the end (2). Returns the new position.

        No I/O happens here. Where a position is reached only by decoding, that is done by
        the next call, which then raises what goes wrong.
        """
        core = self._buffer
        core._check_open()
        if not core._seekable:
            raise unsupported("underlying stream is not seekable")
        if whence == os.SEEK_CUR:
            if offset != 0:
                raise unsupported("can't do nonzero cur-relative seeks")
            offset = self.tell()
        elif whence == os.SEEK_END:
            if offset != 0:
                raise unsupported("can't do nonzero end-relative seeks")
            return self._seek_end()
        elif whence != os.SEEK_SET:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        offset = operator.index(offset)
        if offset < 0:
            raise ValueError(f"negative seek position {offset!r}")
        cookie = Cookie.unpack(offset)
        if cookie.skip and self._decoding is None:
            raise unsupported("not readable")
        self._leave(cookie.start)
        core.seek(cookie.start)
        if self._decoding is not None:
            self._decoding.start_at(cookie.start, cookie.flags)
            self._decoding.snapshot = (cookie.flags, b"")
        self._start_encoding_at(cookie.start or cookie.flags)
        if cookie.skip:
            self._target = cookie
        return offset

    def _seek_end(self) -> int:
        self._leave(None)
        position = self._buffer.seek(0, os.SEEK_END)
        if self._decoding is not None:
            self._decoding.decoder.reset()
        self._start_encoding_at(position)
        return position

    def _leave(self, target: int | None) -> None:
        """Forget what belongs to the old position."""
        self._settle()
        self._flush_window()
        if target is None:
            self._window.clear()
        else:
            self._window.seek(self._buffer._position(), target)
        self._target = None
        self._moves += 1
        if self._decoding is not None:
            self._decoding.forget()

    def _start_encoding_at(self, position: int) -> None:
        """At the start of the file some codecs write a mark."""
        if self._encoder is not None:
            if position:
                self._encoder.setstate(0)
            else:
                self._encoder.reset()

    def _flush_window(self) -> None:
        """As a flush does: a file that can be written then has an empty read buffer."""
        self._unflushed = 0
        if self._encoder is not None:
            self._window.clear()

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

    # ---- writing ------------------------------------------------------------------

    async def write(self, text: str) -> int:
        """Write ``text``: how many characters.

        As with binary files it is buffered, and an error of a write in the background is
        raised by the next call that is awaited, and by ``close``. Cancelled, or with an
        exception, nothing of it is accepted.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        core = self._buffer
        if len(core._unsent) >= core._room or self._target is not None or self._turn.locked():
            await self._prepare_to_write()
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

    async def _prepare_to_write(self) -> None:
        async with self._turn:
            self._buffer._check_open()
            if self._encoder is None:
                raise unsupported("not writable")
            await self._get_there()
            await self._buffer._make_room(0)

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
                except UnicodeError:
                    raise
                except BaseException:
                    if moves == self._moves and not self._buffer._closed:
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

    async def _lines(self) -> AsyncGenerator[str, None]:
        while True:
            decoding = self._decoding
            if (
                decoding is not None
                and self._line_end == "\n"
                and self._split is None
                and not self._turn.locked()
                and (end := decoding.text.rfind("\n", decoding.used) + 1)
            ):
                lines = iter(split_lines(decoding.text[decoding.used : end]))
                self._split = lines
                self._split_end = end
                for line in lines:
                    yield line
                if self._split is lines:
                    self._settle()
            line = await self.readline()
            if not line:
                return
            yield line

    def _settle(self) -> None:
        """End the iteration over lines that are split: the others are not used yet."""
        if self._split is not None:
            assert self._decoding is not None
            rest = sum(map(len, self._split))
            self._split = None
            self._decoding.used = self._split_end - rest

    if TYPE_CHECKING:

        async def readlines(self, hint: int | None = -1) -> list[str]: ...
        async def writelines(self, lines: Iterable[str]) -> None: ...
        def iter_chunked(self, chunk_size: int = ...) -> AsyncGenerator[str, None]: ...
        def __aiter__(self) -> AsyncIterator[str]: ...


class _Moved(Exception):
    """``seek`` was called while a call was waiting for data."""


def _python_buffer_size(fd: int) -> int:
    """The size of the buffer that ``open`` would make for the file."""
    size = os.fstat(fd).st_blksize
    if size <= 1:
        return io.DEFAULT_BUFFER_SIZE
    if io.DEFAULT_BUFFER_SIZE > 8192:  # from CPython 3.14 on
        return max(min(size, 8 << 20), io.DEFAULT_BUFFER_SIZE)
    return size
