"""File descriptors on lease: closed only when no operation holds the number."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import NoReturn, SupportsIndex

from uringfile._native_engine import close_in_thread


def refuse_copy(self: object, protocol: SupportsIndex) -> NoReturn:
    """``__reduce_ex__`` of what owns a descriptor. A copy would be a second owner, which closes
    the number when it is finalized, and later the file that has the number then."""
    raise TypeError(f"cannot pickle {type(self).__name__!r} object")


def close_unasked(fd: int, *, at_once: bool = False) -> None:
    """close(2) that nobody waits for; its errors are lost.

    In a thread where an event loop runs in this one, because it may wait: over a network for
    the server, on ext4 for what is written back. ``at_once`` says that it waits for nothing.
    No lock of Python's is taken: the garbage collector may call this at any moment.
    """
    if not at_once and _in_event_loop() and not close_in_thread(fd):
        return
    with contextlib.suppress(OSError):
        os.close(fd)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Descriptor:
    """An open descriptor and the count of operations and calls that hold it.

    The kernel resolves an fd number when it sees the operation, so a number that is
    closed and opened again before that would send a read to another file. A call that
    takes several operations holds it from the first to the last.
    """

    __slots__ = ("_close_when_idle", "_idle", "admitted", "at_once", "closing", "fd", "holders")

    def __init__(self, fd: int, *, at_once: bool = False) -> None:
        self.fd = fd
        #: Whether close(2) waits for nothing.
        self.at_once = at_once
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
        """Close when the last operation lets go, as ``close_unasked`` does."""
        if self.holders:
            self._close_when_idle = True
        else:
            self._close()

    def _close(self) -> None:
        close_unasked(self.fd, at_once=self.at_once)


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
