"""The exceptions of the library, and the ways from an errno to an OSError."""

from __future__ import annotations

import asyncio
import os
from typing import Any

Filename = str | bytes | int | None


class EngineUnavailable(OSError):
    """An engine that was asked for by name cannot start here.

    ``errno`` is the kernel's refusal; the text names the likely cause and the remedy.
    """


class ClosedFileError(ValueError, asyncio.InvalidStateError):
    """The file is closed, or was never opened.

    A ``ValueError``, as Python's own file objects raise; also an ``InvalidStateError``,
    as aiofile raises.
    """


class CorruptLogError(Exception):
    """A framed log has an invalid record and, behind it, valid ones.

    No crash does that to a log: records are damaged that were whole.
    """

    def __init__(self, path: Filename, offset: int, next_offset: int | None) -> None:
        super().__init__(path, offset, next_offset)
        self.path = path
        #: Of the invalid record, in bytes; what is before it is whole.
        self.offset = offset
        #: Of the first valid record behind it; ``None`` when the search for one was given
        #: up, because too much of what follows looks like the beginning of a record.
        self.next_offset = next_offset

    def __str__(self) -> str:
        behind = (
            "what follows takes too long to search for valid ones"
            if self.next_offset is None
            else f"and a valid one at {self.next_offset}"
        )
        return f"{self.path!r} has an invalid record at offset {self.offset}, {behind}"


def os_error(result: int, filename: Filename) -> OSError:
    """The ``OSError`` subclass for ``result``, a negative errno; a descriptor is no filename."""
    code = -result
    if isinstance(filename, int):
        return OSError(code, os.strerror(code))
    return OSError(code, os.strerror(code), filename)


def os_error_of(result: int, filename: Any = None, filename2: Any = None) -> OSError:
    """As ``os_error``, with what the functions of ``os`` tell: one name, two, or a descriptor."""
    code = -result
    if filename2 is None:
        return OSError(code, os.strerror(code), filename)
    return OSError(code, os.strerror(code), filename, None, filename2)
