"""All contenders: those of the package, and those that need another package or program."""

from __future__ import annotations

from importlib import import_module

from uringfile._bench.contenders import MODULES, Contender, Gap
from uringfile._bench.contenders import load as load_ours

_MODULES = {
    "blocking": "blocking",
    "to_thread": "to_thread",
    "aiofiles": "aiofiles_package",
    "aiofile": "aiofile_package",
    "fio": "fio",
}

#: The order in which a round measures them.
NAMES = (*MODULES, *_MODULES)


def load(name: str) -> Contender:
    """The contender of that name; ``Gap`` when what it needs is not installed."""
    if name in MODULES:
        return load_ours(name)
    try:
        module = import_module(f"benchmarks.contenders.{_MODULES[name]}")
    except ImportError as error:
        raise Gap(f"{name} is not installed ({error})") from None
    contender: Contender = next(c for c in module.CONTENDERS if c.name == name)
    return contender


__all__ = ["NAMES", "load"]
