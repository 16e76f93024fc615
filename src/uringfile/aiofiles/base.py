"""``aiofiles.base``: what its file objects and its ``open`` have in common."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
)
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from types import CoroutineType, TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from uringfile._binary import BinaryFileWrapper
from uringfile._detach import detach
from uringfile._fileobject import FileIOWrapperBase
from uringfile._spooled import SpooledTemporaryFile
from uringfile._textfile import TextFileWrapper

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="_Exits")

__all__ = ["AiofilesContextManager", "AsyncBase", "AsyncIndirectBase", "wrap"]


def wrap(func: Callable[P, R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """A coroutine function that calls ``func`` in a thread.

    It takes two more keywords: ``executor``, by default that of the loop, and ``loop``, which
    is ignored. A call that is cancelled goes on in its thread if it has begun.
    """

    @wraps(func)
    async def run(
        *args: Any, loop: object = None, executor: Executor | None = None, **kwargs: Any
    ) -> R:
        call = partial(func, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(executor, call)

    return run


def accepting_executor(func: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Awaitable[R]]:
    """The coroutine function with two more keywords, ``loop`` and ``executor``: ignored."""

    @wraps(func)
    async def run(*args: Any, loop: object = None, executor: object = None, **kwargs: Any) -> R:
        return await func(*args, **kwargs)

    return run


class AsyncBase:
    """A file object whose every call that may wait is a coroutine.

    ``_file`` is a file object of ``uringfile.async_open``, or any other: a call of the latter
    is made in a thread, of ``executor`` or of the loop's default executor. ``loop`` is ignored.
    """

    def __init__(self, file: Any, loop: object = None, executor: Executor | None = None) -> None:
        self._file = file
        self._executor = executor
        self._is_ours = isinstance(file, (FileIOWrapperBase, SpooledTemporaryFile))

    async def _call(self, name: str, *args: Any) -> Any:
        if not self._is_ours:
            call = partial(getattr(self._file, name), *args)
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        result = getattr(self._file, name)(*args)
        return await result if isinstance(result, CoroutineType) else result

    async def _exit(self, *exc_info: Any) -> None:
        """The end of the ``async with`` that opened it."""
        if self._is_ours:
            await self._file.__aexit__(*exc_info)
        else:
            await self._call("__exit__", *exc_info)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapping {self._file!r}>"

    def __aiter__(self) -> AsyncIterator[Any]:
        lines: AsyncIterator[Any] = self._file.__aiter__() if self._is_ours else self
        return lines

    async def __anext__(self) -> Any:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # ---- what all of them have ------------------------------------------------------

    async def read(self, size: int | None = -1) -> Any:
        """``size`` bytes or characters, fewer only at the end; all there are by default."""
        if self._is_ours:
            return await self._file.read(size)
        return await self._call("read", size)

    async def readline(self, size: int = -1) -> Any:
        """The next line with its end, at most ``size`` of it; empty at the end of the file."""
        if self._is_ours:
            return await self._file.readline(size)
        return await self._call("readline", size)

    async def readlines(self, hint: int = -1) -> list[Any]:
        """The lines that are left, or as many as hold ``hint`` bytes or characters."""
        lines: list[Any] = await self._call("readlines", hint)
        return lines

    async def write(self, data: Any) -> int:
        """Write ``data``: how many bytes or characters."""
        if self._is_ours:
            written: int = await self._file.write(data)
            return written
        result: int = await self._call("write", data)
        return result

    async def writelines(self, lines: Iterable[Any]) -> None:
        """Write each of ``lines``; nothing is added between them."""
        await self._call("writelines", lines)

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, and return it."""
        position: int = await self._call("seek", offset, whence)
        return position

    async def tell(self) -> int:
        """The position."""
        position: int = await self._call("tell")
        return position

    async def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file to ``size`` bytes, by default to the position."""
        length: int = await self._call("truncate", *(() if size is None else (size,)))
        return length

    async def flush(self) -> None:
        """Hand to the kernel what is buffered, and raise what went wrong with it."""
        await self._call("flush")

    async def close(self) -> None:
        """Write out what is buffered, and close; a second call does nothing."""
        await self._call("close")

    async def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(await self._call("isatty"))

    async def seekable(self) -> bool:
        """Whether it has positions."""
        return bool(await self._call("seekable"))

    async def writable(self) -> bool:
        """Whether it was opened for writing."""
        return bool(await self._call("writable"))

    def fileno(self) -> int:
        """The descriptor."""
        fd: int = self._file.fileno()
        return fd

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._file.closed)

    @property
    def name(self) -> Any:
        """The path or the descriptor that it was opened by."""
        return self._file.name

    @property
    def mode(self) -> str:
        """The mode, as Python's file objects tell it."""
        mode: str = self._file.mode
        return mode


class Detachable(AsyncBase):
    """What has a ``detach`` method: buffered binary files and texts."""

    def detach(self) -> Any:
        """Python's own binary file object for the descriptor, which it owns from then on; this
        one cannot be used any more.

        Raises ``BlockingIOError`` while a read or a write is under way: ``flush`` first.
        """
        if not isinstance(self._file, (BinaryFileWrapper, TextFileWrapper)):
            return self._file.detach()
        file = detach(self._file)
        self._file = Detached()
        return file


class AsyncIndirectBase(AsyncBase):
    """A file object that stands for the one that ``indirect()`` gives at each call."""

    def __init__(
        self,
        name: str,
        loop: object = None,
        executor: Executor | None = None,
        *,
        indirect: Callable[[], Any],
    ) -> None:
        self._name = name
        self._indirect = indirect
        self._executor = executor
        self._is_ours = False

    @property
    def _file(self) -> Any:
        return self._indirect()

    @_file.setter
    def _file(self, file: Any) -> None:
        pass


class Detached:
    """In the place of a file object that was detached."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("the file has been detached")


class _Exits(Protocol):
    async def _exit(self, *exc_info: Any) -> None:
        """The end of the ``async with`` that made it."""


class AiofilesContextManager(Awaitable[T], AbstractAsyncContextManager[T, None]):
    """What ``open`` gives: awaited, or entered, it is the file."""

    __slots__ = ("_coro", "_obj")

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self._obj: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        if self._obj is None:
            self._obj = yield from self._coro.__await__()
        return self._obj

    async def __aenter__(self) -> T:
        return await self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        file, self._obj = self._obj, None
        assert file is not None
        await file._exit(exc_type, exc_val, exc_tb)
