"""A deterministic engine: the test chooses when and how each operation completes.

It keeps the contract of csrc/engine_api.h, and raises AssertionError where its caller
does not. Nothing completes before the test calls ``complete`` or ``perform``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import sys
from dataclasses import dataclass
from typing import Any

from uringfile import _engine
from uringfile._engine import EngineInfo


def _eventfd() -> int:
    """As os.eventfd does, which PyPy does not have."""
    fd: int = ctypes.CDLL(None).eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    return fd


@dataclass
class Submitted:
    opcode: int
    fd: int
    addr: Any
    length: int
    offset: int
    token: int
    flushed: bool = False
    cancel_asked: bool = False

    def parts(self) -> Any:
        """Of a batch: an array of uf_part, whose results a test may set."""
        from uringfile._native import ffi

        return ffi.cast(f"uf_part (*)[{self.length}]", self.addr)[0]


class FakeEngine:
    """``capacity`` operations in flight, ``entries`` of them staged."""

    name = "fake"
    inline = True

    def __init__(self, entries: int = 4, capacity: int = 8, opcodes: int = 0x1FF) -> None:
        self.eventfd = _eventfd()
        self.entries = entries
        self.capacity = capacity
        self.opcodes = opcodes
        self.worker_share = 1 << 30
        self.flushes = 0
        self.in_flight: dict[int, Submitted] = {}
        self.done: list[tuple[int, int]] = []
        self.forgotten: list[int] = []
        self.flush_errors: list[int] = []
        self.stubborn = False  # cancel answers EALREADY
        self.shut = self.destroyed = False

    # ---- the contract -----------------------------------------------------------

    def submit(self, opcode: int, fd: int, addr: Any, length: int, offset: int, token: int) -> int:
        assert not self.destroyed
        assert token not in self.in_flight, "a token twice in flight"
        if self.shut:
            return -errno.ESHUTDOWN
        if not self.opcodes >> (opcode & _engine.KIND) & 1:
            return -errno.EOPNOTSUPP
        staged = sum(not op.flushed for op in self.in_flight.values())
        unreaped = len(self.in_flight) + len(self.done)
        if staged >= self.entries or unreaped >= self.capacity:
            return -errno.EAGAIN
        self.in_flight[token] = Submitted(opcode, fd, addr, length, offset, token)
        return 0

    def flush(self) -> int:
        assert not self.destroyed
        self.flushes += 1
        if self.flush_errors:
            return self.flush_errors.pop(0)
        for operation in self.in_flight.values():
            operation.flushed = True
        return len(self.done)

    def reap(self, drain: bool) -> list[int]:
        assert not self.destroyed
        if drain:
            with contextlib.suppress(BlockingIOError):
                os.read(self.eventfd, 8)
        done, self.done = self.done, []
        return [number for pair in done for number in pair]

    def cancel(self, token: int) -> int:
        assert not self.destroyed
        if token not in self.in_flight:
            return -errno.ENOENT
        self.in_flight[token].cancel_asked = True
        return -errno.EALREADY if self.stubborn else 0

    def forget_fd(self, fd: int) -> list[int]:
        self.forgotten.append(fd)
        return []

    def shutdown(self) -> None:
        self.shut = True

    def wait(self, timeout_ms: int) -> int:
        return bool(select.select([self.eventfd], [], [], timeout_ms / 1000)[0])

    def destroy(self) -> None:
        assert not self.destroyed
        self.destroyed = True
        os.close(self.eventfd)

    def describe(self, reason: str | None) -> EngineInfo:
        return EngineInfo(self.name, reason, self.entries, self.capacity, ())

    def read_nowait(self, fd: int, addr: Any, length: int, offset: int) -> int:
        return -errno.EAGAIN

    # ---- the test's side ----------------------------------------------------------

    def pending(self) -> list[Submitted]:
        """What the kernel would see, in the order of submission."""
        return [operation for operation in self.in_flight.values() if operation.flushed]

    def complete(self, token: int, result: int) -> None:
        operation = self.in_flight.pop(token)
        assert operation.flushed, "completed before it was flushed"
        self.done.append((token, result))
        os.write(self.eventfd, (1).to_bytes(8, sys.byteorder))

    def perform(self, token: int) -> None:
        """Complete a read, write or sync by doing it."""
        operation = self.in_flight[token]
        self.complete(token, _perform(operation))

    def perform_only(self, token: int) -> None:
        """Do what the operation says; it is complete when the test says so."""
        _perform(self.in_flight[token])

    def cancel_done(self, token: int) -> None:
        self.complete(token, -errno.ECANCELED)


def _perform(operation: Submitted) -> int:
    from uringfile._native import ffi

    opcode = operation.opcode & _engine.KIND
    memory = operation.addr
    if operation.opcode & _engine.BATCH:
        for part in operation.parts():
            one = Submitted(opcode, operation.fd, part.addr, part.len, part.offset, 0)
            part.result = _perform(one)
        return 0
    if isinstance(memory, bytes):
        memory = ffi.from_buffer(memory)
    try:
        if opcode == _engine.READ:
            data = os.pread(operation.fd, operation.length, operation.offset)
            ffi.memmove(memory, data, len(data))
            return len(data)
        if opcode == _engine.WRITE:
            data = ffi.buffer(memory, operation.length)  # in place, for O_DIRECT
            return os.pwritev(operation.fd, [data], operation.offset)
        if opcode == _engine.FTRUNCATE:
            os.ftruncate(operation.fd, operation.offset)
        elif opcode == _engine.CLOSE:
            os.close(operation.fd)
        else:
            os.fsync(operation.fd)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0
