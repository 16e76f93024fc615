"""``aiofiles.tempfile``: temporary files and folders, those of ``uringfile.tempfile``.

``loop`` and ``executor`` are accepted, and ignored.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

from uringfile import tempfile
from uringfile.aiofiles.base import AiofilesContextManager
from uringfile.aiofiles.tempfile.temptypes import (
    AsyncSpooledTemporaryFile,
    AsyncTemporaryDirectory,
)
from uringfile.aiofiles.threadpool import as_aiofiles, default_encoding

__all__ = [
    "NamedTemporaryFile",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
]


def NamedTemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Any = None,
    prefix: Any = None,
    dir: Any = None,
    delete: bool = True,
    delete_on_close: bool = True,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[Any]:
    """A temporary file whose path is its ``name``; see ``uringfile.tempfile``."""

    async def make() -> Any:
        file = tempfile.NamedTemporaryFile(
            mode,
            buffering,
            default_encoding(mode, encoding),
            newline,
            suffix,
            prefix,
            dir,
            delete,
            delete_on_close=delete_on_close,
        )
        result = as_aiofiles(await file)
        result.delete = delete
        return result

    return AiofilesContextManager(make())


def TemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Any = None,
    prefix: Any = None,
    dir: Any = None,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[Any]:
    """A temporary file without a name; see ``uringfile.tempfile``."""

    async def make() -> Any:
        codec = default_encoding(mode, encoding)
        file = tempfile.TemporaryFile(mode, buffering, codec, newline, suffix, prefix, dir)
        return as_aiofiles(await file)

    return AiofilesContextManager(make())


def SpooledTemporaryFile(
    max_size: int = 0,
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Any = None,
    prefix: Any = None,
    dir: Any = None,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManager[AsyncSpooledTemporaryFile]:
    """A temporary file in memory until it is large; see ``uringfile.tempfile``."""

    async def make() -> AsyncSpooledTemporaryFile:
        codec = default_encoding(mode, encoding)
        return AsyncSpooledTemporaryFile(
            tempfile.SpooledTemporaryFile(
                max_size, mode, buffering, codec, newline, suffix, prefix, dir
            )
        )

    return AiofilesContextManager(make())


def TemporaryDirectory(
    suffix: Any = None,
    prefix: Any = None,
    dir: Any = None,
    loop: object = None,
    executor: Executor | None = None,
) -> AiofilesContextManagerTempDir:
    """A temporary folder; see ``uringfile.tempfile``. Entered, it gives the path."""

    async def make() -> AsyncTemporaryDirectory[Any]:
        return AsyncTemporaryDirectory(await tempfile.TemporaryDirectory(suffix, prefix, dir))

    return AiofilesContextManagerTempDir(make())


class AiofilesContextManagerTempDir(AiofilesContextManager[AsyncTemporaryDirectory[Any]]):
    """What ``TemporaryDirectory`` gives: awaited it is the folder, entered the folder's path."""

    async def __aenter__(self) -> Any:
        return (await self).name
