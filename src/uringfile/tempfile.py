"""Temporary files and folders: what the standard ``tempfile`` gives, with coroutines.

All are for ``async with``, or ``await``. Cancelled at any point, while they are made, used or
closed, they leave no descriptor and no file behind; what is still to do then is done in the
background, and at the latest when the object is collected or the interpreter exits. Only a
process that is killed leaves a named file or a folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, AnyStr, Generic, overload

from uringfile._async_open import check_arguments, file_object
from uringfile._binary import BinaryFileWrapper
from uringfile._engine import EngineName
from uringfile._fileobject import FileIOWrapperBase
from uringfile._loop import running_driver
from uringfile._mode import parse_mode
from uringfile._open import NO_DESCRIPTOR, in_thread, off_the_loop
from uringfile._spooled import SpooledTemporaryFile
from uringfile._temporary import NamedFile, Place, UnnamedFile
from uringfile._textfile import TextFileWrapper

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode

    StrPath = str | os.PathLike[str]
    Dir = StrPath | bytes | os.PathLike[bytes]

__all__ = [
    "NamedTemporaryFile",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
]


@overload
def TemporaryFile(
    mode: OpenTextMode,
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | bytes | None = None,
    prefix: str | bytes | None = None,
    dir: Dir | None = None,
    *,
    errors: str | None = None,
    engine: EngineName | None = None,
) -> TextFileWrapper: ...
@overload
def TemporaryFile(
    mode: OpenBinaryMode = "w+b",
    buffering: int = -1,
    encoding: None = None,
    newline: None = None,
    suffix: str | bytes | None = None,
    prefix: str | bytes | None = None,
    dir: Dir | None = None,
    *,
    errors: None = None,
    engine: EngineName | None = None,
) -> BinaryFileWrapper: ...
@overload
def TemporaryFile(
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | bytes | None = None,
    prefix: str | bytes | None = None,
    dir: Dir | None = None,
    *,
    errors: str | None = None,
    engine: EngineName | None = None,
) -> BinaryFileWrapper | TextFileWrapper: ...
def TemporaryFile(
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
) -> BinaryFileWrapper | TextFileWrapper:
    """A file object as of ``async_open``, for a file that has no name and is gone when closed.

    It is made with O_TMPFILE (Linux 3.11), or unlinked at once where the file system has no
    such files. ``name`` is the descriptor.
    """
    buffering = check_arguments(parse_mode(mode).binary, encoding, errors, newline, buffering)
    place = Place(suffix, prefix, dir)
    file = UnnamedFile("", mode, encoding or "utf-8", errors=errors or "strict", engine=engine)
    file.place = place
    return file_object(file, buffering, newline)


class _Named(FileIOWrapperBase):
    """What is removed at its end."""

    file: NamedFile

    @property
    def delete(self) -> bool:
        """Whether the file is removed at the end."""
        return self.file.delete

    async def close(self) -> None:
        """Write out what is buffered, and close; then the file is removed, unless ``delete`` or
        ``delete_on_close`` was false. Cancelled, all that is done in the background."""
        file = self.file
        last = self._core._shared.users <= 1
        try:
            await super().close()
        finally:
            if last and file.delete and file.delete_on_close:
                await file.remove()

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self.close()
        finally:
            if self.file.delete:
                await self.file.remove()


class NamedBinaryFile(_Named, BinaryFileWrapper):
    """What ``NamedTemporaryFile`` gives in a binary mode."""

    file: NamedFile


class NamedTextFile(_Named, TextFileWrapper):
    """What ``NamedTemporaryFile`` gives in a text mode."""

    file: NamedFile


@overload
def NamedTemporaryFile(
    mode: OpenTextMode,
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | bytes | None = None,
    prefix: str | bytes | None = None,
    dir: Dir | None = None,
    delete: bool = True,
    *,
    errors: str | None = None,
    delete_on_close: bool = True,
    engine: EngineName | None = None,
) -> NamedTextFile: ...
@overload
def NamedTemporaryFile(
    mode: OpenBinaryMode = "w+b",
    buffering: int = -1,
    encoding: None = None,
    newline: None = None,
    suffix: str | bytes | None = None,
    prefix: str | bytes | None = None,
    dir: Dir | None = None,
    delete: bool = True,
    *,
    errors: None = None,
    delete_on_close: bool = True,
    engine: EngineName | None = None,
) -> NamedBinaryFile: ...
@overload
def NamedTemporaryFile(
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | bytes | None = None,
    prefix: str | bytes | None = None,
    dir: Dir | None = None,
    delete: bool = True,
    *,
    errors: str | None = None,
    delete_on_close: bool = True,
    engine: EngineName | None = None,
) -> NamedBinaryFile | NamedTextFile: ...
def NamedTemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Any = None,
    prefix: Any = None,
    dir: Any = None,
    delete: bool = True,
    *,
    errors: str | None = None,
    delete_on_close: bool = True,
    engine: EngineName | None = None,
) -> NamedBinaryFile | NamedTextFile:
    """A file object as of ``async_open``, for a new file whose path is its ``name``.

    It is removed by ``close``; with ``delete_on_close=False`` at the end of its ``async with``,
    or when it is collected; with ``delete=False`` by nobody.
    """
    buffering = check_arguments(parse_mode(mode).binary, encoding, errors, newline, buffering)
    place = Place(suffix, prefix, dir)
    file = NamedFile("", mode, encoding or "utf-8", errors=errors or "strict", engine=engine)
    file.place = place
    file.delete = delete
    file.delete_on_close = delete_on_close
    if file.mode.binary:
        return NamedBinaryFile(file, buffering)
    return NamedTextFile(file, buffering, newline=newline)


class TemporaryDirectory(Generic[AnyStr]):
    """A new folder, removed with all that is in it.

    ``async with TemporaryDirectory() as path``; or ``d = await TemporaryDirectory()``, ``d.name``
    and ``await d.cleanup()``. The arguments are those of the standard class; with
    ``delete=False`` only ``cleanup`` removes it. Made and removed in a thread.
    """

    _directory: tempfile.TemporaryDirectory[AnyStr] | None = None

    @overload
    def __init__(
        self: TemporaryDirectory[str],
        suffix: str | None = None,
        prefix: str | None = None,
        dir: StrPath | None = None,
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: TemporaryDirectory[bytes],
        suffix: bytes | None = None,
        prefix: bytes | None = None,
        dir: bytes | os.PathLike[bytes] | None = None,
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None: ...
    def __init__(
        self,
        suffix: Any = None,
        prefix: Any = None,
        dir: Any = None,
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None:
        self._make: Callable[[], Any] = partial(
            tempfile.TemporaryDirectory, suffix, prefix, dir, ignore_cleanup_errors
        )
        self._delete = delete

    @property
    def name(self) -> AnyStr:
        """The path; ``ValueError`` before it is made."""
        if self._directory is None:
            raise ValueError("the folder has not been made yet; await this object")
        return self._directory.name

    def __await__(self) -> Generator[Any, None, TemporaryDirectory[AnyStr]]:
        yield from self._open().__await__()
        return self

    async def _open(self) -> None:
        if self._directory is None:
            directory = await in_thread(
                running_driver(), NO_DESCRIPTOR, self._make, on_orphan=_clean_up
            )
            if not self._delete:
                directory._finalizer.detach()
            self._directory = directory

    async def __aenter__(self) -> AnyStr:
        await self._open()
        return self.name

    async def __aexit__(self, *exc_info: object) -> None:
        if self._delete:
            await self.cleanup()

    async def cleanup(self) -> None:
        """Remove the folder and what is in it. Cancelled, it is removed all the same."""
        if self._directory is not None:
            await in_thread(running_driver(), NO_DESCRIPTOR, self._directory.cleanup)


def _clean_up(directory: tempfile.TemporaryDirectory[Any]) -> None:
    off_the_loop(directory.cleanup)
