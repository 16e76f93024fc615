"""Blocks at offsets, text by lines, and whole files, written and verified."""

from __future__ import annotations

import asyncio
import gc
import struct
import sys
import zlib
from typing import Any

from soak.load import Soak, Wrong
from uringfile import AIOFile, BufferPool, LineReader, Writer, async_open

_HEAD = struct.Struct("<IIQ")  # checksum of the rest, block, version
_BLOCK = 4096
_BLOCKS = 64


def _block(number: int, version: int) -> bytes:
    rest = struct.pack("<IQ", number, version) * (_BLOCK // 12)
    body = rest[: _BLOCK - 4]
    return struct.pack("<I", zlib.crc32(body)) + body.ljust(_BLOCK - 4, b"\0")


def _version(data: bytes, number: int) -> int:
    if data == bytes(_BLOCK):
        return 0
    _, found, version = _HEAD.unpack_from(data)
    if found != number or _block(number, version) != data:
        raise Wrong(f"block {number} is torn or another's: {data[:16].hex()}")
    return int(version)


class Blocks:
    """A file of blocks; each block has at most one writer at a time, and any number of readers."""

    def __init__(self, soak: Soak, name: str, *, direct: bool = False) -> None:
        self.soak = soak
        self.path = soak.folder / f"{soak.engine}-{name}"
        self.direct = direct
        self.last = 0
        #: The versions that a block may have: several after a write that was cancelled.
        self.maybe: list[set[int]] = [{0} for _ in range(_BLOCKS)]
        self.writing = [asyncio.Lock() for _ in range(_BLOCKS)]

    async def run(self) -> None:
        soak = self.soak
        self.path.write_bytes(bytes(_BLOCK * _BLOCKS))
        while not soak.ending:
            file = AIOFile(self.path, "rb+", direct=self.direct, engine=soak.engine)  # type: ignore[arg-type]
            async with file:
                for _ in range(soak.rng.randrange(1, 20)):
                    await asyncio.gather(*[self._step(file) for _ in range(soak.rng.randrange(8))])
                    await soak.rest(self)
            self._settle()
            soak.count("opened")

    async def _step(self, file: AIOFile) -> None:
        rng = self.soak.rng
        r = rng.random()
        if r < 0.5:
            await self._write(file, rng.sample(range(_BLOCKS), rng.choice([1, 1, 3])))
        elif r < 0.55:
            await self.soak.hurry(file.fdsync())
        else:
            await self._read(file, rng.sample(range(_BLOCKS), rng.choice([1, 1, 8])))

    async def _write(self, file: AIOFile, numbers: list[int]) -> None:
        numbers = [number for number in numbers if not self.writing[number].locked()]
        for number in numbers:
            await self.writing[number].acquire()
        versions = []
        for number in numbers:
            self.last += 1
            versions.append(self.last)
            self.maybe[number].add(self.last)
        requests = [
            (_block(n, version), n * _BLOCK) for n, version in zip(numbers, versions, strict=True)
        ]
        call: Any = file.write_many(requests) if len(requests) != 1 else file.write(*requests[0])
        try:
            if await self.soak.hurry(call) is not None:
                for number, version in zip(numbers, versions, strict=True):
                    self._landed(number, version)
                self.soak.count("blocks written", len(numbers))
        finally:
            for number in numbers:
                self.writing[number].release()

    def _landed(self, number: int, version: int) -> None:
        """It is the last one, unless a cancelled one may come still."""
        if len(self.maybe[number]) == 2:
            self.maybe[number] = {version}

    def _settle(self) -> None:
        """The file is closed, so what is in it stays."""
        with open(self.path, "rb") as file:
            for number in range(_BLOCKS):
                version = _version(file.read(_BLOCK), number)
                if version not in self.maybe[number]:
                    raise Wrong(f"{self.path}: block {number} has version {version}")
                self.maybe[number] = {version}

    async def _read(self, file: AIOFile, numbers: list[int]) -> None:
        before = [set(self.maybe[number]) for number in numbers]
        if len(numbers) > 1:
            requests = [(_BLOCK, number * _BLOCK) for number in numbers]
            found = await self.soak.hurry(file.read_many(requests))
        else:
            data = await self.soak.hurry(file.read(_BLOCK, numbers[0] * _BLOCK))
            found = None if data is None else [data]
        for number, old, data in zip(numbers, before, found or (), strict=False):
            busy = self.writing[number].locked() or self.maybe[number] != old
            if busy or len(old) > 1:
                continue  # a read beside a write may see both
            if _version(data, number) not in old:
                raise Wrong(f"{self.path}: block {number} is not the last one written")
            self.soak.count("blocks verified")


class Lines:
    """Text, written by a Writer or a file object, read back line by line."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.path = soak.folder / f"{soak.engine}-lines"

    async def run(self) -> None:
        soak, rng = self.soak, self.soak.rng
        while not soak.ending:
            lines = [f"{i} {'x' * rng.randrange(200)} \u20ac\n" for i in range(rng.randrange(500))]
            try:
                await self._write(lines)
            except OSError as error:
                soak.expect(error)
                continue
            finally:
                await soak.rest(self)
            async with AIOFile(self.path, "r", engine=soak.engine) as file:  # type: ignore[arg-type]
                found = [
                    line async for line in LineReader(file, chunk_size=rng.choice([100, 65536]))
                ]
            if found != lines:
                raise Wrong("LineReader gives other lines than were written")
            async with async_open(self.path, engine=soak.engine) as again:  # type: ignore[call-overload]
                if [line async for line in again] != lines:
                    raise Wrong("a file object gives other lines than were written")
            soak.count("lines verified", 2 * len(lines))
            await soak.rest(self)

    async def _write(self, lines: list[str]) -> None:
        engine: Any = self.soak.engine
        if self.soak.rng.random() < 0.5:
            async with async_open(self.path, "w", engine=engine) as file:
                await file.writelines(lines)
            return
        async with AIOFile(self.path, "w", engine=engine) as raw:
            writer = Writer(raw)
            await asyncio.gather(*map(writer, lines))


class Pool:
    """O_DIRECT reads into the buffers of a pool, some of them cancelled."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.path = soak.folder / f"{soak.engine}-pool"

    async def run(self) -> None:
        soak = self.soak
        engine: Any = soak.engine
        self.path.write_bytes(b"".join(_block(i, i + 1) for i in range(_BLOCKS)))
        pool = BufferPool(_BLOCK, 4)
        async with AIOFile(self.path, "rb", direct=True, engine=engine) as file:
            while not soak.ending:
                await asyncio.gather(*[self._read(file, pool) for _ in range(8)])
                await soak.rest(self)
        for _ in range(500):
            if pool.free == pool.count:
                return
            if sys.implementation.name == "pypy":
                gc.collect()
            await asyncio.sleep(0.01)
        raise Wrong(f"{pool.count - pool.free} buffers of the pool never came back")

    async def _read(self, file: AIOFile, pool: BufferPool) -> None:
        number = self.soak.rng.randrange(_BLOCKS)
        async with pool.buffer() as buffer:
            n = await self.soak.hurry(file.readinto(buffer, number * _BLOCK))
            if n is not None:
                if n != _BLOCK or _version(bytes(buffer), number) != number + 1:
                    raise Wrong(f"block {number} is wrong in a buffer of the pool")
                self.soak.count("pool reads verified")
