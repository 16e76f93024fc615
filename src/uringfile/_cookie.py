"""What ``tell`` of a text file gives: where to start decoding, and how far to go on.

Most positions are a plain offset. Behind it stand, in the layout of CPython's
TextIOWrapper: 32 bits each for the decoder's state, for the bytes to feed to it, for the
characters to drop of what it gives, and a bit that says whether the end of the file is
to be told to it.
"""

from __future__ import annotations

from typing import NamedTuple

_WORD = (1 << 32) - 1


class Cookie(NamedTuple):
    """A position in a text."""

    start: int
    flags: int = 0
    feed: int = 0
    skip: int = 0
    eof: bool = False

    def pack(self) -> int:
        # States above 32 bits, which CPython refuses to tell, stand above all the rest.
        return (
            self.start
            | (self.flags & _WORD) << 64
            | self.feed << 96
            | self.skip << 128
            | self.eof << 160
            | (self.flags >> 32) << 168
        )

    @classmethod
    def unpack(cls, number: int) -> Cookie:
        """Raises ``OverflowError`` for numbers that no ``tell`` has given."""
        start = number & (1 << 64) - 1
        if start >> 63:
            raise OverflowError("the position is beyond the largest offset")
        return cls(
            start,
            (number >> 64 & _WORD) | (number >> 168) << 32,
            number >> 96 & _WORD,
            number >> 128 & _WORD,
            bool(number >> 160 & 0xFF),
        )
