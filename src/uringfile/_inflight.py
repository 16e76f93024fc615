"""The in-flight table: who owns the memory and the descriptor of an operation.

1. An operation enters when the engine accepts it, and leaves when its completion is
   reaped; nothing else removes it.
2. While it stands here, the kernel may touch its buffer and resolve its descriptor. The
   table is the reference that keeps both: the awaiting task may be long gone.
3. What still stands here when the engine is destroyed is leaked on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from uringfile._engine import BATCH
from uringfile._fd import Descriptor


class Operation:
    """One submission, as the kernel sees it. Who waits for it only the driver knows: the
    table must not keep a task, and so a loop, alive."""

    __slots__ = ("descriptor", "holds", "on_orphan", "request", "token", "weight")

    def __init__(
        self,
        token: int,
        descriptor: Descriptor,
        request: tuple[int, int, Any, int, int, int],
        on_orphan: Callable[[int], None] | None,
    ) -> None:
        self.token = token
        self.descriptor = descriptor
        #: What it has leased: the descriptor, unless that was given back early.
        self.holds = descriptor
        #: What the engine is told: opcode, fd, memory, length, offset, token.
        self.request = request
        #: What it takes of its descriptor's share; 0 while it is held back.
        self.weight = 0
        #: Called with the result when nobody waits for it any more (an fd to close).
        self.on_orphan = on_orphan

    @property
    def opcode(self) -> int:
        return self.request[0]

    @property
    def is_batch(self) -> bool:
        return bool(self.request[0] & BATCH)

    @property
    def memory(self) -> Any:
        return self.request[2]


InFlight = dict[int, Operation]


def leak(operation: Operation) -> None:
    """Keep the operation's buffer for the rest of the process."""
    _immortal.append(operation.memory)
    if sys.implementation.name == "cpython":
        # The list dies with the module at interpreter exit, while the kernel may still write.
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(operation.memory))


_immortal: list[Any] = []


def leaked_buffers() -> int:
    """How many buffers are kept so."""
    return len(_immortal)
