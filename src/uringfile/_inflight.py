"""The in-flight table: who owns the memory and the descriptor of an operation.

1. An operation enters when the engine accepts it, and leaves when its completion is
   reaped; nothing else removes it.
2. While it stands here, the kernel may touch its buffer and resolve its descriptor. The
   table is the reference that keeps both: the awaiting task may be long gone.
3. What still stands here when the engine is destroyed is leaked on purpose.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from uringfile._fd import Descriptor


class Operation:
    """One submission: what the kernel needs, and who waits for the result."""

    __slots__ = (
        "addr",
        "future",
        "holds",
        "length",
        "offset",
        "on_orphan",
        "opcode",
        "token",
    )

    def __init__(
        self,
        token: int,
        future: asyncio.Future[int],
        opcode: int,
        holds: Descriptor,
        addr: Any,
        length: int,
        offset: int,
        on_orphan: Callable[[int], None] | None,
    ) -> None:
        self.token = token
        #: None when nobody waits any more.
        self.future: asyncio.Future[int] | None = future
        self.opcode = opcode
        self.holds = holds
        self.addr = addr
        self.length = length
        self.offset = offset
        #: Called with the result when nobody waits for it any more (an fd to close).
        self.on_orphan = on_orphan


InFlight = dict[int, Operation]


def leak(operation: Operation) -> None:
    """Keep the operation's buffer for the rest of the process."""
    _immortal.append(operation.addr)
    if sys.implementation.name == "cpython":
        # The list dies with the module at interpreter exit, while the kernel may still write.
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(operation.addr))


_immortal: list[Any] = []
