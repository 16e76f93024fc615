"""What a file may hold, given what was asked for and what came of it.

A byte is certain, or one of several values: two writes of it were under way at the same time,
or a write of it failed or was cancelled. A cancelled write may land until the kernel has let go
of it; ``settle`` takes over what is in the file when nothing is in flight.
"""

from __future__ import annotations


class Change:
    """A write between its call and its end, or beyond that if it was cancelled."""

    __slots__ = ("conflicts", "data", "high", "low")

    def __init__(self, offset: int, data: bytes) -> None:
        self.low = offset
        self.high = offset + len(data)
        self.data = data
        self.conflicts: list[Change] = []


class Reading:
    """A read between its call and its end."""

    __slots__ = ("had", "high", "low", "past")

    def __init__(self, low: int, high: int) -> None:
        #: The smallest and the largest size of the file in that time.
        self.low = low
        self.high = high
        #: What was overwritten in that time: offset and bytes, and what else it may have been.
        self.past: list[tuple[int, bytes]] = []
        self.had: dict[int, set[int]] = {}


class FileModel:
    def __init__(self, content: bytes = b"") -> None:
        #: As long as the file can be, with the likeliest value of each byte.
        self.content = bytearray(content)
        #: The size that the file has at least.
        self.low = len(content)
        self.maybe: dict[int, set[int]] = {}
        self.changes: list[Change] = []
        self.readings: list[Reading] = []
        #: A change of the size was cancelled, or failed: nothing may be written before settle().
        self.frozen = False
        self._cut: int | None = None

    # ---- writing ------------------------------------------------------------------

    def begin_write(self, offset: int, data: bytes) -> Change:
        assert self.may_write
        change = Change(offset, data)
        for other in self.changes:
            if other.low < change.high and change.low < other.high:
                other.conflicts.append(change)
                change.conflicts.append(other)
        self.changes.append(change)
        if data and change.high > len(self.content):
            self.content.extend(bytes(change.high - len(self.content)))
            for reading in self.readings:
                reading.high = max(reading.high, len(self.content))
        return change

    @property
    def may_write(self) -> bool:
        return self._cut is None and not self.frozen

    def end_write(self, change: Change, landed: int, *, gone: bool) -> None:
        """``landed`` bytes are in the file for certain, the others perhaps; ``gone``: nothing
        of it can land any more."""
        middle = change.low + landed
        if landed:
            self._overwrite(change.low, change.data[:landed])
            for other in change.conflicts:
                self._may_be(other, max(other.low, change.low), min(other.high, middle))
            self.low = max(self.low, middle)
        self._may_be(change, middle, change.high)
        if gone:
            self.changes.remove(change)

    def _overwrite(self, low: int, data: bytes) -> None:
        high = low + len(data)
        for reading in self.readings:
            reading.past.append((low, bytes(self.content[low:high])))
        if self.maybe:
            for i in [i for i in self.maybe if low <= i < high]:
                values = self.maybe.pop(i)
                for reading in self.readings:
                    reading.had.setdefault(i, set()).update(values)
        self.content[low:high] = data

    def _may_be(self, change: Change, low: int, high: int) -> None:
        for i in range(low, high):
            value = change.data[i - change.low]
            if self.content[i] != value:
                self.maybe.setdefault(i, set()).add(value)

    # ---- the size -----------------------------------------------------------------

    def begin_truncate(self, size: int) -> None:
        assert self.may_write
        assert not self.changes
        self._cut = size
        for reading in self.readings:
            reading.low = min(reading.low, size)
            reading.high = max(reading.high, size)

    def end_truncate(self, outcome: bool | None) -> None:
        """It was done, or not; ``None``: nobody knows, until ``settle``."""
        size, self._cut = self._cut, None
        assert size is not None
        if outcome is False:
            return
        if outcome:
            tail = bytes(self.content[size:])
            self._overwrite(size, tail)
            del self.content[size:]
            self.content.extend(bytes(size - len(self.content)))
            self.low = size
            return
        for i in range(size, len(self.content)):
            self.maybe.setdefault(i, set()).add(0)
        self.content.extend(bytes(max(0, size - len(self.content))))
        self.low = min(self.low, size)
        self.frozen = True

    # ---- reading ------------------------------------------------------------------

    def begin_read(self) -> Reading:
        low, high = self.low, len(self.content)
        if self._cut is not None:
            low, high = min(low, self._cut), max(high, self._cut)
        reading = Reading(low, high)
        self.readings.append(reading)
        return reading

    def end_read(self, reading: Reading) -> None:
        self.readings.remove(reading)

    def wrong(self, reading: Reading, data: bytes, size: int, offset: int) -> str | None:
        """What is wrong with ``data``, read at ``offset``; ``size`` -1: up to the end."""
        least = max(0, reading.low - offset)
        most = max(0, reading.high - offset)
        if size >= 0:
            least, most = min(least, size), min(most, size)
        if not least <= len(data) <= most:
            return f"{len(data)} bytes at {offset}, not {least} to {most}"
        if self.content.startswith(data, offset):
            return None
        for i, value in enumerate(data, offset):
            if not self._possible(reading, i, value):
                return f"byte {i} of a read at {offset} is {value}"
        return None

    def _possible(self, reading: Reading, i: int, value: int) -> bool:
        if i < len(self.content) and self.content[i] == value:
            return True
        if value in self.maybe.get(i, ()) or value in reading.had.get(i, ()):
            return True
        if not value and i >= reading.low:
            return True  # a hole, behind which something was written
        return any(
            low <= i < low + len(data) and data[i - low] == value
            for low, data in [*reading.past, *((c.low, c.data) for c in self.changes)]
        )

    def wrong_size(self, reading: Reading, size: int) -> str | None:
        if reading.low <= size <= reading.high:
            return None
        return f"the size is {size}, not {reading.low} to {reading.high}"

    def settle(self, actual: bytes) -> str | None:
        """Nothing is under way, and this is what the file holds."""
        reading = self.begin_read()
        self.end_read(reading)
        wrong = self.wrong(reading, actual, -1, 0)
        if wrong is None:
            self.content = bytearray(actual)
            self.low = len(actual)
            self.maybe.clear()
            self.changes.clear()
            self.frozen = False
        return wrong
