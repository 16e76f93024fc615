"""The file object of the binary modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringfile._file import AIOFile
from uringfile._mode import Mode
from uringfile._reading import BufferedReading
from uringfile._shared import Shared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from _typeshed import ReadableBuffer


class BinaryFileWrapper(BufferedReading):
    """What ``open`` gives in a binary mode, with ``await``.

    ``buffering`` is what is read ahead and collected for writing, in bytes: 0 for none,
    a negative number for sizes that suit the access.
    """

    def __init__(self, file: AIOFile, buffering: int = -1, *, shared: Shared | None = None) -> None:
        if not file.mode.binary:
            raise ValueError("a binary file object needs a file in a binary mode")
        super().__init__(file, buffering, shared=shared)

    @property
    def mode(self) -> str:
        """The mode as Python's binary file objects tell it: ``"rb+"`` also for ``"wb+"``."""
        return binary_mode(self.file.mode)

    if TYPE_CHECKING:

        async def write(self, data: ReadableBuffer) -> int: ...
        async def readlines(self, hint: int | None = -1) -> list[bytes]: ...
        async def writelines(self, lines: Iterable[ReadableBuffer]) -> None: ...
        def iter_chunked(self, chunk_size: int = ...) -> AsyncGenerator[bytes, None]: ...
        def __aiter__(self) -> AsyncIterator[bytes]: ...


def binary_mode(mode: Mode) -> str:
    plus = "+" if mode.plus else ""
    if mode.created:
        return "xb" + plus
    if mode.appending:
        return "ab" + plus
    return ("rb" if mode.readable else "wb") + plus
