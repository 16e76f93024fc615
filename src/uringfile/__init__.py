"""File I/O for asyncio that the Linux kernel does, not a thread pool."""

import sys

if sys.platform != "linux":
    raise ImportError(f"uringfile works on Linux only: io_uring is Linux's (this is {sys.platform})")

from uringfile._driver import Stats
from uringfile._engine import EngineInfo
from uringfile._errors import ClosedFileError, EngineUnavailable
from uringfile._file import AIOFile
from uringfile._loop import engine_info, stats

__version__ = "0.1.0"

__all__ = [
    "AIOFile",
    "ClosedFileError",
    "EngineInfo",
    "EngineUnavailable",
    "Stats",
    "engine_info",
    "stats",
]
