#!/usr/bin/env python3
"""A queue on the disk: what was put in is given out, whatever is killed in between.

An item is a record of a log, that a cursor goes along. `put` returns when the item is on the
disk; items that are put at the same time share a sync. An item that was given out and not
acknowledged is given out again when the queue is opened anew: each at least once, in order.
Consumed segments of the log are deleted.

    async with Queue("spool") as queue:
        await queue.put(b"item")
        item = await queue.get()          # waits for one
        print(item.data)
        await queue.ack(item)

One process may put while another one gets; each is refused (`BlockingIOError`) where another does
the same. From the shell (needs `pip install 'uringfile[framed]'`):

    durable_queue.py spool put [ITEM ...] <LINES | get [-n N] [--wait] | size
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import struct
import sys
import time
import zlib
from typing import NamedTuple

import uringfile.os
from uringfile import AIOFile, CorruptLogError, LogReader, LogWriter, fsync_dir

CURSOR = struct.Struct(">QQI")  # a place, and its checksum


class Place(NamedTuple):
    """A place in the log. Segment n is log.n, or log itself while that is written."""

    number: int
    offset: int

    @property
    def checksum(self) -> int:
        return zlib.crc32(b"%d %d" % self)


class Item(NamedTuple):
    """What was given out."""

    data: bytes
    begin: Place
    end: Place


class Queue:
    """A directory with a log and a cursor. For any number of tasks of one event loop.

    ``segment_size``: bytes after which another file of the log begins. ``poll``: seconds between
    two looks at what another process may have put in.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, segment_size: int = 64 << 20, poll: float = 0.1
    ) -> None:
        self.path = os.path.abspath(path)
        self._log_path = f"{self.path}/log"
        self._poll = poll
        self._log = LogWriter(self._log_path, framed=True, rotate_size=segment_size)
        self._put = asyncio.Event()
        self._getting = asyncio.Lock()
        self._acking = asyncio.Lock()
        self._file: AIOFile | None = None  # of the cursor: this object is the one that gets
        self._reader: LogReader | None = None
        self._read_to = Place(1, 0)
        self._cursor = Place(1, 0)
        self._durable = Place(1, 0)
        # Given out and not acknowledged: from where an item ends to where it begins.
        self._unacknowledged: dict[Place, Place] = {}

    async def __aenter__(self) -> Queue:
        await uringfile.os.makedirs(self.path, exist_ok=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        async with self._getting, self._acking, contextlib.AsyncExitStack() as stack:
            for file in (self._file, self._reader, self._log):
                if file is not None:
                    stack.push_async_callback(file.close)

    # ---- putting ------------------------------------------------------------------------

    async def put(self, data: bytes) -> None:
        """Add an item; it is on the disk when this returns. Cancelled, it may still land."""
        await self._log.open()  # nothing, if it is open
        await self._log.append(data)
        self._put.set()

    # ---- getting ------------------------------------------------------------------------

    async def get(self) -> Item:
        """The next item; waits for one. Cancelled, it takes none."""
        while True:
            self._put.clear()
            item = await self.get_now()
            if item is not None:
                return item
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._put.wait(), self._poll)

    async def get_now(self) -> Item | None:
        """The next item, or ``None`` if there is none. Raises ``BlockingIOError`` if another
        process gets from this queue."""
        async with self._getting:
            if self._file is None:
                await self._begin_to_get()
            data = await self._next()
            if data is None:
                return None
            assert self._reader is not None
            item = Item(data, self._read_to, self._read_to._replace(offset=self._reader.offset))
            self._read_to = item.end
            self._unacknowledged[item.end] = item.begin
            return item

    async def _next(self) -> bytes | None:
        while True:
            if self._reader is None:
                self._reader = await self._open_segment(self._read_to)
            if self._reader is None:
                return None
            data = await anext(self._reader, None)
            if data is None and await self._is_complete(self._read_to.number):
                data = await anext(self._reader, None)  # what came last
                if data is None:
                    await self._leave(self._reader)
                    continue
            return data

    async def _leave(self, reader: LogReader) -> None:
        """Go on to the next segment. What the cursor says must be true after a power cut, too:
        neither this segment nor its name may be lost when the cursor is not."""
        await self._sync(reader)
        await fsync_dir(self.path)
        self._reader, self._read_to = None, Place(self._read_to.number + 1, 0)
        await reader.close()

    async def ack(self, item: Item) -> None:
        """The item is done with; of items that are acknowledged out of order the cursor goes
        behind those before which none is left. Survives a kill when this returns; after a power
        cut items that were acknowledged last may come again."""
        del self._unacknowledged[item.end]
        async with self._acking:
            cursor = next(iter(self._unacknowledged.values()), self._read_to)
            if cursor <= self._cursor:
                return  # another call has done it
            assert self._file is not None
            if cursor > self._durable and self._reader is not None:
                await self._sync(self._reader)
            await self._file.write(CURSOR.pack(*cursor, cursor.checksum))
            if cursor.number > self._cursor.number:
                await self._delete_before(cursor.number)
            self._cursor = cursor

    async def _sync(self, reader: LogReader) -> None:
        """What has been read may not be on the disk yet: the write may be under way."""
        number = self._read_to.number
        fd = os.dup(reader.fileno())
        try:
            file = await AIOFile(fd, "rb")
        except BaseException:  # cancelled: it is not the file's yet
            os.close(fd)
            raise
        try:
            size = (await file.stat()).st_size
            await file.fdsync()
        finally:
            await file.close()
        self._durable = max(self._durable, Place(number, size))

    async def size(self) -> int:
        """How many items there are that are not acknowledged; reads through all of them."""
        place = self._cursor if self._file is not None else self._stored_cursor()
        count = 0
        while (reader := await self._open_segment(place)) is not None:
            async with reader:
                complete = await self._is_complete(place.number)
                async for batch in reader.batches():
                    count += len(batch)
            if not complete:
                break
            place = Place(place.number + 1, 0)
        return count

    # ---- files --------------------------------------------------------------------------

    async def _begin_to_get(self) -> None:
        with open(f"{self.path}/cursor", "ab"):
            pass  # there is one now
        file = await AIOFile(f"{self.path}/cursor", "rb+")
        try:
            await lock(file.fileno())
            self._cursor = self._read_to = self._stored_cursor()
        except BaseException:
            await file.close()
            raise
        self._file = file

    def _stored_cursor(self) -> Place:
        """Where the cursor is, or the first segment that is left."""
        numbers = self._rotated()
        first = Place(numbers[0] if numbers else 1, 0)
        with contextlib.suppress(FileNotFoundError, struct.error):
            with open(f"{self.path}/cursor", "rb") as file:
                *numbers, checksum = CURSOR.unpack(file.read())
            if (place := Place(*numbers)).checksum == checksum:
                return max(first, place)
        return first

    def _rotated(self) -> list[int]:
        """The numbers of the segments that are complete, or about to be."""
        suffixes = [name.partition(".")[2] for name in os.listdir(self.path)]
        return sorted([int(suffix) for suffix in suffixes if suffix.isdecimal()])

    def _segment(self, number: int) -> str:
        return f"{self._log_path}.{number:06d}"

    async def _open_segment(self, place: Place) -> LogReader | None:
        """``None`` if there is no log yet."""
        rotated = self._segment(place.number)
        while True:
            is_rotated = await uringfile.os.path.exists(rotated)
            path = rotated if is_rotated else self._log_path
            reader = LogReader(path, framed=True, offset=place.offset)
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(reader.close)
                try:
                    await reader.open()
                except FileNotFoundError:
                    if is_rotated or await uringfile.os.path.exists(rotated):
                        continue
                    return None
                if not is_rotated and await uringfile.os.path.exists(rotated):
                    continue  # it got its number in between
                if os.fstat(reader.fileno()).st_size < place.offset:
                    raise OSError(errno.EIO, "the log ends before the cursor", path)
                stack.pop_all()
                return reader

    async def _is_complete(self, number: int) -> bool:
        """Whether the segment has its number, and another file is written. A rotation gives the
        number first; killed then, it is taken back."""
        try:
            numbered = await uringfile.os.stat(self._segment(number))
            written = await uringfile.os.stat(self._log_path)
        except FileNotFoundError:
            return False
        return not os.path.samestat(numbered, written)

    async def _delete_before(self, number: int) -> None:
        """All but the newest, from which the next number is made."""
        for old in self._rotated()[:-1]:
            if old < number:
                await uringfile.os.unlink(self._segment(old))


# ---- the command -----------------------------------------------------------------------


async def lock(fd: int, seconds: float = 0.5) -> None:
    """An exclusive flock(2), or ``BlockingIOError``. A process that was killed lets go of its own
    a moment after its end: io_uring closes files in the background."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await asyncio.sleep(0.005)
    return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def command(args: argparse.Namespace) -> int:
    async with Queue(args.path, segment_size=args.segment_size) as queue:
        if args.command == "size":
            print(await queue.size())
        elif args.command == "put":
            await put(queue, [os.fsencode(item) for item in args.items])
        else:
            return await get(queue, args.count, args.wait)
    return 0


async def put(queue: Queue, items: list[bytes]) -> None:
    """These, or the lines of standard input; each lot of them shares a sync."""
    if items:
        await asyncio.gather(*map(queue.put, items))
        return
    while lines := await asyncio.to_thread(sys.stdin.buffer.readlines, 100_000):
        await asyncio.gather(*[queue.put(line.rstrip(b"\n")) for line in lines])


async def get(queue: Queue, count: int, wait: bool) -> int:
    """Print items. Whoever reads them has them before they are acknowledged."""
    for done in range(count) if count else itertools.count():
        item = await (queue.get() if wait else queue.get_now())
        if item is None:
            return 1 if not done else 0
        sys.stdout.buffer.write(item.data + b"\n")
        sys.stdout.buffer.flush()
        await queue.ack(item)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A queue on the disk.")
    parser.add_argument("path", help="the directory of the queue; made by the first command")
    size = "bytes after which a new file is begun"
    parser.add_argument("--segment-size", type=int, default=64 << 20, metavar="BYTES", help=size)
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("put", help="add items, or the lines of standard input")
    put.add_argument("items", nargs="*", metavar="item")
    get = commands.add_parser("get", help="take items out and print them; 1 if there is none")
    get.add_argument("-n", "--count", type=int, default=1, help="1 by default; 0: all")
    get.add_argument("--wait", action="store_true", help="wait for items that are not there yet")
    commands.add_parser("size", help="print how many items are in the queue")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        return asyncio.run(command(args))
    except KeyboardInterrupt:
        return 130
    except BlockingIOError:
        print(f"{args.path}: another process is doing the same with it", file=sys.stderr)
    except (CorruptLogError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
