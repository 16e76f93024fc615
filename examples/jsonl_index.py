#!/usr/bin/env python3
"""Random lookups in a large file of JSON lines, by line number or by a key.

    await build("people.jsonl", key="name")
    async with Index("people.jsonl") as index:
        print(await index.lines([0, 41]))             # these lines, as bytes
        print(await index.find(["alice", "bob"]))     # the last line with that name, or None

The index is a file beside the other (people.jsonl.index), made in one pass. The memory that this
takes does not grow with the file, but for some 0.2 bytes a line; an index that is open takes 0.03.
A lookup of any number of keys or lines is two submissions of reads. When the file has changed,
lookups raise `StaleIndex`. From the shell:

    jsonl_index.py people.jsonl build [--key name] | get KEY ... | line NUMBER ... | info
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from hashlib import blake2b
from itertools import islice
from typing import IO, Any

from uringfile import AIOFile, BinaryFileWrapper, LineReader, atomic_write

# The index: a line of JSON, padded; where each line begins, and the last one ends; entries for
# keys, sorted by hash; how many of them come before each bucket of hashes.
HEADER_SIZE = 512
NUMBER = struct.Struct("=Q")
# The hash of a key, where its line begins, how long that is. The order is that of the bytes.
ENTRY = struct.Struct(">8sQQ")

# Bytes that are read at a time; entries that are sorted in memory, and those that are read of
# each sorted run.
CHUNK = 1 << 20
RUN = 400_000
BLOCK = 512

# Entries of a bucket, about: what a lookup reads.
BUCKET = 256


class StaleIndex(Exception):
    """There is no index for what is in the file now."""


def index_path(path: str) -> str:
    return f"{path}.index"


def identity(status: os.stat_result) -> list[int]:
    """What changes when the file does."""
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def hashed(key: str | int | float) -> bytes:
    """Of the key as text: 1 and "1" are the same."""
    return blake2b(str(key).encode(errors="surrogatepass"), digest_size=8).digest()


def bucket(key_hash: bytes, bits: int) -> int:
    return int.from_bytes(key_hash, "big") >> (64 - bits)


def key_in(line: bytes, name: str) -> str | int | float | None:
    """The key of a line, if it has one; raises ``ValueError`` for what is no JSON."""
    found = json.loads(line)
    key = found.get(name) if isinstance(found, dict) else None
    return key if isinstance(key, str | int | float) else None


def pack(numbers: Iterable[int]) -> bytes:
    return b"".join(map(NUMBER.pack, numbers))


# ---- making the index ------------------------------------------------------------------


async def build(path: str, key: str | None = None) -> dict[str, Any]:
    """Make the index, for line numbers and, if given, for that key: what it says of itself.

    An index that is there is replaced when the new one is complete. Raises ``ValueError`` for a
    line that is no JSON (with a key only), and ``StaleIndex`` if the file changes meanwhile.
    """
    if key is not None and len(json.dumps(key)) > HEADER_SIZE // 2:
        raise ValueError("the name of the key is too long")
    async with AsyncExitStack() as stack:
        file = await stack.enter_async_context(AIOFile(path, "rb"))
        before = identity(await file.stat())
        index = await stack.enter_async_context(atomic_write(index_path(path), "wb"))
        await index.write(bytes(HEADER_SIZE))
        runs: list[IO[bytes]] = []
        stack.callback(lambda: [run.close() for run in runs])
        lines, keys = await write_starts(file, index, key, runs)
        bits = (keys // BUCKET).bit_length()
        await write_entries(index, runs, bits)
        header = {"file": before, "lines": lines, "keys": keys, "bits": bits, "key": key}
        index.seek(0)
        await index.write(json.dumps(header).encode().ljust(HEADER_SIZE - 1) + b"\n")
        if identity(await file.stat()) != before:
            raise StaleIndex(f"{path!r} has changed while it was read")
    return header


async def write_starts(
    file: AIOFile, index: BinaryFileWrapper, key: str | None, runs: list[IO[bytes]]
) -> tuple[int, int]:
    """Read the file once: how many lines and keys there are; the entries are in ``runs``."""
    entries: list[bytes] = []
    lines = keys = offset = 0
    async for batch in LineReader(file, chunk_size=CHUNK).batches():
        starts = []
        for number, line in enumerate(batch, lines):
            starts.append(offset)
            if key is not None and not line.isspace():
                try:
                    found = key_in(line, key)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
                if found is not None:
                    entries.append(ENTRY.pack(hashed(found), offset, len(line)))
            offset += len(line)
        lines += len(batch)
        await index.write(pack(starts))
        if len(entries) >= RUN:
            runs.append(await asyncio.to_thread(sorted_run, entries, file.name))
            keys += len(entries)
            entries = []
    await index.write(NUMBER.pack(offset))
    runs.append(await asyncio.to_thread(sorted_run, entries, file.name))
    return lines, keys + len(entries)


def sorted_run(entries: list[bytes], path: Any) -> IO[bytes]:
    """A file without a name, where the index will be."""
    # All runs are open at once, and a buffer that nobody asks for is 128 KiB from Python 3.14 on.
    size = BLOCK * ENTRY.size
    run = tempfile.TemporaryFile(buffering=size, dir=os.path.dirname(path) or ".")  # noqa: SIM115
    run.writelines(sorted(entries))
    run.seek(0)
    return run


async def write_entries(index: BinaryFileWrapper, runs: list[IO[bytes]], bits: int) -> None:
    """Merge the runs, and count how many entries are in each bucket."""
    counts = [0] * ((1 << bits) + 1)
    merged = heapq.merge(*map(entries_of, runs))
    while entries := await asyncio.to_thread(list, islice(merged, 16 * BLOCK)):
        for entry in entries:
            counts[bucket(entry[:8], bits) + 1] += 1
        await index.write(b"".join(entries))
    total = 0
    for i, count in enumerate(counts):
        total += count
        counts[i] = total
    await index.write(pack(counts))


def entries_of(run: IO[bytes]) -> Iterator[bytes]:
    while block := run.read(BLOCK * ENTRY.size):
        for i in range(0, len(block), ENTRY.size):
            yield block[i : i + ENTRY.size]


# ---- looking up ------------------------------------------------------------------------


class Index:
    """An index that has been made, with its file. For any number of tasks of one event loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Index:
        """Raises ``StaleIndex`` if there is no index, or the file has changed since."""
        async with AsyncExitStack() as stack:
            self._file = await stack.enter_async_context(AIOFile(self.path, "rb"))
            try:
                self._index = await stack.enter_async_context(AIOFile(index_path(self.path), "rb"))
            except FileNotFoundError:
                raise StaleIndex(f"{self.path!r} has no index: build it") from None
            self.header = json.loads(await self._index.read_bytes(HEADER_SIZE))
            await self._check()
            self._entries = HEADER_SIZE + NUMBER.size * (self.header["lines"] + 1)
            end = self._entries + ENTRY.size * self.header["keys"]
            size = NUMBER.size * ((1 << self.header["bits"]) + 1)
            self._counts = memoryview(await self._index.read_bytes(size, end)).cast("Q")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _check(self) -> None:
        if identity(await self._file.stat()) != self.header["file"]:
            raise StaleIndex(f"{self.path!r} has changed since its index was made: build it anew")

    async def lines(self, numbers: Iterable[int]) -> list[bytes]:
        """The lines with these numbers, the first being 0. Raises ``IndexError``."""
        places = [HEADER_SIZE + NUMBER.size * self._number(number) for number in numbers]
        found = await self._index.read_many([(2 * NUMBER.size, place) for place in places])
        bounds = [struct.unpack("=QQ", data) for data in found]
        return await self._read([(end - start, start) for start, end in bounds])

    def _number(self, number: int) -> int:
        if not 0 <= number < self.header["lines"]:
            raise IndexError(f"there is no line {number}: there are {self.header['lines']}")
        return number

    async def find(self, keys: Iterable[str | int | float]) -> list[bytes | None]:
        """For each key the last line that has it, or ``None``. Raises ``LookupError`` if the index
        was made without a key."""
        name = self.header["key"]
        if name is None:
            raise LookupError("the index has line numbers only: build it with a key")
        keys = list(keys)
        hashes = [hashed(key) for key in keys]
        found = await self._index.read_many([self._bucket(one) for one in hashes])
        wanted = [
            (i, size, start)
            for i, (one, entries) in enumerate(zip(hashes, found, strict=True))
            for entry_hash, start, size in ENTRY.iter_unpack(entries)
            if entry_hash == one
        ]
        lines: list[bytes | None] = [None] * len(keys)
        data = await self._read([(size, start) for _, size, start in wanted])
        for (i, _, _), line in zip(wanted, data, strict=True):
            if str(key_in(line, name)) == str(keys[i]):  # hashes of others may be the same
                lines[i] = line
        return lines

    def _bucket(self, key_hash: bytes) -> tuple[int, int]:
        """Size and offset of the entries among which the key must be."""
        number = bucket(key_hash, self.header["bits"])
        begin, end = self._counts[number], self._counts[number + 1]
        return (end - begin) * ENTRY.size, self._entries + begin * ENTRY.size

    async def _read(self, requests: list[tuple[int, int]]) -> list[bytes]:
        data = await self._file.read_many(requests)
        await self._check()  # after the reads: what was read is what was indexed
        return data


# ---- the command -----------------------------------------------------------------------


async def command(args: argparse.Namespace) -> int:
    if args.command == "build":
        print_header(await build(args.path, args.key))
        return 0
    async with Index(args.path) as index:
        if args.command == "info":
            print_header(index.header)
            return 0
        if args.command == "get":
            found = await index.find(args.keys)
        else:
            found = [*await index.lines(args.numbers)]
    sys.stdout.buffer.writelines(line.rstrip(b"\n") + b"\n" for line in found if line is not None)
    return 1 if None in found else 0


def print_header(header: dict[str, Any]) -> None:
    keys = f", {header['keys']} with the key {header['key']!r}" if header["key"] else ""
    print(f"{header['lines']} lines{keys}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Random lookups in a file of JSON lines.")
    parser.add_argument("path", help="the file; its index is PATH.index")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make the index")
    build.add_argument("--key", help="of the objects: for lookups by it")
    get = commands.add_parser("get", help="print the last line with each key; 1 if one is missing")
    get.add_argument("keys", nargs="+", metavar="key")
    line = commands.add_parser("line", help="print lines by number, the first being 0")
    line.add_argument("numbers", nargs="+", type=int, metavar="number")
    commands.add_parser("info", help="tell what is in the index")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    try:
        return asyncio.run(command(parse(arguments)))
    except (StaleIndex, LookupError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
