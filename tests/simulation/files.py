"""AIOFile, by many tasks at once: its reads, writes and syncs."""

from __future__ import annotations

import errno
import os
from typing import Any

from simulation.openfiles import OpenFileUser
from uringfile import AIOFile, ClosedFileError
from uringfile._native_engine import ffi

_LASTING = (errno.EIO, errno.ENOSPC, errno.EDQUOT)

# What most offsets are below; a few writes go beyond, and leave a hole.
_SIZE = 2000


class FileUser(OpenFileUser):
    """Calls of all kinds, and what must come of them."""

    # ---- what is done -------------------------------------------------------------------

    def act(self) -> None:
        rng = self.rng
        file = self.file
        if file is None:
            if not self.changing:
                self._open()
            return
        if len(self.calls) >= self.world.most_calls:
            return
        r = rng.random()
        if r < 0.01:
            self.spawn("close", self._close(file))
        elif r < 0.02 and not self.calls:
            self.settle()
        elif r < 0.05:
            self.spawn("sync", self._sync(file, rng.random() < 0.5))
        elif r < 0.06:
            self.spawn("stat", self._stat(file))
        elif r < 0.07:
            self.spawn("fadvise", self._advise(file))
        elif r < 0.09 and self._quiet() and file.mode.writable:
            self.spawn("truncate", self._truncate(file, self._offset(), rng.random() < 0.3))
        elif r < 0.11:
            self._abandoned_coroutine(file)
        else:
            readers, writers = self.weights
            if rng.random() * (readers + writers) < readers:
                self._read_somehow(file)
            else:
                self._write_somehow(file)

    def _offset(self) -> int:
        return self.rng.randrange(_SIZE if self.rng.random() < 0.9 else 2 * _SIZE)

    def _length(self) -> int:
        return self.rng.randrange(1, self.rng.choice([3, 64, 200, 1500]))

    def _data(self) -> bytes:
        return self.rng.randbytes(self._length())

    # ---- reading ----------------------------------------------------------------------------

    def _read_somehow(self, file: AIOFile) -> None:
        if not file.mode.readable:
            return
        r = self.rng.random()
        if r < 0.5:
            self.spawn("read", self._read(file, self._length(), self._offset()))
        elif r < 0.55:
            self.spawn("read to the end", self._read(file, -1, self._offset()))
        elif r < 0.75:
            self.spawn("readinto", self._readinto(file, self._length(), self._offset()))
        else:
            ranges = [(self._length(), self._offset()) for _ in range(self.rng.randrange(6))]
            if self.rng.random() < 0.5:
                self.spawn("read_many", self._read_many(file, ranges))
            else:
                self.spawn("readinto_many", self._readinto_many(file, ranges))

    async def _read(self, file: AIOFile, size: int, offset: int) -> None:
        before = self.kernel.errors
        reading = self.model.begin_read()
        try:
            data = await file.read(size, offset)
            self._claim(self.model.wrong(reading, data, size, offset))
        except (OSError, ClosedFileError) as error:
            self._judge(error, before, file)
        finally:
            self.model.end_read(reading)

    async def _readinto(self, file: AIOFile, size: int, offset: int) -> None:
        await self._into(file, [(size, offset)], many=False)

    async def _readinto_many(self, file: AIOFile, ranges: list[tuple[int, int]]) -> None:
        await self._into(file, ranges, many=True)

    async def _into(self, file: AIOFile, ranges: list[tuple[int, int]], *, many: bool) -> None:
        before = self.kernel.errors
        reading = self.model.begin_read()
        buffers = [bytearray(size) for size, _ in ranges]
        places = [self._export(buffer) for buffer in buffers]
        try:
            if many:
                pairs = [(buffer, at) for buffer, (_, at) in zip(buffers, ranges, strict=True)]
                counts = await file.readinto_many(pairs)
            else:
                counts = [await file.readinto(buffers[0], ranges[0][1])]
            for n, buffer, (size, offset) in zip(counts, buffers, ranges, strict=True):
                self._claim(self.model.wrong(reading, bytes(buffer[:n]), size, offset))
        except (OSError, ClosedFileError) as error:
            self._judge(error, before, file)
        finally:
            self.model.end_read(reading)
            for place in places:
                del self.world.engine.exported[place]

    def _export(self, buffer: bytearray) -> range:
        start = int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))
        place = range(start, start + len(buffer))
        self.world.engine.exported[place] = buffer
        return place

    async def _read_many(self, file: AIOFile, ranges: list[tuple[int, int]]) -> None:
        before = self.kernel.errors
        reading = self.model.begin_read()
        try:
            found = await file.read_many(ranges)
            if len(found) != len(ranges):
                raise self.world.fail("read_many gave too few results")
            for data, (size, offset) in zip(found, ranges, strict=True):
                self._claim(self.model.wrong(reading, data, size, offset))
        except (OSError, ClosedFileError) as error:
            self._judge(error, before, file)
        finally:
            self.model.end_read(reading)

    async def _stat(self, file: AIOFile) -> None:
        before = self.kernel.errors
        reading = self.model.begin_read()
        try:
            status = await file.stat()
            self._claim(self.model.wrong_size(reading, status.st_size))
        except (OSError, ClosedFileError) as error:
            self._judge(error, before, file)
        finally:
            self.model.end_read(reading)

    async def _advise(self, file: AIOFile) -> None:
        before = self.kernel.errors
        advice = self.rng.choice([os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED])
        try:
            await file.fadvise(self._offset(), self.rng.choice([0, 100, 1 << 33]), advice)
        except (OSError, ClosedFileError) as error:
            self._judge(error, before, file)

    # ---- writing -----------------------------------------------------------------------------

    def _write_somehow(self, file: AIOFile) -> None:
        if not file.mode.writable:
            return
        if file.mode.appending:
            if self._quiet():
                self.spawn("append", self._append(file, self._data()))
            return
        if not self.model.may_write:
            self.settle()
            return
        r = self.rng.random()
        if r < 0.7:
            data = self._data()
            if r < 0.1:
                data = bytearray(data)
            self.spawn("write", self._write(file, data, self._offset()))
        else:
            ranges = [(self._data(), self._offset()) for _ in range(self.rng.randrange(5))]
            self.spawn("write_many", self._write_many(file, ranges))

    async def _write(self, file: AIOFile, data: Any, offset: int) -> None:
        if not self.model.may_write:  # since it was decided upon
            return
        before = self.kernel.errors
        change = self.model.begin_write(offset, bytes(data))
        landed, gone = 0, False
        was_open = not file.closed
        try:
            landed = await file.write(data, offset)
            gone = True
            if landed != len(data):
                raise self.world.fail(f"write gave {landed}, not {len(data)}")
        except OSError as error:
            self._judge(error, before, file)
            landed, gone = error.characters_written, True  # type: ignore[attr-defined]
        except ClosedFileError:
            gone = True
            if was_open:
                raise self.world.fail("close() has not waited for a write") from None
        finally:
            self.model.end_write(change, landed, gone=gone)

    async def _append(self, file: AIOFile, data: bytes) -> None:
        if not self._quiet() or self.appending is not None:
            return
        self.appending = len(self.model.content)
        try:
            await self._write_at_end(file, data)
        finally:
            self.appending = None

    async def _write_at_end(self, file: AIOFile, data: bytes) -> None:
        before = self.kernel.errors
        assert self.appending is not None
        change = self.model.begin_write(self.appending, data)
        landed, gone = 0, False
        try:
            landed = await file.write(data, self.rng.randrange(9))
            gone = True
        except OSError as error:
            self._judge(error, before, file)
            landed = error.characters_written  # type: ignore[attr-defined]
        except ClosedFileError:
            gone = True
        finally:
            if not gone:
                self.model.frozen = True  # where the end is now nobody knows
            self.model.end_write(change, landed, gone=gone)

    async def _write_many(self, file: AIOFile, ranges: list[tuple[bytes, int]]) -> None:
        if not self.model.may_write:
            return
        before = self.kernel.errors
        was_open = not file.closed
        changes = [self.model.begin_write(offset, data) for data, offset in ranges]
        landed, gone = [0] * len(ranges), False
        try:
            found = await file.write_many(ranges)
            gone = True
            if found != [len(data) for data, _ in ranges]:
                raise self.world.fail(f"write_many gave {found}")
            landed = found
        except OSError as error:
            self._judge(error, before, file)
            gone = True
        except ClosedFileError:
            gone = True
            if was_open:
                raise self.world.fail("close() has not waited for write_many") from None
        finally:
            for change, n in zip(changes, landed, strict=True):
                self.model.end_write(change, n, gone=gone)

    async def _truncate(self, file: AIOFile, size: int, allocate: bool) -> None:
        if not self._quiet():
            return
        old = len(self.model.content)
        if allocate:
            size += old  # it grows
        before = self.kernel.errors
        self.model.begin_truncate(size)
        outcome: bool | None = None
        try:
            if allocate:
                await file.allocate(size - old or 1, old if size > old else old - 1)
            else:
                await file.truncate(size)
            outcome = True
        except (OSError, ClosedFileError) as error:
            self._judge(error, before, file)
        finally:
            self.model.end_truncate(outcome)

    async def _sync(self, file: AIOFile, data_only: bool) -> None:
        if file.closed:
            return
        before, writes = self.kernel.errors, self.kernel.writes
        told, failed = self.sync_error, self.kernel.failed_syncs
        try:
            await (file.fdsync() if data_only else file.fsync())
            if told is not None:
                raise self.world.fail(f"a sync succeeds after one failed with {told}")
            if self.kernel.synced < writes:
                raise self.world.fail("a sync did not cover the writes before it")
        except ClosedFileError as error:
            self._judge(error, before, file)
        except OSError as error:
            if told is not None and error.errno != told:
                raise self.world.fail(f"a sync fails with {error!r} after {told}") from error
            if told is None and self.kernel.failed_syncs == failed and self.sync_error is None:
                raise self.world.fail(f"{error!r}, which no sync has given") from error
            if error.errno in _LASTING and file is self.file:
                self.sync_error = self.sync_error or error.errno

    # ---- coroutines that are not tasks --------------------------------------------------------

    def _abandoned_coroutine(self, file: AIOFile) -> None:
        """Begun, and closed instead of cancelled."""
        if not file.mode.readable:
            return
        call = file.read(self._length(), self._offset())
        try:
            call.send(None)
        except StopIteration:
            pass
        except (OSError, ClosedFileError):
            pass
        else:
            call.close()
