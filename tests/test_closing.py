"""Closing in the midst of everything: no other file is touched, nobody is left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    check,
    collect,
    count,
    leaves_unclosed,
    nothing_in_flight,
    nothing_is_closing,
    open_fds,
    run,
    run_python,
)
from fake_engine import FakeEngine
from test_driver import driver, fake, open_on_fake, turns  # noqa: F401  (fixtures)

from uringfile import AIOFile, ClosedFileError
from uringfile._direct import DirectIO
from uringfile._driver import Driver
from uringfile._engine import OPENAT, READ, WRITE
from uringfile._fd import Descriptor
from uringfile._open import in_thread


async def release(fd: int, engine: Any) -> None:
    """End the read of a pipe that POSIX AIO could not stop."""
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, b"end")
    os.close(fd)
    await nothing_in_flight(engine)


async def test_a_direct_write_of_many_pieces_is_waited_for(tmp_path: Path, engine: Any) -> None:
    """Between two pieces close() must not release the number, for the next file to get it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"V" * (8 << 20))
    async with AIOFile(victim, "rb", engine=engine) as v:  # its path is cached now
        await v.read(1)
    f = await AIOFile(tmp_path / "f", "wb", direct=True, engine=engine)
    writing = asyncio.ensure_future(f.write(b"W" * (4 << 20)))
    await asyncio.sleep(0)
    await f.close()
    async with AIOFile(victim, "rb+", engine=engine):
        assert await writing == 4 << 20
    assert victim.read_bytes() == b"V" * (8 << 20)
    assert (tmp_path / "f").read_bytes() == b"W" * (4 << 20)


async def test_a_direct_write_that_needs_the_second_descriptor(tmp_path: Path, engine: Any) -> None:
    f = await AIOFile(tmp_path / "f", "wb", direct=True, engine=engine)
    await f.close()
    before = open_fds()
    for _ in range(20):
        f = await AIOFile(tmp_path / "f", "wb", direct=True, engine=engine)
        writing = asyncio.ensure_future(f.write(b"odd", 1))
        await asyncio.sleep(0)
        await f.close()
        assert await writing == 3
    assert open_fds() == before


async def test_the_second_descriptor_of_an_unclosed_file(tmp_path: Path, engine: Any) -> None:
    async def forgotten() -> None:
        f = await AIOFile(tmp_path / "f", "wb", direct=True, engine=engine)
        await f.write(b"odd", 1)

    await (await AIOFile(tmp_path / "f", "wb", engine=engine)).close()
    before = open_fds()
    with leaves_unclosed("unclosed file"):
        await forgotten()
    assert open_fds() == before


async def test_a_read_does_not_go_on_after_close(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    file = await open_on_fake()
    fd = file.fileno()
    reading = asyncio.ensure_future(file.read(100))
    await turns()
    (operation,) = fake.pending()
    operation.length = 10  # short: it will be continued
    fake.perform(operation.token)
    closing = asyncio.ensure_future(file.close())
    await turns()
    await closing
    with pytest.raises(ClosedFileError):
        await reading
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


async def test_streams_tell_those_who_wait_for_their_turn(engine: Any) -> None:
    ends = os.pipe()
    f = await AIOFile(ends[1], "wb", engine=engine)
    writes = [asyncio.ensure_future(f.write(b"x" * 200_000)) for _ in range(3)]
    await asyncio.sleep(0.05)
    closing = asyncio.ensure_future(f.close())
    await asyncio.sleep(0.05)
    os.close(ends[0])  # what POSIX AIO cannot stop ends with EPIPE
    await asyncio.wait_for(closing, 5)
    results = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 5)
    assert isinstance(results[0], (ClosedFileError, BrokenPipeError))
    assert [type(result) for result in results[1:]] == [ClosedFileError] * 2

    ends = os.pipe()
    f = await AIOFile(ends[0], "rb", engine=engine)
    reads = [asyncio.ensure_future(f.read(10)) for _ in range(3)]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(f.close(), 5)
    results = await asyncio.wait_for(asyncio.gather(*reads, return_exceptions=True), 5)
    assert [type(result) for result in results] == [ClosedFileError] * 3
    await release(ends[1], engine)


async def test_a_read_that_adopted_an_older_one_is_told(engine: Any) -> None:
    ends = os.pipe()
    f = await AIOFile(ends[0], "rb", engine=engine)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(f.read(10), 0.05)
    reading = asyncio.ensure_future(f.read(10))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(f.close(), 5)
    with pytest.raises(ClosedFileError):
        await asyncio.wait_for(reading, 5)
    await release(ends[1], engine)


async def test_reading_a_stream_to_its_end_loses_nothing(
    pipe: tuple[int, int], engine: Any
) -> None:
    async with AIOFile(os.dup(pipe[0]), "rb", engine=engine) as f:
        reading = asyncio.ensure_future(f.read())
        os.write(pipe[1], b"abc")
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        os.write(pipe[1], b"def")
        assert await asyncio.wait_for(f.read(3), 5) == b"abc"
        assert await asyncio.wait_for(f.read(3), 5) == b"def"


async def test_a_socket_is_written_while_it_is_read(engine: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with AIOFile(os.dup(ours.fileno()), "rb+", engine=engine) as f:
            reading = asyncio.ensure_future(f.read(10))
            await asyncio.sleep(0.05)
            assert await asyncio.wait_for(f.write(b"hi"), 5) == 2
            assert theirs.recv(10) == b"hi"
            theirs.send(b"back")
            assert await asyncio.wait_for(reading, 5) == b"back"


async def test_readers_of_cached_data_share_the_loop(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        await f.read()
        counts = [0] * 4
        end = time.monotonic() + 0.3

        async def read(i: int) -> None:
            while time.monotonic() < end:
                await f.read(100)
                counts[i] += 1

        await asyncio.gather(*[read(i) for i in range(4)])
    assert min(counts) * 4 > max(counts) > 100


def test_the_loop_ends_while_close_waits(engine: Any) -> None:
    code = """
import asyncio, os, sys, warnings, uringfile
import uringfile._ending as d
engine = sys.argv[1]
async def main(loop):
    r, w = os.pipe()
    f = await uringfile.AIOFile(r, "rb", engine=engine)
    asyncio.ensure_future(f.read(10))
    await asyncio.sleep(0.05)
    asyncio.ensure_future(f.close())
    await asyncio.sleep(0)
    loop.stop()
    return w
loop = asyncio.new_event_loop()
task = loop.create_task(main(loop))
loop.run_forever()
loop.close()
for driver in list(d.drivers):
    driver.close()
    assert not driver.alive
"""
    done = run_python(code, engine, PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    assert "Event loop is closed" not in done.stderr


async def test_an_executor_that_is_shut_down(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    count("io_uring")  # which needs no thread to close the file
    f = await AIOFile(tmp_path / "f", "rb+", engine="io_uring")
    assert f._driver is not None
    engine = f._driver.engine
    engine.opcodes = 1 << READ | 1 << WRITE  # the rest in threads
    loop = asyncio.get_running_loop()
    await loop.shutdown_default_executor()
    with pytest.raises(RuntimeError):
        await f.truncate(0)
    descriptor = f._descriptor
    assert descriptor is not None
    assert descriptor.holders == 0
    await f.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor.fd)


async def test_a_coroutine_that_is_closed_abandons_its_operation(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    orphans: list[int] = []
    coroutine = driver.run(OPENAT, Descriptor(99), b"p\0", 0, 0, orphans.append)
    coroutine.send(None)
    coroutine.close()
    (operation,) = fake.pending()
    assert operation.cancel_asked
    fake.complete(operation.token, 42)
    await turns()
    assert orphans == [42]


def test_the_loop_ends_when_a_close_has_just_begun(tmp_path: Path, engine: Any) -> None:
    """Its task may be cancelled before the first step of it."""

    async def close_in(turns: int, f: AIOFile) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await f.close()

    async def main(turns: int) -> None:
        f = await AIOFile(tmp_path / "f", "wb", engine=engine)
        closing = asyncio.ensure_future(close_in(turns, f))
        closing.add_done_callback(lambda _: None)
        await asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it may not begin at all
        for n in range(6):
            run(main(n))
            assert not any(str(tmp_path) in fd for fd in open_fds()), n


@pytest.mark.parametrize("when", ["before its thread is done", "after that"])
async def test_a_coroutine_that_is_closed_leaves_no_descriptor(
    driver: Driver,  # noqa: F811
    when: str,
) -> None:
    loop = asyncio.get_running_loop()
    opened: list[int] = []
    go_on = threading.Event()

    def open_null() -> int:
        go_on.wait()
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[0]

    opening = in_thread(driver, Descriptor(-1), open_null, on_orphan=os.close)
    opening.send(None)
    if when == "after that":
        go_on.set()
        while not opened:
            await asyncio.sleep(0.001)
        await loop.run_in_executor(None, int)
        await turns()
    opening.close()
    go_on.set()
    while not opened:
        await asyncio.sleep(0.001)
    await loop.run_in_executor(None, int)
    await turns()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(opened[0])


async def test_a_refused_cancellation_is_asked_for_again(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = [-errno.EAGAIN] * 5
    real = fake.cancel
    monkeypatch.setattr(fake, "cancel", lambda token: refusals.pop() if refusals else real(token))
    task = asyncio.ensure_future(driver.run(READ, Descriptor(99), b"x" * 8, 8))
    await turns()
    task.cancel()
    while not fake.pending()[0].cancel_asked:
        await asyncio.sleep(0.001)
    assert not refusals


def test_a_loop_that_is_dropped_with_a_read_pending(engine: Any) -> None:
    code = """
import asyncio, gc, os, sys, uringfile
engine = sys.argv[1]
ends = os.pipe()
def once():
    loop = asyncio.new_event_loop()
    async def main():
        f = await uringfile.AIOFile(os.dup(ends[0]), "rb", engine=engine)
        loop.create_task(f.read(10))
        await asyncio.sleep(0.01)
    loop.run_until_complete(main())
    del loop
    [gc.collect() for _ in range(4)]  # without reference counts one is not enough
once()
before = len(os.listdir("/proc/self/fd"))
for _ in range(8):
    once()
gc.collect()
after = len(os.listdir("/proc/self/fd"))
assert after < before + (20 if engine == "io_uring" else 30), (before, after)
"""
    check(code, engine, PYTHONWARNINGS="ignore")


def test_idle_engines_leave_the_workers_to_others(data: Path) -> None:
    """POSIX AIO has 128 workers for the process; engines that do nothing take none."""
    from uringfile._native_engine import NativeEngine, pin

    engines = [NativeEngine("posix_aio") for _ in range(140)]
    fd = os.open(data, os.O_RDONLY)
    for engine in engines:
        assert engine.submit(READ, fd, pin(bytearray(8)), 8, 0, 1) == 0
        engine.flush()
        while not engine.reap(True):
            assert engine.wait(10_000) == 1
    for engine in engines:
        engine.destroy()
    os.close(fd)


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "٣", "9" * 12])
@pytest.mark.parametrize(
    "variable",
    ["URINGFILE_POLL_US", "URINGFILE_SQPOLL_MS", "URINGFILE_INLINE", "URINGFILE_SLOW_MS"],
)
async def test_a_bad_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, data: Path, variable: str, text: str
) -> None:
    monkeypatch.setenv("URINGFILE_DEBUG", "1")
    monkeypatch.setenv(variable, text)
    collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ValueError, match=variable):
            await AIOFile(data)
    collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_direct_reads_of_all_sizes_keep_little_memory(tmp_path: Path, engine: Any) -> None:
    async def main() -> int:
        (tmp_path / "f").write_bytes(os.urandom(2 << 20))
        async with AIOFile(tmp_path / "f", "rb", direct=True, engine=engine) as f:
            for size in range(4096, 1 << 20, 65536):
                await asyncio.gather(*[f.read(size, i) for i in range(16)])
            assert f._direct_io is not None
            return sum(len(b.memory) for free in f._direct_io._free.values() for b in free)

    assert run(main()) <= 16 << 20


async def test_a_short_direct_read_is_continued(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Short in the middle, as FUSE may be: not the end of the file."""
    content = os.urandom(20_000)
    (tmp_path / "f").write_bytes(content)
    file = AIOFile(tmp_path / "f", "rb")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    direct = DirectIO(driver, Descriptor(fd), file, 512, True)
    reading = asyncio.ensure_future(direct.read(100_000, 10))
    shorten = True
    while not reading.done():
        await turns()
        for operation in fake.pending():
            if shorten:
                operation.length = 1000
            shorten = not shorten
            fake.perform(operation.token)
    assert await reading == content[10:]
    os.close(fd)


async def test_close_does_not_wait_for_reads_that_hang(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    """A hung server: the caller goes on, the descriptor follows when the kernel lets go."""
    file = await open_on_fake()
    fd = file.fileno()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(file.read(10), 0.01)
    await asyncio.wait_for(file.close(), 2)
    os.fstat(fd)
    fake.complete(fake.pending()[0].token, 10)
    await turns()
    nothing_is_closing()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


async def test_the_end_of_the_offsets(data: Path, engine: Any) -> None:
    last = 2**63 - 1
    for direct in (False, True):
        async with AIOFile(data, "rb", direct=direct, engine=engine) as f:
            for offset in (last, last - 1, last - 4096, last - 100_000):
                assert await f.read(-1, offset) == b""
                assert await f.read(10, offset) == b""


def test_interpreter_exit_ends_the_engines(engine: Any) -> None:
    code = """
import atexit

def end():
    assert not driver.alive
    assert driver.engine.submit(0, 0, b"", 0, 0, 1) == -108, "destroyed"
    print("ended", len(_inflight._immortal))

atexit.register(end)  # before the library's own, and so called after it

import asyncio, os, sys, uringfile
from uringfile import _inflight
ends = os.pipe()
loop = asyncio.new_event_loop()
async def main():
    f = await uringfile.AIOFile(ends[0], "rb", engine=sys.argv[1])
    loop.create_task(f.read(1000))
    await asyncio.sleep(0.05)
    return f
f = loop.run_until_complete(main())
driver = f._driver
"""
    expected = "ended 1" if engine == "posix_aio" else "ended 0"
    assert expected in check(code, engine, PYTHONWARNINGS="ignore")


def test_a_cancellation_when_all_descriptors_were_closed_from_outside() -> None:
    """As programs do that become a daemon: aio_cancel(3) answers EBADF then."""
    count("posix_aio")
    code = """
import asyncio, contextlib, os
from uringfile import AIOFile
async def main():
    ends = os.pipe()
    f = await AIOFile(ends[0], "rb", engine="posix_aio")
    reading = asyncio.ensure_future(f.read(1))
    await asyncio.sleep(0.05)
    pipe = os.fstat(ends[0])
    for fd in range(3, 100):
        with contextlib.suppress(OSError):
            if fd not in ends and os.path.samestat(os.fstat(fd), pipe):
                os.close(fd)
                print("closed")
    reading.cancel()
    await asyncio.wait([reading], timeout=10)
    print(reading.cancelled(), flush=True)
    os._exit(0)
asyncio.run(main())
"""
    assert check(code, timeout=30) == "closed\nTrue\n"


def test_a_warning_that_is_an_error_spares_no_engine_its_end() -> None:
    """A read that POSIX AIO cannot stop, in each of two loops."""
    count("posix_aio")
    code = """
import atexit

def end():
    print([driver.alive for driver in drivers], len(_inflight._immortal))

atexit.register(end)  # before the library's own, and so called after it

import asyncio, os, uringfile
from uringfile import _inflight
files, drivers = [], []
async def main(loop):
    f = await uringfile.AIOFile(os.pipe()[0], "rb", engine="posix_aio")
    loop.create_task(f.read(1000))
    await asyncio.sleep(0.05)
    files.append(f)
    drivers.append(f._driver)
loops = [asyncio.new_event_loop() for _ in range(2)]
for loop in loops:
    loop.run_until_complete(main(loop))
"""
    assert "[False, False] 2\n" in check(code, PYTHONWARNINGS="error::ResourceWarning")
