"""Cutting a stream of pieces into lines. Pure: no I/O, no event loop."""

from __future__ import annotations

import io
from typing import AnyStr, Generic


class LineSplitter(Generic[AnyStr]):
    """Lines, each with its separator, out of pieces of any size.

    Takes linear time: what belongs to an unfinished line is kept in pieces and joined
    once, and of it only ``len(separator) - 1`` items are looked at again.
    """

    def __init__(self, separator: AnyStr) -> None:
        """Raises ``ValueError`` for an empty separator."""
        if not separator:
            raise ValueError("empty separator")
        self._separator: AnyStr = separator
        self._empty: AnyStr = separator[:0]
        self._unfinished: list[AnyStr] = []
        # The end of the unfinished line, where a separator may have begun.
        self._edge: AnyStr = self._empty

    def feed(self, piece: AnyStr) -> list[AnyStr]:
        """The lines that end in ``piece``."""
        if self._edge:
            piece = self._edge + piece
        lines = self._split(piece)
        last = self._empty
        if lines and not lines[-1].endswith(self._separator):
            last = lines.pop()
        if lines and self._unfinished:
            self._unfinished.append(lines[0])
            lines[0] = self._take_unfinished()
        keep = len(last) - len(self._separator) + 1
        if keep > 0:
            self._unfinished.append(last[:keep])
            last = last[keep:]
        self._edge = last
        return lines

    def finish(self) -> AnyStr:
        """The line without an end, or empty; the splitter starts anew."""
        self._unfinished.append(self._edge)
        self._edge = self._empty
        return self._take_unfinished()

    def _take_unfinished(self) -> AnyStr:
        line = self._empty.join(self._unfinished)
        self._unfinished.clear()
        return line

    def _split(self, piece: AnyStr) -> list[AnyStr]:
        # Both of these split at "\n" alone, in C (splitlines does not).
        if self._separator == b"\n":
            return io.BytesIO(piece).readlines()  # type: ignore[arg-type,return-value]
        if self._separator == "\n":
            return io.StringIO(piece, newline="\n").readlines()  # type: ignore[arg-type,return-value]
        parts = piece.split(self._separator)
        last = parts.pop()
        lines = [part + self._separator for part in parts]
        if last:
            lines.append(last)
        return lines


class SeparatorSplitter:
    """Records, each with its separator, and their offsets; as LineSplitter, linear time."""

    #: As in a framed log, where bytes can be worse than unfinished.
    invalid = False
    blank = False
    overhead = 0

    def __init__(self, separator: bytes, offset: int = 0) -> None:
        """``offset`` is that of the first byte to come. Raises ``ValueError`` for an empty
        separator."""
        self._lines: LineSplitter[bytes] = LineSplitter(separator)
        #: The offset of the first byte that is not part of a whole record.
        self.offset = offset
        #: How many bytes have come from there on.
        self.held = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The records that end in ``piece``."""
        records = self._lines.feed(piece)
        taken = sum(map(len, records))
        self.offset += taken
        self.held += len(piece) - taken
        return records
