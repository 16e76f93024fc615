"""The end of an open file: what is under way is waited for, then the descriptor is closed."""

from __future__ import annotations

import asyncio

from uringfile._direct import DirectIO
from uringfile._driver import Driver
from uringfile._errors import Filename
from uringfile._fd import Descriptor
from uringfile._open import close_descriptor, release_descriptor

# How long reads are waited for that were cancelled and do not stop, in seconds.
_PATIENCE = 0.2


class Closing:
    """Begins at once, in a task of its own, which goes on if the caller is cancelled.

    ``owner``: whether the descriptor is ours to close.
    """

    def __init__(
        self,
        driver: Driver,
        descriptor: Descriptor,
        direct_io: DirectIO | None,
        name: Filename,
        *,
        owner: bool,
    ) -> None:
        self._driver = driver
        self._descriptor = descriptor
        self._direct_io = direct_io
        self._name = name
        self._owner = owner
        self._begun = False
        self.task = driver.loop.create_task(self._close())
        self.task.add_done_callback(self._ended)

    async def _close(self) -> None:
        self._begun = True
        try:
            if not await self._wait_until_idle():
                self._drop()
                return
            if self._direct_io is not None:
                await self._direct_io.close()
        except BaseException:  # the loop is ending; or the second descriptor's close failed
            self._drop()
            raise
        if self._owner:
            await close_descriptor(self._driver, self._descriptor, self._name)
        else:
            await release_descriptor(self._driver, self._descriptor, self._name)

    async def _wait_until_idle(self) -> bool:
        """False if only reads are left that nobody waits for and that do not stop (a hung
        server); the descriptor is then closed when the kernel lets go of it."""
        descriptor = self._descriptor
        while descriptor.holders:
            idle = asyncio.ensure_future(descriptor.idle())
            _, pending = await asyncio.wait([idle], timeout=_PATIENCE)
            if pending:
                idle.cancel()
                if self._driver.holds_only_lost_reads(descriptor):
                    return False
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # its caller may be gone
        elif not self._begun:  # the loop has ended before its first step
            self._drop()

    def _drop(self) -> None:
        if self._direct_io is not None:
            self._direct_io.drop()
        if self._owner:
            self._driver.drop(self._descriptor)
        else:
            self._driver.forget(self._descriptor.fd)
