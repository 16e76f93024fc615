"""``aiofiles.threadpool.text``: the classes of text file objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uringfile._textfile import TextFileWrapper
from uringfile.aiofiles.base import AsyncIndirectBase, Detachable
from uringfile.aiofiles.threadpool.binary import AsyncBufferedReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


class AsyncTextIOWrapper(Detachable):
    """A text file object."""

    async def readable(self) -> bool:
        """Whether it was opened for reading."""
        return bool(await self._call("readable"))

    @property
    def buffer(self) -> Any:
        """The bytes below the text. Of a file that ``open`` has opened they have coroutines,
        too, and the position is where the text has read to."""
        if isinstance(self._file, TextFileWrapper):
            return AsyncBufferedReader(self._file._core)
        return self._file.buffer

    @property
    def encoding(self) -> str:
        """The codec, as it was named."""
        encoding: str = self._file.encoding
        return encoding

    @property
    def errors(self) -> str | None:
        """What happens to bytes or characters that the codec does not know."""
        errors: str | None = self._file.errors
        return errors

    @property
    def line_buffering(self) -> bool:
        """Whether a write that ends a line is flushed."""
        return bool(self._file.line_buffering)

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines seen so far, with universal newlines."""
        newlines: str | tuple[str, ...] | None = self._file.newlines
        return newlines

    if TYPE_CHECKING:

        async def read(self, size: int | None = -1) -> str: ...
        async def readline(self, size: int = -1) -> str: ...
        async def readlines(self, hint: int = -1) -> list[str]: ...
        async def write(self, data: str) -> int: ...
        async def writelines(self, lines: Iterable[str]) -> None: ...
        def __aiter__(self) -> AsyncIterator[str]: ...


class AsyncTextIndirectIOWrapper(AsyncIndirectBase, AsyncTextIOWrapper):
    """As ``AsyncTextIOWrapper``, for the file object that a function gives."""
