"""Threads with a loop each, at the same time; without the GIL, where Python has none.

URINGFILE_STRESS_SECONDS=60 pytest tests/test_threads.py --timeout 0
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import sysconfig
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import check, collect, open_fds, run

from uringfile import AIOFile, BufferPool, LineReader, _loop, async_open, engine_info, stats

SECONDS = float(os.environ.get("URINGFILE_STRESS_SECONDS", "0.3"))
THREADS = 8


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python cannot do without a GIL"
)
def test_the_gil_stays_off() -> None:
    code = """
import asyncio, sys, uringfile, uringfile.os, uringfile.logging, uringfile.tempfile
print(sys._is_gil_enabled())
async def main():
    async with uringfile.AIOFile(sys.executable, "rb") as f:
        await f.read(100)
asyncio.run(main())
print(sys._is_gil_enabled())
"""
    assert check(code, PYTHONWARNINGS="error") == "False\nFalse\n"


async def reads(path: Path, engine: Any, rng: random.Random) -> None:
    async with AIOFile(path, "rb", engine=engine) as f:
        f._inline = rng.random() < 0.5
        offsets = [8 * rng.randrange(1000) for _ in range(16)]
        blocks = [*await asyncio.gather(*[f.read(8, offset) for offset in offsets])]
        blocks += await f.read_many([(8, offset) for offset in offsets])
    assert [int.from_bytes(block, "big") for block in blocks] == offsets * 2


async def writes(path: Path, engine: Any, rng: random.Random) -> None:
    own = path.with_name(f"{threading.get_ident()}-{rng.random()}")
    async with AIOFile(own, "wb+", engine=engine) as f:
        await asyncio.gather(*[f.write(b"%7d\n" % i, 8 * i) for i in range(50)])
        lines = [int(line) async for line in LineReader(f)]
    assert lines == list(range(50))
    own.unlink()


async def cancels(path: Path, engine: Any, rng: random.Random) -> None:
    ends = os.pipe()
    async with AIOFile(ends[0], "rb", engine=engine) as pipe:
        reading = asyncio.ensure_future(pipe.read(10))
        await asyncio.sleep(rng.choice([0, 0.001]))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        os.write(ends[1], b"x")
    os.close(ends[1])


async def forgets(path: Path, engine: Any, rng: random.Random) -> None:
    """Files that nobody closes; whichever thread collects them does."""
    f = await AIOFile(path, "rb", engine=engine)
    await f.read(8)
    cycle = [f]
    cycle.append(cycle)  # type: ignore[arg-type]


async def others(path: Path, engine: Any, rng: random.Random) -> None:
    async with async_open(path, "rb") as file:
        assert await file.read(8) == bytes(8)
    pool = BufferPool(4096, 2)
    async with pool.buffer() as buffer, AIOFile(path, "rb", engine=engine) as f:
        assert await f.readinto(buffer, 8) == 4096
    assert engine_info().capacity == _loop.running_driver().info().capacity
    assert stats().in_flight >= 0


KINDS = (reads, writes, cancels, forgets, others)


def test_loops_that_come_and_go(data: Path, engine: Any) -> None:
    failures: list[BaseException] = []
    end = time.monotonic() + SECONDS
    before = open_fds()

    def thread(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while time.monotonic() < end and not failures:
                run(several(rng))
                if rng.random() < 0.1:
                    collect()
        except BaseException as error:
            failures.append(error)

    async def several(rng: random.Random) -> None:
        await asyncio.gather(*[rng.choice(KINDS)(data, engine, rng) for _ in range(4)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(THREADS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        collect()
    assert failures == []
    assert open_fds() == before
    assert not any(driver() is not None for driver in _loop._recent.values())


def test_one_pool_for_a_thread_that_drops_and_a_loop_that_waits() -> None:
    """Whichever thread drops the last reference to a buffer wakes who waits for one."""

    async def main() -> None:
        pool = BufferPool(4096, 2)
        held = [await pool.acquire() for _ in range(2)]
        end = time.monotonic() + SECONDS / 2

        def drop() -> None:
            while not stopped.is_set():
                try:
                    held.pop()
                except IndexError:
                    time.sleep(0)

        async def take() -> None:
            held.append(await pool.acquire())

        stopped = threading.Event()
        dropping = threading.Thread(target=drop)
        dropping.start()
        try:
            while time.monotonic() < end:
                takes = [asyncio.ensure_future(take()) for _ in range(4)]
                await asyncio.sleep(0)
                takes.pop().cancel()
                await asyncio.wait_for(asyncio.gather(*takes), 20)
        finally:
            stopped.set()
            dropping.join()
            held.clear()
        collect()
        assert pool.free == 2

    unraisable: list[Any] = []
    previous, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        run(main())
    finally:
        sys.unraisablehook = previous
    assert unraisable == []


async def test_a_file_that_a_thread_collects_while_its_loop_ends(data: Path, engine: Any) -> None:
    """The loop may be closed before it gets to what a thread has told it to close."""

    async def opened() -> AIOFile:
        return await AIOFile(data, "rb", engine=engine)

    async def collected_elsewhere(file: list[AIOFile]) -> None:
        collecting = threading.Thread(target=file.clear)
        collecting.start()
        collecting.join()
        asyncio.get_running_loop().stop()  # in this very turn, before any callback

    def main() -> None:
        loop = asyncio.new_event_loop()
        file = [loop.run_until_complete(opened())]
        task = loop.create_task(collected_elsewhere(file))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert task.done()
        loop.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        before = open_fds()
        await asyncio.to_thread(main)
        assert open_fds() == before
