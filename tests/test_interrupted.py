"""KeyboardInterrupt, which a signal handler may raise between any two steps of the driver."""

from __future__ import annotations

import asyncio
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from conftest import collect
from fake_engine import FakeEngine
from test_driver import driver, fake, start, turns  # noqa: F401  (fixtures)

import uringfile
from uringfile._driver import Driver
from uringfile._engine import OPENAT, READ
from uringfile._fd import Descriptor
from uringfile._native_engine import pin
from uringfile._turns import TURN_BUDGET

PACKAGE = str(Path(uringfile.__file__).parent)


def interrupt_behind(
    monkeypatch: pytest.MonkeyPatch, holder: object, name: str, *, before: bool = False
) -> None:
    """The next call of the method is followed, or preceded, by the interrupt."""
    method = getattr(holder, name)

    def call(*args: Any) -> Any:
        setattr(holder, name, method)
        if not before:
            method(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(holder, name, call)


async def test_behind_a_submission(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel has the buffer: it must be kept, and the descriptor held."""
    descriptor = Descriptor(99)
    buffer = bytearray(8)
    pinned = pin(buffer)
    alive = weakref.ref(pinned)
    interrupt_behind(monkeypatch, fake, "submit")
    with pytest.raises(KeyboardInterrupt):
        driver.start(READ, descriptor, pinned, 8)
    (submitted,) = fake.in_flight.values()
    submitted.addr = None
    del pinned
    collect()
    assert alive() is not None
    assert descriptor.holders == 1
    fake.flush()
    fake.complete(submitted.token, 8)
    await turns()
    collect()
    assert alive() is None
    assert descriptor.holders == descriptor.admitted == 0


async def test_behind_a_submission_from_the_queue(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not submitted a second time."""
    accepted = []
    submit = fake.submit

    def record(*request: Any) -> int:
        ret = submit(*request)
        if not ret:
            accepted.append(request[-1])
        return ret

    monkeypatch.setattr(fake, "submit", record)
    tasks = start(driver, 9)  # one more than the engine holds
    await turns()
    first = fake.pending()[0]
    fake.complete(first.token, 8)
    interrupt_behind(monkeypatch, fake, "submit")
    with pytest.raises(KeyboardInterrupt):
        driver._on_eventfd()
    while not all(task.done() for task in tasks):
        await turns()
        fake.flush()
        for operation in fake.pending():
            fake.complete(operation.token, 8)
    assert [task.result() for task in tasks] == [8] * 9
    assert accepted == [*range(9)]


class InterruptAt:
    """Raises the interrupt at the nth moment within where one may come: behind a call, or at the
    beginning of a function. The fake stands for C code, which has none."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: Any, event: str, _: object) -> None:
        code = frame.f_code
        if event == "c_call" or not code.co_filename.startswith(PACKAGE):
            return
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        sys.setprofile(self)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


@pytest.mark.parametrize("before", [0, 2, 9])
async def test_anywhere_in_a_submission(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    before: int,
) -> None:
    """Nothing is held by an operation that there is none of; behind others that fill the
    engine, or their share of it, either."""
    nth = 0
    interrupted = True
    while interrupted:
        nth += 1
        others, descriptor = Descriptor(98), Descriptor(99 if before > 2 else 98)
        tasks = start(driver, before, others)
        await turns()
        interrupted = False
        try:
            with InterruptAt(nth):
                driver.start(READ, descriptor, b"x" * 8, 8)
        except KeyboardInterrupt:
            interrupted = True
        while driver.stats().in_flight or driver.stats().queued:
            fake.flush()
            for operation in fake.pending():
                fake.complete(operation.token, 8)
            await turns()
        assert [task.result() for task in tasks] == [8] * before
        assert others.holders == others.admitted == 0
        assert descriptor.holders == descriptor.admitted == 0
        assert not driver._futures
    assert nth > 5


async def test_in_the_midst_of_reaping(driver: Driver, fake: FakeEngine) -> None:  # noqa: F811
    """The completions behind it come no second time."""
    interrupted = [True]

    def interrupt(_: int) -> None:
        if interrupted.pop():
            raise KeyboardInterrupt

    driver.start(OPENAT, Descriptor(99), b"p\0", on_orphan=interrupt)[1].cancel()
    tasks = start(driver, 4)
    await turns()
    for operation in fake.pending():
        fake.complete(operation.token, 8)
    with pytest.raises(KeyboardInterrupt):
        driver._on_eventfd()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == [8] * 4


@pytest.mark.parametrize("before", [True, False])
async def test_while_the_flush_is_scheduled(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    before: bool,
) -> None:
    """A later operation is flushed all the same."""
    start(driver, 1)
    await turns()
    interrupt_behind(monkeypatch, driver.loop, "call_soon", before=before)
    with pytest.raises(KeyboardInterrupt):
        driver.start(READ, Descriptor(99), b"x" * 8, 8)
    driver.start(READ, Descriptor(99), b"x" * 8, 8)
    await turns()
    assert len(fake.pending()) == 3


@pytest.mark.parametrize("before", [True, False])
async def test_while_the_next_turn_is_scheduled(
    driver: Driver,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    before: bool,
) -> None:
    interrupt_behind(monkeypatch, driver.loop, "call_soon", before=before)
    driver.budget = 0
    with pytest.raises(KeyboardInterrupt):
        await driver.yield_turn()
    await asyncio.wait_for(asyncio.gather(*[driver.yield_turn() for _ in range(3)]), 20)
    assert driver.budget == TURN_BUDGET
