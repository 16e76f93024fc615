"""``aiofiles.tempfile.temptypes``: the classes of spooled files and of folders."""

from __future__ import annotations

from typing import Any, AnyStr, Generic

from uringfile.aiofiles.base import AsyncBase
from uringfile.tempfile import TemporaryDirectory


class AsyncSpooledTemporaryFile(AsyncBase):
    """A file in memory that moves to the disk when it becomes large."""

    async def fileno(self) -> int:  # type: ignore[override]
        """The descriptor; so it moves to the disk."""
        fd: int = await self._call("fileno")
        return fd

    async def rollover(self) -> None:
        """Move to the disk now."""
        await self._call("rollover")

    @property
    def encoding(self) -> str:
        """The codec, of a text."""
        encoding: str = self._file.encoding
        return encoding

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines seen so far, of a text with universal newlines."""
        newlines: str | tuple[str, ...] | None = self._file.newlines
        return newlines


class AsyncTemporaryDirectory(Generic[AnyStr]):
    """A folder that is removed with all that is in it."""

    def __init__(
        self, file: TemporaryDirectory[AnyStr], loop: object = None, executor: object = None
    ) -> None:
        self._file: Any = file

    @property
    def name(self) -> AnyStr:
        """The path."""
        name: AnyStr = self._file.name
        return name

    async def cleanup(self) -> None:
        """Remove the folder and what is in it."""
        await self._file.cleanup()

    async def close(self) -> None:
        """The same as ``cleanup``."""
        await self.cleanup()

    async def _exit(self, *exc_info: Any) -> None:
        await self._file.__aexit__(*exc_info)
