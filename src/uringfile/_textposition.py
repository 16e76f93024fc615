"""A position in a text: the codecs' state, and the bytes it stands for.

Chunks are cut, decoded and forgotten just as ``io.TextIOWrapper`` does it, because that
shows: in the numbers that ``tell`` gives, and in where a write goes that follows a read.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import locale
import operator
import os
from collections.abc import Iterator
from typing import Any, TypeVar

from uringfile._cookie import Cookie
from uringfile._decoding import Decoding, new_decoder
from uringfile._file import AIOFile
from uringfile._fileobject import FileIOWrapperBase, unsupported
from uringfile._newlines import check_newline
from uringfile._reading import BufferedReading
from uringfile._shared import Shared
from uringfile._window import Window

Self = TypeVar("Self", bound="TextPosition")


class TextPosition(FileIOWrapperBase):
    """The position and what belongs to it; ``_textfile`` adds reading and writing."""

    # Bytes that are decoded at a time.
    _CHUNK_SIZE = 8192

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
            self._decoding = Decoding(
                decoder,
                locating=core._seekable,
                zero_is_a_state=not codecs.lookup(self._encoding).name.startswith("iso2022"),
            )
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
            core._check_here()
            self._settle()
            if core._fp is not None and core._seekable:
                cookie = self.tell()
            if self._decoding is not None:
                self._decoding.forget()
        await core._close(cookie)

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
        whence = operator.index(whence)
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

    def _settle(self) -> None:
        """End the iteration over lines that are split: the others are not used yet."""
        if self._split is not None:
            assert self._decoding is not None
            rest = sum(map(len, self._split))
            self._split = None
            self._decoding.used = self._split_end - rest


def _python_buffer_size(fd: int) -> int:
    """The size of the buffer that ``open`` would make for the file."""
    size = os.fstat(fd).st_blksize
    if size <= 1:
        return io.DEFAULT_BUFFER_SIZE
    if io.DEFAULT_BUFFER_SIZE > 8192:  # from CPython 3.14 on
        return max(min(size, 8 << 20), io.DEFAULT_BUFFER_SIZE)
    return size
