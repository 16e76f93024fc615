"""Aligned memory: what is aligned goes to and from the disk without a bounce buffer, and a buffer
of a pool is not handed out again while anything may still touch it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import COUNTS_REFERENCES, check, collect, run
from fake_engine import FakeEngine
from test_driver import driver, fake, open_on_fake, turns  # noqa: F401

from uringfile import AIOFile, BufferPool, _direct, _loop
from uringfile._driver import Driver
from uringfile._engine import READ
from uringfile._fd import Descriptor
from uringfile._kernel import O_PATH
from uringfile._native_engine import address, pin

PAGE = mmap.PAGESIZE


def free(pool: BufferPool) -> int:
    """When all that was dropped is gone."""
    if not COUNTS_REFERENCES:
        collect()
    return pool.free


@pytest.fixture
def bounces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bounce buffers that are made."""
    made: list[int] = []

    class Counted(_direct._Bounce):
        def __init__(self, size: int) -> None:
            made.append(size)
            super().__init__(size)

    monkeypatch.setattr(_direct, "_Bounce", Counted)
    return made


# ---- in place ---


async def test_aligned_memory_needs_no_bounce_buffer(
    tmp_path: Path, engine: Any, bounces: list[int]
) -> None:
    pool = BufferPool(16 * PAGE, 4)
    content = os.urandom(16 * PAGE)
    async with AIOFile(tmp_path / "f", "wb+", direct=True, engine=engine) as f:
        async with pool.buffer() as buffer:
            buffer[:] = content
            assert await f.write(buffer, PAGE) == len(buffer)
            assert await f.write_many([(buffer[:PAGE], 0), (buffer, 17 * PAGE)]) == [
                PAGE,
                len(buffer),
            ]
        async with pool.buffer() as one, pool.buffer() as two:
            assert await f.readinto(one, 17 * PAGE) == len(content)
            assert one == content
            assert await f.readinto_many([(one, PAGE), (two[PAGE:], 0)]) == [16 * PAGE, 15 * PAGE]
            assert one == content
            assert two[PAGE : 2 * PAGE] == content[:PAGE]
            assert two[2 * PAGE :] == content[: 14 * PAGE]
    assert not bounces
    assert (tmp_path / "f").read_bytes() == content[:PAGE] + content + content


async def test_large_ones_go_in_pieces(tmp_path: Path, engine: Any, bounces: list[int]) -> None:
    size = 2 * _direct.IN_PLACE + 3 * PAGE
    pool = BufferPool(size, 2)
    async with (
        AIOFile(tmp_path / "f", "wb+", direct=True, engine=engine) as f,
        pool.buffer() as one,
        pool.buffer() as two,
    ):
        one[:] = random.Random(1).randbytes(size)
        assert await f.write(one) == size
        assert await f.readinto(two) == size
        assert one == two
    assert not bounces


async def test_the_unaligned_end_of_a_file(tmp_path: Path, engine: Any) -> None:
    content = os.urandom(2 * PAGE + 100)
    (tmp_path / "f").write_bytes(content)
    pool = BufferPool(8 * PAGE, 1)
    async with (
        AIOFile(tmp_path / "f", "rb", direct=True, engine=engine) as f,
        pool.buffer() as buffer,
    ):
        assert await f.readinto(buffer) == len(content)
        assert buffer[: len(content)] == content
        assert await f.readinto(buffer, 2 * PAGE) == 100
        assert buffer[:100] == content[-100:]
        assert await f.readinto(buffer, 3 * PAGE) == 0
        assert await f.readinto(buffer, 1 << 62) == 0


async def test_nothing_outside_of_the_request_is_touched(tmp_path: Path, engine: Any) -> None:
    """Any place of memory, any offset and size: the bytes before and behind stay as they were."""
    rng = random.Random(4)
    model = bytearray(rng.randbytes(20 * PAGE + 77))
    (tmp_path / "f").write_bytes(model)
    memory = mmap.mmap(-1, 40 * PAGE)
    async with AIOFile(tmp_path / "f", "rb+", direct=True, engine=engine) as f:
        for _ in range(150):
            start = rng.choice([0, PAGE, 3 * PAGE, 1, 512, 4097])
            size = rng.choice([1, 512, PAGE, 4 * PAGE, 4 * PAGE + 3, 9 * PAGE - 1])
            offset = rng.choice([0, PAGE, 5 * PAGE, 512, 4097, 19 * PAGE])
            view = memoryview(memory)[start : start + size]
            if rng.random() < 0.4:
                view[:] = rng.randbytes(size)
                assert await f.write(view, offset) == size
                model[offset : offset + size] = view
                continue
            memory[:] = b"\xaa" * len(memory)
            n = await f.readinto(view, offset)
            assert n == len(model[offset : offset + size])
            assert memory[start : start + n] == model[offset : offset + size]
            assert memory[:start] == b"\xaa" * start
            end = start + size
            assert memory[end:] == b"\xaa" * (len(memory) - end)
        assert await f.read() == model


async def test_memory_that_the_kernel_refuses_goes_through_a_bounce_buffer(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
    bounces: list[int],
) -> None:
    content = os.urandom(4 * PAGE)
    (tmp_path / "f").write_bytes(content)
    fd = os.open(tmp_path / "f", os.O_RDWR)
    file = AIOFile(tmp_path / "f", "rb+")
    direct = _direct.DirectIO(driver, Descriptor(fd), file, 512, True)
    buffer = mmap.mmap(-1, 4 * PAGE)
    for error in (errno.EFAULT, errno.EINVAL):
        for call in (
            direct.readinto(pin(buffer), len(buffer), 0),
            direct.write_some(pin(buffer), 0, 0),
        ):
            task = asyncio.ensure_future(call)
            await turns()
            fake.complete(fake.pending()[0].token, -error)
            while not task.done():
                await turns()
                for operation in fake.pending():
                    fake.perform(operation.token)
            assert await task == len(buffer)
    assert buffer[:] == content
    assert bounces
    for call in (direct.readinto(pin(buffer), PAGE, 0), direct.write_some(pin(buffer), 0, 0)):
        task = asyncio.ensure_future(call)
        await turns()
        fake.complete(fake.pending()[0].token, -errno.EIO)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await task
    os.close(fd)


# ---- the pool ---


async def test_buffers_are_aligned_and_apart() -> None:
    pool = BufferPool(5000, 3)
    assert (pool.size, pool.count, pool.free) == (5000, 3, 3)
    buffers = [await pool.acquire() for _ in range(3)]
    starts = sorted(address(pin(buffer)) for buffer in buffers)
    assert all(start % PAGE == 0 for start in starts)
    assert starts[1] - starts[0] >= 5000
    assert starts[2] - starts[1] >= 5000
    assert free(pool) == 0
    for buffer in buffers:
        assert len(buffer) == 5000
        assert not buffer.readonly
        pool.release(buffer)
    assert free(pool) == 3


async def test_a_buffer_is_taken_until_its_cancelled_read_is_reaped(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    file = await open_on_fake()
    pool = BufferPool(PAGE, 1)
    for part in (slice(None), slice(0, 100), slice(50, None)):
        buffer = await pool.acquire()
        reading = asyncio.ensure_future(file.readinto(buffer[part], 0))
        await turns()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        del reading
        pool.release(buffer)
        assert free(pool) == 0, "the kernel may still write to it"
        waiting = asyncio.ensure_future(pool.acquire())
        await turns()
        assert not waiting.done()
        (operation,) = fake.pending()
        operation.addr = None  # a real engine holds an address, not a reference
        fake.complete(operation.token, 100)
        del operation
        again = await asyncio.wait_for(waiting, 5)
        pool.release(again)
        assert free(pool) == 1
    await file.close()


async def test_a_hung_read_keeps_its_buffer(pipe: tuple[int, int], engine: Any) -> None:
    """With the real kernel, which writes to it late (POSIX AIO) or never again (io_uring)."""
    pool = BufferPool(PAGE, 1)
    running = _loop.running_driver(engine)
    buffer = await pool.acquire()
    buffer[:] = bytes(PAGE)
    reading = asyncio.ensure_future(running.run(READ, Descriptor(pipe[0]), pin(buffer), PAGE))
    await asyncio.sleep(0.02)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    del reading
    pool.release(buffer)
    waiting = asyncio.ensure_future(pool.acquire())
    await asyncio.wait([waiting], timeout=0.02 if COUNTS_REFERENCES else 5)
    if waiting.done():  # the kernel has let go of it
        (await waiting)[:] = b"y" * PAGE
        os.write(pipe[1], b"x" * PAGE)
        await asyncio.sleep(0.02)
        assert (await waiting) == b"y" * PAGE
    else:
        os.write(pipe[1], b"x" * PAGE)
        assert (await asyncio.wait_for(waiting, 5)) == b"x" * PAGE


async def test_slices_and_arrays_keep_it_too() -> None:
    pool = BufferPool(PAGE, 1)
    buffer = await pool.acquire()
    part = buffer[10:20]
    pool.release(buffer)
    assert free(pool) == 0
    part[:] = b"0123456789"  # still his
    del part
    assert free(pool) == 1
    if not COUNTS_REFERENCES:
        return  # release() of PyPy's memoryview does not mind an array
    buffer = await pool.acquire()
    array = ctypes.c_char.from_buffer(buffer)
    pool.release(buffer)
    assert free(pool) == 0
    del array, buffer
    collect()
    assert free(pool) == 1


async def test_dropped_is_given_back() -> None:
    pool = BufferPool(PAGE, 1)
    for _ in range(3):
        buffer = await pool.acquire()
        buffer[0] = 1
        del buffer
        assert free(pool) == 1


@pytest.mark.skipif(not COUNTS_REFERENCES, reason="PyPy gives back what it has collected")
async def test_waiting_in_call_order_and_cancelled() -> None:
    pool = BufferPool(PAGE, 2)
    held = [await pool.acquire() for _ in range(2)]
    waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(6)]
    await turns()
    waiting[0].cancel()
    waiting[3].cancel()
    for buffer in held:
        pool.release(buffer)
    await turns()
    assert [task.done() for task in waiting] == [True, True, True, True, False, False]
    waiting[4].cancel()
    pool.release(waiting[1].result())
    waiting[5].cancel()  # in the very turn in which it gets one, or before
    await turns()
    pool.release(waiting[2].result())
    await turns()
    assert free(pool) == 2
    held = [await pool.acquire() for _ in range(2)]
    lost = asyncio.ensure_future(pool.acquire())
    await turns()
    lost.cancel()
    for buffer in held:
        pool.release(buffer)
    pool.release(await asyncio.wait_for(pool.acquire(), 1))  # not behind the one that is lost


async def test_a_hundred_tasks_share_four_buffers(data: Path, engine: Any) -> None:
    pool = BufferPool(PAGE, 4)
    in_use = 0

    async def read(f: AIOFile, offset: int) -> None:
        nonlocal in_use
        async with pool.buffer() as buffer:
            in_use += 1
            assert in_use <= 4
            try:
                assert await f.readinto(buffer, offset) == PAGE
            finally:
                in_use -= 1
            assert buffer[:8] == offset.to_bytes(8, "big")

    async with AIOFile(data, "rb", direct=True, engine=engine) as f:
        reads = [asyncio.ensure_future(read(f, i * PAGE)) for i in range(100)]
        await turns(3)
        for task in reads[::7]:
            task.cancel()
        results = await asyncio.gather(*reads, return_exceptions=True)
    assert all(result is None for i, result in enumerate(results) if i % 7)
    del reads, results  # tracebacks
    collect()
    assert free(pool) == 4


def test_a_buffer_that_a_thread_drops_wakes_the_loop() -> None:
    async def main() -> None:
        pool = BufferPool(PAGE, 1)
        held = [await pool.acquire()]
        waiting = asyncio.ensure_future(pool.acquire())
        await turns()
        threading.Thread(target=held.clear).start()
        await asyncio.wait_for(waiting, 5)

    run(main())


def test_one_loop_after_another() -> None:
    pool = BufferPool(PAGE, 1)
    held = []

    async def first() -> None:
        held.append(await pool.acquire())
        asyncio.ensure_future(pool.acquire())  # noqa: RUF006  # ends with its loop
        await turns()

    async def second() -> None:
        waiting = asyncio.ensure_future(pool.acquire())
        await turns()
        pool.release(held.pop())
        pool.release(await asyncio.wait_for(waiting, 5))

    run(first())
    run(second())
    assert free(pool) == 1


async def test_misuse() -> None:
    for size, count in ((0, 1), (1, 0), (-1, 5)):
        with pytest.raises(ValueError, match="above 0"):
            BufferPool(size, count)
    with pytest.raises((OSError, OverflowError)):
        BufferPool(1 << 60, 1)
    pool, other = BufferPool(PAGE, 1), BufferPool(PAGE, 1)
    buffer = await pool.acquire()
    for wrong in (memoryview(bytearray(PAGE)), buffer[:10], await other.acquire()):
        with pytest.raises(ValueError, match="not a buffer of this pool"):
            pool.release(wrong)
    del wrong
    pool.release(buffer)
    with pytest.raises(ValueError, match="released"):
        buffer[0] = 1
    with pytest.raises(ValueError, match="released"):
        pool.release(buffer)
    assert free(pool) == 1


async def test_a_large_pool_asks_for_huge_pages() -> None:
    def advised(pool_buffer: memoryview) -> bool:
        start = address(pin(pool_buffer))
        flags = ""
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if found:
                inside = int(found[1], 16) <= start < int(found[2], 16)
            elif inside and line.startswith("VmFlags:"):
                flags = line
        return " hg" in flags

    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("a kernel without transparent huge pages")
    large, small = BufferPool(1 << 20, 3), BufferPool(PAGE, 1)
    buffer = await large.acquire()
    assert address(pin(buffer)) % (2 << 20) == 0
    assert advised(buffer)
    assert not advised(await small.acquire())


def test_a_forked_child_finds_zeros() -> None:
    code = """
import asyncio, os, uringfile
async def main():
    pool = uringfile.BufferPool(4096, 2)
    async with pool.buffer() as buffer:
        buffer[:5] = b"hello"
        pid = os.fork()
        if not pid:
            os._exit(bytes(buffer[:5]) != bytes(5))
        assert os.waitpid(pid, 0)[1] == 0
        assert buffer[:5] == b"hello"
asyncio.run(main())
"""
    check(code)


async def test_an_error_does_not_keep_a_buffer(tmp_path: Path, engine: Any) -> None:
    """Who waits for a buffer gets it, though the errors of others are kept, tracebacks and all."""
    (tmp_path / "f").write_bytes(bytes(4 * PAGE))
    pool = BufferPool(PAGE, 2)

    async with AIOFile(tmp_path / "f", "rb+", direct=True, engine=engine) as f:
        fd = f._open_descriptor().fd

        async def one(what: str) -> None:
            async with pool.buffer() as buffer:
                if what == "read":
                    await f.readinto(buffer, 0)
                elif what == "write":
                    await f.write(buffer, 0)
                elif what == "read many":
                    await f.readinto_many([(buffer[:100], 0), (buffer[200:], 0)])
                else:
                    await f.write_many([(buffer, 0)])

        # What works on neither: a descriptor that was opened by its path alone.
        path_only = os.open(tmp_path / "f", O_PATH)
        kept = os.dup(fd)
        os.dup2(path_only, fd)
        for lane in f._driver_here().engine.forget_fd(fd):
            os.close(lane)
        calls = [one(what) for what in ("read", "write", "read many", "write many", "read")]
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
        os.dup2(kept, fd)
        for lane in f._driver_here().engine.forget_fd(fd):
            os.close(lane)
        os.close(path_only)
        os.close(kept)
    assert [type(result) for result in results] == [OSError] * 5, results
    assert {getattr(result, "errno", 0) for result in results} == {errno.EBADF}
    assert free(pool) == 2
