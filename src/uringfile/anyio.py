"""``open_file`` for anyio on its asyncio backend, whose files are read by the kernel.

``from uringfile.anyio import open_file`` in the place of ``anyio``: the same arguments, and an
``anyio.AsyncFile`` with the same methods, that needs no threads. Needs ``pip install
'uringfile[anyio]'``. On trio ``open_file`` raises ``RuntimeError``.

A call that the page cache can serve does not suspend, and so is no checkpoint; cancel scopes end
the others. For ``anyio.Path`` see ``uringfile.os``.
"""

from __future__ import annotations

import locale
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, AnyStr, overload

from uringfile._async_open import Opener, async_open
from uringfile._mode import parse_mode
from uringfile._paths import FileDescriptorOrPath

try:
    import anyio
except ImportError as error:
    raise ImportError(
        f"uringfile.anyio needs anyio: pip install 'uringfile[anyio]' ({error})"
    ) from error

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode, ReadableBuffer, WriteableBuffer

__all__ = ["AsyncFile", "open_file"]


class AsyncFile(anyio.AsyncFile[AnyStr]):
    """The methods of ``anyio.AsyncFile`` over a file object of ``uringfile.async_open``, which is
    ``wrapped``.

    What is not a method here is asked of that object, as it is with anyio: ``name``, ``mode``,
    ``closed``, ``fileno()`` and the like are plain. A read that is cancelled takes nothing; a
    write that is cancelled has been done or not, and not in part.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._file = file

    def __getattr__(self, name: str) -> Any:
        if name == "close":
            raise AttributeError("a file of uringfile has no plain close(): await aclose()")
        return super().__getattr__(name)

    async def __aiter__(self) -> AsyncIterator[AnyStr]:
        async for line in self._file:
            yield line

    async def aclose(self) -> None:
        """Write out what is buffered, and close, also in a scope that is cancelled. The file is
        closed in any case; what goes wrong is raised."""
        with anyio.CancelScope(shield=True):
            await self._file.close()

    async def read(self, size: int = -1) -> AnyStr:
        data: AnyStr = await self._file.read(size)
        return data

    async def read1(self: AsyncFile[bytes], size: int = -1) -> bytes:
        data: bytes = await self._file.read1(size)
        return data

    async def readline(self) -> AnyStr:
        line: AnyStr = await self._file.readline()
        return line

    async def readlines(self) -> list[AnyStr]:
        lines: list[AnyStr] = await self._file.readlines()
        return lines

    async def readinto(self: AsyncFile[bytes], b: WriteableBuffer) -> int:
        size: int = await self._file.readinto(b)
        return size

    async def readinto1(self: AsyncFile[bytes], b: WriteableBuffer) -> int:
        size: int = await self._file.readinto1(b)
        return size

    async def write(self, b: ReadableBuffer | str) -> int:
        size: int = await self._file.write(b)
        return size

    async def writelines(self, lines: Iterable[ReadableBuffer] | Iterable[str]) -> None:
        await self._file.writelines(lines)

    async def truncate(self, size: int | None = None) -> int:
        length: int = await self._file.truncate(size)
        return length

    async def seek(self, offset: int, whence: int | None = 0) -> int:
        position: int = self._file.seek(offset, whence)
        return position

    async def tell(self) -> int:
        position: int = self._file.tell()
        return position

    async def flush(self) -> None:
        await self._file.flush()


@overload
async def open_file(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: int = ...,
    encoding: None = ...,
    errors: None = ...,
    newline: None = ...,
    closefd: bool = ...,
    opener: Opener | None = ...,
    *,
    limiter: anyio.CapacityLimiter | None = ...,
) -> AsyncFile[bytes]: ...
@overload
async def open_file(
    file: FileDescriptorOrPath,
    mode: OpenTextMode = ...,
    buffering: int = ...,
    encoding: str | None = ...,
    errors: str | None = ...,
    newline: str | None = ...,
    closefd: bool = ...,
    opener: Opener | None = ...,
    *,
    limiter: anyio.CapacityLimiter | None = ...,
) -> AsyncFile[str]: ...
async def open_file(
    file: FileDescriptorOrPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    limiter: anyio.CapacityLimiter | None = None,
) -> AsyncFile[Any]:
    """Open a file as ``open`` does. ``limiter`` is that of threads, and ignored.

    Raises what ``open`` raises. Cancelled, it leaves no open file behind, though it may have
    created or emptied the file.
    """
    if encoding is None and not parse_mode(mode).binary:
        encoding = locale.getpreferredencoding(False)
    return AsyncFile(
        await async_open(
            file,
            mode,
            encoding,
            errors,
            newline,
            closefd,
            buffering=buffering,
            opener=opener,
        )
    )
