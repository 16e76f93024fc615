#!/usr/bin/env python3
"""A key-value store in one file, that survives kill -9 and power cuts.

Every change is a record at the end of a log; an index in memory tells where each value stands.
What `put` and `delete` have returned for is on the disk. Changes that arrive at the same time
share one write and one sync. Values are read from the file, many with one await.

    store = await Store("data.kv").open()
    await store.put(b"key", b"value")
    print(await store.get(b"key"))

From the shell (needs `pip install 'uringfile[framed]'`):

    kv.py data.kv put KEY VALUE | get KEY ... | delete KEY | list | load <LINES | compact | repair
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

import uringfile.os
from uringfile import AIOFile, ClosedFileError, CorruptLogError, LogReader, LogWriter, recover

PUT, DELETE = 1, 0

# What was done, and the length of the key; then the key, then the value.
CHANGE = struct.Struct("<BI")

# Beside the record itself, a framed log has its length and checksum.
FRAME_SIZE = 8

# What is read, and held in memory, at a time where all values are gone through.
BATCH_BYTES = 1 << 20


class Place(NamedTuple):
    """Where a value stands in the file."""

    offset: int
    size: int


def change(what: int, key: bytes, value: bytes = b"") -> bytes:
    return CHANGE.pack(what, len(key)) + key + value


def parse_change(record: bytes) -> tuple[int, bytes, int]:
    """What was done, the key, and the size of the value, which comes last."""
    what, key_size = CHANGE.unpack_from(record)
    end = CHANGE.size + key_size
    return what, record[CHANGE.size : end], len(record) - end


class Index(dict[bytes, Place]):
    """What the log says up to ``end``: from a key to its value's place."""

    def __init__(self) -> None:
        super().__init__()
        #: Behind the last change that is in here.
        self.end = 0
        #: Bytes of the log that a compaction keeps.
        self.live = 0
        #: Where the last change of a key ends, for those that are being changed.
        self.recent: dict[bytes, int] = {}

    def apply(self, record: bytes, end: int) -> None:
        """A change whose record ends there; of those of one key the last in the log counts,
        whichever is heard of first."""
        what, key, size = parse_change(record)
        if end < self.recent.get(key, 0):
            return
        self.recent[key] = end
        old = self.pop(key, None)
        if old is not None:
            self.live -= record_size(key, old.size)
        if what == PUT:
            self[key] = Place(end - size, size)
            self.live += record_size(key, size)
        self.end = max(self.end, end)


def record_size(key: bytes, value_size: int) -> int:
    return FRAME_SIZE + CHANGE.size + len(key) + value_size


class Store:
    """Keys and values are bytes. For any number of tasks of one event loop.

    Checksums are looked at when the store is opened or compacted, not at each `get`. The
    first error of the disk is final: close the store, and open it anew.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._index = Index()
        self._is_open = False
        self._writes: set[asyncio.Task[None]] = set()
        self._may_write = asyncio.Event()
        self._compacting = asyncio.Lock()

    # ---- open and close ---------------------------------------------------------------

    async def open(self) -> Store:
        """Read the log. Raises ``BlockingIOError`` if the store is open elsewhere, and
        ``CorruptLogError`` if it is damaged in a way that no crash explains."""
        # A file of its own is locked, because compaction replaces the log.
        self._lock = open(f"{self.path}.lock", "wb")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._new_path)  # of a compaction that was killed
            # This cuts a torn end, and makes durable what is left.
            async with contextlib.AsyncExitStack() as stack:
                log = await stack.enter_async_context(open_log(self.path))
                file = await stack.enter_async_context(AIOFile(self.path, "rb"))
                index = Index()
                async with LogReader(self.path, framed=True) as records:
                    async for record in records:
                        index.apply(record, records.offset)
                index.recent.clear()
                stack.pop_all()
        except BaseException:
            self._lock.close()
            raise
        self._log, self._file, self._index = log, file, index
        self._is_open = True
        self._may_write.set()
        return self

    async def close(self) -> None:
        """Wait for the changes under way, and close."""
        async with self._compacting:
            if self._is_open:
                self._is_open = False
                await self._pause()
                try:
                    await self._log.close()
                finally:
                    self._may_write.set()  # who waits is told that it is closed
                    await self._file.close()
                    self._lock.close()

    async def __aenter__(self) -> Store:
        return await self.open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # ---- changes ----------------------------------------------------------------------

    async def put(self, key: bytes, value: bytes) -> None:
        """Set a value; it is on the disk when this returns. Cancelled, it still lands."""
        await self._write(change(PUT, key, value))

    async def delete(self, key: bytes) -> None:
        """Remove a key, if it is there; on the disk when this returns."""
        await self._write(change(DELETE, key))

    async def _write(self, record: bytes) -> None:
        while not self._may_write.is_set():
            await self._may_write.wait()
        if not self._is_open:
            raise ClosedFileError(f"the store {self.path!r} is not open")
        # A task, because the index must learn of what lands, whoever is cancelled.
        task = asyncio.create_task(self._append(record))
        self._writes.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    async def _append(self, record: bytes) -> None:
        self._index.apply(record, await self._log.append(record))

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not self._writes:
            self._index.recent.clear()
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more

    async def _pause(self) -> None:
        """Let no change begin, and wait for those under way."""
        self._may_write.clear()
        await asyncio.gather(*self._writes, return_exceptions=True)

    # ---- reading ------------------------------------------------------------------------

    async def get(self, key: bytes) -> bytes | None:
        """The value, or ``None``."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of all these keys, as of one moment, read with one submission."""
        keys = list(keys)
        while self._is_open:
            file, index = self._file, self._index
            places = [index.get(key) for key in keys]
            try:
                found = await file.read_many([(p.size, p.offset) for p in places if p])
            except ClosedFileError:
                if file is self._file:
                    raise
                continue  # it was compacted meanwhile
            values = iter(found)
            return [next(values) if place else None for place in places]
        raise ClosedFileError(f"the store {self.path!r} is not open")

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._index)

    async def items(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Keys and values, those that are there from beginning to end of this."""
        for keys in batches(self._index):
            for key, value in zip(keys, await self.get_many(keys), strict=True):
                if value is not None:
                    yield key, value

    # ---- compaction ---------------------------------------------------------------------

    @property
    def garbage(self) -> int:
        """Bytes of the file that a compaction would free."""
        return self._index.end - self._index.live

    @property
    def _new_path(self) -> str:
        return f"{self.path}.new"

    async def compact(self) -> None:
        """Write what is live to a new file, which then takes the place of the old one.

        Reads and changes go on meanwhile; changes stop for the last step, that copies those
        that came late. Killed at any moment, the store is the old or the new one, whole. An
        error before the last step leaves it as it was.
        """
        async with self._compacting:
            if not self._is_open:
                raise ClosedFileError(f"the store {self.path!r} is not open")
            new = LogWriter(self._new_path, framed=True, sync="never")
            try:
                await finish(new.open())  # cancelled, it might make the file afterwards
                async with LogReader(self.path, framed=True) as records:
                    index = await self._copy_live(records, new)
                    await self._pause()
                    async for record in records:  # what came late, deletions too
                        index.apply(record, await add(new, record))
                await new.sync()
                await new.close()
            except BaseException:
                with contextlib.suppress(OSError):
                    await new.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._new_path)
                self._may_write.set()
                raise
            await finish(self._switch(index))

    async def _copy_live(self, records: LogReader, new: LogWriter) -> Index:
        """What is in the index now. From the log, because that has checksums."""
        await self._pause()
        live, end, index = dict(self._index), self._index.end, Index()
        self._may_write.set()
        while records.offset < end:
            record = await anext(records)
            _, key, size = parse_change(record)
            if live.get(key) == Place(records.offset - size, size):
                index.apply(record, await add(new, record))
        return index

    async def _switch(self, index: Index) -> None:
        """The new file is complete and durable: give it the name."""
        old = self._file
        try:
            await self._log.close()
            await replace_durably(self._new_path, self.path)
            log = await open_log(self.path)
            try:
                file = await AIOFile(self.path, "rb")
            except BaseException:
                await log.close()
                raise
            self._log, self._file, self._index = log, file, index
        except BaseException:
            # Which of the two files a power cut would leave is not known.
            self._is_open = False
            self._lock.close()
            raise
        finally:
            self._may_write.set()
            await old.close()


def open_log(path: str) -> LogWriter:
    return LogWriter(path, framed=True, sync="always")


async def add(log: LogWriter, record: bytes) -> int:
    """Append without waiting for the write, unless too much waits for it already."""
    try:
        return log.append_nowait(record)
    except BufferError:
        await log.drain()
        return log.append_nowait(record)


def batches(places: dict[bytes, Place]) -> Iterator[list[bytes]]:
    """The keys in the order of the file, in lists with values of some BATCH_BYTES."""
    keys: list[bytes] = []
    size = 0
    for key, place in sorted(places.items(), key=lambda item: item[1]):
        keys.append(key)
        size += place.size + 1024
        if size >= BATCH_BYTES:
            yield keys
            keys, size = [], 0
    yield keys


async def replace_durably(source: str, target: str) -> None:
    """rename(2), and fsync of the directory: without that a power cut may undo it."""
    await uringfile.os.rename(source, target)
    await uringfile.fsync_dir(os.path.dirname(target))


async def finish(work: Coroutine[Any, Any, object]) -> None:
    """Do it to its end, also when cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


# ---- the command -----------------------------------------------------------------------


async def command(args: argparse.Namespace) -> int:
    if args.command == "repair":
        found = await recover(args.path, framed=True, cut_damage=True)
        print(f"{found.end} bytes kept, {found.cut} cut")
        return 0
    async with Store(args.path) as store:
        if args.command == "put":
            await store.put(os.fsencode(args.key), os.fsencode(args.value))
        elif args.command == "delete":
            await store.delete(os.fsencode(args.key))
        elif args.command == "get":
            values = await store.get_many([os.fsencode(key) for key in args.keys])
            print_bytes(*[value + b"\n" for value in values if value is not None])
            return 1 if None in values else 0
        elif args.command == "list":
            async for key, value in store.items():
                print_bytes(key, b"\t", value, b"\n")
        elif args.command == "load":
            await load(store)
        elif args.command == "compact":
            garbage = store.garbage
            await store.compact()
            print(f"{garbage} bytes freed")
    return 0


async def load(store: Store) -> None:
    """Lines of key, tab and value. Each lot of them shares a sync."""
    while lines := await asyncio.to_thread(sys.stdin.buffer.readlines, 100_000):
        pairs = [line.rstrip(b"\n").partition(b"\t") for line in lines]
        await asyncio.gather(*[store.put(key, value) for key, _, value in pairs])


def print_bytes(*pieces: bytes) -> None:
    sys.stdout.buffer.write(b"".join(pieces))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A key-value store in one file.")
    parser.add_argument("path", help="the file of the store; made by the first command")
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("put", help="set a value")
    put.add_argument("key")
    put.add_argument("value")
    get = commands.add_parser("get", help="print values, each on a line; 1 if one is missing")
    get.add_argument("keys", nargs="+", metavar="key")
    commands.add_parser("delete", help="remove a key").add_argument("key")
    commands.add_parser("list", help="print all as lines of key, tab, value")
    commands.add_parser("load", help="read such lines from standard input")
    commands.add_parser("compact", help="free the space of what was replaced or deleted")
    commands.add_parser("repair", help="cut a damaged store behind its last sound change")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        return asyncio.run(command(args))
    except CorruptLogError as error:
        print(f"{error}; 'repair' cuts off all behind {error.offset}", file=sys.stderr)
    except OSError as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
