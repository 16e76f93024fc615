"""A pipe whose writer is stopped and goes on: nothing is lost, whoever is cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

from soak.load import Soak, Wrong
from uringfile import AIOFile

# Numbers of four bytes, for ever.
_WRITER = """
import itertools, sys, time
for i in itertools.count():
    sys.stdout.buffer.write(i.to_bytes(4, "big") * 1)
    if not i % 64:
        sys.stdout.buffer.flush()
        time.sleep(0.02)
"""


class Pipe:
    def __init__(self, soak: Soak) -> None:
        self.soak = soak

    async def run(self) -> None:
        while not self.soak.ending:
            writer = subprocess.Popen(
                [sys.executable, "-c", _WRITER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            try:
                await self._read(writer)
            finally:
                writer.kill()
                writer.send_signal(signal.SIGCONT)
                await asyncio.get_running_loop().run_in_executor(None, writer.wait)

    async def _read(self, writer: subprocess.Popen[bytes]) -> None:
        soak, rng = self.soak, self.soak.rng
        engine: Any = soak.engine
        assert writer.stdout is not None
        fd = os.dup(writer.stdout.fileno())
        writer.stdout.close()
        pending = b""
        expected = 0
        async with AIOFile(fd, "rb", engine=engine) as file:
            for _ in range(rng.randrange(20, 300)):
                if soak.ending:
                    break
                if rng.random() < 0.05:
                    writer.send_signal(rng.choice([signal.SIGSTOP, signal.SIGCONT]))
                    soak.count("writers stopped or continued")
                try:
                    data = await asyncio.wait_for(file.read(rng.choice([1, 4, 100, 5000])), 0.05)
                except asyncio.TimeoutError:
                    soak.count("timeouts")
                    writer.send_signal(signal.SIGCONT)
                    continue
                pending += data
                while len(pending) >= 4:
                    number = int.from_bytes(pending[:4], "big")
                    if number != expected:
                        raise Wrong(f"the pipe gives {number}, not {expected}")
                    pending = pending[4:]
                    expected += 1
                soak.count("pipe bytes verified", len(data))
                await soak.rest(self)
            writer.send_signal(signal.SIGCONT)
