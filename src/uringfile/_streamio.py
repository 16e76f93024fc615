"""Pipes, FIFOs, terminals, sockets: files without offsets.

One read of a stream is in flight at a time, and it takes what the kernel has. A caller that
is cancelled asks for it to be stopped; should data have come all the same (the request lost
the race, or POSIX AIO could not stop it), the next caller gets that data: nothing is lost
but by closing the file.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from uringfile._background import shield
from uringfile._blocks import as_bytes, new_block
from uringfile._driver import Driver, raise_for
from uringfile._engine import READ, WRITE
from uringfile._errors import ClosedFileError, Filename
from uringfile._fd import Descriptor
from uringfile._inflight import Operation
from uringfile._native_engine import inside, pin


class StreamIO:
    """The reads and writes of one stream; concurrent ones follow one another in call order."""

    def __init__(self, driver: Driver, descriptor: Descriptor, name: Filename) -> None:
        self._driver = driver
        self._descriptor = descriptor
        self._name = name
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()
        # The read that is in flight, whether or not somebody waits for it.
        self._pending: tuple[Operation, asyncio.Future[int]] | None = None
        self._block: bytes | bytearray = b""
        # Data that came for a smaller request than it was asked for, or for one that ended.
        self._left = b""

    async def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``; empty at the end."""
        async with self._reading:
            self._check()
            return await self._read(size)

    async def read_all(self, piece: int) -> bytes:
        """Everything up to the end. Cancelled, what has come is kept for the next read."""
        pieces = []
        async with self._reading:
            try:
                self._check()
                while data := await self._read(piece):
                    pieces.append(data)
            except BaseException:
                self._left = b"".join(pieces) + self._left
                raise
        return b"".join(pieces)

    async def _read(self, size: int) -> bytes:
        if not self._left:
            self._left = await self._receive(size)
        data, self._left = self._left[:size], self._left[size:]
        return data

    async def _receive(self, size: int) -> bytes:
        while size:
            if self._pending is None:
                self._block = new_block(size)
                self._pending = self._driver.start(READ, self._descriptor, pin(self._block), size)
            n = await self._result(*self._pending)
            self._pending = None
            if n not in (-errno.ECANCELED, -errno.EINTR):
                return as_bytes(self._block, raise_for(n, self._name))
        return b""

    async def _result(self, operation: Operation, future: asyncio.Future[int]) -> int:
        try:
            return await shield(future)
        except asyncio.CancelledError:
            self._driver.cancel(operation)
            raise

    async def write(self, pinned: Any) -> int:
        """Write all of the pinned data: how much."""
        async with self._writing:
            done = 0
            try:
                while done < len(pinned):
                    self._check()
                    done += await self._send(pinned, done)
            except OSError as error:
                error.characters_written = done  # type: ignore[attr-defined]
                raise
            return done

    def _check(self) -> None:
        """Whoever has waited for a turn may find the stream closed."""
        if self._descriptor.closing:
            raise ClosedFileError(f"{self._name!r} was closed")

    async def _send(self, pinned: Any, start: int) -> int:
        addr, size = inside(pinned, start), len(pinned) - start
        n = await self._driver.run(WRITE, self._descriptor, addr, size)
        return 0 if n == -errno.EINTR else raise_for(n, self._name)
