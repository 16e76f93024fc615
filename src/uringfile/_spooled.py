"""A temporary file that is in memory until it is large."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Generator, Iterable
from functools import cached_property
from typing import Any

from uringfile._async_open import check_arguments, file_object
from uringfile._engine import EngineName
from uringfile._fileobject import FileIOWrapperBase
from uringfile._mode import parse_mode
from uringfile._temporary import Place, UnnamedFile


class SpooledTemporaryFile:
    """A temporary file in memory, until it holds more than ``max_size`` bytes (0: no limit), or
    ``fileno`` or ``rollover`` is called; from then on it is one of ``TemporaryFile``.

    ``async with SpooledTemporaryFile(...) as f``. The arguments, but for ``max_size``, are those
    of ``TemporaryFile``. ``seek`` and ``tell`` are plain calls, and so is what only asks.
    """

    def __init__(
        self,
        max_size: int = 0,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: Any = None,
        prefix: Any = None,
        dir: Any = None,
        *,
        errors: str | None = None,
        engine: EngineName | None = None,
    ) -> None:
        binary = parse_mode(mode).binary
        self._buffering = check_arguments(binary, encoding, errors, newline, buffering)
        self._max_size = max_size
        self._mode = mode
        self._newline = newline
        self._codec = encoding or "utf-8", errors or "strict"
        self._place = Place(suffix, prefix, dir)
        self._engine = engine
        self._file: Any = io.BytesIO()
        if not binary:
            self._file = io.TextIOWrapper(self._file, *self._codec, newline)

    @cached_property
    def _changing(self) -> asyncio.Lock:
        """Held by who changes the contents, while these are in memory."""
        return asyncio.Lock()

    @property
    def rolled(self) -> bool:
        """Whether it is on the disk."""
        return isinstance(self._file, FileIOWrapperBase)

    def __await__(self) -> Generator[Any, None, SpooledTemporaryFile]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> SpooledTemporaryFile:
        if self.closed:
            raise ValueError("Cannot enter context with closed file")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._file!r}>"

    # ---- memory and disk ------------------------------------------------------------

    async def rollover(self) -> None:
        """Move to the disk now. Cancelled, or with an ``OSError``, all stays in memory."""
        async with self._changing:
            await self._roll_over()

    async def _roll_over(self) -> None:
        memory = self._file
        if self.rolled:
            return
        memory.flush()  # raises ValueError when it is closed
        encoding, errors = self._codec
        disk = UnnamedFile("", self._mode, encoding, errors=errors, engine=self._engine)
        disk.place = self._place
        await disk.open()
        try:
            data = memory.getvalue() if disk.mode.binary else memory.buffer.getvalue()
            await disk.write_bytes(data, 0)
            if memory.closed:
                raise ValueError("I/O operation on closed file")
            file = file_object(disk, self._buffering, self._newline)
            file.seek(memory.tell())
        except BaseException:
            await disk.close()
            raise
        self._file = file

    async def _call(self, name: str, *args: Any) -> Any:
        result = getattr(self._file, name)(*args)
        return await result if self.rolled else result

    async def _change(self, name: str, *args: Any) -> Any:
        """A call that changes the contents."""
        if self.rolled:
            return await getattr(self._file, name)(*args)
        async with self._changing:
            result = await self._call(name, *args)
            if self._max_size and not self.rolled and self._file.tell() > self._max_size:
                await self._roll_over()
            return result

    async def close(self) -> None:
        """Close it, and so remove it; a second call does nothing."""
        await self._call("close")

    # ---- contents -------------------------------------------------------------------

    async def read(self, size: int | None = -1) -> Any:
        """``size`` bytes or characters, fewer only at the end; all there are by default."""
        return await self._call("read", size)

    async def read1(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes with at most one read; binary only."""
        data: bytes = await self._call("read1", size)
        return data

    async def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``: how many bytes; binary only."""
        size: int = await self._call("readinto", buffer)
        return size

    async def readline(self, size: int = -1) -> Any:
        """The next line with its end, at most ``size`` of it; empty at the end of the file."""
        return await self._call("readline", size)

    async def readlines(self, hint: int = -1) -> list[Any]:
        """The lines that are left, or as many as hold ``hint`` bytes or characters."""
        lines: list[Any] = await self._call("readlines", hint)
        return lines

    async def __aiter__(self) -> AsyncIterator[Any]:
        while line := await self.readline():
            yield line

    async def write(self, data: Any) -> int:
        """Write ``data``: how many bytes or characters.

        If that makes it too large for memory, it moves to the disk. When this is cancelled or
        fails, the data has been written all the same, into memory.
        """
        size: int = await self._change("write", data)
        return size

    async def writelines(self, lines: Iterable[Any]) -> None:
        """Write each of ``lines``; nothing is added between them."""
        for line in lines:
            await self.write(line)

    async def truncate(self, size: int | None = None) -> int:
        """Cut it to ``size`` bytes, by default to the position; longer, it moves to the disk."""
        if size is not None and size > self._max_size:
            await self.rollover()
        length: int = await self._change("truncate", *(() if size is None else (size,)))
        return length

    async def flush(self) -> None:
        """Hand to the kernel what is buffered, if it is on the disk."""
        await self._call("flush")

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, and return it."""
        position: int = self._file.seek(offset, whence)
        return position

    def tell(self) -> int:
        """The position."""
        position: int = self._file.tell()
        return position

    # ---- what is known of it ----------------------------------------------------------

    async def fileno(self) -> int:
        """The descriptor; so it moves to the disk."""
        await self.rollover()
        fd: int = self._file.fileno()
        return fd

    def isatty(self) -> bool:
        """Whether it is a terminal: never."""
        return bool(self._file.isatty())

    def readable(self) -> bool:
        """Whether it can be read."""
        return bool(self._file.readable())

    def writable(self) -> bool:
        """Whether it can be written."""
        return bool(self._file.writable())

    def seekable(self) -> bool:
        """Whether it has positions."""
        return bool(self._file.seekable())

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._file.closed)

    @property
    def name(self) -> int | None:
        """The descriptor, or ``None`` while it is in memory."""
        return self._file.name if self.rolled else None

    @property
    def mode(self) -> str:
        """The mode, as Python's file objects tell it."""
        return str(self._file.mode) if self.rolled else self._mode

    @property
    def encoding(self) -> str:
        """The codec, of a text."""
        encoding: str = self._file.encoding
        return encoding

    @property
    def errors(self) -> str:
        """What happens to bytes or characters that the codec does not know, of a text."""
        errors: str = self._file.errors
        return errors

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines seen so far, of a text with universal newlines."""
        newlines: str | tuple[str, ...] | None = self._file.newlines
        return newlines
