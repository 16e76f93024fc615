"""File I/O for asyncio that the Linux kernel does, not a thread pool."""

import sys

if sys.platform != "linux":
    raise ImportError(f"uringfile needs Linux and its io_uring or POSIX AIO, not {sys.platform}")

from uringfile._driver import Stats
from uringfile._engine import EngineInfo
from uringfile._errors import ClosedFileError, EngineUnavailable
from uringfile._file import AIOFile
from uringfile._loop import engine_info, stats
from uringfile._readers import LineReader, Reader
from uringfile._writer import Writer

__version__ = "0.1.0"

__all__ = [
    "AIOFile",
    "ClosedFileError",
    "EngineInfo",
    "EngineUnavailable",
    "LineReader",
    "Reader",
    "Stats",
    "Writer",
    "engine_info",
    "stats",
]
