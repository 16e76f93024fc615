"""``aiofiles.threadpool.binary``: the classes of binary file objects."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from uringfile._fileobject import unsupported
from uringfile.aiofiles.base import AsyncBase, AsyncIndirectBase, Detachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from _typeshed import ReadableBuffer, WriteableBuffer


class _Bytes(AsyncBase):
    """What all binary file objects have."""

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return bool(self._file.readable())

    async def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer``: how many bytes, fewer only at the end of the file."""
        size: int = await self._call("readinto", buffer)
        return size

    if TYPE_CHECKING:

        async def read(self, size: int | None = -1) -> bytes: ...
        async def readline(self, size: int = -1) -> bytes: ...
        async def readlines(self, hint: int = -1) -> list[bytes]: ...
        async def write(self, data: ReadableBuffer) -> int: ...
        async def writelines(self, lines: Iterable[ReadableBuffer]) -> None: ...
        def __aiter__(self) -> AsyncIterator[bytes]: ...


class AsyncBufferedIOBase(Detachable, _Bytes):
    """Buffered, and open for writing only; the base of what can be read, too."""

    async def read1(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes with at most one read; what is read ahead by default."""
        data: bytes = await self._call("read1", size)
        return data

    @property
    def raw(self) -> io.RawIOBase:
        """The unbuffered file object below one of Python's.

        A file that ``open`` has opened has none (``io.UnsupportedOperation``): its descriptor
        is ``fileno()``, and ``detach()`` makes such an object of it.
        """
        if self._is_ours:
            raise unsupported("there is no raw file below; see fileno() and detach()")
        raw: io.RawIOBase = self._file.raw
        return raw


class AsyncBufferedReader(AsyncBufferedIOBase):
    """Buffered, and open for reading, perhaps also for writing."""

    async def peek(self, size: int = 0) -> bytes:
        """What is read ahead, without moving the position."""
        data: bytes = await self._call("peek", size)
        return data


class AsyncFileIO(_Bytes):
    """Unbuffered."""

    async def readall(self) -> bytes:
        """All there is from the position on."""
        if self._is_ours:
            data: bytes = await self._file.read(-1)
            return data
        result: bytes = await self._call("readall")
        return result


class AsyncIndirectBufferedIOBase(AsyncIndirectBase, AsyncBufferedIOBase):
    """As ``AsyncBufferedIOBase``, for the file object that a function gives."""


class AsyncIndirectBufferedReader(AsyncIndirectBase, AsyncBufferedReader):
    """As ``AsyncBufferedReader``, for the file object that a function gives."""


class AsyncIndirectFileIO(AsyncIndirectBase, AsyncFileIO):
    """As ``AsyncFileIO``, for the file object that a function gives."""
