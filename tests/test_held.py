"""A file that hangs leaves room for the others: in the engine, and among the kernel's workers."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from test_contract import Parts, Rig
from test_driver import driver, start, turns  # noqa: F401  (fixture)

from uringfile._driver import Driver
from uringfile._engine import ASYNC, BATCH, FSYNC, READ
from uringfile._errors import ClosedFileError
from uringfile._fd import Descriptor
from uringfile._native_engine import NativeEngine


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine(capacity=64)


def complete_all(fake: FakeEngine) -> list[int]:
    fds = []
    for operation in fake.pending():
        fds.append(operation.fd)
        fake.complete(operation.token, 8)
    return fds


async def test_one_that_hangs_takes_half_the_next_a_quarter(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,
) -> None:
    tasks = []
    for fd in range(5):
        tasks += start(driver, 100, Descriptor(fd))
        await turns()
    taken = [sum(op.fd == fd for op in fake.pending()) for fd in range(5)]
    assert taken == [32, 16, 8, 4, 2]
    assert driver.stats().queued == 500 - 62
    assert len(driver.pending()) == 500
    while not all(task.done() for task in tasks):
        complete_all(fake)
        await turns()
    assert await asyncio.gather(*tasks) == [8] * 500
    assert not driver._held


async def test_each_has_one_in_flight_however_full_it_is(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,
) -> None:
    """Or nothing would come that lets its next one in."""
    crowd = [start(driver, 1, Descriptor(fd))[0] for fd in range(64)]
    late = Descriptor(99)
    tasks = start(driver, 10, late)
    await turns()
    assert len(driver._queue) == 1
    assert late.admitted == 1
    while not all(task.done() for task in tasks):
        complete_all(fake)
        await turns()
    await asyncio.gather(*crowd)
    assert late.admitted == late.holders == 0


async def crowded_out(driver: Driver, fake: FakeEngine) -> tuple[Descriptor, list[Any]]:  # noqa: F811
    """A file with one that hangs and ten that are held back; then there is room again."""
    crowd = [start(driver, 1, Descriptor(fd))[0] for fd in range(63)]
    fd = Descriptor(99)
    tasks = start(driver, 11, fd)
    await turns()
    assert len(driver._held[fd]) == 10
    for operation in fake.pending():
        if operation.fd != 99:
            fake.complete(operation.token, 8)
    await asyncio.gather(*crowd)
    assert [operation.fd for operation in fake.pending()] == [99]
    return fd, tasks


async def test_one_more_lets_in_those_before_it(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    fd, tasks = await crowded_out(driver, fake)
    tasks += [asyncio.ensure_future(driver.run(READ, fd, b"x" * 8, 8, 11))]
    await turns()
    assert [operation.offset for operation in fake.pending()] == list(range(12))
    complete_all(fake)
    assert await asyncio.gather(*tasks) == [8] * 12


async def test_a_cancellation_lets_in_the_others(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    fd, tasks = await crowded_out(driver, fake)
    tasks.pop().cancel()
    await turns()
    assert [operation.offset for operation in fake.pending()] == list(range(10))
    complete_all(fake)
    assert await asyncio.gather(*tasks) == [8] * 10
    assert fd.holders == fd.admitted == 0


async def test_workers_are_shared(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    driver._held._worker_share = 3
    fd = Descriptor(99)
    reads = [asyncio.ensure_future(driver.run(READ | ASYNC, fd, b"x" * 8, 8)) for _ in range(9)]
    await turns()
    assert len(fake.pending()) == 3
    while not all(task.done() for task in reads):
        complete_all(fake)
        await turns()
    assert fd.admitted == 0


async def test_short_batches_leave_slots_for_others(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,
) -> None:
    """The real engines have 128."""
    driver._held._capacity = driver._capacity = fake.capacity = 1024
    fake.entries = 1024
    fd = Descriptor(99)
    batches = [asyncio.ensure_future(driver.run(READ | BATCH, fd, b"", 2)) for _ in range(200)]
    await turns()
    assert len(fake.pending()) == 32
    while not all(task.done() for task in batches):
        complete_all(fake)
        await turns()
    assert fd.admitted == 0


async def test_closing_ends_what_is_held_back(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    fd = Descriptor(99)
    tasks = start(driver, 100, fd)
    await turns()
    driver.cancel_holders(fd, writes=False, filename="f")
    await turns()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {ClosedFileError}
    assert not driver._held
    for operation in fake.pending():
        fake.cancel_done(operation.token)
    await turns()
    assert fd.holders == fd.admitted == 0


async def test_rejected_ones_let_others_in(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    fd = Descriptor(99)
    tasks = start(driver, 5000, fd)
    await turns()
    fake.shut = True
    complete_all(fake)
    await turns()
    results = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert results == [8] * 32 + [-errno.ESHUTDOWN] * 4968
    assert fd.holders == fd.admitted == 0


async def test_storms(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    """Several files, cancellations, completions in any order: nothing stays held."""
    rng = random.Random(5)
    fake.capacity = driver._capacity = driver._held._capacity = 16
    driver._held._worker_share = 2
    fds = [Descriptor(fd) for fd in range(3)]
    kinds = [(READ, 8), (READ | ASYNC, 8), (READ | BATCH, 3), (FSYNC, 0)]
    for _ in range(100):
        tasks = []
        for _ in range(rng.randrange(1, 60)):
            opcode, length = rng.choice(kinds)
            run_one = driver.run(opcode, rng.choice(fds), b"x" * 8, length)
            tasks.append(asyncio.ensure_future(run_one))
        for turn in range(10_000):
            if all(task.done() for task in tasks):
                break
            rng.choice(tasks).cancel()
            await turns(rng.randrange(4))
            for operation in rng.sample(fake.pending(), min(turn % 4, len(fake.pending()))):
                fake.complete(operation.token, rng.choice([8, -errno.EIO, -errno.ECANCELED]))
        else:
            pytest.fail(f"stuck: {driver.stats()}")
    while fake.in_flight:
        await turns()
        complete_all(fake)
    await turns()
    assert not driver._held
    assert not driver._queue
    assert [fd.holders + fd.admitted for fd in fds] == [0, 0, 0]


# ---- batches, whose parts the engine shares out itself ---


@pytest.fixture
def hung(data: Path) -> Iterator[tuple[int, int]]:
    """An empty pipe; what POSIX AIO cannot stop ends with it."""
    ends = os.pipe()
    yield ends
    for fd in reversed(ends):
        os.close(fd)


def test_a_batch_that_hangs_leaves_room(engine: str, hung: tuple[int, int], data: Path) -> None:
    rig = Rig(NativeEngine(engine))
    for _ in range(3):
        Parts([0] * 3000).submit(rig, hung[0])
        rig.engine.flush()
    fd = os.open(data, os.O_RDONLY)
    single = rig.submit(READ, fd, bytearray(8))
    parts = Parts([0, 8] * 1000)
    assert rig.finish([single, parts.submit(rig, fd)]) == [8, 0]
    assert rig.engine.submit(READ, fd, b"", 0, 0, 1 << 40) == 0
    assert rig.finish([1 << 40]) == [0]
    rig.engine.shutdown()
    rig.engine.destroy()
    os.close(fd)


def test_batches_take_turns(engine: str, data: Path) -> None:
    """A long one that came first does not keep the others from the room that there is."""
    rig = Rig(NativeEngine(engine))
    fd = os.open(data, os.O_RDONLY)
    first = Parts([0] * 50_000).submit(rig, fd)
    rig.engine.flush()
    second = Parts([0] * 500).submit(rig, fd)
    rig.finish([second])
    assert first not in rig.results
    rig.finish([first])
    rig.engine.destroy()
    os.close(fd)
