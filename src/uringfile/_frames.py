"""Framed records: where each begins and ends, and whether it is whole. Pure: no I/O.

A record is ``length | CRC-32C | payload``; length (of the payload, in bytes) and checksum
are little endian and have four bytes each. The checksum covers the length and the payload,
so that eight zero bytes, the unwritten end of a preallocated file, are no empty record.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct("<II")
_LENGTH = struct.Struct("<I")

#: The longest payload. A length above it is damage, and need not be waited for.
MAX_RECORD = 1 << 28

Crc32c = tuple[Callable[[bytes], int], Callable[[int, bytes], int]]


@functools.cache
def crc32c() -> Crc32c:
    """``value(data)`` and ``extend(crc, data)`` of google-crc32c, imported when first used.

    Raises ``ImportError`` where it is not installed.
    """
    try:
        from google_crc32c import extend, value
    except ImportError as error:
        raise ImportError(
            "framed logs need google-crc32c: pip install 'uringfile[framed]'", name=error.name
        ) from error
    return value, extend


def frame(record: Any) -> bytes:
    """The record (any buffer) with its length and checksum in front.

    Raises ``ValueError`` for more than ``MAX_RECORD`` bytes, ``TypeError`` for what is no
    buffer, ``ImportError`` without google-crc32c.
    """
    value, extend = crc32c()
    payload = record if type(record) is bytes else bytes(memoryview(record))
    if len(payload) > MAX_RECORD:
        raise ValueError(f"a record has at most {MAX_RECORD} bytes, not {len(payload)}")
    length = _LENGTH.pack(len(payload))
    return b"".join((length, _LENGTH.pack(extend(value(length), payload)), payload))


class FrameSplitter:
    """Records, without their headers, out of pieces of any size.

    Takes linear time: what belongs to an unfinished record is kept in pieces and joined
    when the record is whole.
    """

    def __init__(self, offset: int = 0) -> None:
        """``offset`` is that of the first byte to come. Raises ``ImportError`` without
        google-crc32c."""
        self._value, self._extend = crc32c()
        #: How many bytes a record has beside its payload.
        self.overhead = HEADER.size
        #: The offset of the first byte that is not part of a whole, valid record.
        self.offset = offset
        #: Whether the bytes there are no record, and no bytes that follow can make one.
        self.invalid = False
        #: Whether they are zeros, as where a preallocated file has not been written yet.
        self.blank = False
        #: How many bytes have come from ``offset`` on.
        self.held = 0
        self._pieces: list[bytes] = []
        self._needed = HEADER.size

    def feed(self, piece: bytes) -> list[bytes]:
        """The records that end in ``piece``; none from the first invalid one on."""
        self._pieces.append(piece)
        self.held += len(piece)
        if self.invalid:
            self._pieces.clear()
            return []
        if self.held < self._needed:
            return []
        data = piece if len(self._pieces) == 1 else b"".join(self._pieces)
        records, end = self._split(data)
        self.offset += end
        self.held -= end
        self._pieces = [data[end:]] if self.held and not self.invalid else []
        return records

    def _split(self, data: bytes) -> tuple[list[bytes], int]:
        records: list[bytes] = []
        start = 0
        while True:
            self._needed = HEADER.size
            if len(data) - start < HEADER.size:
                break
            length, checksum = HEADER.unpack_from(data, start)
            if length > MAX_RECORD:
                self.invalid = True
                break
            end = start + HEADER.size + length
            if end > len(data):
                self._needed = HEADER.size + length
                break
            payload = data[start + HEADER.size : end]
            if self._extend(self._value(data[start : start + 4]), payload) != checksum:
                self.invalid = True
                self.blank = length == checksum == 0
                break
            records.append(payload)
            start = end
        return records, start
