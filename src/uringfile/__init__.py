"""File I/O for asyncio that the Linux kernel does, not a thread pool."""

import sys

if sys.platform != "linux":
    raise ImportError(f"uringfile needs Linux and its io_uring or POSIX AIO, not {sys.platform}")

from uringfile._async_open import async_open, clone
from uringfile._atomic import atomic_write, fsync_dir
from uringfile._binary import BinaryFileWrapper
from uringfile._copy import copyfile
from uringfile._engine import EngineInfo
from uringfile._errors import ClosedFileError, CorruptLogError, EngineUnavailable
from uringfile._file import AIOFile
from uringfile._fileobject import FileIOWrapperBase
from uringfile._log import LogWriter
from uringfile._logreader import LogReader, Torn
from uringfile._loop import engine_info, pending_operations, stats
from uringfile._pool import BufferPool
from uringfile._readers import LineReader, Reader
from uringfile._recover import Recovery, recover
from uringfile._stats import Stats
from uringfile._textfile import TextFileWrapper
from uringfile._watch import PendingOperation
from uringfile._whole import read_bytes, read_files, read_text, write_bytes, write_text
from uringfile._writer import Writer

__version__ = "0.1.0"

__all__ = [
    "AIOFile",
    "BinaryFileWrapper",
    "BufferPool",
    "ClosedFileError",
    "CorruptLogError",
    "EngineInfo",
    "EngineUnavailable",
    "FileIOWrapperBase",
    "LineReader",
    "LogReader",
    "LogWriter",
    "PendingOperation",
    "Reader",
    "Recovery",
    "Stats",
    "TextFileWrapper",
    "Torn",
    "Writer",
    "async_open",
    "atomic_write",
    "clone",
    "copyfile",
    "engine_info",
    "fsync_dir",
    "pending_operations",
    "read_bytes",
    "read_files",
    "read_text",
    "recover",
    "stats",
    "write_bytes",
    "write_text",
]
