"""Many reads or writes in one call of the C library.

``CachedReads`` are those that the page cache serves, ``Batch`` those that are submitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from struct import Struct
from typing import Any

from uringfile._native_engine import (
    as_numbers,
    as_parts,
    new_scratch,
    read_many_nowait,
)

# What one call may copy: small enough to stay in the processor's cache until the bytes
# objects are cut out of it, and to hold up the loop for some 50 us only.
GROUP_BYTES = 256 * 1024

# How many requests one call may look at.
GROUP = 64


class Requests:
    """Pairs of size and offset, as C sees them.

    Raises ``struct.error`` for what is no number of 64 bits, and ``TypeError`` or
    ``ValueError`` for what is no pair.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.sizes = [size for size, _ in pairs]
        offsets = [offset for _, offset in pairs]
        numbers = as_numbers(_int64s(2 * len(pairs)).pack(*self.sizes, *offsets))
        self.c_sizes, self.c_offsets = numbers, numbers + len(pairs)
        self.largest = max(self.sizes)
        self.equal = self.sizes.count(self.largest) == len(pairs)


class CachedReads:
    """Batches of one loop's thread, and the memory that they go through."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._buffer: Any = None

    def read(self, fd: int, requests: Requests, start: int, n: int) -> Sequence[bytes]:
        """The data of the next n requests, of as many as can be served at once."""
        if self._memory is None:
            self._memory, self._buffer = new_scratch(GROUP_BYTES)
        n = min(n, len(requests.sizes) - start)
        served = read_many_nowait(
            fd, self._memory, GROUP_BYTES, requests.c_sizes + start, requests.c_offsets + start, n
        )
        if requests.equal and served:
            return _equal_cuts(requests.largest, served).unpack_from(self._buffer)
        sizes = requests.sizes[start : start + served]
        ends = accumulate(sizes)
        return [self._buffer[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class Batch:
    """Parts of one operation (``uf_part``): each moves so many bytes between its place in
    the memory of ``pins`` and its offset in the file."""

    def __init__(
        self, addresses: Iterable[int], sizes: Sequence[int], offsets: Sequence[int], pins: Any
    ):
        self.n = len(sizes)
        numbers = [0] * (4 * self.n)
        numbers[::4] = addresses
        numbers[1::4] = sizes
        numbers[2::4] = offsets
        self._layout = _int64s(4 * self.n)
        self._parts = bytearray(self._layout.pack(*numbers))
        self.memory = as_parts(self._parts, pins)

    def results(self) -> tuple[int, ...]:
        """What came of each part, when the operation is complete."""
        return self._layout.unpack(self._parts)[3::4]


@lru_cache(maxsize=64)
def _int64s(n: int) -> Struct:
    return Struct(f"{n}q")


@lru_cache(maxsize=64)
def _equal_cuts(size: int, n: int) -> Struct:
    """Cuts n blocks in one call: 70 ns each, where a slice takes 130."""
    return Struct(f"{size}s" * n)
