"""Faults in the C layer, at each place in turn, under each operation (fault_loop.py)."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import sqpoll_engine
from native_build import run_with

from uringfile import _native

LOOP = Path(__file__).with_name("fault_loop.py")

# The points of a line are tried by one process.
EVERYWHERE = [
    ("memory", "eventfd", "nowait"),
    ("shorten", "fail"),
    ("spoil", "interrupt", "delay"),
    ("reorder", "double"),
]
IO_URING = [("setup", "register", "mmap"), ("enter",)]
POSIX_AIO = [("dup", "thread"), ("aio",)]


def test_without_faults_nothing_of_the_hook_is_there(fault_build: Path) -> None:
    (with_faults,) = fault_build.glob("build/uringfile/_native*.so")
    for name in (b"uf_fault_arm", b"uf_fault_passes"):
        assert name in with_faults.read_bytes()
        assert name not in Path(_native.__file__).read_bytes()


def _try_all(fault_build: Path, engine: Any, points: tuple[str, ...]) -> None:
    if sys.implementation.name == "pypy":
        pytest.skip("PyPy collects garbage for minutes between so many faults")
    command = [sys.executable, str(LOOP), engine, ",".join(points)]
    done = run_with(fault_build, command, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for point in points:
        assert re.search(rf" {point}: struck [1-9]", done.stdout), point


@pytest.mark.timeout(300)
@pytest.mark.parametrize("points", EVERYWHERE, ids=" ".join)
def test_a_fault_at_each_place(fault_build: Path, engine: Any, points: tuple[str, ...]) -> None:
    _try_all(fault_build, engine, points)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["io_uring"], indirect=True)
@pytest.mark.parametrize("points", IO_URING, ids=" ".join)
def test_a_fault_at_each_place_of_io_uring(
    fault_build: Path, engine: Any, points: tuple[str, ...]
) -> None:
    _try_all(fault_build, engine, points)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["posix_aio"], indirect=True)
@pytest.mark.parametrize("points", POSIX_AIO, ids=" ".join)
def test_a_fault_at_each_place_of_posix_aio(
    fault_build: Path, engine: Any, points: tuple[str, ...]
) -> None:
    _try_all(fault_build, engine, points)


# What io_uring_enter answers for ever: interrupted, no memory for requests, completions that
# overflow, and that it took nothing.
STUBBORN = """
import asyncio, errno, sys, warnings
from uringfile._native import lib
from uringfile import AIOFile, stats

FOR_EVER = 1 << 40

async def main(path, answer):
    async with AIOFile(path, "rb+", engine="io_uring") as f:
        f._inline = False
        before = stats("io_uring")
        lib.uf_fault_arm(lib.UF_FAULT_ENTER, 1, answer, FOR_EVER)
        reads = f.read(8, 800), f.read_many([(8, 0), (8, 8)])
        calls = *reads, f.write(b"x" * 8, 80), f.fdatasync()
        tasks = [asyncio.ensure_future(call) for call in calls]
        lost = asyncio.ensure_future(f.read(8))
        await asyncio.sleep(0.05)
        lost.cancel()
        done, _ = await asyncio.wait([lost, *tasks], timeout=0.05)
        assert done == {lost}, done
        now = stats("io_uring")
        assert now.retried > before.retried
        struck = lib.uf_fault_struck(lib.UF_FAULT_ENTER)
        assert 0 < struck <= 16 * (now.flushes - before.flushes), struck
        lib.uf_fault_disarm()
        found = await asyncio.wait_for(asyncio.gather(*tasks), 20)
        assert found[:3] == [(800).to_bytes(8, "big"), [bytes(8), (8).to_bytes(8, "big")], 8], found
        assert await f.read(8, 80) == b"x" * 8
        while stats("io_uring").in_flight:
            await asyncio.sleep(0.001)

async def end(path):
    f = await AIOFile(path, "rb", engine="io_uring")
    f._inline = False
    lib.uf_fault_arm(lib.UF_FAULT_ENTER, 1, -errno.EINTR, FOR_EVER)
    await f.read(8)

for answer in (-errno.EINTR, -errno.EAGAIN, -errno.EBUSY, 1):
    asyncio.run(main(sys.argv[1], answer))
warnings.simplefilter("ignore", ResourceWarning)
try:
    asyncio.run(asyncio.wait_for(end(sys.argv[1]), 0.05))
except asyncio.TimeoutError:
    lib.uf_fault_disarm()
    asyncio.run(main(sys.argv[1], 1))
    print("went on")
"""


@pytest.mark.parametrize("engine", ["io_uring"], indirect=True)
@pytest.mark.usefixtures("engine")
def test_a_kernel_that_takes_nothing_does_not_hold_the_loop(fault_build: Path, data: Path) -> None:
    """Callers are released, timeouts and the end of the loop come, and what was accepted is done
    when the kernel takes it."""
    done = run_with(fault_build, [sys.executable, "-c", STUBBORN, str(data)])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "went on\n"


# With SQPOLL only to wake the kernel's thread, and to wait for it, is a call.
ASLEEP = """
import asyncio, sys
from uringfile._native import lib
from uringfile import AIOFile

async def read_many(f):
    lib.uf_fault_arm(lib.UF_FAULT_ENTER, 1, 1, 1 << 40)
    reads = [asyncio.ensure_future(f.read(8, 8 * i)) for i in range(200)]
    await asyncio.sleep(0.05)
    struck = lib.uf_fault_struck(lib.UF_FAULT_ENTER)
    lib.uf_fault_disarm()
    found = await asyncio.wait_for(asyncio.gather(*reads), 20)
    assert [int.from_bytes(block, "big") for block in found] == list(range(0, 1600, 8))
    return struck

async def main(path):
    async with AIOFile(path, "rb", engine="io_uring") as f:
        f._inline = False
        for _ in range(50):
            await asyncio.sleep(0.1)  # until it has fallen asleep
            if await read_many(f):
                return
        raise AssertionError("it never sleeps")

asyncio.run(main(sys.argv[1]))
"""


def test_a_kernel_thread_that_is_not_woken_does_not_hold_the_loop(
    fault_build: Path, data: Path
) -> None:
    sqpoll_engine().destroy()
    command = [sys.executable, "-c", ASLEEP, str(data)]
    done = run_with(fault_build, command, URINGFILE_SQPOLL_MS="2")
    assert done.returncode == 0, done.stderr


# Where no thread is to be had, close(2) is made here.
NO_THREAD = """
import asyncio, errno, os
from uringfile._native import lib
from uringfile._fd import close_unasked

async def main():
    lib.uf_fault_arm(lib.UF_FAULT_THREAD, 1, -errno.EAGAIN, 1 << 40)
    fd = os.dup(0)
    close_unasked(fd)
    assert lib.uf_fault_struck(lib.UF_FAULT_THREAD) == 1
    assert not lib.uf_closing()
    try:
        os.fstat(fd)
    except OSError:
        print("closed")

asyncio.run(main())
"""


def test_what_no_thread_can_close_is_closed_at_once(fault_build: Path) -> None:
    done = run_with(fault_build, [sys.executable, "-c", NO_THREAD])
    assert done.stdout == "closed\n", done.stderr


# No thread, no memory, or interrupted each time, and nothing is in flight.
IN_VAIN = """
import asyncio, errno, os, sys
from uringfile._native import lib
from uringfile import AIOFile

FOR_EVER = 1 << 40

async def main(path, engine, point, answer):
    f = await AIOFile(path, "rb+", engine=engine)
    fd = f.fileno()
    f._inline = False
    lib.uf_fault_arm(getattr(lib, "UF_FAULT_" + point), 1, answer, FOR_EVER)
    if len(sys.argv) < 6:
        lib.uf_fault_arm(lib.UF_FAULT_PATIENCE, 3, 1, FOR_EVER)
    calls = f.read(8, 800), f.read_many([(8, 0), (8, 8)]), f.write(b"x" * 8, 80), f.fsync()
    failed = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
    for error in failed:
        assert isinstance(error, BlockingIOError), failed
        assert error.errno == errno.EAGAIN
        assert os.fsdecode(error.filename) == path
    if point == "AIO":  # state intact
        lib.uf_fault_disarm()
        assert await f.read(8, 800) == (800).to_bytes(8, "big")
        assert await f.write(b"x" * 8, 80) == 8
    await asyncio.wait_for(f.close(), 20)
    try:
        os.fstat(fd)
    except OSError:
        print("closed")

asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
"""


@pytest.mark.parametrize(
    ("engine", "point", "answer", "patience"),
    [
        ("io_uring", "ENTER", -errno.EINTR, []),
        ("io_uring", "ENTER", -errno.EAGAIN, []),
        ("posix_aio", "AIO", -errno.EAGAIN, []),
        ("posix_aio", "AIO", -errno.EAGAIN, ["a second"]),
    ],
    indirect=["engine"],
)
def test_a_refusal_that_lasts_is_told(
    fault_build: Path, data: Path, engine: str, point: str, answer: int, patience: list[str]
) -> None:
    """And close() ends. When it has lasted says the fault hook, or the clock."""
    command = [sys.executable, "-c", IN_VAIN, str(data), engine, point, str(answer), *patience]
    done = run_with(fault_build, command)
    assert done.stdout == "closed\n", done.stderr
