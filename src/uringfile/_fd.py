"""File descriptors on lease: closed only when no operation holds the number."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import NoReturn, SupportsIndex


def refuse_copy(self: object, protocol: SupportsIndex) -> NoReturn:
    """``__reduce_ex__`` of what owns a descriptor. A copy would be a second owner, which closes
    the number when it is finalized, and later the file that has the number then."""
    raise TypeError(f"cannot pickle {type(self).__name__!r} object")


class Descriptor:
    """An open descriptor and the count of operations and calls that hold it.

    The kernel resolves an fd number when it sees the operation, so a number that is
    closed and opened again before that would send a read to another file. A call that
    takes several operations holds it from the first to the last.
    """

    __slots__ = ("_close_when_idle", "_idle", "admitted", "closing", "fd", "holders")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.holders = 0
        #: What its operations take of its share; the driver counts.
        self.admitted = 0
        #: close() has been called: no read may begin any more.
        self.closing = False
        self._idle: asyncio.Future[None] | None = None
        self._close_when_idle = False

    def release(self) -> None:
        """An operation or a call has let go of the descriptor."""
        self.holders -= 1
        if self.holders:
            return
        if self._close_when_idle:
            self._close()
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def idle(self) -> None:
        """Wait until no operation holds the descriptor."""
        while self.holders:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def forget_waiters(self) -> None:
        """The loop is gone: nobody can be woken any more."""
        self._idle = None

    def close_when_idle(self) -> None:
        """Close now, or when the last operation lets go; errors of close(2) are lost."""
        if self.holders:
            self._close_when_idle = True
        else:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)


class NoDescriptor(Descriptor):
    """Stands in for a descriptor where an operation needs none (openat)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(-100)  # AT_FDCWD

    @property
    def admitted(self) -> int:
        return 0

    @admitted.setter
    def admitted(self, count: int) -> None:
        """It is no file, and all loops have it."""

    def release(self) -> None:
        pass

    def close_when_idle(self) -> None:
        pass
