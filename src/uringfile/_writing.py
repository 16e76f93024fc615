"""Writing bytes through a buffer: gathered in memory, and written in the background.

A write is accepted whole when there is room for it, and not at all before.
"""

from __future__ import annotations

import errno
import operator
import os
import types
from collections.abc import Generator
from typing import Any

from uringfile._buffered import Buffered
from uringfile._fileobject import unsupported


@types.coroutine
def _next_turn() -> Generator[None, None, None]:
    yield


class BufferedWriting(Buffered):
    """What changes the contents of a file; ``_reading`` adds what reads them."""

    @property
    def _core(self) -> BufferedWriting:
        return self

    async def write(self, data: Any) -> int:
        """Write ``data``, any contiguous buffer: its size in bytes.

        It is copied into memory, and written in the background when enough of it has come
        together. An error there is raised by the next call that is awaited, and by
        ``close``; the data is kept and tried again by ``flush``, ``close`` and later
        writes, and nothing written later overtakes it. Cancelled, or with an exception,
        nothing of ``data`` is accepted.
        """
        unsent = self._unsent
        if type(data) is bytes and len(unsent) + len(data) < self._room:
            unsent += data
            return len(data)
        return await self._write(data)

    async def _write(self, data: Any) -> int:
        if self._write_size:
            self._check_writable()
        if not isinstance(data, bytes):
            data = _copy(data)
        if self._write_size:
            await self._make_room(len(data))
            self._accept(data)
        else:
            await self._write_through(data)
        return len(data)

    async def _write_through(self, data: bytes) -> None:
        """Write without a buffer. Cancelled, the data may land whole, in part or not at all."""
        async with self._one_at_a_time:
            self._check_writable()
            if not data:
                return
            self._go_where_writes_go()
            position = self._base
            done = 0
            try:
                done = await self.file.write_bytes(data, position)
            except OSError as error:
                done = getattr(error, "characters_written", 0)
                raise
            finally:
                self._known_size = max(self._known_size, position + done)
                if not self._closed and self._position() == position:
                    self._base += done

    def _check_writable(self) -> None:
        self._check_open()
        if not self.file.mode.writable:
            raise unsupported("write")

    async def _make_room(self, size: int) -> None:
        """Until ``size`` bytes may be accepted: the buffer has room, or is empty."""
        writes = self._writes
        while True:
            self._check_writable()
            self._check_here()
            writes.raise_error()
            if len(self._unsent) + size <= self._write_size:
                return
            if writes.size > self._write_size:
                await writes.shrink(self._loop, self._write_size)
            elif self._unsent:
                self._seal()
                writes.start(self._loop)
                await _next_turn()  # in which the write is flushed to the kernel
            else:
                return

    def _go_where_writes_go(self) -> None:
        appends = self.file.mode.appending and self._seekable
        self._set_ahead(self._end() if appends else self._position(), b"")

    def _accept(self, data: bytes) -> None:
        """Take ``data`` into the buffer, for which there is room."""
        if not data:
            return
        if not self._room:
            self._seal()
            self._go_where_writes_go()
            self._room = self._write_size
        if len(data) >= self._write_size:
            self._seal()
            self._writes.put(self._base, data)
            self._base += len(data)
            self._writes.start(self._loop)
        else:
            self._unsent += data

    async def _drain(self) -> None:
        """Write everything out."""
        self._check_here()
        self._seal()
        if self._writes.size or self._writes.failed:
            await self._writes.drain(self._loop)
            if not self.file._local:
                self._known_size = (await self.file.stat()).st_size

    async def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file to ``size`` bytes, by default to the position.

        The position stays. Returns the size.
        """
        self._check_open()
        if not self.file.mode.writable:
            raise unsupported("truncate")
        size = self.tell() if size is None else operator.index(size)
        if size < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        await self._drain()
        await self.file.truncate(size)
        self._check_open()
        self._known_size = size
        self._writes.reached = 0
        self._end_of_block()
        self._room = 0  # the end is elsewhere now
        return size


def _copy(data: Any) -> bytes:
    with memoryview(data) as view:
        if not view.c_contiguous:
            raise BufferError("memoryview: underlying buffer is not C-contiguous")
        return view.tobytes()
