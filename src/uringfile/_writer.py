"""Writing records one behind another from many tasks."""

from __future__ import annotations

import asyncio
from collections import deque

from uringfile._blocks import as_copy
from uringfile._errors import ClosedFileError
from uringfile._file import AIOFile

# The most that goes out in one write when records have gathered.
_BATCH_BYTES = 1 << 20


class _Record:
    __slots__ = ("data", "written")

    def __init__(self, data: bytes, written: asyncio.Future[int]) -> None:
        self.data = data
        #: The offset behind the record, once it is in the file.
        self.written = written


class Writer:
    """Writes records from ``offset`` (bytes) on: ``await writer(data)``.

    Safe for any number of tasks: records land whole, one behind another, in call order.
    Those that arrive while a write is in flight gather and go out as one write (joined:
    for short records a copy is far cheaper than a vector of them).
    """

    def __init__(self, aio_file: AIOFile, offset: int = 0) -> None:
        if offset < 0:
            raise ValueError(f"offset must not be negative, not {offset}")
        self.file = aio_file
        self._offset = offset
        self._end = offset  # behind the last record that was given to us
        self._records: deque[_Record] = deque()
        self._writing = False
        self._task: asyncio.Task[None] | None = None  # the loop does not keep it

    async def __call__(self, data: bytes | bytearray | memoryview | str) -> int:
        """Write one record; returns the offset behind it when it is in the file.

        A ``str`` is encoded as the file's encoding says. Cancellation releases the caller;
        the record is still written, in its place. On an ``OSError`` (the same for all that
        went out together) the record is not in the file whole, and the next record takes
        its place; until then a part of it may be there, and in a file opened with "a" stays.
        """
        if isinstance(data, str):
            data = self.file.encode_bytes(data, self._end)
        elif not isinstance(data, bytes):
            data = as_copy(data)  # the caller may change it once a cancellation has freed it
        if self.file.closed:
            raise ClosedFileError(f"I/O operation on a file that is not open: {self.file.name!r}")
        loop = asyncio.get_running_loop()
        record = _Record(data, loop.create_future())
        self._records.append(record)
        self._end += len(data)
        if not self._writing:
            self._writing = True  # an eager task may end before there is a name for it
            self._task = loop.create_task(self._write_records())
        return await record.written

    async def _write_records(self) -> None:
        try:
            while self._records:
                await self._write_batch(self._take_batch())
        finally:
            self._writing = False
            for record in self._records:  # the loop is ending
                record.written.cancel()
            self._records.clear()

    def _take_batch(self) -> list[_Record]:
        batch = [self._records.popleft()]
        size = len(batch[0].data)
        while self._records and size + len(self._records[0].data) <= _BATCH_BYTES:
            batch.append(self._records.popleft())
            size += len(batch[-1].data)
        return batch

    async def _write_batch(self, batch: list[_Record]) -> None:
        data = batch[0].data if len(batch) == 1 else b"".join([r.data for r in batch])
        failure: BaseException | None = None
        landed = len(data)
        try:
            await self.file.write_bytes(data, self._offset)
        except BaseException as error:
            failure = error
            landed = getattr(error, "characters_written", 0)
        for record in batch:
            landed -= len(record.data)
            if landed >= 0:
                self._offset += len(record.data)
                if not record.written.done():
                    record.written.set_result(self._offset)
            elif not record.written.done():
                self._fail(record, failure)
        if failure is not None:
            self._end = self._offset + sum(len(record.data) for record in self._records)
            if not isinstance(failure, Exception):
                raise failure

    @staticmethod
    def _fail(record: _Record, failure: BaseException | None) -> None:
        if isinstance(failure, Exception):
            record.written.set_exception(failure)
        else:
            record.written.cancel()
