"""The exceptions of the library, and the one way from an errno to an OSError."""

from __future__ import annotations

import asyncio
import os

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
    """A framed log has an invalid record with valid ones behind it, or perhaps behind it.

    A crash cuts records off a log's end; this is damage within.
    """

    def __init__(
        self, path: Filename, offset: int, next_offset: int | None, unwritten: bool
    ) -> None:
        super().__init__(path, offset, next_offset, unwritten)
        self.path = path
        #: Of the invalid record, in bytes; what is before it is whole.
        self.offset = offset
        #: Of the first valid record behind it; ``None`` when the search for one was given
        #: up, because too much of what follows looks like the beginning of a record.
        self.next_offset = next_offset
        #: Whether a disk sector (512 bytes) of what is damaged is all zeros, as if it had
        #: never been written.
        self.unwritten = unwritten

    def __str__(self) -> str:
        damage = "a hole" if self.unwritten else "an invalid record"
        behind = (
            "what follows takes too long to search for valid ones"
            if self.next_offset is None
            else f"and a valid one at {self.next_offset}"
        )
        return f"{self.path!r} has {damage} at offset {self.offset}, {behind}"


def os_error(result: int, filename: Filename) -> OSError:
    """The ``OSError`` subclass for ``result``, a negative errno."""
    code = -result
    if isinstance(filename, int):
        return OSError(code, os.strerror(code))
    return OSError(code, os.strerror(code), filename)
