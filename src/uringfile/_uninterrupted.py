"""Operations that are asked for again when a signal has interrupted them, as PEP 475 has it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from uringfile._driver import NO_BUFFER, Driver
from uringfile._fd import Descriptor


async def run_uninterrupted(
    driver: Driver,
    opcode: int,
    descriptor: Descriptor,
    addr: Any = NO_BUFFER,
    length: int = 0,
    offset: int = 0,
    on_orphan: Callable[[int], None] | None = None,
) -> int:
    """As ``Driver.run``, but never -EINTR."""
    while True:
        ret = await driver.run(opcode, descriptor, addr, length, offset, on_orphan)
        if ret != -errno.EINTR:
            return ret
