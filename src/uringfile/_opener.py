"""Files that a function opens, instead of open(2) of a path."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from uringfile._driver import Driver
from uringfile._fd import Descriptor
from uringfile._file import AIOFile
from uringfile._native_engine import Identity
from uringfile._open import NO_DESCRIPTOR, close_orphan, in_thread


class OpenerFile(AIOFile):
    """An ``AIOFile`` whose descriptor comes from ``open_by(driver, flags)``.

    Cancelled, that function must not leave a descriptor behind.
    """

    open_by: Callable[[Driver, int], Awaitable[int]]

    def open_at_once(self) -> bool:
        return False

    async def _open_path(self, driver: Driver) -> int:
        return await self.open_by(driver, self._flags())

    def _adopt(
        self, driver: Driver, descriptor: Descriptor, identity: Identity, *, local: bool
    ) -> None:
        super()._adopt(driver, descriptor, identity, local=local)
        self.at_start = False  # the function may have moved it


def by_opener(
    opener: Callable[[Any, int], int], path: Any
) -> Callable[[Driver, int], Awaitable[int]]:
    """What the ``opener`` argument of ``open`` does, in a thread."""

    def call(flags: int) -> int:
        fd = opener(path, flags)
        if not isinstance(fd, int):
            raise TypeError("expected integer from opener")
        if fd < 0:
            raise ValueError(f"opener returned {fd}")
        os.set_inheritable(fd, False)
        return fd

    async def open_by(driver: Driver, flags: int) -> int:
        fd: int = await in_thread(driver, NO_DESCRIPTOR, call, flags, on_orphan=close_orphan)
        return fd

    return open_by
