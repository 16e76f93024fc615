"""Where the operations that are still pending were started, for debugging."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass

from uringfile._engine import KIND, OPCODE_NAMES
from uringfile._environment import number
from uringfile._inflight import Operation

#: Turns it on; so does the debug mode of asyncio (PYTHONASYNCIODEBUG).
VARIABLE = "URINGFILE_DEBUG"

#: Milliseconds after which a pending operation is reported.
LIMIT_VARIABLE = "URINGFILE_SLOW_MS"
LIMIT_MS = 5000

_DEPTH = 12  # frames that are remembered

_logger = logging.getLogger("uringfile")


@dataclass(frozen=True)
class PendingOperation:
    """An operation that has not completed."""

    #: What it is: ``"read"``, ``"fsync"``, ``"read (batch)"`` ...
    operation: str
    #: The descriptor; -100 (AT_FDCWD) for an open.
    fd: int
    #: Where in the file, in bytes.
    offset: int
    #: Bytes, or parts of a batch.
    length: int
    #: Since when, in seconds; ``None`` outside of debug mode.
    seconds: float | None
    #: Where it was started, as a traceback shows it; empty outside of debug mode.
    stack: str


class Watch:
    """Remembers when and where operations start, and reports those that take long."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._limit = number(LIMIT_VARIABLE, "milliseconds", LIMIT_MS) / 1000
        self._pending: dict[int, tuple[Operation, float, traceback.StackSummary]] = {}
        self._reported: set[int] = set()
        self._scheduled = False

    def started(self, operation: Operation) -> None:
        frames = traceback.walk_stack(sys._getframe(2))
        stack = traceback.StackSummary.extract(frames, limit=_DEPTH, lookup_lines=False)
        stack.reverse()
        self._pending[operation.token] = operation, time.monotonic(), stack
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(self._limit, self._report)

    def ended(self, token: int) -> None:
        self._pending.pop(token, None)
        self._reported.discard(token)

    def _report(self) -> None:
        self._scheduled = False
        now = time.monotonic()
        for token, (operation, since, _) in list(self._pending.items()):
            if now - since >= self._limit and token not in self._reported:
                self._reported.add(token)
                _logger.warning("%s", _sentence(self.describe(operation)))
        if len(self._reported) < len(self._pending):
            self._scheduled = True
            self._loop.call_later(self._limit / 2, self._report)

    def describe(self, operation: Operation) -> PendingOperation:
        known = self._pending.get(operation.token)
        if known is None:
            return describe(operation)
        _, since, stack = known
        return describe(operation, time.monotonic() - since, "".join(stack.format()))


def watch_of(loop: asyncio.AbstractEventLoop) -> Watch | None:
    """A watch, in debug mode."""
    return Watch(loop) if loop.get_debug() or os.environ.get(VARIABLE, "0") != "0" else None


def describe(
    operation: Operation, seconds: float | None = None, stack: str = ""
) -> PendingOperation:
    opcode, _, _, length, offset, _ = operation.request
    name = OPCODE_NAMES[opcode & KIND] + (" (batch)" if operation.is_batch else "")
    return PendingOperation(name, operation.descriptor.fd, offset, length, seconds, stack)


def _sentence(pending: PendingOperation) -> str:
    return (
        f"{pending.operation} of descriptor {pending.fd} at offset {pending.offset}, length "
        f"{pending.length}, has been pending for {pending.seconds:.1f} s; it was started at\n"
        f"{pending.stack}"
    )
