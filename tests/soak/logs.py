"""Logs that rotate: what is acknowledged is in them, in order and once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soak.load import Soak, Wrong
from uringfile import LogReader, LogWriter


class Log:
    """A log that is ended, now and then, by a full disk or by the limit of file sizes."""

    def __init__(self, soak: Soak, name: Path, sync: str, rotate_size: int) -> None:
        self.soak = soak
        self.name = name
        self.options: dict[str, Any] = {"sync": sync, "rotate_size": rotate_size}
        self.number = 0
        self.accepted = 0

    async def run(self) -> None:
        soak = self.soak
        while not soak.ending:
            self.number += 1
            path = self.name.with_name(f"{soak.engine}-{self.name.name}-{self.number}.log")
            self.accepted = 0
            acknowledged: list[int] = []
            await self._life(path, acknowledged)
            self._verify(path, acknowledged)
            if not soak.faulty:
                await self._read_again(path)
            for part in _parts(path):
                part.unlink()
            soak.count("logs verified")

    async def _life(self, path: Path, acknowledged: list[int]) -> None:
        soak = self.soak
        engine: Any = soak.engine
        log = LogWriter(path, **self.options, engine=engine)
        try:
            await log.open()
            for _ in range(soak.rng.randrange(1, 100)):
                calls = [self._append(log, acknowledged) for _ in range(soak.rng.randrange(1, 50))]
                await asyncio.gather(*calls)
                await soak.rest(self)
                if soak.ending:
                    break
        except OSError as error:
            soak.expect(error)
        try:
            await log.close()
        except OSError as error:
            soak.expect(error)

    async def _append(self, log: LogWriter, acknowledged: list[int]) -> None:
        number = await self.soak.hurry(self._append_next(log))
        if number is not None:
            acknowledged.append(number)
            self.soak.count("records acknowledged")

    async def _append_next(self, log: LogWriter) -> int:
        number = self.accepted
        self.accepted += 1
        await log.append(f"{number} {'x' * self.soak.rng.randrange(300)}\n")
        return number

    def _verify(self, path: Path, acknowledged: list[int]) -> None:
        found = list(_numbers(path))
        if found != sorted(set(found)):
            raise Wrong(f"{path}: records are not in order, or more than once")
        if missing := set(acknowledged) - set(found):
            raise Wrong(f"{path}: {len(missing)} acknowledged records are missing")
        if found and found[-1] >= self.accepted:
            raise Wrong(f"{path}: a record that nobody wrote")

    async def _read_again(self, path: Path) -> None:
        engine: Any = self.soak.engine
        last = _parts(path)[-1:]
        for part in last:
            n = 0
            async with LogReader(part, engine=engine) as reader:
                async for _ in reader:
                    n += 1
            if n != len(part.read_bytes().splitlines()):
                raise Wrong(f"{part}: LogReader gives {n} records")
            self.soak.count("records read", n)


def _parts(path: Path) -> list[Path]:
    rotated = sorted(path.parent.glob(path.name + ".*"))
    return [*rotated, *([path] if path.exists() else [])]


def _numbers(path: Path) -> Iterator[int]:
    for part in _parts(path):
        for line in part.read_bytes().splitlines(keepends=True):
            number, space, rest = line.partition(b" ")
            if not space or rest.strip(b"x") != b"\n":
                raise Wrong(f"{part}: a torn record {line[:40]!r}")
            yield int(number)
