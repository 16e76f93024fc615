"""What is behind an invalid record of a framed log. Pure: the reading is done by others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from uringfile._frames import HEADER, MAX_RECORD, crc32c

#: ``read(size, offset)``; less than ``size`` bytes at the end of the file only.
Read = Callable[[int, int], bytes]

SECTOR = 512

_WINDOW = 64 * 1024
_ZEROS = bytes(_WINDOW + HEADER.size)

# Bytes that the search may checksum before it is given up: two seconds' worth where the
# processor has an instruction for it.
MOST_WORK = 1 << 36


class Following(NamedTuple):
    """What follows an invalid record."""

    #: Where the first valid record begins; ``None`` when the search was given up.
    next_offset: int | None
    #: Whether before that a sector was never written.
    unwritten: bool


def find_following(
    read: Read, offset: int, end: int, most_work: int = MOST_WORK
) -> Following | None:
    """What follows the invalid record at ``offset`` of a file with ``end`` bytes; ``None``
    if no valid one does.

    Takes linear time, unless what follows is full of numbers that could be lengths: then
    each costs a checksum of that many bytes, ``most_work`` altogether.
    """
    following = _find_record(read, offset, end, most_work)
    if following is None:
        return None
    if following < 0:
        return Following(None, _has_unwritten_sector(read, offset, end))
    return Following(following, _has_unwritten_sector(read, offset, following))


def _find_record(read: Read, offset: int, end: int, most_work: int) -> int | None:
    """The offset of the next valid record; -1 when the search is given up."""
    # Most damage leaves the length alone.
    header = read(HEADER.size, offset)
    if len(header) == HEADER.size:
        behind: int = offset + HEADER.size + HEADER.unpack(header)[0]
        if _is_record(read, behind, end):
            return behind
    plausible = _plausible_headers(end - offset)
    for start in range(offset + 1, end - HEADER.size + 1, _WINDOW):
        data = read(min(_WINDOW + HEADER.size - 1, end - start), start)
        if data == _ZEROS[: len(data)]:
            continue
        for match in plausible.finditer(data):
            at = match.start()
            length: int = HEADER.unpack_from(data, at)[0]
            if length > end - start - at - HEADER.size:
                continue
            most_work -= length
            if most_work < 0:
                return -1
            if _is_record(read, start + at, end):
                return start + at
    return None


def _plausible_headers(room: int) -> re.Pattern[bytes]:
    """Headers that are not all zeros, with a length of at most ``room``, at any byte."""
    highest = min(room, MAX_RECORD)
    bounds = []
    for shift in (16, 24):
        bounds.append(rb"[\x00-\x%02x]" % min(255, highest >> shift))
    return re.compile(rb"(?s)(?=..%b%b....)(?!\x00{8})" % tuple(bounds))


def _is_record(read: Read, offset: int, end: int) -> bool:
    value, extend = crc32c()
    if offset + HEADER.size > end:
        return False
    header = read(HEADER.size, offset)
    if len(header) < HEADER.size:
        return False  # the file has been cut meanwhile
    length, checksum = HEADER.unpack(header)
    if length > min(end - offset - HEADER.size, MAX_RECORD):
        return False
    payload = read(length, offset + HEADER.size)
    if len(payload) < length:
        return False
    found: int = checksum
    return extend(value(header[:4]), payload) == found


def _has_unwritten_sector(read: Read, start: int, end: int) -> bool:
    """Whether a sector is all zeros; of the first one, what lies behind ``start``."""
    window = start - start % SECTOR
    while window < end:
        data = read(min(_WINDOW, end - window), window)
        for sector in range(0, len(data) - SECTOR + 1, SECTOR):
            piece = data[max(sector, start - window) : sector + SECTOR]
            if piece == _ZEROS[: len(piece)]:
                return True
        window += _WINDOW
    return False
