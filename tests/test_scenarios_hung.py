"""Files that hang, few and many: who waits, who does not, and what is left.

A file hangs on a FUSE file system that does not answer. Where there is none, an empty pipe
stands in for it, below ``AIOFile``, which reads a pipe only once at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_cold, open_fds
from faulty_fs import FaultyFS

from uringfile import AIOFile, stats
from uringfile._blocks import new_block
from uringfile._engine import READ
from uringfile._fd import Descriptor
from uringfile._loop import running_driver
from uringfile._native_engine import pin

SIZE = 4096


class HungPipe:
    def __init__(self, engine: Any) -> None:
        self.reader, self.writer = os.pipe()
        self.healed = False
        self.descriptor = Descriptor(self.reader)
        self.driver = running_driver(engine)

    async def read(self, i: int) -> None:
        await self.driver.run(READ, self.descriptor, pin(new_block(SIZE)), SIZE)

    def heal(self) -> None:
        if not self.healed:
            os.close(self.writer)
        self.healed = True

    async def close(self) -> None:
        await self.descriptor.idle()
        self.driver.forget(self.reader)
        os.close(self.reader)


class HungFile:
    """``SIZE`` bytes of it are read at a time, at different offsets."""

    def __init__(self, file: AIOFile, fs: FaultyFS) -> None:
        self.file, self.fs = file, fs

    async def read(self, i: int) -> None:
        assert len(await self.file.read(SIZE, SIZE * (i % 16))) == SIZE

    def heal(self) -> None:
        self.fs.rule()

    async def close(self) -> None:
        await self.file.close()


@pytest.fixture(params=["pipe", "FUSE", "FUSE, direct"])
async def hung(request: pytest.FixtureRequest, engine: Any) -> AsyncIterator[Any]:
    """A file that hangs until ``heal()``."""
    thing: Any
    if request.param == "pipe":
        thing = HungPipe(engine)
    else:
        fs: FaultyFS = request.getfixturevalue("faulty")
        name = "direct hung" if "direct" in request.param else "hung"
        path = fs.make(name, os.urandom(16 * SIZE))
        thing = HungFile(await AIOFile(path, "rb", engine=engine), fs)
        thing.file._inline = False
        fs.rule({"op": "read", "path": path, "hang": True})
    yield thing
    thing.heal()  # a test that has failed has not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await thing.close()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def everything(path: Path, engine: Any) -> None:
    """What a program does with another file; what hangs would hang for ever."""

    async def soon(call: Awaitable[Any]) -> Any:
        return await asyncio.wait_for(call, 10)

    f = AIOFile(path, "rb+", engine=engine)
    await soon(f.open())
    f._inline = False  # by the engine, also where the file system cannot tell what is cached
    with contextlib.suppress(pytest.skip.Exception):
        make_cold(f.fileno())
    assert await soon(f.read(8, 4096)) == (4096).to_bytes(8, "big")
    assert await soon(f.read_many([(8, 65536), (8, 131072)])) == [
        (65536).to_bytes(8, "big"),
        (131072).to_bytes(8, "big"),
    ]
    assert await soon(f.write(b"x" * 100, 8)) == 100
    await soon(f.fsync())
    await soon(f.truncate(1 << 19))
    assert (await soon(f.stat())).st_size == 1 << 19
    await soon(f.close())
    f = AIOFile(path.with_name("new"), "wb", engine=engine)
    await soon(f.open())
    await soon(f.close())
    path.with_name("new").unlink()


def contents(path: Path) -> None:
    path.write_bytes(b"".join(i.to_bytes(8, "big") for i in range(0, 1 << 20, 8)))


@pytest.mark.parametrize("n", [8, 64, 600])
async def test_other_files_go_on(hung: Any, n: int, tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "other"
    reads = [asyncio.ensure_future(hung.read(i)) for i in range(n)]
    await asyncio.sleep(0.1)
    assert not any(read.done() for read in reads)
    contents(path)
    await everything(path, engine)
    for read in reads[n // 2 :]:
        read.cancel()
    await asyncio.wait(reads[n // 2 :], timeout=10)
    assert all(read.cancelled() for read in reads[n // 2 :])
    contents(path)
    await everything(path, engine)
    hung.heal()
    await asyncio.wait_for(asyncio.gather(*reads[: n // 2]), 20)
    await until(lambda: not stats(engine).in_flight)


async def test_a_timeout_holds_up_nobody(hung: Any, tmp_path: Path, engine: Any) -> None:
    contents(tmp_path / "other")
    for i in range(3):
        start = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(hung.read(i), 0.05)
        assert time.monotonic() - start < 10
    await everything(tmp_path / "other", engine)
    hung.heal()


async def test_a_storm_of_cancellations(hung: Any, tmp_path: Path, engine: Any) -> None:
    contents(tmp_path / "other")
    longest, last = 0.0, time.monotonic()

    async def tick() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    reads = [asyncio.ensure_future(hung.read(i)) for i in range(4000)]
    await asyncio.sleep(0.1)
    ticking = asyncio.ensure_future(tick())
    assert stats(engine).in_flight + stats(engine).queued == 4000
    start = time.process_time()
    for read in reads:
        read.cancel()
    await asyncio.wait(reads)
    assert time.process_time() - start < 5
    assert all(read.cancelled() for read in reads)
    assert stats(engine).queued == 0
    await everything(tmp_path / "other", engine)
    hung.heal()
    await until(lambda: not stats(engine).in_flight)
    ticking.cancel()
    assert longest < 10, "4,000 cancellations are the longest turn of the loop"


async def test_close_of_a_file_that_hangs(faulty: FaultyFS, engine: Any) -> None:
    """It returns, all who wait are told, and the descriptor follows when the kernel lets go."""
    path = faulty.make("direct f", bytes(SIZE))
    f = await AIOFile(path, "rb", engine=engine)
    await f.read(1)
    faulty.rule({"op": "read", "path": path, "hang": True})
    reads = [asyncio.ensure_future(f.read(SIZE)) for _ in range(600)]
    await asyncio.sleep(0.1)
    await asyncio.wait_for(f.close(), 10)
    results = await asyncio.wait_for(asyncio.gather(*reads, return_exceptions=True), 10)
    assert {type(result).__name__ for result in results} == {"ClosedFileError"}
    faulty.rule()
    await until(lambda: not any(path.name in name for name in open_fds()))


@pytest.mark.parametrize("engine", ["io_uring"], indirect=True)
async def test_hung_reads_take_few_workers(faulty: FaultyFS, engine: Any) -> None:
    """Each that hangs keeps a thread of the kernel."""
    path = faulty.make("f", bytes(SIZE))
    f = await AIOFile(path, "rb", engine=engine)
    f._inline = False
    faulty.rule({"op": "read", "path": path, "hang": True})
    reads = [asyncio.ensure_future(f.read(SIZE)) for _ in range(600)]
    batch = asyncio.ensure_future(f.read_many([(8, 0)] * 600))
    await asyncio.sleep(0.3)
    workers = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            workers += (task / "comm").read_text().startswith("iou-wrk")
    faulty.rule()
    assert await asyncio.gather(*reads) == [bytes(SIZE)] * 600
    assert await batch == [bytes(8)] * 600
    await f.close()
    assert workers < 80


async def test_writes_and_syncs_that_hang(faulty: FaultyFS, tmp_path: Path, engine: Any) -> None:
    """close() waits for them: what was accepted is not dropped."""
    contents(tmp_path / "other")
    path = faulty.make("direct w", bytes(SIZE))
    f = await AIOFile(path, "rb+", engine=engine)
    faulty.rule(*[{"op": op, "path": path, "hang": True} for op in ("write", "fsync")])
    writes = [asyncio.ensure_future(f.write(b"w" * SIZE, i * SIZE)) for i in range(64)]
    syncs = [asyncio.ensure_future(f.fsync()) for _ in range(3)]
    await asyncio.sleep(0.1)
    await everything(tmp_path / "other", engine)
    closing = asyncio.ensure_future(f.close())
    await asyncio.sleep(0.3)
    assert not closing.done()
    faulty.rule()
    await asyncio.wait_for(closing, 10)
    assert await asyncio.gather(*writes) == [SIZE] * 64
    await asyncio.gather(*syncs)
    assert (faulty.back / path.name).read_bytes() == b"w" * SIZE * 64


async def test_several_hung_files(faulty: FaultyFS, tmp_path: Path, engine: Any) -> None:
    """Three, each with more reads than it may have in flight."""
    contents(tmp_path / "other")
    paths = [faulty.make("direct", bytes(SIZE)) for _ in range(3)]
    files = [await AIOFile(path, "rb", engine=engine) for path in paths]
    faulty.rule(*[{"op": "read", "path": path, "hang": True} for path in paths])
    reads = [asyncio.ensure_future(f.read(SIZE)) for f in files for _ in range(600)]
    await asyncio.sleep(0.1)
    assert stats(engine).queued
    await everything(tmp_path / "other", engine)
    faulty.rule()
    assert await asyncio.wait_for(asyncio.gather(*reads), 20) == [bytes(SIZE)] * 1800
    for f in files:
        await f.close()


ENDS = {
    "asyncio.run": "asyncio.run(asyncio.wait_for(main(), 0.2))",
    "sys.exit": "asyncio.run(main(0.1, sys.exit))",
    "collected": "loop = asyncio.new_event_loop(); loop.create_task(main()); "
    "loop.call_later(0.2, loop.stop); loop.run_forever(); del loop; import gc; gc.collect()",
    "closed": "loop = asyncio.new_event_loop(); task = loop.create_task(main()); "
    "loop.call_later(0.2, loop.stop); loop.run_forever(); loop.close()",
    "never closed": "loop = asyncio.new_event_loop(); task = loop.create_task(main()); "
    "loop.call_later(0.2, loop.stop); loop.run_forever()",
    "kill": "asyncio.run(main(0.1, lambda: os.kill(os.getpid(), 9)))",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_loop(faulty: FaultyFS, engine: str, end: str) -> None:
    """With 600 reads that hang the process ends, and does not crash.

    They hang in the page cache. Who waits for the answer to direct I/O of FUSE the kernel does
    not even kill: with POSIX AIO, whose workers are threads of the process, nothing ends then.
    """
    path = faulty.make("end", bytes(SIZE))
    code = f"""
import asyncio, os, sys, uringfile
async def main(after=None, call=None):
    f = await uringfile.AIOFile({str(path)!r}, "rb", engine={engine!r})
    f._inline = False
    if after is not None:
        asyncio.get_running_loop().call_later(after, call)
    await asyncio.gather(*[f.read(4096) for _ in range(600)])
try:
    {ENDS[end]}
except asyncio.TimeoutError:
    pass
"""
    faulty.rule({"op": "read", "path": path, "hang": True})
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, stderr = process.communicate(timeout=15)
        finally:
            faulty.rule()  # or nobody could end it
            process.kill()
    assert "Fatal" not in stderr
    assert "Event loop is closed" not in stderr
    assert process.returncode == {"kill": -9}.get(end, 0), stderr
