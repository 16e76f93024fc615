"""Where Python's text files cut their input into chunks.

A chunk is one ``read1`` of the buffered file below, which gives no more than that has in
its buffer, if anything. The buffer is empty except after a ``seek`` to a position that is
reached by decoding: what is fed to the decoder comes out of a whole block, whose rest is
then the next chunk. Where a chunk ends shows in two places: a write that follows a read
without a ``seek`` goes there, and positions within stateful codecs count from there.
"""

from __future__ import annotations


class Window:
    """The part of the file that the buffer of an ``io.BufferedReader`` would hold."""

    __slots__ = ("_end", "_size", "_start")

    def __init__(self, size: int) -> None:
        self._size = size
        self._start = self._end = 0

    def clear(self) -> None:
        self._start = self._end = 0

    @property
    def active(self) -> bool:
        return bool(self._end)

    def save(self) -> tuple[int, int]:
        return self._start, self._end

    def restore(self, saved: tuple[int, int]) -> None:
        self._start, self._end = saved

    def limit(self, position: int, size: int) -> int:
        """How much of ``size`` bytes a ``read1`` at ``position`` gives."""
        if position < self._end:
            return min(size, self._end - position)
        self.clear()
        return size

    def read(self, position: int, size: int, file_size: int) -> None:
        """``size`` bytes are read at ``position``, all but the last block past the buffer."""
        ahead = max(self._end - position, 0)
        if size <= ahead:
            return
        last = (size - ahead) % self._size
        self._start = position + size - last
        self._end = min(self._start + self._size, file_size) if last else 0

    def seek(self, position: int, target: int) -> None:
        """A ``seek`` keeps the buffer, if that has both what is next and the target."""
        if not (position < self._end and self._start <= target <= self._end):
            self.clear()

    def write(self, position: int, size: int) -> None:
        """What is written goes into the buffer, if it has room there."""
        if self._end:
            if size < self._size and position + size <= self._start + self._size:
                self._end = max(self._end, position + size)
            else:
                self.clear()
