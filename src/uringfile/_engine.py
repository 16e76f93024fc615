"""What an engine is to the rest of the package (the contract: csrc/engine_api.h)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

EngineName = Literal["io_uring", "posix_aio"]
ENGINE_NAMES: Final = ("io_uring", "posix_aio")

# Operations. The numbers are those of enum uf_opcode; _native_engine checks that.
READ: Final = 0
WRITE: Final = 1
FSYNC: Final = 2
FDATASYNC: Final = 3
OPENAT: Final = 4
CLOSE: Final = 5
STATX: Final = 6
FTRUNCATE: Final = 7
FALLOCATE: Final = 8
STATX_PATH: Final = 9
UNLINKAT: Final = 10
RENAMEAT: Final = 11
MKDIRAT: Final = 12
LINKAT: Final = 13
SYMLINKAT: Final = 14
FADVISE: Final = 15

OPCODE_NAMES: Final = (
    "read",
    "write",
    "fsync",
    "fdatasync",
    "openat",
    "close",
    "statx",
    "ftruncate",
    "fallocate",
    "statx_path",
    "unlinkat",
    "renameat",
    "mkdirat",
    "linkat",
    "symlinkat",
    "fadvise",
)

# Or'ed into an operation: to a kernel worker at once; many parts as one operation.
ASYNC: Final = 256
BATCH: Final = 512

# What is left of an operation without these.
KIND: Final = 255


@dataclass(frozen=True)
class EngineInfo:
    """Which engine serves, and why."""

    #: ``"io_uring"`` or ``"posix_aio"``.
    engine: str
    #: Why it is not the first choice, io_uring; ``None`` when it is, or was asked for by name.
    reason: str | None
    #: Size of the submission queue (io_uring) or of the request table (POSIX AIO).
    entries: int
    #: Operations that may be in flight at once; more of them queue in the library.
    capacity: int
    #: The operations that the engine takes, as ``op:NAME``, then flags of the ring.
    features: tuple[str, ...]


class Engine(Protocol):
    """Submits to the kernel and reaps from it. Results are ``>= 0`` or a negative errno.

    ``addr`` is what ``_native_engine.pin`` returned. The caller keeps it alive until the completion
    is reaped. (Bytes objects do, too, where they do not move: on CPython.)
    """

    name: str
    eventfd: int
    opcodes: int
    #: How many operations may be in flight, and how many ``ASYNC`` ones of one file.
    capacity: int
    worker_share: int
    #: Whether reads ask the page cache first, and how.
    inline: bool
    read_nowait: Callable[[int, Any, int, int], int]

    def submit(
        self, opcode: int, fd: int, addr: Any, length: int, offset: int, token: int
    ) -> int: ...

    def flush(self) -> int: ...

    def reap(self, drain: bool) -> list[int]:
        """Completions as ``[token, result, token, result, ...]``."""
        ...

    def cancel(self, token: int) -> int: ...

    def forget_fd(self, fd: int) -> list[int]:
        """Descriptors that were made from ``fd`` and must be closed with it."""
        ...

    def shutdown(self) -> None: ...

    def wait(self, timeout_ms: int) -> int: ...

    def destroy(self) -> None: ...

    def describe(self, reason: str | None) -> EngineInfo: ...
