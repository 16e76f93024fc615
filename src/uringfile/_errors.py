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


def os_error(result: int, filename: Filename) -> OSError:
    """The ``OSError`` subclass for ``result``, a negative errno."""
    code = -result
    if isinstance(filename, int):
        return OSError(code, os.strerror(code))
    return OSError(code, os.strerror(code), filename)
