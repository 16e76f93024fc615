"""What an adapter offers to the workloads.

The calls in ``File`` are the contender's own bound methods wherever it has one of that shape,
so that the fast ones are not charged for a wrapper.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uringfile._bench.cost import Cost


class Gap(Exception):
    """Why a contender cannot take part in a workload."""


@dataclass(frozen=True)
class File:
    #: read(size, offset)
    read: Callable[[int, int], Awaitable[bytes]]
    #: write(data, offset)
    write: Callable[[bytes, int], Awaitable[Any]]
    #: fdatasync
    datasync: Callable[[], Awaitable[Any]]
    #: read_many([(size, offset), ...]), of those that have such a call
    read_many: Callable[[Sequence[tuple[int, int]]], Awaitable[list[bytes]]] | None = None


#: The lines of a file, bytes or text.
Lines = AsyncIterable[bytes] | AsyncIterable[str]


class Contender:
    """One way to do file I/O. What an adapter does not define is a gap."""

    name: str
    #: Whether it is a program of its own, which runs ``random_reads`` and nothing else.
    is_program = False

    def version(self) -> str:
        """What was measured, for the report."""
        raise NotImplementedError

    def open(
        self, path: Path, *, writable: bool = False, direct: bool = False, handles: int = 1
    ) -> AbstractAsyncContextManager[list[File]]:
        """The file, for so many tasks: one for each of them, or the same one as often as
        needed where a read names its offset."""
        raise Gap(f"{self.name} does not read at offsets")

    def lines(self, path: Path, *, text: bool) -> AbstractAsyncContextManager[Lines]:
        """The lines of the file, by a reader of lines."""
        raise Gap(f"{self.name} has no reader of lines")

    def file_lines(self, path: Path, *, text: bool) -> AbstractAsyncContextManager[Lines]:
        """The lines of the file, by iterating over a file object."""
        raise Gap(f"{self.name} has no file objects")

    def appending(
        self, path: Path
    ) -> AbstractAsyncContextManager[Callable[[bytes], Awaitable[Any]]]:
        """The ``write`` of a new file object, buffered as it is by default; then its close."""
        raise Gap(f"{self.name} has no file objects")

    async def read_whole(self, path: Path) -> bytes:
        """Open, read to the end, close."""
        raise Gap(f"{self.name} does not read whole files")

    def random_reads(self, path: Path, direct: bool, in_flight: int, reads: int) -> Cost:
        """So many reads of 4 KiB by a program."""
        raise Gap(f"{self.name} is not a program")
