"""The contenders, one adapter a module; imported only in the process that measures them."""

from __future__ import annotations

from importlib import import_module

from benchmarks.contenders._contender import Contender, File, Gap

#: The floor: no event loop at all.
SYNC = "sync"
OURS = ("uringfile-io_uring", "uringfile-posix_aio")
ASYNCIO = (*OURS, "executor", "to_thread", "aiofiles", "aiofile")

_MODULES = {
    SYNC: "synchronous",
    "uringfile-io_uring": "ours",
    "uringfile-posix_aio": "ours",
    "executor": "executor",
    "executor32": "executor",
    "to_thread": "to_thread",
    "aiofiles": "aiofiles_package",
    "aiofile": "aiofile_package",
    "fio": "fio",
}

#: The order in which a round measures them.
NAMES = tuple(_MODULES)


def load(name: str) -> Contender:
    """The contender of that name; ``Gap`` when what it needs is not installed."""
    try:
        module = import_module(f"benchmarks.contenders.{_MODULES[name]}")
    except ImportError as error:
        raise Gap(f"{name} is not installed ({error})") from None
    contender: Contender = next(c for c in module.CONTENDERS if c.name == name)
    return contender


__all__ = ["ASYNCIO", "NAMES", "OURS", "SYNC", "Contender", "File", "Gap", "load"]
