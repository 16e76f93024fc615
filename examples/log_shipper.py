#!/usr/bin/env python3
"""Sends the lines of logs to an HTTP server, as they are written, through rotation and restarts.

    log_shipper.py --to http://127.0.0.1:9000/logs --state shipper.json app.log access.log

A POST has lines of one log, and its name in the header X-Log. It is repeated, ever more slowly,
until the answer is 2xx; one that says that the request is wrong (4xx, but for 408 and 429) ends the
program. How far each log was sent stands in the state file. So every line arrives, in order, at
least once: after a kill the last ones may come again.

A file that was rotated away (app.log.1, app.log-20250101) is found by its inode and sent to its
end, and then what came after it, also when the shipper did not run or the server did not answer
meanwhile. What was compressed or deleted before it was sent is missing, and reported. What
copytruncate cuts off before it was read is lost. A log that is not in the state file yet is sent
from its beginning, without what was rotated before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import glob
import http.client
import json
import os
import random
import signal
import stat
import sys
import zlib
from contextlib import AsyncExitStack
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from uringfile import ClosedFileError, LogReader, atomic_write

# Seconds before the second attempt to send, and the most between two.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0

# The bytes at the beginning by which a file is known again: inodes are used anew.
HEAD = 256

# Other files beside a log: compressed ones, and what LogWriter is about to make.
OTHERS = (".gz", ".bz2", ".xz", ".zst", ".new", ".partial")


class NotSent(Exception):
    """The server does not want it, now or later; or there is no time left to ask again."""


class Place(NamedTuple):
    """How far a log was sent: where in which file."""

    inode: int
    offset: int
    mtime_ns: int
    head: int  # checksum of the first bytes
    #: Whether the reader has left the file: nothing more comes there.
    left: bool = False

    @classmethod
    def of(cls, reader: LogReader) -> Place:
        """Behind the last line that the reader has given out."""
        fd, offset = reader.fileno(), reader.offset
        status = os.fstat(fd)
        return cls(status.st_ino, offset, status.st_mtime_ns, head(fd, offset))

    @classmethod
    def at_beginning(cls, path: str) -> Place:
        status = os.stat(path)
        return cls(status.st_ino, 0, status.st_mtime_ns, zlib.crc32(b""))

    def is_in(self, path: str) -> bool:
        fd = os.open(path, os.O_RDONLY)
        try:
            status = os.fstat(fd)
            return (
                status.st_ino == self.inode
                and status.st_size >= self.offset
                and head(fd, self.offset) == self.head
            )
        finally:
            os.close(fd)


def head(fd: int, offset: int) -> int:
    return zlib.crc32(os.pread(fd, min(HEAD, offset), 0))


class Unsent(NamedTuple):
    """A file that has what was not sent, from ``offset`` on; its inode, if it is there."""

    path: str
    offset: int
    inode: int | None


def unsent(path: str, place: Place | None) -> list[Unsent]:
    """The files of a log that are to be sent, the oldest first; the last is the log itself.
    Raises ``FileNotFoundError`` if one is renamed meanwhile: call it again."""
    inode = os.stat(path).st_ino if os.path.exists(path) else None
    log = Unsent(path, 0, inode)
    if place is None:
        return [log]
    if inode is not None and place.is_in(path):
        return [log._replace(offset=place.offset)]
    rotated = []
    for name in glob.glob(glob.escape(path) + "[.-]*"):
        status = os.lstat(name)  # a link that dangles is no file that was renamed
        if stat.S_ISREG(status.st_mode) and status.st_ino != inode and not name.endswith(OTHERS):
            rotated.append((status.st_mtime_ns, name, status.st_ino))
    rotated.sort()
    begun = [Unsent(name, place.offset, ino) for _, name, ino in rotated if place.is_in(name)]
    if not begun and not place.left:
        complain(f"{path}: the rest of the file with inode {place.inode} is gone")
    later = [Unsent(name, 0, ino) for changed, name, ino in rotated if changed >= place.mtime_ns]
    return [*begun, *[file for file in later if not place.is_in(file.path)], log]


class State:
    """How far each log was sent, in a file that is replaced as a whole."""

    def __init__(self, path: str) -> None:
        """Raises ``OSError`` and ``ValueError`` if there is one that cannot be read."""
        self.path = path
        self.places: dict[str, Place] = {}
        self._saved: dict[str, Place] = {}
        if os.path.exists(path):
            with open(path) as file:
                self.places = {log: Place(**place) for log, place in json.load(file).items()}

    async def begin(self, logs: list[str]) -> None:
        """Remember the logs that are new, before anything happens to them."""
        for log in logs:
            if log not in self.places and os.path.exists(log):
                self.places[log] = Place.at_beginning(log)
        await self.save()

    async def save(self) -> None:
        if self.places != self._saved:
            places = dict(self.places)
            async with atomic_write(self.path) as file:
                text = json.dumps({log: place._asdict() for log, place in places.items()}, indent=1)
                await file.write(text + "\n")
            self._saved = places

    async def save_every(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self.save()


class Sink:
    """The server that gets it all."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = urlsplit(url)
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise ValueError(f"{url!r} is no URL such as http://HOST:PORT/PATH")
        self.timeout = timeout
        self.stop = asyncio.Event()

    async def send(self, name: str, data: bytes) -> None:
        """Returns when the server has it; tries again until then, or until ``stop`` is set.
        Raises ``NotSent``."""
        pause = FIRST_PAUSE
        while True:
            try:
                status = await asyncio.to_thread(self._post, name, data)
            except (OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            else:
                if 200 <= status < 300:
                    return
                problem = f"status {status}"
                if 400 <= status < 500 and status not in (408, 429):
                    raise NotSent(f"{self.url.geturl()} refuses lines of {name}: {problem}")
            complain(f"{self.url.geturl()}: {problem}; again in {pause:.1f} s")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stop.wait(), pause * random.uniform(0.5, 1.0))
                raise NotSent("stopped")
            pause = min(2 * pause, LONGEST_PAUSE)

    def _post(self, name: str, data: bytes) -> int:
        https = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = connect(self.url.hostname or "", self.url.port, timeout=self.timeout)
        try:
            target = (self.url.path or "/") + ("?" + self.url.query if self.url.query else "")
            headers = {"Content-Type": "text/plain", "X-Log": quote(name)}
            connection.request("POST", target, data, headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()


async def ship(path: str, sink: Sink, state: State) -> None:
    """Send all of a log, now and in the future."""
    while True:
        async with AsyncExitStack() as stack:
            try:
                # All of them are opened before they can be renamed again.
                readers = []
                for file in unsent(path, state.places.get(path)):
                    follow = file.path == path
                    reader = LogReader(file.path, offset=file.offset, follow=follow)
                    readers.append(await stack.enter_async_context(reader))
                    if file.inode not in (None, os.fstat(reader.fileno()).st_ino):
                        raise FileNotFoundError
            except (FileNotFoundError, ClosedFileError):  # it was renamed meanwhile
                await asyncio.sleep(0.1)
                continue
            for reader in readers:
                await ship_file(path, reader, sink, state)


async def ship_file(path: str, reader: LogReader, sink: Sink, state: State) -> None:
    """Send one file; the log itself until it is rotated away."""
    place: Place | None = None
    async for lines in reader.batches():
        new = Place.of(reader)
        if place is not None and new.inode != place.inode:
            # While the server did not answer there may have been other files in between.
            state.places[path] = place._replace(left=True)
            return
        place = new
        delivery = asyncio.ensure_future(deliver(path, b"".join(lines), new, sink, state))
        try:
            await asyncio.shield(delivery)
        except asyncio.CancelledError:
            await asyncio.wait([delivery])  # else the lines would come again
            raise


async def deliver(path: str, data: bytes, place: Place, sink: Sink, state: State) -> None:
    await sink.send(path, data)
    state.places[path] = place


async def run(args: argparse.Namespace) -> None:
    sink, state = Sink(args.to, args.timeout), State(args.state)
    logs = [os.path.abspath(log) for log in args.logs]
    await state.begin(logs)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, sink.stop.set)
    work = [sink.stop.wait(), state.save_every(args.save_interval)]
    tasks = [asyncio.ensure_future(one) for one in work]
    tasks += [asyncio.ensure_future(ship(log, sink, state)) for log in logs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        sink.stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await state.save()


# ---- the command -----------------------------------------------------------------------


def complain(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send the lines of logs to an HTTP server.")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="there need be no such file yet")
    parser.add_argument("--to", required=True, metavar="URL", help="where to POST the lines")
    parser.add_argument("--state", required=True, metavar="FILE", help="how far each log was sent")
    parser.add_argument("--timeout", type=float, default=10, metavar="S", help="of a POST, 10 s")
    interval = "seconds between two saves of the state, 1"
    parser.add_argument("--save-interval", type=float, default=1, metavar="S", help=interval)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    try:
        asyncio.run(run(parse(arguments)))
    except (NotSent, OSError, ValueError, TypeError) as error:
        complain(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
