"""struct statx (statx(2)) to os.stat_result."""

from __future__ import annotations

import os
import struct
import sys

STATX_SIZE = 256

# blksize nlink uid gid mode ino size blocks, four timestamps, rdev and dev.
_FIELDS = struct.Struct("=4xI8xIIIHxxQQQ8x" + "qIxxxx" * 4 + "IIII")

# What follows the ten that a stat_result shows as a tuple; PyPy has them in another order.
_REST = [f"st_{name}time{unit}" for unit in ("", "_ns") for name in "amc"]
_REST += ["st_blksize", "st_blocks", "st_rdev"]
_IN_THIS_ORDER = sys.implementation.name == "cpython"


def to_stat_result(raw: bytes | bytearray) -> os.stat_result:
    fields = _FIELDS.unpack_from(raw)
    blksize, nlink, uid, gid, mode, ino, size, blocks = fields[:8]
    # In the order of stat_result: access, modification, change (birth is left out).
    times = [(fields[i], fields[i + 1]) for i in (8, 14, 12)]
    rdev = os.makedev(*fields[16:18])
    dev = os.makedev(*fields[18:20])
    seconds = [s for s, _ in times]
    floats = [s + 1e-9 * ns for s, ns in times]
    stamps = [s * 10**9 + ns for s, ns in times]
    rest = (*floats, *stamps, blksize, blocks, rdev)
    shown = (mode, ino, dev, nlink, uid, gid, size, *seconds)
    if _IN_THIS_ORDER:
        return os.stat_result(shown + rest)
    return os.stat_result(shown, dict(zip(_REST, rest, strict=True)))
