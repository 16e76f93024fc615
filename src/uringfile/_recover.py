"""Cutting what a crash has left behind the last whole record of a log."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

from uringfile._engine import EngineName
from uringfile._file import AIOFile
from uringfile._frames import FrameSplitter
from uringfile._logdamage import check_torn
from uringfile._open import in_thread
from uringfile._splitter import SeparatorSplitter

_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Recovery:
    """What ``recover`` has found and done."""

    #: Of the log, as it was given.
    path: str | bytes
    #: Where the last whole record ends, in bytes: the size of the file now.
    end: int
    #: How many bytes were cut off there.
    cut: int
    #: Where among them a valid record began; ``None`` if none is known of.
    cut_record: int | None = None


async def recover(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    separator: bytes = b"\n",
    framed: bool = False,
    offset: int = 0,
    cut_damage: bool = False,
    engine: EngineName | None = None,
) -> Recovery:
    """Cut what is no whole record off the end of a log, and fsync it.

    For a log that nobody writes, before it is opened for appending again. A record ends
    with ``separator``, or is framed. What lies before ``offset``, where a record must end,
    is taken for whole and not read.

    A crash leaves a log that ``LogWriter`` has written with whole records and, behind those
    that are durable, a torn end. That begins with the first invalid record. When power
    fails, sectors of it may be missing (they read as zeros) with valid records behind
    them; ``cut_record`` tells of that. An invalid record without such a sector, but with
    valid ones behind it, comes from no crash: it raises ``CorruptLogError``, and the file is
    left alone. ``cut_damage=True`` cuts there, too. (A torn record that itself holds framed
    records, such as a part of another log, looks like damage.)

    A log with separators has no checksums: it is cut behind the last separator.

    Raises ``OSError``; then, and when cancelled, the end may have been cut or not, and
    calling it again is safe. Reads a framed log whole, in linear time, and of the others
    only the end.
    """
    async with AIOFile(os.fspath(path), "rb+", engine=engine) as file:
        size = (await file.stat()).st_size
        cut_record = None
        if framed:
            end = await _feed(file, FrameSplitter(offset), offset)
            if end < size and not cut_damage:
                cut_record = await check_torn_end(file, end, size)
        else:
            end = await _end_of_separated(file, separator, offset, size)
        end = min(end, size)
        if end < size:
            await file.truncate(end)
        # Also when nothing was cut: what a killed process has written may not be durable,
        # and who reads it from now on relies on it.
        await file.fsync()
        return Recovery(os.fspath(path), end, size - end, cut_record)


async def check_torn_end(file: AIOFile, offset: int, end: int) -> int | None:
    """``check_torn`` for an open file, in a thread."""
    descriptor = file._check(offset, readable=True)
    read = partial(os.pread, descriptor.fd)
    cut_record: int | None = await in_thread(
        file._driver_here(), descriptor, check_torn, read, offset, end, file.name
    )
    return cut_record


async def _feed(file: AIOFile, splitter: FrameSplitter | SeparatorSplitter, offset: int) -> int:
    while not splitter.invalid:
        piece = await file.read_bytes(_CHUNK, offset)
        if not piece:
            break
        offset += len(piece)
        splitter.feed(piece)
    return splitter.offset


async def _end_of_separated(file: AIOFile, separator: bytes, start: int, end: int) -> int:
    """The end of the last separator, looked for from the end of the file."""
    splitter = SeparatorSplitter(separator, start)
    if any(separator.startswith(separator[i:]) for i in range(1, len(separator))):
        # It can overlap itself, and which one counts depends on those before it.
        return await _feed(file, splitter, start)
    behind = b""
    while end > start:
        at = max(start, end - _CHUNK)
        piece = await file.read_bytes(end - at, at) + behind
        found = piece.rfind(separator)
        if found >= 0:
            return at + found + len(separator)
        behind = piece[: len(separator) - 1]
        end = at
    return start
