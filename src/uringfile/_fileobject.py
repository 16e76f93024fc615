"""What binary and text file objects have in common."""

from __future__ import annotations

import io
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from uringfile._fd import refuse_copy
from uringfile._file import AIOFile

if TYPE_CHECKING:
    from uringfile._writing import BufferedWriting

Self = TypeVar("Self", bound="FileIOWrapperBase")

#: What ``iter_chunked`` gives at a time.
CHUNK_SIZE = 32 * 1024


class FileIOWrapperBase(ABC):
    """A file object as ``open`` gives, whose calls that do I/O are awaited.

    ``seek``, ``tell`` and what only asks are plain calls. Open it with ``async with`` or
    ``await``; until then, and after ``close``, it is ``closed`` and any use of it raises
    ``ValueError``. It belongs to the event loop in which it was opened; in a foreign one
    calls raise ``RuntimeError``, but for those that find what they need in its memory (a small
    write, a line that was read ahead), which look at nothing else. Several tasks may use it;
    each call is then performed as if it were alone.

    A call that is cancelled has had no effect on the position or on what is buffered,
    unless it says otherwise.
    """

    #: The file underneath, which is read and written at offsets.
    file: AIOFile

    __reduce_ex__ = refuse_copy

    @property
    @abstractmethod
    def _core(self) -> BufferedWriting:
        """The object that buffers: this one, or the one beneath the text."""

    # ---- opening and closing ------------------------------------------------------

    async def _open(self) -> None:
        core = self._core
        fresh = core._closed
        await core._attach()
        self._start()
        if fresh and core._fp is not None and core._seekable:
            core._borrowed_at = self.seek(core._fp.tell())

    @abstractmethod
    def _start(self) -> None:
        """What can be done only when the file is open; called at each opening."""

    def __await__(self: Self) -> Generator[Any, None, Self]:
        yield from self._open().__await__()
        return self

    async def __aenter__(self: Self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Write out what is buffered, and close; a second call does nothing.

        The file is closed even if writing fails, and then the first error since the last
        successful ``flush`` is raised, also if an earlier call has raised it. Nothing is
        synced to the disk. Cancelled, the rest is done in the background.
        """
        await self._core._close()

    # ---- what is known of the file ------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the file is closed, or not open yet."""
        return self._core._closed

    @property
    def name(self) -> str | bytes | int:
        """The path or the descriptor that the file was opened by."""
        return self.file.name

    def fileno(self) -> int:
        """The descriptor."""
        self._core._check_open()
        return self.file.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.fileno())

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self._core._check_open()
        return self.file.mode.readable

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self._core._check_open()
        return self.file.mode.writable

    def seekable(self) -> bool:
        """Whether it has positions: a pipe or a terminal has none."""
        self._core._check_open()
        return self._core._seekable

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.name!r} mode={str(self.file.mode)!r} {state}>"

    # ---- what each kind does its own way ------------------------------------------

    @abstractmethod
    async def read(self, size: int | None = -1) -> Any: ...

    @abstractmethod
    async def readline(self, size: int = -1) -> Any: ...

    @abstractmethod
    async def write(self, data: Any) -> int: ...

    @abstractmethod
    async def truncate(self, size: int | None = None) -> int: ...

    @abstractmethod
    def seek(self, offset: int, whence: int = 0) -> int: ...

    @abstractmethod
    def tell(self) -> int: ...

    @abstractmethod
    def _lines(self) -> AsyncGenerator[Any, None]: ...

    @abstractmethod
    def _twin(self: Self) -> Self:
        """Another object like this one, on the same file, before it is opened."""

    # ---- what follows from that ---------------------------------------------------

    async def flush(self, sync_metadata: bool = False) -> None:
        """Write out what is buffered, and raise what went wrong with it.

        That hands it to the kernel. With ``sync_metadata`` it is also on the disk
        afterwards (fsync).
        """
        core = self._core
        core._check_open()
        await core._drain()
        if sync_metadata:
            await self.file.fsync()

    def __aiter__(self) -> AsyncIterator[Any]:
        self._core._check_open()
        return self._lines()

    async def readlines(self, hint: int | None = -1) -> list[Any]:
        """The lines that are left, or as many as hold ``hint`` bytes or characters."""
        hint = -1 if hint is None else operator.index(hint)
        if hint <= 0:
            return [line async for line in self]
        lines = []
        length = 0
        while length <= hint and (line := await self.readline()):
            lines.append(line)
            length += len(line)
        return lines

    async def writelines(self, lines: Iterable[Any]) -> None:
        """Write each of ``lines``; nothing is added between them.

        Cancelled, the first of them have been written.
        """
        self._core._check_open()
        for line in lines:
            await self.write(line)

    async def iter_chunked(self, chunk_size: int = CHUNK_SIZE) -> AsyncGenerator[Any, None]:
        """``read(chunk_size)`` from the position on, until there is no more."""
        while chunk := await self.read(chunk_size):
            yield chunk


def unsupported(what: str) -> io.UnsupportedOperation:
    return io.UnsupportedOperation(what)
