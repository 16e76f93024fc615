"""BufferPool: a buffer is nobody else's while anything may touch it. Writer: records in order."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import Any

from simulation.actor import Actor
from simulation.world import World
from uringfile import AIOFile, BufferPool, Writer
from uringfile._native_engine import address, pin

_SIZE = 512


class PoolUser(Actor):
    """Reads and writes with few buffers, many of them cancelled."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        world.engine.knows_addresses = True
        self.path = os.path.join(world.folder, f"pool{number}")
        self.blocks = 8
        with open(self.path, "wb") as file:
            for i in range(self.blocks):
                file.write(bytes([i]) * _SIZE)
        self.pool: BufferPool | None = BufferPool(_SIZE, self.rng.choice([1, 2, 4]))
        self.file: AIOFile | None = None
        self.used: set[int] = set()

    def act(self) -> None:
        if self.file is None:
            if not self.calls:
                self.spawn("open for a pool", self._open())
        elif len(self.calls) < min(self.world.most_calls, 10):
            self.spawn("use a buffer", self._use(self.file, self.rng.randrange(self.blocks)))

    async def _open(self) -> None:
        file = AIOFile(self.path, "rb+")
        try:
            await file.open()
        except OSError:
            if not self.world.faults.errors:
                raise
        else:
            self.file = file

    async def _use(self, file: AIOFile, block: int) -> None:
        assert self.pool is not None
        async with self.pool.buffer() as buffer:
            start = address(pin(buffer))
            if start in self.used:
                raise self.world.fail("two have the same buffer")
            for op in self.world.engine.ops.values():
                if op.flushed and op.address <= start < op.address + op.length:
                    raise self.world.fail(f"a buffer is handed out, and {op} uses it")
            self.used.add(start)
            try:
                await self._move(file, buffer, block)
            finally:
                self.used.discard(start)

    async def _move(self, file: AIOFile, buffer: Any, block: int) -> None:
        try:
            if self.rng.random() < 0.3:
                buffer[:] = bytes([block]) * _SIZE
                await file.write(buffer, block * _SIZE)
            else:
                n = await file.readinto(buffer, block * _SIZE)
                if n != _SIZE or bytes(buffer) != bytes([block]) * _SIZE:
                    raise self.world.fail(f"{self.path}: block {block} is wrong")
        except OSError:
            if not self.world.faults.errors:
                raise

    async def finish(self) -> None:
        while self.calls:
            await asyncio.sleep(0.01)
        if self.file is not None:
            try:
                await self.file.close()
            except OSError:
                if not self.world.faults.errors:
                    raise
        assert self.pool is not None
        for _ in range(100):
            if self.pool.free == self.pool.count:
                return
            if sys.implementation.name == "pypy":
                gc.collect()
            await asyncio.sleep(0.01)
        raise self.world.fail(f"{self.pool.count - self.pool.free} buffers never came back")

    def forget(self) -> None:
        self.file = self.pool = None


class WriterUser(Actor):
    """Records of many tasks, one behind another, in call order."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.path = os.path.join(world.folder, f"writer{number}")
        with open(self.path, "wb"):
            pass
        self.file: AIOFile | None = None
        self.writer: Writer | None = None
        self.records: list[bytes] = []
        self.ends: dict[int, int] = {}
        self.failed = False

    def act(self) -> None:
        if self.writer is None:
            if not self.calls:
                self.spawn("open for a writer", self._open())
        elif len(self.calls) < self.world.most_calls:
            self.spawn("write a record", self._write(self.writer))

    async def _open(self) -> None:
        file = AIOFile(self.path, "rb+")  # an opening that truncates may do so when cancelled
        try:
            await file.open()
        except OSError:
            if not self.world.faults.errors:
                raise
        else:
            self.file, self.writer = file, Writer(file)

    async def _write(self, writer: Writer) -> None:
        number = len(self.records)
        size = self.rng.randrange(self.rng.choice([2, 50, 400]))
        self.records.append(b"%d " % number + b"x" * size + b"\n")
        try:
            self.ends[number] = await writer(self.records[number])
        except OSError:
            self.failed = True
            if not self.world.faults.errors:
                raise
        else:
            self.look(number)

    def look(self, number: int) -> None:
        """What was acknowledged is there, and between it and its predecessor is no gap."""
        end, record = self.ends[number], self.records[number]
        with open(self.path, "rb") as file:
            file.seek(end - len(record))
            if file.read(len(record)) != record:
                raise self.world.fail(f"{self.path}: record {number} is not at its place")
        before = self.ends.get(number - 1)
        if before is not None and before != end - len(record):
            raise self.world.fail(f"{self.path}: a gap before record {number}")

    def check_at_end(self) -> None:
        ends = [self.ends[number] for number in sorted(self.ends)]
        if ends != sorted(set(ends)):
            raise self.world.fail(f"{self.path}: records out of order")
        for number in self.ends:
            self.look(number)

    async def finish(self) -> None:
        while self.calls or (self.writer is not None and self.writer._writing):
            await asyncio.sleep(0.01)
        if self.file is not None:
            try:
                await self.file.close()
            except OSError:
                if not self.world.faults.errors:
                    raise

    def forget(self) -> None:
        self.file = self.writer = None
