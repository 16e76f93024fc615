"""A drop-in for the package aiofiles, on the file objects of ``uringfile.async_open``.

``from uringfile import aiofiles``. The names, arguments and attributes are those of aiofiles
25.1. Files that ``open`` opens need no threads: ``loop=`` and ``executor=`` are accepted, and
ignored. Where a thread does make the calls (``wrap``, the standard streams), ``executor=`` is
the one that is used. ``docs/migration.md`` tells what else differs.
"""

import importlib
import pkgutil
import sys

from uringfile.aiofiles import os as os
from uringfile.aiofiles import ospath as ospath
from uringfile.aiofiles import tempfile
from uringfile.aiofiles.threadpool import (
    open,
    stderr,
    stderr_bytes,
    stdin,
    stdin_bytes,
    stdout,
    stdout_bytes,
)

__all__ = [
    "open",
    "stderr",
    "stderr_bytes",
    "stdin",
    "stdin_bytes",
    "stdout",
    "stdout_bytes",
    "tempfile",
]


def install() -> None:
    """Let ``import aiofiles`` give this package, in the whole process from now on.

    For libraries that import aiofiles by themselves. Raises ``RuntimeError`` when aiofiles has
    been imported already: its importers have names of it.
    """
    if sys.modules.get("aiofiles", sys.modules[__name__]) is not sys.modules[__name__]:
        raise RuntimeError("aiofiles has been imported already; call install() before that")
    for found in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(found.name)
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith(f"{__name__}."):
            sys.modules["aiofiles" + name.removeprefix(__name__)] = module
