"""Counters, and what debug mode tells of operations that are pending."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import nothing_in_flight
from fake_engine import FakeEngine
from test_driver import driver, fake, open_on_fake, turns  # noqa: F401  (fixtures)

import uringfile
from uringfile import AIOFile, _inflight
from uringfile._driver import Driver
from uringfile._engine import READ
from uringfile._fd import Descriptor


@asynccontextmanager
async def pending_read(engine: Any) -> AsyncIterator[None]:
    read_end, write_end = os.pipe()

    async def wait_for_bytes(f: AIOFile) -> None:
        await f.read(10)

    async with AIOFile(read_end, "rb", engine=engine) as f:
        reading = asyncio.ensure_future(wait_for_bytes(f))
        await asyncio.sleep(0.02)
        yield
        reading.cancel()
        await asyncio.wait([reading])
        os.close(write_end)
        await nothing_in_flight(engine)


async def test_pending_operations_without_debugging(engine: Any) -> None:
    assert uringfile.pending_operations(engine) == []
    async with pending_read(engine):
        (pending,) = uringfile.pending_operations(engine)
        assert (pending.operation, pending.seconds, pending.stack) == ("read", None, "")
        assert os.readlink(f"/proc/self/fd/{pending.fd}").startswith("pipe:")


@pytest.mark.parametrize("by", ["URINGFILE_DEBUG", "asyncio"])
async def test_debug_mode_tells_who_waits(
    engine: Any, by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A dictConfig() of another test may have disabled what loggers there were.
    monkeypatch.setattr(logging.getLogger("uringfile"), "disabled", False)
    monkeypatch.setenv("URINGFILE_SLOW_MS", "50")
    if by == "asyncio":
        asyncio.get_running_loop().set_debug(True)
    else:
        monkeypatch.setenv(by, "1")
    with caplog.at_level(logging.WARNING, "uringfile"):
        async with pending_read(engine):
            (pending,) = uringfile.pending_operations(engine)
            assert pending.seconds is not None
            assert 0 <= pending.seconds < 5
            assert "in wait_for_bytes" in pending.stack
            await asyncio.sleep(0.3)
    (record,) = [r for r in caplog.records if r.name == "uringfile"]
    assert "read of descriptor" in record.getMessage()
    assert "has been pending for" in record.getMessage()
    assert "await f.read(10)" in record.getMessage()


async def test_what_completes_is_not_reported(
    engine: Any,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("URINGFILE_DEBUG", "1")
    monkeypatch.setenv("URINGFILE_SLOW_MS", "20")
    with caplog.at_level(logging.WARNING, "uringfile"):
        async with AIOFile(data, "rb", engine=engine) as f:
            f._inline = False
            for _ in range(20):
                await f.read(100)
                await asyncio.sleep(0.005)
    assert not [r for r in caplog.records if r.name == "uringfile"]


async def test_a_bad_limit_is_an_error(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_DEBUG", "1")
    monkeypatch.setenv("URINGFILE_SLOW_MS", "soon")
    with pytest.raises(ValueError, match="URINGFILE_SLOW_MS"):
        uringfile.stats(engine)


async def test_retries_are_counted(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    f = await open_on_fake()
    reading = asyncio.ensure_future(f.read(10))
    await turns()
    fake.complete(fake.pending()[0].token, -errno.EINTR)
    await turns()
    fake.perform(fake.pending()[0].token)
    assert len(await reading) == 10
    assert f._driver.stats().retried == 1
    fake.flush_errors += [-errno.EBUSY, -errno.ENOMEM]
    syncing = asyncio.ensure_future(f.fsync())
    while not fake.pending():
        await asyncio.sleep(0.001)
    fake.perform(fake.pending()[0].token)
    await syncing
    assert f._driver.stats().retried == 3
    await f.close()


async def test_demotions_and_threads_are_counted(engine: Any, data: Path) -> None:
    before = uringfile.stats(engine)
    async with AIOFile(data, "rb+", engine=engine) as f:
        if engine == "posix_aio":
            await f.truncate(100)
            assert uringfile.stats(engine).in_threads > before.in_threads
    async with AIOFile("/proc/self/status", "rb", engine=engine) as f:
        content = await f.read()
    assert content.startswith(b"Name:")
    assert uringfile.stats(engine).demoted >= before.demoted


def test_leaked_buffers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inflight, "_immortal", [b"one", b"two"])
    assert _inflight.leaked_buffers() == 2


async def test_who_is_told_may_start_operations(
    fake: FakeEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a handler does that starts an eager task."""
    monkeypatch.setenv("URINGFILE_DEBUG", "1")
    monkeypatch.setenv("URINGFILE_SLOW_MS", "0")
    loop = asyncio.get_running_loop()
    driver = Driver(loop, fake, None)  # noqa: F811
    for _ in range(2):
        driver.start(READ, Descriptor(99), b"x", 1)
    told = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record)
            driver.start(READ, Descriptor(99), b"x", 1)

    handler = Handler()
    logger = logging.getLogger("uringfile")
    monkeypatch.setattr(logger, "disabled", False)
    logger.addHandler(handler)
    try:
        assert driver._watch is not None
        driver._watch._report()
    finally:
        logger.removeHandler(handler)
    assert len(told) == 2
    loop.remove_reader(fake.eventfd)
    fake.flush()
    for operation in fake.pending():
        fake.complete(operation.token, -errno.ECANCELED)
    driver.close()
