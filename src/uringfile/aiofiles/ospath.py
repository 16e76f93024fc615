"""``aiofiles.ospath``, which is also ``aiofiles.os.path``: functions of ``os.path``.

They are those of ``uringfile.os.path``; ``loop`` and ``executor`` are accepted, and ignored.
"""

from __future__ import annotations

import os
from typing import AnyStr

from uringfile.aiofiles.base import accepting_executor
from uringfile.os import path

__all__ = [
    "abspath",
    "exists",
    "getatime",
    "getctime",
    "getmtime",
    "getsize",
    "isdir",
    "isfile",
    "islink",
    "ismount",
    "samefile",
    "sameopenfile",
]


@accepting_executor
async def abspath(path: os.PathLike[AnyStr] | AnyStr) -> AnyStr:
    """As ``os.path.abspath``, which reads no more than the name of the working directory."""
    return os.path.abspath(path)


exists = accepting_executor(path.exists)
getatime = accepting_executor(path.getatime)
getctime = accepting_executor(path.getctime)
getmtime = accepting_executor(path.getmtime)
getsize = accepting_executor(path.getsize)
isdir = accepting_executor(path.isdir)
isfile = accepting_executor(path.isfile)
islink = accepting_executor(path.islink)
ismount = accepting_executor(path.ismount)
samefile = accepting_executor(path.samefile)
sameopenfile = accepting_executor(path.sameopenfile)
