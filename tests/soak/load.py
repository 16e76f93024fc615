"""What all kinds of load share: counters, pace, calls that are cancelled or timed out."""

from __future__ import annotations

import asyncio
import errno
import io
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from typing import TypeVar

T = TypeVar("T")

# What a switched-on fault may answer: a full disk, the limit of file sizes.
FAULTS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Wrong(Exception):
    """What was read is not what was written."""


class Pace:
    """How long each worker rests between two rounds, so that the process takes its share of a
    core and no more."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.seconds = 0.01
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def adjust(self) -> float:
        """Called now and then: the share since the last time."""
        wall, cpu = time.monotonic(), time.process_time()
        used = (cpu - self._cpu) / max(wall - self._wall, 1e-3)
        self._wall, self._cpu = wall, cpu
        factor = 1.5 if used > self.share else 0.8
        self.seconds = min(max(self.seconds * factor, 0.0002), 2.0)
        return used


class Soak:
    """One loop's share of the load."""

    def __init__(self, engine: str, folder: Path, seed: int, pace: Pace) -> None:
        self.engine = engine
        self.folder = folder
        self.rng = Random(f"{seed} {engine}")
        self.pace = pace
        self.counts: Counter[str] = Counter()
        self.worst_delay = 0.0
        self.ending = False
        #: When each worker has last ended a round.
        self.rounds: dict[str, float] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        #: Whether a fault is switched on, or was within the last second.
        self.faulty_until = 0.0

    @property
    def faulty(self) -> bool:
        return time.monotonic() < self.faulty_until

    def count(self, what: str, n: int = 1) -> None:
        self.counts[what] += n

    def expect(self, error: OSError) -> None:
        """An error that a fault explains is counted; any other is raised again."""
        if error.errno not in FAULTS:
            raise error
        self.count(f"fault {errno.errorcode[error.errno]}")

    async def rest(self, worker: object) -> None:
        self.rounds[f"{type(worker).__name__} {id(worker):x}"] = time.monotonic()
        await asyncio.sleep(self.pace.seconds * self.rng.uniform(0.5, 1.5))

    async def hurry(self, call: Awaitable[T]) -> T | None:
        """Await it; one in ten times it is cancelled or times out instead: ``None``."""
        r = self.rng.random()
        if r > 0.1:
            return await call
        task = asyncio.ensure_future(call)
        patience = self.rng.choice([0.0, 0.0, 0.0001, 0.001])
        if r < 0.05:
            try:
                return await asyncio.wait_for(task, patience)
            except asyncio.TimeoutError:
                self.count("timeouts")
                return None
        await asyncio.sleep(patience)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            self.count("cancelled")
            return None

    def stuck(self, seconds: float) -> str | None:
        """The workers that have not ended a round for so long, and what all tasks wait for."""
        now = time.monotonic()
        names = [name for name, when in self.rounds.items() if now - when > seconds]
        if not names:
            return None
        text = io.StringIO()
        print(*names, "stuck", file=text)
        assert self.loop is not None
        for task in asyncio.all_tasks(self.loop):
            task.print_stack(file=text)
        return text.getvalue()

    async def watch_delay(self) -> None:
        """By how much the loop is late."""
        while not self.ending:
            start = time.monotonic()
            await asyncio.sleep(0.02)
            self.worst_delay = max(self.worst_delay, time.monotonic() - start - 0.02)
