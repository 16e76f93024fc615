"""Many reads or writes of an open file in one call, above those of one range.

Short ones become the parts of one operation, whose completions wake nobody until the last
of them is there. Long ones gain nothing from that and go one by one, side by side.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Coroutine, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from uringfile._batch import GROUP, Batch, Requests
from uringfile._blocks import new_block
from uringfile._driver import raise_for
from uringfile._engine import BATCH, READ, WRITE
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._inodefile import InodeFile
from uringfile._native_engine import address, pin, unpin
from uringfile._openfile import MAX_OFFSET, bad_offset
from uringfile._turns import COPY_SHIFT

# What counts as short.
_SHORT = 64 * 1024

# The parts of one operation: enough to keep any device busy.
_MOST_PARTS = 512


class ManyFile(InodeFile):
    """What AIOFile can do with many ranges; what it does with one it defines itself."""

    if TYPE_CHECKING:

        async def read_bytes(self, size: int = -1, offset: int = 0) -> bytes: ...
        async def readinto(self, buffer: Any, offset: int = 0) -> int: ...
        async def _write_held(self, descriptor: Descriptor, data: Any, offset: int) -> int: ...
        def as_written(self, data: Any, offset: int) -> Any: ...

    # ---- read_many ------------------------------------------------------------------

    async def read_many(self, requests: Iterable[tuple[int, int]]) -> list[bytes]:
        """Read each ``(size, offset)``; the results in the order of the requests.

        What the page cache does not have is submitted together. When some fail, the
        others are still performed, and then the first error is raised.
        """
        pairs = list(requests)
        results: list[Any] = []
        missing = [*range(len(pairs))]
        if self._inline and pairs:
            missing = await self._read_cached_of(pairs, results)
        results = results or [None] * len(pairs)
        if missing:
            for group in _groups([i for i in missing if self._in_batch(*pairs[i])]):
                found = await self._read_batch([pairs[i] for i in group])
                _fill_in(results, group, found)
            rest = [i for i in missing if results[i] is None]
            _fill_in(results, rest, await _all([self.read_bytes(*pairs[i]) for i in rest]))
            _raise_first(results)
        return results

    async def _read_cached_of(
        self, pairs: list[tuple[int, int]], results: list[bytes | None]
    ) -> list[int]:
        """Append what the page cache has of them, or ``None``: the indexes of the latter."""
        try:
            requests = Requests(pairs)
        except struct.error:
            return [*range(len(pairs))]  # one by one they tell what is wrong
        descriptor = self._check(0)
        driver = self._driver_here()
        cost = 1 + (requests.largest >> COPY_SHIFT)
        missing = []
        group = GROUP
        while (start := len(results)) < len(pairs):
            if driver.budget <= 0:
                await driver.yield_turn()
                self._still(descriptor)
            blocks = driver.cached_reads.read(descriptor.fd, requests, start, group)
            results += blocks or (None,)
            if not blocks:
                missing.append(start)
            group = min(2 * len(blocks), GROUP) or 1  # where one is missing, more may be
            driver.budget -= (len(blocks) or 1) * cost
            driver.inline += len(blocks)
        return missing

    async def _read_batch(self, pairs: list[tuple[int, int]]) -> list[Any]:
        """For each its bytes, its ``OSError``, or ``None`` if it is to be read by itself."""
        descriptor = self._check(0, readable=True)
        direct_io = self._direct_io
        align = 1 if direct_io is None else direct_io.align
        aheads = [offset % align for _, offset in pairs]
        lengths = [
            -(-(ahead + size) // align) * align
            for ahead, (size, _) in zip(aheads, pairs, strict=True)
        ]
        *starts, total = 0, *accumulate(lengths)
        if direct_io is None:
            memory: Any = new_block(total)
            place = pin(memory)
        else:
            bounce = direct_io.take(total)
            memory, place = bounce.memory, bounce.address
        base = address(place)
        batch = Batch(
            [base + start for start in starts],
            lengths,
            [offset - ahead for ahead, (_, offset) in zip(aheads, pairs, strict=True)],
            place,
        )
        found: list[Any] = []
        results = await self._perform_batch(READ, descriptor, batch)
        for n, start, ahead, (size, _) in zip(results, starts, aheads, pairs, strict=True):
            if n < 0:
                found.append(self._failure(n))
                continue
            got = max(0, min(n - ahead, size))
            data = bytes(memory[start + ahead : start + ahead + got])
            # Short: the end of the file, or to be continued. By itself it tells.
            found.append(data if got in (0, size) else None)
        if direct_io is not None:
            direct_io.give(bounce)
        return found

    # ---- readinto_many --------------------------------------------------------------

    async def readinto_many(self, requests: Iterable[tuple[Any, int]]) -> list[int]:
        """``readinto`` for each ``(buffer, offset)``, submitted together.

        When some fail, the others are still performed, and then the first error is raised.
        """
        pairs = list(requests)
        pins = [pin_writable(buffer) for buffer, _ in pairs]
        results: list[Any] = [None] * len(pairs)
        short = self._short(pins, pairs)
        if self._inline and short:
            short = await self._readinto_cached(short, pins, pairs, results)
        if short:
            descriptor = self._check(0, readable=True)
            for i, n in await self._perform_short(READ, descriptor, short, pins, pairs):
                # Short: the end of the file, or to be continued. By itself it tells.
                results[i] = n if n in (0, len(pins[i])) else self._failure(n) if n < 0 else None
        rest = [i for i, n in enumerate(results) if n is None]
        _fill_in(results, rest, await _all([self.readinto(*pairs[i]) for i in rest]))
        unpin(*pins)
        del requests, pairs, pins  # who keeps the exception must not keep the memory
        _raise_first(results)
        return results

    async def _readinto_cached(
        self, short: list[int], pins: list[Any], pairs: list[tuple[Any, int]], results: list[Any]
    ) -> list[int]:
        """Fill what the page cache can fill whole: the indexes of the rest."""
        descriptor = self._check(0)
        driver = self._driver_here()
        missing = []
        for i in short:
            if driver.budget <= 0:
                await driver.yield_turn()
                self._still(descriptor)
            size = len(pins[i])
            driver.budget -= 1 + (size >> COPY_SHIFT)
            if driver.read_nowait(descriptor.fd, pins[i], size, pairs[i][1]) == size:
                results[i] = size
                driver.inline += 1
            else:
                missing.append(i)
        return missing

    # ---- write_many -----------------------------------------------------------------

    async def write_many(self, requests: Iterable[tuple[Any, int]]) -> list[int]:
        """``write`` each ``(data, offset)``, submitted together and in no order.

        When some fail, the others are still performed, and then the first error is raised.
        Data that cannot be written is refused before anything is.
        """
        pairs = [(self.as_written(data, offset), offset) for data, offset in requests]
        pins = [pin(data) for data, _ in pairs]
        results: list[Any] = [0] * len(pairs)
        if not pairs:
            return results
        descriptor = self._check(0, writable=True)
        descriptor.holders += 1  # to the end, for which close() waits
        try:
            short = self._short(pins, pairs)
            for i, n in await self._perform_short(WRITE, descriptor, short, pins, pairs):
                results[i] = n if n >= 0 else self._failure(n) or 0
            rest = [
                i
                for i, n in enumerate(results)
                if not isinstance(n, OSError) and (n < len(pins[i]) or not n)
            ]
            calls = [self._write_rest(descriptor, *pairs[i], results[i]) for i in rest]
            _fill_in(results, rest, await _all(calls))
        finally:
            descriptor.release()
        unpin(*pins)
        del requests, pairs, pins, calls  # as in readinto_many()
        _raise_first(results)
        return results

    async def _write_rest(self, descriptor: Descriptor, data: Any, offset: int, done: int) -> int:
        rest = memoryview(data).cast("B")[done:] if done else data
        try:
            if not 0 <= offset <= MAX_OFFSET:
                raise bad_offset(offset)
            return done + await self._write_held(descriptor, rest, offset + done)
        except OSError as error:
            error.characters_written = done + getattr(error, "characters_written", 0)  # type: ignore[attr-defined]
            del data, rest
            raise

    # ---- short ones -----------------------------------------------------------------

    def _in_batch(self, size: int, offset: int) -> bool:
        return (
            self._stream_io is None
            and isinstance(size, int)
            and isinstance(offset, int)
            and 0 < size <= _SHORT
            and 0 <= offset <= MAX_OFFSET - 2 * _SHORT
        )

    def _short(self, pins: list[Any], pairs: list[tuple[Any, int]]) -> list[int]:
        """The indexes of those that go as parts of one operation. What O_DIRECT moves from
        or to the caller's memory has its own rules."""
        if self._direct_io is not None:
            return []
        return [i for i, place in enumerate(pins) if self._in_batch(len(place), pairs[i][1])]

    async def _perform_short(
        self,
        opcode: int,
        descriptor: Descriptor,
        short: list[int],
        pins: list[Any],
        pairs: list[tuple[Any, int]],
    ) -> list[tuple[int, int]]:
        """Index and result of each."""
        found: list[tuple[int, int]] = []
        for group in _groups(short):
            places = [pins[i] for i in group]
            sizes, offsets = [*map(len, places)], [pairs[i][1] for i in group]
            batch = Batch(map(address, places), sizes, offsets, places)
            results = await self._perform_batch(opcode, descriptor, batch)
            found += zip(group, results, strict=True)
        return found

    async def _perform_batch(
        self, opcode: int, descriptor: Descriptor, batch: Batch
    ) -> tuple[int, ...]:
        opcode |= BATCH | self._worker
        ret = await self._driver_here().run(opcode, descriptor, batch.memory, batch.n)
        raise_for(ret, self.name)
        return batch.results()

    def _failure(self, result: int) -> OSError | None:
        return None if result == -errno.EINTR else os_error(result, self.name)


def pin_writable(buffer: Any) -> Any:
    """Pin what readinto() fills. Raises ``TypeError`` for what it cannot fill."""
    try:
        return pin(buffer, writable=True)
    except BufferError as error:
        raise TypeError(f"readinto() needs a writable buffer: {error}") from None


def _groups(short: list[int]) -> Iterator[list[int]]:
    """As many at a time as one operation takes; none if a single one is left by itself."""
    if len(short) > 1:
        for i in range(0, len(short), _MOST_PARTS):
            yield short[i : i + _MOST_PARTS]


def _fill_in(results: list[Any], indexes: list[int], found: list[Any]) -> None:
    for i, result in zip(indexes, found, strict=True):
        results[i] = result


def _raise_first(results: list[Any]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _all(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Await all: what each gave or raised."""
    return await asyncio.gather(*calls, return_exceptions=True) if calls else []
