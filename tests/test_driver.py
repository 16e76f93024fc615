"""The driver against the fake engine: the test decides when and how operations complete."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import collect, run
from fake_engine import FakeEngine

import uringfile
from uringfile import AIOFile, ClosedFileError, _ending, _loop
from uringfile._driver import Driver
from uringfile._engine import ASYNC, BATCH, CLOSE, FSYNC, OPENAT, READ, WRITE
from uringfile._fd import Descriptor
from uringfile._poll import MOST_CREDIT, PAUSE, VARIABLE, AdaptivePoll
from uringfile._turns import TURN_BUDGET


async def turns(n: int = 10) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.fixture
def fake() -> FakeEngine:
    """Without CLOSE, so that files on it are closed without a word from the test."""
    return FakeEngine(opcodes=0x1FF & ~(1 << CLOSE))


@pytest.fixture
async def driver(fake: FakeEngine) -> AsyncIterator[Driver]:
    driver = Driver(asyncio.get_running_loop(), fake, None)
    yield driver
    driver.loop.remove_reader(fake.eventfd)
    for operation in fake.pending():
        fake.complete(operation.token, -errno.ECANCELED)
    driver.close()
    assert fake.destroyed


def start(driver: Driver, n: int, fd: Descriptor | None = None) -> list[asyncio.Task[int]]:
    fd = fd or Descriptor(99)
    return [asyncio.ensure_future(driver.run(READ, fd, b"x" * 8, 8, i)) for i in range(n)]


async def test_one_flush_for_each_turn(driver: Driver, fake: FakeEngine) -> None:
    (first,) = start(driver, 1)
    await turns()
    assert fake.flushes == 1
    tasks = start(driver, 4)
    await turns()
    assert fake.flushes == 2
    fake.complete(fake.pending()[0].token, 8)
    assert await first == 8
    for operation in fake.pending():
        fake.complete(operation.token, 8)
    assert await asyncio.gather(*tasks) == [8] * 4


async def test_completions_in_any_order(driver: Driver, fake: FakeEngine) -> None:
    tasks = start(driver, 4)
    await turns()
    for operation in reversed(fake.pending()):
        fake.complete(operation.token, operation.offset)
        await turns()
        assert tasks[operation.offset].done()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


async def test_a_completion_that_comes_twice_is_ignored(driver: Driver, fake: FakeEngine) -> None:
    tasks = start(driver, 2)
    await turns()
    first, second = (operation.token for operation in fake.pending())
    fake.complete(first, 8)
    fake.done.append((first, 3))
    await turns()
    fake.complete(second, 7)
    fake.done.append((1 << 62, 3))
    assert await asyncio.gather(*tasks) == [8, 7]
    stats = driver.stats()
    assert (stats.strays, stats.completed, stats.in_flight) == (2, 2, 0)


async def test_more_than_the_engine_holds(driver: Driver, fake: FakeEngine) -> None:
    tasks = start(driver, 500)
    seen = []
    while not all(task.done() for task in tasks):
        await turns()
        assert len(fake.in_flight) <= fake.capacity
        for operation in fake.pending():
            seen.append(operation.offset)
            fake.complete(operation.token, 8)
    assert seen == sorted(seen), "in call order"
    assert await asyncio.gather(*tasks) == [8] * 500
    stats = driver.stats()
    assert (stats.submitted, stats.completed, stats.in_flight, stats.queued) == (500, 500, 0, 0)


async def test_cancel_releases_the_caller_and_keeps_the_buffer(
    driver: Driver, fake: FakeEngine
) -> None:
    class Buffer(bytearray):
        pass

    fd = Descriptor(99)
    buffer = Buffer(8)
    alive = weakref.ref(buffer)
    task = asyncio.ensure_future(driver.run(READ, fd, buffer, 8))
    await turns()
    (operation,) = fake.pending()
    operation.addr = None  # a real engine holds an address, not a reference
    del buffer
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await turns()  # the error, and with it the frame, lives as long as the step that it woke
    collect()
    assert alive() is not None, "the kernel may still write to it"
    assert fd.holders == 1
    assert operation.cancel_asked
    fake.cancel_done(operation.token)
    await turns()
    collect()
    assert alive() is None
    assert fd.holders == 0


async def test_cancel_before_the_flush(driver: Driver, fake: FakeEngine) -> None:
    first, task = start(driver, 2)
    await asyncio.sleep(0)
    assert len(fake.pending()) == 1
    task.cancel()
    await turns()
    assert task.cancelled()
    other, operation = fake.pending()
    assert operation.cancel_asked
    assert not other.cancel_asked
    fake.complete(operation.token, 8)  # the cancellation lost the race
    fake.complete(other.token, 8)
    assert await first == 8
    await turns()
    assert driver.stats().in_flight == 0


async def test_cancel_in_the_queue_never_reaches_the_engine(
    driver: Driver, fake: FakeEngine
) -> None:
    fd = Descriptor(99)
    tasks = start(driver, 20, fd)
    await turns()
    others = [start(driver, 1, Descriptor(i))[0] for i in range(10)]
    await turns()
    assert driver.stats().queued == 22
    for task in tasks[4:] + others[4:]:
        task.cancel()
    await turns()
    assert all(task.cancelled() for task in tasks[4:] + others[4:])
    assert driver.stats().queued == 0
    assert fd.holders == 4
    assert driver.stats().submitted == 8


async def test_cancelled_in_the_turn_of_the_completion(driver: Driver, fake: FakeEngine) -> None:
    orphans: list[int] = []
    task = asyncio.ensure_future(driver.run(OPENAT, Descriptor(99), b"p\0", 0, 0, orphans.append))
    await turns()
    (operation,) = fake.pending()
    fake.complete(operation.token, 42)
    driver._on_eventfd()  # the future is resolved, the task has not run yet
    task.cancel()
    await turns()
    assert task.cancelled()
    assert orphans == [42]


async def test_cancelled_open_closes_what_it_opened(driver: Driver, fake: FakeEngine) -> None:
    orphans: list[int] = []
    task = asyncio.ensure_future(driver.run(OPENAT, Descriptor(99), b"p\0", 0, 0, orphans.append))
    await turns()
    task.cancel()
    await turns()
    (operation,) = fake.pending()
    fake.complete(operation.token, 42)
    await turns()
    assert orphans == [42]


async def test_stubborn_operation_gives_its_descriptor_back(
    driver: Driver, fake: FakeEngine
) -> None:
    """EALREADY: it runs on a duplicate, so the file can be closed meanwhile."""
    fake.stubborn = True
    fd = Descriptor(99)
    (task,) = start(driver, 1, fd)
    await turns()
    task.cancel()
    await turns()
    assert fd.holders == 0
    assert driver.stats().in_flight == 1, "the buffer stays"
    (operation,) = fake.pending()
    fake.complete(operation.token, 8)
    await turns()
    assert driver.stats().in_flight == 0
    assert fd.holders == 0


async def test_flush_is_tried_again(driver: Driver, fake: FakeEngine) -> None:
    fake.flush_errors = [-errno.EAGAIN, -errno.EBUSY, -errno.ENOMEM]
    (task,) = start(driver, 1)
    while not fake.pending():
        await asyncio.sleep(0.001)
    assert fake.flushes == 4
    fake.complete(fake.pending()[0].token, 8)
    assert await task == 8


async def test_rejected_operation_is_an_error_at_once(driver: Driver, fake: FakeEngine) -> None:
    fake.opcodes = 0
    fd = Descriptor(99)
    assert await driver.run(FSYNC, fd) == -errno.EOPNOTSUPP
    assert fd.holders == 0


async def test_random_storms(driver: Driver, fake: FakeEngine) -> None:
    """Cancellations and completions in any order: each ends once, nothing stays held."""
    rng = random.Random(20)
    fd = Descriptor(99)
    for _ in range(200):
        tasks = start(driver, rng.randrange(1, 30), fd)
        while not all(task.done() for task in tasks):
            for task in tasks:
                if rng.random() < 0.1:
                    task.cancel()
            await turns(rng.randrange(6))
            pending = fake.pending()
            rng.shuffle(pending)
            for operation in pending[: rng.randrange(6)]:
                fake.complete(operation.token, rng.choice([8, 0, -errno.EIO, -errno.ECANCELED]))
    while fake.in_flight:
        await turns()
        for operation in fake.pending():
            fake.complete(operation.token, 8)
    await turns()
    assert fd.holders == 0
    assert driver.stats().in_flight == driver.stats().queued == 0


async def test_budget_lets_the_loop_run(driver: Driver) -> None:
    ran = []
    driver.budget = 0
    driver.loop.call_soon(ran.append, 1)
    await driver.yield_turn()
    assert ran == [1]
    assert driver.budget == TURN_BUDGET


# ---- staying awake ---


async def test_polling_gives_up_when_it_does_not_pay(fake: FakeEngine) -> None:
    loop = asyncio.get_running_loop()
    poll = AdaptivePoll(loop)
    tries = 0
    for _ in range(1000):
        poll.expect()
        tries += poll._awake
        poll._until = 0.0  # the window passes, and nothing has come
        await asyncio.sleep(0)
        assert not poll._awake
    assert tries <= MOST_CREDIT + 1000 // PAUSE + 1


async def test_polling_goes_on_while_it_pays(fake: FakeEngine) -> None:
    poll = AdaptivePoll(asyncio.get_running_loop())
    for _ in range(100):
        poll.expect()
        assert poll._awake
        poll.came()
        await asyncio.sleep(0)
        assert not poll._awake


async def test_polling_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    poll = AdaptivePoll(asyncio.get_running_loop())
    poll.expect()
    assert not poll._awake


# ---- files on the fake ---


@pytest.fixture
async def open_on_fake(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., AIOFile]:
    monkeypatch.setattr("uringfile._openfile.running_driver", lambda engine: driver)

    async def opened(mode: str = "rb+") -> AIOFile:
        path = tmp_path / "file"
        path.write_bytes(bytes(range(256)) * 16)
        file = AIOFile(os.open(path, os.O_RDWR), mode)
        await file.open()
        file._inline = False  # everything through the engine
        file._local = True  # but for close(2), wherever the tests run
        file._worker = 0
        return file

    return opened  # type: ignore[return-value]


async def test_short_reads_are_continued(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    task = asyncio.ensure_future(file.read(100, 0))
    lengths = []
    for length in (1, 60, 39):
        await turns()
        (operation,) = fake.pending()
        lengths.append(operation.length)
        operation.length = length
        fake.perform(operation.token)
    assert await task == bytes(range(100))
    assert lengths == [100, 99, 39]
    await file.close()


async def test_short_writes_are_continued(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    task = asyncio.ensure_future(file.write(b"abcdef", 10))
    for length in (1, 3, 2):
        await turns()
        (operation,) = fake.pending()
        operation.length = length
        fake.perform(operation.token)
    assert await task == 6
    assert os.pread(file.fileno(), 8, 9) == b"\x09abcdef\x10"
    await file.close()


async def test_failed_write_says_how_much_got_there(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    task = asyncio.ensure_future(file.write(b"abcdef", 10))
    await turns()
    (operation,) = fake.pending()
    operation.length = 4
    fake.perform(operation.token)
    await turns()
    fake.complete(fake.pending()[0].token, -errno.ENOSPC)
    with pytest.raises(OSError, match="No space") as raised:
        await task
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.characters_written == 4  # type: ignore[attr-defined]
    await file.close()


async def test_interrupted_operations_are_repeated(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    for call in (file.read(4), file.write(b"data"), file.fsync(), file.truncate(99)):
        task = asyncio.ensure_future(call)
        await turns()
        fake.complete(fake.pending()[0].token, -errno.EINTR)
        await turns()
        fake.perform(fake.pending()[0].token)
        await task
    await file.close()


async def test_close_ends_pending_reads_and_waits_for_writes(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    fd = file.fileno()
    read = asyncio.ensure_future(file.read(4))
    write = asyncio.ensure_future(file.write(b"data"))
    await turns()
    close = asyncio.ensure_future(file.close())
    await turns()
    with pytest.raises(ClosedFileError, match="was closed during read"):
        await read
    assert not write.done()
    assert not close.done()
    os.fstat(fd)  # still open: the engine holds it
    by_opcode = {operation.opcode: operation for operation in fake.pending()}
    assert by_opcode[READ].cancel_asked
    assert not by_opcode[WRITE].cancel_asked
    fake.cancel_done(by_opcode[READ].token)
    await turns()
    assert not close.done()
    fake.perform(by_opcode[WRITE].token)
    await close
    assert await write == 4
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert fd in fake.forgotten


async def test_close_waits_for_what_was_interrupted_or_fell_short(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    calls = [
        asyncio.ensure_future(call)
        for call in (
            file.write(b"data", 8),
            file.fsync(),
            file.truncate(99),
            file.write_many([(b"ab", 20), (b"cd", 30)]),
        )
    ]
    await turns()
    close = asyncio.ensure_future(file.close())
    await turns()
    for operation in fake.pending():
        if operation.opcode & BATCH:
            fake.complete(operation.token, 0)
            for part in operation.parts():
                part.result = -errno.EINTR
        else:
            fake.complete(operation.token, -errno.EINTR)
    for _ in range(3):
        await turns()
        assert not close.done()
        for operation in fake.pending():
            fake.perform(operation.token)
        if all(call.done() for call in calls):
            break
    assert await asyncio.gather(*calls) == [4, None, None, [2, 2]]
    await close


async def test_cancelled_close_goes_on(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    fd = file.fileno()
    write = asyncio.ensure_future(file.write(b"data"))
    await turns()
    close = asyncio.ensure_future(file.close())
    await turns()
    close.cancel()
    with pytest.raises(asyncio.CancelledError):
        await close
    assert file.closed
    os.fstat(fd)
    fake.perform(fake.pending()[0].token)
    assert await write == 4
    deadline = time.monotonic() + 5
    while os.path.lexists(f"/proc/self/fd/{fd}"):
        assert time.monotonic() < deadline, "the release goes on in the background"
        await asyncio.sleep(0.01)


async def test_close_through_the_engine_reports_its_error(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    fake.opcodes |= 1 << CLOSE
    fd = file.fileno()
    task = asyncio.ensure_future(file.close())
    await turns()
    (operation,) = fake.pending()
    assert operation.opcode == CLOSE | ASYNC
    os.close(fd)
    fake.complete(operation.token, -errno.EDQUOT)
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        await task
    await file.close()  # the second time it is closed, and silent
    assert file.closed


async def test_failed_fsync_sticks(open_on_fake: Callable[..., AIOFile], fake: FakeEngine) -> None:
    file = await open_on_fake()
    task = asyncio.ensure_future(file.fsync())
    await turns()
    fake.complete(fake.pending()[0].token, -errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await task
    for again in (file.fsync, file.fdsync):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await again()
    assert fake.pending() == []
    await file.close()


async def test_the_first_of_two_failed_fsyncs_sticks(
    open_on_fake: Callable[..., AIOFile], fake: FakeEngine
) -> None:
    file = await open_on_fake()
    calls = [asyncio.ensure_future(file.fsync()) for _ in range(2)]
    await turns()
    first, second = fake.pending()
    fake.complete(first.token, -errno.EIO)
    fake.complete(second.token, -errno.EDQUOT)
    for call, error in zip(calls, (errno.EIO, errno.EDQUOT), strict=True):
        with pytest.raises(OSError, match=os.strerror(error)):
            await call
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await file.fsync()
    await file.close()


# ---- the end of the loop ---


def test_closing_the_loop_frees_the_driver(fake: FakeEngine) -> None:
    loop = asyncio.new_event_loop()
    driver = weakref.ref(Driver(loop, fake, None))
    collect()
    assert driver() is not None, "the loop owns it"
    loop.close()
    collect()
    assert driver() is None
    assert fake.destroyed


def test_what_does_not_stop_is_leaked_and_reported(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ending, "LINGER_SECONDS", 0.05)

    class Buffer(bytearray):
        pass

    loop = asyncio.new_event_loop()
    driver = Driver(loop, fake, None)
    buffer = Buffer(8)
    alive = weakref.ref(buffer)
    driver.start(READ, Descriptor(99), buffer, 8)
    loop.run_until_complete(turns())
    fake.pending()[0].addr = None
    del buffer
    with pytest.warns(ResourceWarning, match="1 operations did not stop"):
        driver.close()
    loop.close()
    del driver
    collect()
    assert fake.destroyed
    assert alive() is not None


def test_nobody_is_woken_when_the_loop_is_closed(fake: FakeEngine) -> None:
    loop = asyncio.new_event_loop()
    driver = Driver(loop, fake, None)
    descriptor = Descriptor(99)
    driver.start(READ, descriptor, b"x" * 8, 8)
    waiting = loop.create_task(descriptor.idle())  # as close() does
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(turns())
    fake.cancel_done(fake.pending()[0].token)
    loop.close()
    driver.close()  # whose callbacks would be refused
    assert descriptor.holders == 0
    assert fake.destroyed


def test_the_end_of_what_is_queued(fake: FakeEngine) -> None:
    """What was to be closed is closed; what holds a descriptor lets go of it."""
    loop = asyncio.new_event_loop()
    fake.opcodes |= 1 << CLOSE
    driver = Driver(loop, fake, None)
    closed_in_flight, closed, left = (os.open(os.devnull, os.O_RDONLY) for _ in range(3))
    driver.start(CLOSE, Descriptor(closed_in_flight))
    for i in range(fake.capacity - 1):
        driver.start(FSYNC, Descriptor(99 + i), b"", 0, i)
    driver.start(CLOSE, Descriptor(closed))
    descriptor = Descriptor(left)
    driver.start(WRITE, descriptor, b"x", 1)
    driver.start(WRITE, descriptor, b"held back", 9)
    descriptor.close_when_idle()
    loop.run_until_complete(turns())
    assert driver.stats().queued == 3
    assert descriptor in driver._held
    cancelled = []
    wait = fake.wait

    def perform(timeout_ms: int) -> int:
        for operation in fake.pending():
            cancelled.append(operation.cancel_asked)
            if operation.opcode == CLOSE:
                fake.perform(operation.token)
            else:
                fake.cancel_done(operation.token)
        return wait(timeout_ms)

    fake.wait = perform  # type: ignore[method-assign]
    driver.close()
    loop.close()
    assert cancelled == [False] + (fake.capacity - 1) * [True]
    for fd in (closed_in_flight, closed, left):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_one_driver_for_each_loop() -> None:
    async def both() -> tuple[Driver, Driver]:
        return _loop.running_driver(), _loop.running_driver()

    first, second = run(both())
    assert first is second
    third, _ = run(both())
    assert third is not first


def test_what_is_no_number_leaves_nothing_in_flight(engine: str, tmp_path: Path) -> None:
    """cffi refuses it when the operation is in the table already."""

    async def main() -> None:
        async with AIOFile(tmp_path / "file", "wb+", engine=engine) as file:  # type: ignore[arg-type]
            odd: Any = 1.5
            for call in (
                lambda: file.write(b"x", odd),
                lambda: file.write(b"x" * 100_000, odd),
                lambda: file.write_many([(b"a", odd), (b"b", odd)]),
                lambda: file.truncate(odd),
                lambda: file.allocate(odd),
                lambda: file.allocate(10, odd),
            ):
                with pytest.raises(TypeError):
                    await call()
                assert not uringfile.pending_operations()

    run(main())
