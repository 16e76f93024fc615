"""async_open and clone."""

from __future__ import annotations

import asyncio
import operator
import os
import warnings
from collections.abc import Callable, Generator
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar, overload

from uringfile._binary import BinaryFileWrapper
from uringfile._engine import EngineName
from uringfile._file import AIOFile
from uringfile._fileobject import FileIOWrapperBase
from uringfile._mode import parse_mode
from uringfile._newlines import check_newline
from uringfile._opener import OpenerFile, by_opener
from uringfile._paths import FileDescriptorOrPath
from uringfile._textfile import TextFileWrapper

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode

T = TypeVar("T", bound=FileIOWrapperBase)

Opener = Callable[[Any, int], int]


@overload
def async_open(
    file: FileDescriptorOrPath,
    mode: OpenTextMode = "r",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    *,
    buffering: int = -1,
    opener: Opener | None = None,
    engine: EngineName | None = None,
    direct: bool = False,
) -> TextFileWrapper: ...
@overload
def async_open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    *,
    buffering: int = -1,
    opener: Opener | None = None,
    engine: EngineName | None = None,
    direct: bool = False,
) -> BinaryFileWrapper: ...
@overload
def async_open(
    file: FileDescriptorOrPath,
    mode: str,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    *,
    buffering: int = -1,
    opener: Opener | None = None,
    engine: EngineName | None = None,
    direct: bool = False,
) -> BinaryFileWrapper | TextFileWrapper: ...
@overload
def async_open(
    file: IO[str],
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    buffering: int = -1,
    engine: EngineName | None = None,
) -> TextFileWrapper: ...
@overload
def async_open(
    file: IO[bytes], *, buffering: int = -1, engine: EngineName | None = None
) -> BinaryFileWrapper: ...
def async_open(
    file: Any,
    mode: str = "r",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    *,
    buffering: int = -1,
    opener: Opener | None = None,
    engine: EngineName | None = None,
    direct: bool = False,
) -> BinaryFileWrapper | TextFileWrapper:
    """A file object as ``open`` gives it, to be opened by ``async with`` or ``await``.

    ``file`` is a path, an open descriptor, or an open file object, which goes on where
    this one stopped, and stays open. The arguments are those of ``open``, with UTF-8 as
    the default encoding; ``encoding`` stands where aiofile has it. ``opener`` is called
    in a thread. ``engine`` and ``direct`` are those of ``AIOFile``.

    Raises ``ValueError``, ``TypeError`` and ``LookupError`` at once, for arguments that
    make no sense; ``OSError`` when it is opened.
    """
    if isinstance(file, (str, bytes, os.PathLike)):
        if not closefd:
            raise ValueError("Cannot use closefd=False with file name")
    elif not isinstance(file, int):
        if not hasattr(file, "fileno"):
            raise TypeError(f"expected str, bytes or os.PathLike object, not {type(file).__name__}")
        return _over_file_object(file, encoding, errors, newline, buffering, engine)
    elif file < 0:
        raise ValueError("negative file descriptor")
    binary = parse_mode(mode).binary
    buffering = check_arguments(binary, encoding, errors, newline, buffering)
    by_path = opener is None or isinstance(file, int)
    aio_file = (AIOFile if by_path else OpenerFile)(
        file,
        mode,
        encoding or "utf-8",
        errors=errors or "strict",
        direct=direct,
        engine=engine,
    )
    aio_file._owner = closefd
    if isinstance(aio_file, OpenerFile):
        assert opener is not None
        aio_file.open_by = by_opener(opener, os.fspath(file))
    return file_object(aio_file, buffering, newline)


def file_object(
    file: AIOFile, buffering: int, newline: str | None
) -> BinaryFileWrapper | TextFileWrapper:
    """The file object for the mode of ``file``; the arguments have been checked."""
    if file.mode.binary:
        return BinaryFileWrapper(file, buffering)
    return TextFileWrapper(file, buffering, newline=newline)


def check_arguments(
    binary: bool, encoding: str | None, errors: str | None, newline: str | None, buffering: int
) -> int:
    """Raise what ``open`` raises for arguments that contradict each other."""
    buffering = operator.index(buffering)
    if encoding is not None and not isinstance(encoding, str):
        raise TypeError(f"encoding must be str or None, not {type(encoding).__name__}")
    if binary:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                article = "a" if value is newline else "an"
                raise ValueError(f"binary mode doesn't take {article} {name} argument")
        if buffering == 1:
            warnings.warn(
                "line buffering (buffering=1) isn't supported in binary mode, the default "
                "buffer size will be used",
                RuntimeWarning,
                stacklevel=3,
            )
            return -1
    else:
        check_newline(newline)
        if not buffering:
            raise ValueError("can't have unbuffered text I/O")
    return max(buffering, -1)


def _over_file_object(
    fp: Any,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    buffering: int,
    engine: EngineName | None,
) -> BinaryFileWrapper | TextFileWrapper:
    aio_file = AIOFile.from_fp(fp, encoding=encoding, errors=errors, engine=engine)
    binary = aio_file.mode.binary
    buffering = check_arguments(binary, encoding, errors, newline, buffering)
    wrapper = file_object(aio_file, buffering, newline)
    wrapper._core._fp = fp
    return wrapper


class FileIOCloner(Generic[T]):
    """What ``clone`` gives: awaited, or entered, it is the clone."""

    def __init__(self, file: T) -> None:
        self._source = file
        self._clone: T | None = None
        self._cloning = asyncio.Lock()

    async def _make(self) -> T:
        async with self._cloning:
            if self._clone is None:
                if self._source.writable():
                    await self._source.flush()
                clone = self._source._twin()
                self._clone = await clone
            return self._clone

    def __await__(self) -> Generator[Any, None, T]:
        return self._make().__await__()

    async def __aenter__(self) -> T:
        return await self._make()

    async def __aexit__(self, *exc_info: object) -> None:
        if self._clone is not None:
            await self._clone.close()


def clone(file: T) -> FileIOCloner[T]:
    """A second cursor, at the start, on the descriptor that ``file`` has open.

    ``await clone(f)`` or ``async with clone(f) as g``. What ``f`` has buffered is flushed
    first. The descriptor is closed with the last of them.
    """
    return FileIOCloner(file)
