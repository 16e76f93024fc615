"""Short writes of one file that come while others of it are under way.

The kernel performs the buffered writes of a file one after another, so nothing is lost
when they are handed over together: a copy of their data as one operation, neighbours as
one write.
"""

from __future__ import annotations

import asyncio
from functools import partial
from operator import itemgetter

from uringfile._batch import Batch
from uringfile._driver import Driver
from uringfile._engine import BATCH, WRITE
from uringfile._fd import Descriptor
from uringfile._native_engine import address, pin

# Longer ones are not worth the copy.
SHORT = 64 * 1024

# So many, or so many bytes, go out while others are still in flight, so that the kernel
# works while the rest is being gathered.
_ENOUGH = 16
_ENOUGH_BYTES = 256 * 1024
_MOST_IN_FLIGHT = 4

_Write = tuple[int, bytes, "asyncio.Future[int]"]


class GatheredWrites:
    """Of one local file that is not open for appending."""

    def __init__(self, driver: Driver, descriptor: Descriptor) -> None:
        self._driver = driver
        self._descriptor = descriptor
        #: Operations under way, those of lone writes included.
        self.in_flight = 0
        self._waiting: list[_Write] = []
        self._bytes = 0

    def add(self, data: bytes, offset: int) -> asyncio.Future[int]:
        """Resolves to how much was written, which may be less: then ask again alone. The
        caller holds the descriptor."""
        future: asyncio.Future[int] = self._driver.loop.create_future()
        self._waiting.append((offset, data, future))
        self._bytes += len(data)
        if self.in_flight < _MOST_IN_FLIGHT and (
            len(self._waiting) >= _ENOUGH or self._bytes >= _ENOUGH_BYTES
        ):
            self._send()
        return future

    def came(self) -> None:
        """An operation has completed."""
        self.in_flight -= 1
        if self._waiting:
            self._send()

    def _send(self) -> None:
        writes = [write for write in self._waiting if not write[2].done()]  # cancelled
        self._waiting = []
        self._bytes = 0
        if not writes:
            return
        writes.sort(key=itemgetter(0))
        memory = pin(b"".join([data for _, data, _ in writes]))
        parts = _join_neighbours(writes)
        starts, sizes, offsets, _ = zip(*parts, strict=True)
        base = address(memory)
        batch = Batch([base + start for start in starts], sizes, offsets, memory)
        self.in_flight += 1
        _, future = self._driver.start(WRITE | BATCH, self._descriptor, batch.memory, batch.n)
        future.add_done_callback(partial(self._done, batch, [part[3] for part in parts]))

    def _done(self, batch: Batch, parts: list[list[_Write]], future: asyncio.Future[int]) -> None:
        results = batch.results() if future.result() == 0 else [0] * batch.n
        for writes, n in zip(parts, results, strict=True):
            for _, data, waiter in writes:
                # What failed, or did not get its turn, is asked for again alone, and told
                # what is wrong.
                got = max(0, min(n, len(data)))
                n -= got
                if not waiter.done():
                    waiter.set_result(got)
        self.came()


def _join_neighbours(writes: list[_Write]) -> list[tuple[int, int, int, list[_Write]]]:
    """Where each part starts in the joined data, its size, its offset, and its writes."""
    parts: list[tuple[int, int, int, list[_Write]]] = []
    start = size = 0
    end = -1
    for write in writes:
        offset, data, _ = write
        if offset == end:
            size += len(data)
            parts[-1] = (start, size, parts[-1][2], parts[-1][3])
            parts[-1][3].append(write)
        else:
            start += size
            size = len(data)
            parts.append((start, size, offset, [write]))
        end = offset + len(data)
    return parts
