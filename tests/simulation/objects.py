"""File objects: the same calls, one after the other, on a plain model; some are cancelled."""

from __future__ import annotations

import asyncio
import io
import os
from typing import Any

from simulation.actor import Actor
from simulation.world import World
from uringfile import async_open


class ObjectUser(Actor):
    """A binary file object. A call that fails or is cancelled has changed nothing."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.path = os.path.join(world.folder, f"object{number}")
        content = self.rng.randbytes(self.rng.choice([0, 900, 5000]))
        with open(self.path, "wb") as file:
            file.write(content)
        self.kernel = world.engine.state(os.stat(self.path).st_ino)
        #: What is in the file and in the buffer, and the position.
        self.model = io.BytesIO(content)
        self.file: Any = None
        #: Whether the model still says what the file holds: a truncation was cancelled, or
        #: what was buffered got lost with an error of close().
        self.certain = True

    def act(self) -> None:
        if not self.calls:
            self.spawn("use a file object", self._use())

    async def _use(self) -> None:
        if self.file is None:
            await self._open()
            return
        r = self.rng.random()
        if r < 0.35:
            await self._read()
        elif r < 0.65:
            await self._write()
        elif r < 0.85:
            self._seek()
        elif r < 0.95:
            await self._drain()
        elif r < 0.98:
            await self._truncate()
        else:
            await self._close()

    async def _open(self) -> None:
        self._look()
        buffering = self.rng.choice([-1, 1 << 8, 64])
        file = async_open(self.path, "rb+", buffering=buffering)
        try:
            await file
        except OSError:
            if not self.world.faults.errors:
                raise
            return
        self.file = file
        self.model.seek(0)

    def _look(self) -> None:
        """The file is closed: what it holds."""
        with open(self.path, "rb") as file:
            content = file.read()
        if self.certain and content != self.model.getvalue():
            raise self.world.fail(f"{self.path} does not hold what was written")
        self.model = io.BytesIO(content)
        self.certain = True

    def _size(self) -> int:
        return self.rng.choice([-1, 0, 1, self.rng.randrange(300), self.rng.randrange(3000)])

    def _claim(self, found: Any, expected: Any) -> None:
        if self.certain and found != expected:
            raise self.world.fail(f"{self.path}: {found!r:.100} instead of {expected!r:.100}")

    async def _read(self) -> None:
        size = self._size()
        line = self.rng.random() < 0.4
        position = self.model.tell()
        try:
            data = await (self.file.readline(size) if line else self.file.read(size))
        except OSError as error:
            self._judge(error)
        else:
            self._claim(data, self.model.readline(size) if line else self.model.read(size))
        finally:
            if self.certain and self.file.tell() != self.model.tell():
                raise self.world.fail(f"a read at {position} leaves the position elsewhere")

    async def _write(self) -> None:
        data = self.rng.randbytes(self.rng.choice([1, 30, 500])).replace(b"a", b"\n")
        try:
            n = await self.file.write(data)
        except OSError as error:
            self._judge(error)
        else:
            self.model.write(data)
            self._claim(n, len(data))
        self._claim(self.file.tell(), self.model.tell())

    def _seek(self) -> None:
        whence = self.rng.choice([0, 0, 1, 2])
        offset = self.rng.randrange(2000) if whence == 0 else self.rng.randrange(9)
        expected = self.model.seek(offset, whence)
        if whence == 2 and not (self.certain and self.file.file._local):
            self.model.seek(self.file.seek(expected))
        else:
            self._claim(self.file.seek(offset, whence), expected)

    async def _drain(self) -> None:
        try:
            await self.file.flush()
        except OSError as error:
            self._judge(error)
        else:
            if self.certain and os.stat(self.path).st_size != len(self.model.getvalue()):
                raise self.world.fail(f"{self.path} has another size after flush()")

    async def _truncate(self) -> None:
        size = self.rng.randrange(3000)
        ended = False
        try:
            await self.file.truncate(size)
            ended = True
        except OSError as error:
            self._judge(error)
            ended = True
            return
        finally:
            if not ended:
                self.certain = False
        position = self.model.tell()
        self.model.truncate(size)
        self.model.seek(0, 2)
        self.model.write(bytes(size - self.model.tell()))
        self.model.seek(position)

    async def _close(self) -> None:
        file, self.file = self.file, None
        ended = False
        try:
            await file.close()
            ended = True
        except OSError as error:
            self._judge(error)
            self.certain = False
            ended = True
        finally:
            if not ended:
                self.file = None
                self.certain = False
                if not self.world.ending:
                    self.spawn("go on closing a file object", self._close_again(file))

    async def _close_again(self, file: Any) -> None:
        try:
            while True:
                try:
                    await file.close()
                    await file.file.close()  # which the other may have left to the background
                    return
                except asyncio.CancelledError:
                    if self.world.ending:
                        raise
        except OSError:
            pass

    def _judge(self, error: OSError) -> None:
        if not self.kernel.errors or error.filename not in (self.path, None):
            raise self.world.fail(f"{error!r}, which no operation has given") from error

    async def finish(self) -> None:
        while self.calls:
            await asyncio.sleep(0.01)
        if self.file is not None:
            await self._close()
        self._look()

    def forget(self) -> None:
        self.file = None
