"""Reading a log: record by record, from any offset, to its end or on and on."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from uringfile._engine import EngineName
from uringfile._errors import ClosedFileError
from uringfile._file import AIOFile
from uringfile._follow import Follow
from uringfile._frames import FrameSplitter
from uringfile._recover import check_torn_end
from uringfile._splitter import SeparatorSplitter

# What splitting a chunk, and the caller's loop over its records, count in the budget of a
# turn: a unit, some 2 us, for each 2 KiB.
_RECORDS_SHIFT = 11


# The offset of what is no whole record, and size and time of change of the file.
_Stamp = tuple[int, int, int]


class Torn(NamedTuple):
    """What at the end of a log is no whole record, in bytes."""

    #: Where it begins.
    offset: int
    #: How much it is.
    length: int


class LogReader:
    """The records of a log from ``offset`` (bytes) on, as ``bytes``: ``async for``.

    They come as they were given to ``LogWriter``. A record ends with ``separator``, which
    may have any length and stays in it; or, with ``framed=True``, each has a length and a
    checksum in the file, which are not given out. ``offset`` must be 0 or where a record
    ends: what ``LogWriter.append`` returned, or ``reader.offset``.

    What is no whole record at the end is left out, and told by ``torn``. In a framed log
    an invalid record with valid ones behind it raises ``CorruptLogError``, unless it is part
    of what ``recover`` would cut; a log with separators shows no such damage.

    With ``follow=True`` the end of the file is waited at, as ``tail -F`` does: for more
    data (zeros up to the end are preallocated and not written yet, unless the separator has
    one), for another file that takes the path (the old one is first read to its end; the
    new one from 0), for the file if there is none. A file that has become shorter is read
    from 0 again, or, if only an unfinished record was cut off, from where that began. What
    is truncated before it was read is lost; so is a file that came and was moved away again
    between two calls, and truncation is not noticed when the file has grown beyond the old
    position by then. inotify(7) tells of changes to local files; in any case the path is
    looked at every ``poll_interval`` seconds, which is all there is on network file systems
    and where the user has no inotify instance left (128 by default; a reader takes one).

    Open it with ``async with`` or ``open()``. Iterating raises ``ClosedFileError`` when it
    is not open, and ``OSError``; each time from the same place, so that a caller may go on.
    Cancelling any call loses no record: the next one goes on where it was. Concurrent
    callers get the records one after another. ``close()`` ends the iteration of who waits
    in a reader that follows.
    """

    #: How many bytes are read at a time, unless ``chunk_size`` says so.
    CHUNK_SIZE = 64 * 1024

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        offset: int = 0,
        separator: bytes = b"\n",
        framed: bool = False,
        follow: bool = False,
        poll_interval: float = 1.0,
        chunk_size: int = CHUNK_SIZE,
        engine: EngineName | None = None,
    ) -> None:
        """Raises ``ValueError`` for an empty separator and numbers out of range, and
        ``ImportError`` for a framed log without google-crc32c."""
        if offset < 0:
            raise ValueError(f"offset must not be negative, not {offset}")
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be above 0, not {chunk_size}")
        if poll_interval <= 0:
            raise ValueError(f"poll_interval must be above 0, not {poll_interval}")
        #: The path, as it was given.
        self.path: str | bytes = os.fspath(path)
        #: Behind the last record that was given out, in bytes; 0 again when another file,
        #: or a truncated one, has been begun.
        self.offset = offset
        #: What was no whole record at the end of the file; ``None`` if all was, and before
        #: the end is reached. While a file is followed it has no end: then that of the
        #: last file that was left for another.
        self.torn: Torn | None = None
        self._separator = separator
        self._framed = framed
        self._following = follow
        self._poll_interval = poll_interval
        self._chunk_size = chunk_size
        self._engine = engine
        self._file: AIOFile | None = None
        self._follow: Follow | None = None
        self._is_open = False
        self._closed = False
        self._lock = asyncio.Lock()
        # Records that are split already, and not given out.
        self._records: Iterator[bytes] = iter(())
        self._position = offset  # of the next byte to read
        self._splitter = self._new_splitter(offset)
        self._overhead = self._splitter.overhead
        self._may_be_unwritten = not framed and b"\0" not in separator
        # Where zeros began that went on to the end of the file, and where that was.
        self._blank = (-1, -1)
        self._data_at = 0  # no zeros before that are unwritten
        # What stood at the end when that was last looked at, and what of it is known to be
        # no record, nor to have one behind it.
        self._seen: _Stamp | None = None
        self._searched: _Stamp | None = None
        # An invalid record that is being read a second time: what is written may be
        # replaced. And one that was found invalid twice.
        self._doubted: _Stamp | None = None
        self._invalid: _Stamp | None = None

    def _new_splitter(self, offset: int) -> FrameSplitter | SeparatorSplitter:
        if self._framed:
            return FrameSplitter(offset)
        return SeparatorSplitter(self._separator, offset)

    # ---- open and close -------------------------------------------------------------

    async def open(self) -> None:
        """Open the log; nothing, if it is open. A path that is to be followed need not exist.

        Raises what ``open`` raises, ``ValueError`` for what is no regular file, and
        ``ClosedFileError`` after ``close()``, also when that is called meanwhile.
        """
        async with self._lock:
            if self._closed:
                raise ClosedFileError(f"{self.path!r} was closed; make a new reader to open it")
            if not self._is_open:
                await self._open()
                if self._closed:  # meanwhile
                    await self.close()
                    raise ClosedFileError(f"{self.path!r} was closed during open()")
                self._is_open = True

    async def _open(self) -> None:
        if self._following:
            follow = Follow(self.path, self._poll_interval, self._engine)
            try:
                await follow.look()
            except BaseException:
                await follow.close()
                raise
            self._follow = follow
            if follow.successors:
                self._file = follow.take()
            else:
                self._begin_file()
        else:
            self._file = await self._open_file()

    async def _open_file(self) -> AIOFile:
        file = AIOFile(self.path, "rb", engine=self._engine)
        await file.open()
        try:
            if not stat.S_ISREG((await file.stat()).st_mode):
                raise ValueError(f"{self.path!r} is not a regular file")
        except BaseException:
            await file.close()
            raise
        return file

    async def close(self) -> None:
        """Close the log. Who waits in a reader that follows gets no more records."""
        self._closed = True
        self._is_open = False
        file, self._file = self._file, None
        if self._follow is not None:
            await self._follow.close()
        elif file is not None:
            await file.close()

    def fileno(self) -> int:
        """The descriptor of the file that the last record came from; it is the reader's, and
        another one after a rotation. Raises ``ClosedFileError`` when there is none."""
        if self._file is None:
            raise ClosedFileError(f"{self.path!r} is not open")
        return self._file.fileno()

    async def __aenter__(self) -> LogReader:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # ---- records ----------------------------------------------------------------------

    def __aiter__(self) -> LogReader:
        # No generator: one that is cancelled has ended.
        return self

    async def __anext__(self) -> bytes:
        while True:
            for record in self._records:
                self.offset += len(record) + self._overhead
                return record
            if not await self._fill():  # others may take all of them first
                raise StopAsyncIteration

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """The records as non-empty lists, one for each chunk that was read; ``offset`` is
        behind the last of them. Cancelled, call it anew."""
        while await self._fill():
            records = list(self._records)
            self.offset += sum(map(len, records)) + self._overhead * len(records)
            if records:
                yield records

    async def _fill(self) -> bool:
        """Have records split, unless others have just done so: False at the end."""
        if not self._is_open:
            raise ClosedFileError(f"{self.path!r} is not open")
        async with self._lock:
            records = list(self._records)  # another task may have read meanwhile
            try:
                while not records and self._is_open:
                    more = await self._read_on()
                    if more is None:
                        return False
                    records = more
            except ClosedFileError:
                if self._is_open or not self._following:
                    raise
            self._records = iter(records)
            return bool(records)

    async def _read_on(self) -> list[bytes] | None:
        """One step further: records, or none yet; ``None`` at the end."""
        if self._follow is not None and self._follow.due():
            await self._follow.look()
        if self._file is None:
            return await self._await_file()
        if self._splitter.invalid:
            return await self._at_invalid(self._file)
        superseded = await self._is_superseded()  # before the read that may find no more
        piece = await self._file.read_bytes(self._chunk_size, self._position)
        if self._may_be_unwritten and b"\0" in piece:
            piece = await self._without_unwritten(self._file, piece, superseded)
        if not piece:
            return await self._at_end(self._file, superseded)
        self._position += len(piece)
        self._file._charge(len(piece) >> _RECORDS_SHIFT)
        return self._splitter.feed(piece)

    async def _without_unwritten(self, file: AIOFile, piece: bytes, superseded: bool) -> bytes:
        """The piece that was read, without the zeros that a writer that preallocates will yet
        replace, or is replacing: reading and writing the same bytes exclude each other on xfs
        only, elsewhere a read may see the end of a record and zeros before it."""
        begin = piece.rstrip(b"\0").find(b"\0")
        if begin >= 0:
            again = await file.read_bytes(len(piece) - begin, self._position + begin)
            if again != piece[begin:]:
                return piece[:begin] or await self._without_unwritten(file, again, superseded)
        if self._follow is None or not piece.endswith(b"\0"):
            return piece
        return await self._without_blank_end(file, piece, superseded)

    async def _without_blank_end(self, file: AIOFile, piece: bytes, superseded: bool) -> bytes:
        """The piece that was read, without zeros that go on to the end of the file: there a
        writer that preallocates will write."""
        end = self._position + len(piece)
        if end <= self._data_at:
            return piece
        if written := piece.rstrip(b"\0"):
            return written  # the next piece begins with the zeros
        place = (self._position, (await file.stat()).st_size)
        moved = self._blank[0] != place[0] and self._blank[1] == place[1]
        self._blank = place
        if moved and not superseded:
            return b""  # all behind it was zeros, and has been written up to here
        while more := await file.read_bytes(self._chunk_size, end):
            end += len(more)
            if data := more.rstrip(b"\0"):
                self._blank = (-1, -1)
                self._data_at = end - len(more) + len(data)
                return piece
        return b""

    def _begin(self, offset: int) -> None:
        """Read from there, where a record begins."""
        self._position = offset
        self._splitter = self._new_splitter(offset)
        self._data_at = 0

    def _begin_file(self) -> None:
        self._begin(0)
        self.offset = 0
        self._seen = self._searched = self._doubted = self._invalid = None
        self._blank = (-1, -1)

    # ---- the end of the file --------------------------------------------------------------

    async def _at_end(self, file: AIOFile, superseded: bool) -> list[bytes] | None:
        status = await file.stat()
        whole = self._splitter.offset
        if status.st_size < self._position and self._follow is not None:
            if status.st_size < whole:
                self._begin_file()
            else:
                self._begin(whole)
            return []
        if not self._splitter.held:
            return await self._stop(file, superseded, None)
        stamp = (whole, status.st_size, status.st_mtime_ns)
        # Somebody may be writing the rest of it just now.
        stalled = self._seen is not None and stamp[:2] == self._seen[:2]
        self._seen = stamp
        if self._framed and (stalled or superseded or self._follow is None):
            await self._search(file, stamp)
        return await self._stop(file, superseded, Torn(whole, self._splitter.held))

    async def _at_invalid(self, file: AIOFile) -> list[bytes] | None:
        superseded = await self._is_superseded()
        status = await file.stat()
        whole = self._splitter.offset
        stamp = (whole, status.st_size, status.st_mtime_ns)
        if status.st_size < whole and self._follow is not None:
            self._begin_file()
            return []
        if stamp != self._invalid:
            if self._doubted is None or self._doubted[0] != whole:
                self._doubted = stamp
                self._begin(whole)
                return []
            self._invalid, self._doubted = self._doubted, None
        if self._follow is None or superseded or not self._splitter.blank:
            await self._search(file, stamp)
        return await self._stop(file, superseded, Torn(whole, status.st_size - whole))

    async def _search(self, file: AIOFile, stamp: _Stamp) -> None:
        """Raise if there are valid records behind what is none."""
        if stamp != self._searched:
            await check_torn_end(file, stamp[0], stamp[1])
            self._searched = stamp

    async def _stop(self, file: AIOFile, superseded: bool, torn: Torn | None) -> list[bytes] | None:
        """There are no more records in the file now."""
        if self._follow is None:
            self.torn = torn
            self._begin(self._splitter.offset)  # a later call reads what is torn again
            return None
        if superseded:
            self.torn = torn
            self._file = self._follow.take()
            self._begin_file()
            await self._follow.leave(file)
            return []
        if await self._follow.wait():
            self._invalid = None
        if 0 < self._splitter.held <= self._chunk_size and not self._splitter.invalid:
            # A writer may replace what is unfinished: after an error, after a crash.
            self._begin(self._splitter.offset)
        return []

    async def _is_superseded(self) -> bool:
        return self._follow is not None and await self._follow.is_superseded()

    async def _await_file(self) -> list[bytes]:
        """A path that is followed has had no file yet."""
        assert self._follow is not None
        if self._follow.successors:
            self._file = self._follow.take()
        else:
            await self._follow.wait()
        return []
