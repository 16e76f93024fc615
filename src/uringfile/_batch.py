"""Many short reads in one call of the C library, as far as the page cache has them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from uringfile._native_engine import as_numbers, new_scratch, read_many_nowait

# What one call may copy: small enough to stay in the processor's cache until the bytes
# objects are cut out of it, and to hold up the loop for some 50 us only.
GROUP_BYTES = 128 * 1024

# How many requests one call may look at.
GROUP = 64


class CachedReads:
    """Batches of one loop's thread, and the memory that they go through."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._buffer: Any = None

    def read(self, fd: int, sizes: Sequence[int], offsets: Sequence[int]) -> list[bytes | None]:
        """The data of the first of these requests; ``None`` for one that was not served,
        behind which this stops. At least one is looked at."""
        if self._memory is None:
            self._memory, self._buffer = new_scratch(GROUP_BYTES)
        ends = list(accumulate(sizes))
        if ends[-1] > GROUP_BYTES:
            n = sum(end <= GROUP_BYTES for end in ends)
            if not n:
                return [None]
            sizes, ends = sizes[:n], ends[:n]
        numbers = array("q", (*sizes, *offsets[: len(sizes)]))
        looked = read_many_nowait(fd, self._memory, as_numbers(numbers), len(sizes))
        served = looked if numbers[looked - 1] == sizes[looked - 1] else looked - 1
        buffer = self._buffer
        blocks: list[bytes | None] = [
            buffer[end - size : end] for size, end in zip(sizes[:served], ends, strict=False)
        ]
        return blocks if served == looked else [*blocks, None]
