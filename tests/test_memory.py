"""Memory stays flat, however many operations there are.

A few by default; in full URINGFILE_MEMORY_READS=1000000 URINGFILE_MEMORY_CANCELS=100000.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import check

READS = int(os.environ.get("URINGFILE_MEMORY_READS", "24000"))
CANCELS = int(os.environ.get("URINGFILE_MEMORY_CANCELS", "8000"))

PROGRAM = """
import asyncio, gc, os, sys, uringfile
engine, path, what, number, leaking = sys.argv[1:]
number = int(number)
kept = []

def rss():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def reads(f, n):
    "By the page cache, one by one, in a batch, and into a buffer, in turn."
    buffer = bytearray(512)
    for i in range(0, n, 16):
        f._inline = i % 32 == 0
        await asyncio.gather(*[f.read(512, 512 * k) for k in range(6)])
        await f.read_many([(100, 700 * k) for k in range(8)])
        await f.readinto(buffer, i)
        await f.read(5000, i)

async def cancels(f, n):
    "Before the flush, in flight, and when they may be complete."
    f._inline = False
    buffers = [bytearray(512) for _ in range(8)]
    for i in range(0, n, 8):
        tasks = [asyncio.ensure_future(f.readinto(b, 512 * k)) for k, b in enumerate(buffers[:4])]
        tasks += [asyncio.ensure_future(f.read(512, 512 * k)) for k in range(2)]
        tasks += [asyncio.ensure_future(f.read_many([(9, 0), (9, 99)])) for k in range(2)]
        for _ in range(i % 4):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if leaking == "leaking":
            kept.append(bytearray(2000))

async def main():
    async with uringfile.AIOFile(path, "rb", engine=engine) as f:
        run = globals()[what]
        await run(f, max(number // 4, 4000))
        before = rss()
        await run(f, number)
        grown = rss() - before
    assert uringfile.stats(engine).in_flight == 0
    assert grown < 1 << 20, f"{grown} bytes more after {number} {what}"

asyncio.run(main())
"""


@pytest.mark.skipif(
    sys.implementation.name == "pypy",
    reason="its memory grows by more than that when tasks of asyncio alone are cancelled",
)
@pytest.mark.parametrize(("what", "number"), [("reads", READS), ("cancels", CANCELS)])
def test_memory_stays_flat(data: Path, engine: Any, what: str, number: int) -> None:
    # glibc keeps arenas for threads that it makes: POSIX AIO has many.
    limits = {"MALLOC_ARENA_MAX": "2"}
    check(PROGRAM, engine, str(data), what, str(number), "", timeout=60 + number / 500, **limits)


def test_that_a_leak_would_be_noticed(data: Path) -> None:
    """2 MB; mimalloc, of Pythons without a GIL, takes up to half a MB of it from what it had."""
    with pytest.raises(AssertionError, match="bytes more after"):
        check(PROGRAM, "posix_aio", str(data), "cancels", "8000", "leaking", MALLOC_ARENA_MAX="2")
