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
    times = [(fields[i], fields[i + 1]) for i in (8, 12, 14)]  # atime ctime mtime; btime left out
    atime, ctime, mtime = (s * 10**9 + ns for s, ns in times)
    rdev = os.makedev(*fields[16:18])
    dev = os.makedev(*fields[18:20])
    stamps = (atime, mtime, ctime)
    seconds = [stamp // 10**9 for stamp in stamps]
    floats = [stamp / 1e9 for stamp in stamps]
    return os.stat_result(
        (mode, ino, dev, nlink, uid, gid, size, *seconds, *floats, *stamps, blksize, blocks, rdev)
    )
