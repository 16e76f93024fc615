"""struct statx (statx(2)) to os.stat_result."""

from __future__ import annotations

import os
import struct

STATX_SIZE = 256

# blksize nlink uid gid mode ino size blocks, four timestamps, rdev and dev.
_FIELDS = struct.Struct("=4xI8xIIIHxxQQQ8x" + "qIxxxx" * 4 + "IIII")


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
    return os.stat_result(
        (mode, ino, dev, nlink, uid, gid, size, *seconds, *floats, *stamps, blksize, blocks, rdev)
    )
