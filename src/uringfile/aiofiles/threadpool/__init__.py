"""``aiofiles.threadpool``: ``open``, ``wrap`` and the standard streams.

The module has the name that programs import; the files that ``open`` opens have no threads.
"""

from __future__ import annotations

import builtins
import io
import locale
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Literal, overload

from uringfile._async_open import Opener, async_open
from uringfile._fileobject import FileIOWrapperBase
from uringfile._mode import parse_mode
from uringfile._paths import FileDescriptorOrPath
from uringfile.aiofiles import base
from uringfile.aiofiles.base import AiofilesContextManager
from uringfile.aiofiles.threadpool.binary import (
    AsyncBufferedIOBase,
    AsyncBufferedReader,
    AsyncFileIO,
    AsyncIndirectBufferedIOBase,
)
from uringfile.aiofiles.threadpool.text import AsyncTextIndirectIOWrapper, AsyncTextIOWrapper

if TYPE_CHECKING:
    from _typeshed import (
        OpenBinaryMode,
        OpenBinaryModeReading,
        OpenBinaryModeUpdating,
        OpenBinaryModeWriting,
        OpenTextMode,
    )

__all__ = (
    "open",
    "stderr",
    "stderr_bytes",
    "stdin",
    "stdin_bytes",
    "stdout",
    "stdout_bytes",
)

#: Tests of programs that use aiofiles replace this function: then it is what opens the files.
sync_open: Callable[..., Any] = builtins.open
_builtin_open = builtins.open


@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[AsyncTextIOWrapper]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[0],
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[AsyncFileIO]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryModeReading | OpenBinaryModeUpdating,
    buffering: Literal[-1, 1] = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[AsyncBufferedReader]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryModeWriting,
    buffering: Literal[-1, 1] = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[AsyncBufferedIOBase]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[Any]: ...
def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    *,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[Any]:
    """Open a file as ``open`` does: ``async with open(...) as f`` or ``f = await open(...)``.

    The arguments, with their defaults, are those of Python's ``open``, and what it raises is
    raised when this is awaited. ``loop`` and ``executor`` are ignored. A call that is
    cancelled leaves no open file behind, though it may have created or emptied the file.
    """
    opening = _open(
        file,
        executor,
        mode=mode,
        buffering=buffering,
        encoding=encoding,
        errors=errors,
        newline=newline,
        closefd=closefd,
        opener=opener,
    )
    return AiofilesContextManager(opening)


async def _open(file: Any, executor: Executor | None, **arguments: Any) -> Any:
    """``arguments`` are all those of Python's ``open``."""
    if sync_open is not _builtin_open:
        fp = await base.wrap(sync_open)(file, **arguments, executor=executor)
        return wrap(fp, executor=executor)
    arguments["encoding"] = default_encoding(arguments["mode"], arguments["encoding"])
    path = file if isinstance(file, int) else os.fspath(file)
    return as_aiofiles(await async_open(path, **arguments))


def default_encoding(mode: str, encoding: str | None) -> str | None:
    """That of ``open``, which is the locale's, for a text."""
    if encoding is None and not parse_mode(mode).binary:
        return locale.getpreferredencoding(False)
    return encoding


def as_aiofiles(file: Any) -> Any:
    """The object that has the coroutines of aiofiles, over one of ``async_open``."""
    if not file.file.mode.binary:
        return AsyncTextIOWrapper(file)
    if not file._buffering:
        return AsyncFileIO(file)
    if file.file.mode.readable:
        return AsyncBufferedReader(file)
    return AsyncBufferedIOBase(file)


@singledispatch
def wrap(file: Any, *, loop: object = None, executor: Executor | None = None) -> Any:
    """Coroutines for a file object: one of Python's own, whose calls are then made in a thread
    (of ``executor`` or of the loop's default executor), or one that ``async_open`` has opened.

    Raises ``TypeError`` for anything else. ``wrap.register`` adds types, as
    ``functools.singledispatch`` does. ``loop`` is ignored.
    """
    raise TypeError(f"Unsupported io type: {file}.")


@wrap.register(FileIOWrapperBase)
def _(file: Any, *, loop: object = None, executor: Executor | None = None) -> Any:
    return as_aiofiles(file)


@wrap.register(io.TextIOBase)
def _(file: Any, *, loop: object = None, executor: Executor | None = None) -> AsyncTextIOWrapper:
    return AsyncTextIOWrapper(file, loop, executor)


@wrap.register(io.BufferedIOBase)
def _(file: Any, *, loop: object = None, executor: Executor | None = None) -> AsyncBufferedIOBase:
    return AsyncBufferedIOBase(file, loop, executor)


@wrap.register(io.BufferedReader)
@wrap.register(io.BufferedRandom)
def _(file: Any, *, loop: object = None, executor: Executor | None = None) -> AsyncBufferedReader:
    return AsyncBufferedReader(file, loop, executor)


@wrap.register(io.FileIO)
def _(file: Any, *, loop: object = None, executor: Executor | None = None) -> AsyncFileIO:
    return AsyncFileIO(file, loop, executor)


# What sys has in their place at the moment, in a thread of the loop's default executor: its
# buffers are Python's, and print() and input() use them, too.
stdin = AsyncTextIndirectIOWrapper("sys.stdin", indirect=lambda: sys.stdin)
stdout = AsyncTextIndirectIOWrapper("sys.stdout", indirect=lambda: sys.stdout)
stderr = AsyncTextIndirectIOWrapper("sys.stderr", indirect=lambda: sys.stderr)
stdin_bytes = AsyncIndirectBufferedIOBase("sys.stdin.buffer", indirect=lambda: sys.stdin.buffer)
stdout_bytes = AsyncIndirectBufferedIOBase("sys.stdout.buffer", indirect=lambda: sys.stdout.buffer)
stderr_bytes = AsyncIndirectBufferedIOBase("sys.stderr.buffer", indirect=lambda: sys.stderr.buffer)
