#!/usr/bin/env python3
"""Checksums of many files and of large ones, as sha256sum prints and checks them, in parallel.

    checksum.py FILE ... >SHA256SUMS          the lines are those of sha256sum
    checksum.py --check SHA256SUMS            as sha256sum --check
    find . -type f -print0 | checksum.py --files0-from -

The kernel reads; threads hash, since hashlib lets go of the GIL. While one piece of a file is
hashed the next one is read. At most JOBS files are open, with two pieces of 1 MiB in memory each.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from uringfile import AIOFile

PIECE = 1 << 20

STDIN = b"-"

# What costs less to hash than to hand to a thread.
SMALL = 16 * 1024

ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b")

# "\" before the checksum tells that the name is escaped; "*" before the name, binary mode.
LINE = re.compile(rb"(\\?)([0-9a-fA-F]+) [ *](.+)", re.DOTALL)

ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}


async def digest(path: bytes, algorithm: str, threads: ThreadPoolExecutor) -> str:
    """The checksum of a file, as hexadecimal digits. Raises ``OSError``."""
    run = asyncio.get_running_loop().run_in_executor
    found = hashlib.new(algorithm, usedforsecurity=False)
    async with AIOFile(os.dup(0) if path == STDIN else path, "rb") as file:
        piece, offset = await file.read_bytes(PIECE), 0
        while piece:
            offset += len(piece)
            if len(piece) <= SMALL:
                found.update(piece)
                piece = await file.read_bytes(PIECE, offset)
            else:
                hashing = run(threads, found.update, piece)
                piece = await file.read_bytes(PIECE, offset)
                await hashing
    return found.hexdigest()


async def digests(
    paths: Iterable[bytes], algorithm: str, jobs: int
) -> AsyncIterator[tuple[bytes, str | OSError]]:
    """Path and checksum of each, in their order; an error in the place of the checksum."""
    threads = ThreadPoolExecutor(os.cpu_count())
    window: deque[tuple[bytes, asyncio.Task[str]]] = deque()

    async def outcome(task: asyncio.Task[str]) -> str | OSError:
        try:
            return await task
        except OSError as error:
            return error

    try:
        for path in paths:
            window.append((path, asyncio.create_task(digest(path, algorithm, threads))))
            if len(window) == jobs:
                done, task = window.popleft()
                yield done, await outcome(task)
        while window:
            done, task = window.popleft()
            yield done, await outcome(task)
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*[task for _, task in window], return_exceptions=True)
        threads.shutdown()


# ---- what sha256sum prints and reads ---------------------------------------------------


def escaped(path: bytes) -> tuple[bytes, bytes]:
    """A backslash, if the name has what would break the line, and the name."""
    name = re.sub(rb"[\\\n\r]", lambda match: ESCAPES[match[0]], path)
    return b"\\" if name != path else b"", name


def parse_line(line: bytes, size: int) -> tuple[bytes, str] | None:
    """Path and checksum of ``size`` digits; ``None`` if the line is none of ours."""
    match = LINE.fullmatch(line.rstrip(b"\n"))
    if match is None or len(match[2]) != size:
        return None
    path = match[3]
    if match[1]:
        unescape = {value: key for key, value in ESCAPES.items()}
        path = re.sub(rb"\\.", lambda found: unescape.get(found[0], found[0]), path)
    return path, match[2].decode().lower()


def write(*pieces: bytes) -> None:
    sys.stdout.buffer.write(b"".join(pieces))


def complain(message: str) -> None:
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)


def tell(error: OSError) -> None:
    complain(f"{os.fsdecode(error.filename)}: {error.strerror}")


async def print_all(args: argparse.Namespace, paths: Iterable[bytes]) -> int:
    """Print the checksums: the exit status."""
    status = 0
    async for path, found in digests(paths, args.algorithm, args.jobs):
        if isinstance(found, OSError):
            complain(f"{os.fsdecode(path)}: {found.strerror}")
            status = 1
        else:
            mark, name = escaped(path)
            write(mark, found.encode(), b"  ", name, b"\n")
    return status


class Expected:
    """A file of checksums, line by line, and what came of it."""

    def __init__(self, lines: Iterable[bytes], size: int, ignore_missing: bool) -> None:
        self.matched = self.different = self.unreadable = self.malformed = 0
        self._given_out: deque[str] = deque()
        self._lines = lines
        self._size = size
        self._ignore_missing = ignore_missing

    def paths(self) -> Iterator[bytes]:
        for line in self._lines:
            parsed = parse_line(line, self._size)
            if parsed is None:
                self.malformed += 1
            elif not self._ignore_missing or os.path.exists(parsed[0]):
                self._given_out.append(parsed[1])
                yield parsed[0]

    def compare(self, found: str | OSError) -> bytes:
        """What to print of the next of the paths."""
        expected = self._given_out.popleft()
        if isinstance(found, OSError):
            self.unreadable += 1
            return b"FAILED open or read"
        if found != expected:
            self.different += 1
            return b"FAILED"
        self.matched += 1
        return b"OK"

    def warnings(self) -> Iterator[str]:
        if n := self.malformed:
            yield f"{n} line{' is' if n == 1 else 's are'} improperly formatted"
        if n := self.unreadable:
            yield f"{n} listed file{'' if n == 1 else 's'} could not be read"
        if n := self.different:
            yield f"{n} computed checksum{'' if n == 1 else 's'} did NOT match"


async def check(args: argparse.Namespace, path: bytes) -> bool:
    """Compare with the checksums in a file: whether all is well. Raises ``OSError``."""
    size = 2 * hashlib.new(args.algorithm, usedforsecurity=False).digest_size
    with open(0 if path == STDIN else path, "rb", closefd=path != STDIN) as lines:
        expected = Expected(lines, size, args.ignore_missing)
        async for name, found in digests(expected.paths(), args.algorithm, args.jobs):
            verdict = expected.compare(found)
            if isinstance(found, OSError):
                complain(f"{os.fsdecode(name)}: {found.strerror}")
            if not (args.status or (args.quiet and verdict == b"OK")):
                write(*escaped(name), b": ", verdict, b"\n")
    sys.stdout.flush()
    if not (expected.matched or expected.different or expected.unreadable):
        missing = args.ignore_missing and not expected.malformed
        why = "no file was verified" if missing else "no properly formatted checksum lines found"
        complain(f"{os.fsdecode(path)}: {why}")
        return False
    if not args.status:
        for warning in expected.warnings():
            complain(f"WARNING: {warning}")
    return not (expected.different or expected.unreadable)


# ---- the command -----------------------------------------------------------------------


async def command(args: argparse.Namespace) -> int:
    paths = [os.fsencode(path) for path in args.files] or [STDIN]
    if not args.check:
        return await print_all(args, paths if args.files0_from is None else names_in(args))
    status = 0
    for path in paths:
        try:
            status |= not await check(args, path)
        except OSError as error:
            complain(f"{os.fsdecode(path)}: {error.strerror}")
            status = 1
    return status


def names_in(args: argparse.Namespace) -> Iterator[bytes]:
    """Names that end with NUL, as find -print0 prints them."""
    rest = b""
    with open(0 if args.files0_from == "-" else args.files0_from, "rb") as file:
        while data := file.read(1 << 16):
            *names, rest = (rest + data).split(b"\0")
            yield from names
    if rest:
        yield rest


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print or check checksums, as sha256sum does.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="none, or -: standard input")
    parser.add_argument("-a", "--algorithm", choices=ALGORITHMS, default="sha256")
    parser.add_argument("-c", "--check", action="store_true", help="read checksums, and check them")
    parser.add_argument("--files0-from", metavar="FILE", help="names that end with NUL; - is stdin")
    parser.add_argument("-j", "--jobs", type=int, default=16, help="files at a time, 16 by default")
    parser.add_argument("--ignore-missing", action="store_true", help="check what there is")
    parser.add_argument("--quiet", action="store_true", help="do not print OK for each file")
    parser.add_argument("--status", action="store_true", help="print nothing; the status tells")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        parser.error("--jobs must be 1 or more")
    if args.files0_from is not None and (args.files or args.check):
        parser.error("--files0-from goes without FILE and --check")
    return args


def main(arguments: list[str] | None = None) -> int:
    try:
        return asyncio.run(command(parse(arguments)))
    except OSError as error:
        complain(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
