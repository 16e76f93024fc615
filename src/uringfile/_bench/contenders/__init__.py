"""The contenders, one adapter a module; imported only in the process that measures them."""

from __future__ import annotations

from importlib import import_module

from uringfile._bench.contenders._contender import Contender, File, Gap

#: The floor: no event loop at all.
SYNC = "sync"
EXECUTOR = "executor"
OURS = ("uringfile-io_uring", "uringfile-posix_aio")
#: The last four are adapters in the repository's ``benchmarks/``, not of this package.
ASYNCIO = (*OURS, EXECUTOR, "to_thread", "aiofiles", "aiofile", "blocking")

MODULES = {
    SYNC: "synchronous",
    "uringfile-io_uring": "ours",
    "uringfile-posix_aio": "ours",
    EXECUTOR: "executor",
    "executor32": "executor",
}


def load(name: str) -> Contender:
    """The contender of that name, of those that need no other package."""
    module = import_module(f"uringfile._bench.contenders.{MODULES[name]}")
    contender: Contender = next(c for c in module.CONTENDERS if c.name == name)
    return contender


__all__ = ["ASYNCIO", "EXECUTOR", "MODULES", "OURS", "SYNC", "Contender", "File", "Gap", "load"]
