"""Operations that are held back, so that a file that hangs does not hold up the others.

A descriptor takes at most as much of the engine as it leaves: one that hangs half, the next
one a quarter, and so on; and not more than 32 of the kernel's workers. What goes beyond that
waits here, outside of the queue for the engine, until earlier operations of the same
descriptor have completed.
"""

from __future__ import annotations

from collections import OrderedDict

from uringfile._engine import ASYNC, BATCH, Engine
from uringfile._fd import Descriptor
from uringfile._inflight import Operation

# Of short batches a descriptor gets so many of the engine's 128 (UF_BATCHES).
_MOST_BATCHES = 32


class HeldBack(dict[Descriptor, OrderedDict[int, Operation]]):
    """For each descriptor those that wait, in call order. Mostly empty."""

    def __init__(self, engine: Engine) -> None:
        self._capacity = engine.capacity
        self._worker_share = engine.worker_share

    def operations(self) -> list[Operation]:
        return [operation for line in self.values() for operation in line.values()]

    def add(self, operation: Operation) -> None:
        self.setdefault(operation.descriptor, OrderedDict())[operation.token] = operation

    def remove(self, operation: Operation) -> bool:
        """Whether it was among them."""
        line = self.get(operation.descriptor)
        if line is None or line.pop(operation.token, None) is None:
            return False
        if not line:
            del self[operation.descriptor]
        return True

    def admit(self, operation: Operation, in_flight: int) -> bool:
        """Count the operation, unless its descriptor has its share. One it always has: so
        there is always a completion to come that lets the next one in."""
        descriptor = operation.descriptor
        opcode, _, _, length, _, _ = operation.request
        most = self._worker_share if opcode & ASYNC else self._capacity // 2
        if descriptor.admitted and descriptor.admitted >= min(most, self._capacity - in_flight):
            return False
        operation.weight = 1
        if opcode & BATCH:  # whose parts the engine itself keeps within a share
            operation.weight = min(max(length, most // _MOST_BATCHES), most)
        descriptor.admitted += operation.weight
        return True

    def take(self, descriptor: Descriptor, in_flight: int) -> Operation | None:
        """The first of the descriptor's that can be let in: admitted."""
        line = self.get(descriptor)
        if line is None:
            return None
        operation = next(iter(line.values()))
        if not self.admit(operation, in_flight):
            return None
        self.remove(operation)
        return operation
