"""LogWriter when writes and syncs fail, fall short, or lose their waiters."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import fcntl
import os
import random
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import check, collect, nothing_is_closing, run
from fake_engine import FakeEngine, Submitted
from test_driver import driver, fake, turns  # noqa: F401  (fixtures)

from uringfile import LogWriter, _log
from uringfile._commit import LOOK_SECONDS
from uringfile._driver import Driver
from uringfile._engine import ASYNC, FDATASYNC, FTRUNCATE, WRITE
from uringfile._logfile import LogFile

OpenLog = Callable[..., Awaitable[LogWriter]]


@pytest.fixture
async def open_log(
    driver: Driver,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[OpenLog]:
    """A log on the fake engine; closed afterwards, whatever its state."""
    monkeypatch.setattr(_log, "running_driver", lambda engine: driver)
    logs = []

    async def open_log(**options: Any) -> LogWriter:
        logs.append(await LogWriter(tmp_path / "log", **options))
        return logs[-1]

    yield open_log
    for log in logs:
        closing = asyncio.ensure_future(log.close())
        while not closing.done():
            await asyncio.sleep(0.001)
            for operation in fake.pending():
                fake.perform(operation.token)
        with contextlib.suppress(OSError):
            await closing


def opcode(operation: Submitted) -> int:
    return operation.opcode & ~ASYNC


async def next_operation(fake: FakeEngine) -> Submitted:  # noqa: F811
    for _ in range(1000):
        if fake.pending():
            (operation,) = fake.pending()
            return operation
        await asyncio.sleep(0.001)
    raise AssertionError("nothing was submitted")


def content(path: Path) -> bytes:
    return path.read_bytes()


# ---- short writes ---


async def test_short_writes_are_continued_before_anything_is_acknowledged(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    log = await open_log()
    tasks = [asyncio.ensure_future(log.append(b"%d\n" % i)) for i in range(5)]
    expected = [(0, 10), (3, 7), (4, 6), (4, 6)]
    for (offset, length), short in zip(expected, (3, 1, -errno.EINTR, 0), strict=True):
        operation = await next_operation(fake)
        assert opcode(operation) == WRITE
        assert (operation.offset, operation.length) == (offset, length)
        assert not any(task.done() for task in tasks)
        assert log.written == log.durable == 0
        if short > 0:
            operation.length = short
            fake.perform(operation.token)
            assert fake.done[-1][1] == short
        elif short < 0:
            fake.complete(operation.token, short)
        else:
            fake.perform(operation.token)
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert content(tmp_path / "log") == b"0\n1\n2\n3\n4\n"


async def test_a_write_of_nothing_is_an_error(open_log: OpenLog, fake: FakeEngine) -> None:  # noqa: F811
    log = await open_log()
    task = asyncio.ensure_future(log.append(b"x\n"))
    fake.complete((await next_operation(fake)).token, 0)
    fake.perform((await next_operation(fake)).token)  # the cut
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await task


async def test_an_interrupted_cut_is_repeated(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    log = await open_log(preallocate=4096)
    task = asyncio.ensure_future(log.append(b"x\n"))
    fake.complete((await next_operation(fake)).token, 0)  # the allocation
    fake.perform((await next_operation(fake)).token)
    assert await task == 2
    closing = asyncio.ensure_future(log.close())
    cut = await next_operation(fake)
    assert opcode(cut) == FTRUNCATE
    fake.complete(cut.token, -errno.EINTR)
    while not closing.done():
        await asyncio.sleep(0.001)
        for operation in fake.pending():
            fake.perform(operation.token)
    await closing
    assert content(tmp_path / "log") == b"x\n"


async def test_a_log_is_closed_though_the_executor_is_shut_down(
    open_log: OpenLog,
    driver: Driver,  # noqa: F811
) -> None:
    log = await open_log()
    fd = log.fileno()
    await driver.loop.shutdown_default_executor()
    with pytest.raises(RuntimeError):  # it unlocks the file in a thread
        await log.close()
    nothing_is_closing()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_log_that_has_failed_ends_silently_with_its_loop(
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.new_event_loop()
    drivers = [Driver(loop, fake, None)]
    monkeypatch.setattr(_log, "running_driver", lambda engine: drivers[0])
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def main() -> None:
        log = await LogWriter(tmp_path / "log", sync="never")
        log.append_nowait(b"x\n")
        fake.perform((await next_operation(fake)).token)
        await turns()
        syncing = asyncio.ensure_future(log.sync())
        assert opcode(await next_operation(fake)) == FDATASYNC
        log.append_nowait(b"y\n")
        await turns()
        fake.complete(fake.pending()[-1].token, -errno.EIO)
        await turns()
        fake.perform(fake.pending()[-1].token)  # the cut
        await turns()
        assert not syncing.done()
        syncing.cancel()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the log is not closed
        loop.run_until_complete(main())
        for operation in fake.pending():
            fake.cancel_done(operation.token)
        drivers.pop().close()
        loop.close()
        del loop
        collect()
    assert not unraisable, unraisable[0].exc_value


# ---- errors stick ---


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_a_failed_commit_fails_its_batch_and_all_that_follow(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
    code: int,
) -> None:
    """The write is O_DSYNC, so this is the failed fsync, too, and the disk that is full."""
    log = await open_log(max_buffered=8)
    assert fcntl_flags(log) & os.O_DSYNC
    first = asyncio.ensure_future(log.append(b"good\n"))
    fake.perform((await next_operation(fake)).token)
    assert await first == 5

    batch = [asyncio.ensure_future(log.append(b"%d\n" % i)) for i in range(3)]
    await turns()
    operation = await next_operation(fake)
    gathering = asyncio.ensure_future(log.append(b"g\n"))
    waiting = asyncio.ensure_future(log.append(b"waits for room\n"))
    draining = asyncio.ensure_future(log.drain())
    await turns()
    operation.length = 3  # a torn record: "0\n1"
    fake.perform(operation.token)
    operation = await next_operation(fake)
    assert (opcode(operation), operation.offset) == (WRITE, 8)
    fake.complete(operation.token, -code)
    operation = await next_operation(fake)
    # The tail is cut back before anybody is told.
    assert (opcode(operation), operation.offset) == (FTRUNCATE, 5)
    assert not any(task.done() for task in [*batch, gathering, waiting, draining])
    with pytest.raises(OSError, match=os.strerror(code)):
        log.append_nowait(b"x\n")
    fake.perform(operation.token)

    failures = await asyncio.gather(*batch, gathering, waiting, draining, return_exceptions=True)
    for call in (log.append(b"x\n"), log.drain(), log.sync(), log.reopen(), log.close()):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await call
        failures.append(caught.value)
    assert len({id(failure) for failure in failures}) == len(failures)
    for failure in failures:
        assert isinstance(failure, OSError)
        assert (failure.errno, failure.filename) == (code, str(tmp_path / "log"))
    assert not fake.pending()
    assert log.written == log.durable == 5
    assert content(tmp_path / "log") == b"good\n"


def fcntl_flags(log: LogWriter) -> int:
    return fcntl.fcntl(log.fileno(), fcntl.F_GETFL)


async def test_the_first_error_is_told_even_if_the_cut_fails(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
) -> None:
    log = await open_log()
    task = asyncio.ensure_future(log.append(b"x\n"))
    fake.complete((await next_operation(fake)).token, -errno.ENOSPC)
    fake.complete((await next_operation(fake)).token, -errno.EROFS)
    for call in (task, log.append(b"x\n"), log.close()):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await call


async def test_a_failed_sync_in_the_background_is_final(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    log = await open_log(sync="interval", interval=0.01)
    task = asyncio.ensure_future(log.append(b"acknowledged as written\n"))
    fake.perform((await next_operation(fake)).token)
    end = await task
    operation = await next_operation(fake)
    assert opcode(operation) == FDATASYNC
    # Meanwhile a write is under way: it must not be taken for durable, nor be torn.
    task = asyncio.ensure_future(log.append(b"next\n"))
    syncing = asyncio.ensure_future(log.sync())
    for _ in range(20):
        await turns()
    write = fake.pending()[1]
    fake.complete(operation.token, -errno.EIO)
    await turns()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await log.append(b"late\n")
    fake.perform(write.token)
    operation = await next_operation(fake)
    assert opcode(operation) == FTRUNCATE
    fake.perform(operation.token)
    assert await task == end + 5  # it is written, which is all that was promised
    for call in (syncing, log.sync(), log.drain(), log.close()):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await call
    assert log.durable == 0
    assert content(tmp_path / "log") == b"acknowledged as written\nnext\n"


async def test_who_asks_while_a_sync_runs_waits_for_the_next(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
) -> None:
    """A sync covers what was written before it began, and nothing else."""
    log = await open_log(sync="never")
    log.append_nowait(b"one\n")
    first = asyncio.ensure_future(log.sync())
    fake.perform((await next_operation(fake)).token)
    running = await next_operation(fake)
    assert opcode(running) == FDATASYNC
    second = [asyncio.ensure_future(log.append(b"two\n")), asyncio.ensure_future(log.sync())]
    await turns()
    fake.perform(fake.pending()[1].token)
    await turns(20)
    fake.perform(running.token)
    await first
    assert log.durable == 4
    operation = await next_operation(fake)
    assert opcode(operation) == FDATASYNC
    assert not second[1].done()
    fake.perform(operation.token)
    await asyncio.gather(*second)
    assert log.durable == 8


async def test_records_that_arrive_during_a_commit_wait_for_the_next(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
) -> None:
    log = await open_log()
    first = asyncio.ensure_future(log.append(b"one\n"))
    running = await next_operation(fake)
    later = [asyncio.ensure_future(log.append(b"%d\n" % i)) for i in range(100)]
    await turns()
    assert fake.pending() == [running]
    fake.perform(running.token)
    assert await first == 4
    operation = await next_operation(fake)
    assert (operation.offset, operation.length) == (4, 290)
    assert not any(task.done() for task in later)
    fake.perform(operation.token)
    await asyncio.gather(*later)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_write_that_overlaps_with_those_who_were_acknowledged(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
    fails: bool,
) -> None:
    """Half of the tasks go on, what they append is on its way, and the others go on then."""
    log = await open_log()
    log._overlaps = 10
    seen = []

    async def write(i: int) -> None:
        assert await log.append(b"%03d\n" % i) == 4 * i + 4
        seen.append((i, len(fake.in_flight)))
        await log.append(b"%03d\n" % i)

    tasks = [asyncio.ensure_future(write(i)) for i in range(256)]
    fake.perform((await next_operation(fake)).token)
    operation = await next_operation(fake)
    assert seen == [(i, int(i >= 128)) for i in range(256)]
    assert (operation.offset, operation.length) == (1024, 512)
    assert not any(task.done() for task in tasks)
    if not fails:
        for _ in range(2):
            fake.perform((await next_operation(fake)).token)
            await turns()
        await asyncio.gather(*tasks)
        assert log.durable == 2048
        return
    operation.length = 6
    fake.perform(operation.token)
    fake.complete((await next_operation(fake)).token, -errno.ENOSPC)
    fake.perform((await next_operation(fake)).token)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {OSError}
    assert (tmp_path / "log").stat().st_size == log.written == 1024


# ---- cancellation ---


async def test_cancelling_one_waiter_disturbs_no_other(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    log = await open_log()
    tasks = [asyncio.ensure_future(log.append(b"%d\n" % i)) for i in range(6)]
    running = await next_operation(fake)
    tasks += [asyncio.ensure_future(log.append(b"%d\n" % i)) for i in range(6, 10)]
    drains = [asyncio.ensure_future(log.drain()) for _ in range(2)]
    await turns()
    for task in (tasks[1], tasks[4], tasks[7], drains[0]):
        task.cancel()
    await turns()
    assert [i for i, task in enumerate(tasks) if task.cancelled()] == [1, 4, 7], "at once"
    assert not running.cancel_asked
    fake.perform(running.token)
    fake.perform((await next_operation(fake)).token)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    await drains[1]
    for i, end in enumerate(ends):
        assert isinstance(end, asyncio.CancelledError) if i in (1, 4, 7) else end == 2 * i + 2
    assert content(tmp_path / "log") == b"".join(b"%d\n" % i for i in range(10))


async def test_cancelled_in_the_turn_in_which_it_is_acknowledged(
    open_log: OpenLog,
    fake: FakeEngine,  # noqa: F811
) -> None:
    log = await open_log()
    for turn in range(8):
        tasks = [asyncio.ensure_future(log.append(b"x\n")) for _ in range(3)]
        fake.perform((await next_operation(fake)).token)
        await turns(turn)
        tasks[1].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert ends[0] == 6 * turn + 2
        assert ends[2] == 6 * turn + 6
        assert ends[1] == 6 * turn + 4 or isinstance(ends[1], asyncio.CancelledError)


async def test_tasks_by_the_thousand_with_a_timeout_each(tmp_path: Path, engine: Any) -> None:
    """Tasks share futures, and a cancellation wakes those that share one."""
    async with LogWriter(tmp_path / "log", engine=engine) as log:

        async def write(i: int) -> int:
            return await asyncio.wait_for(log.append(b"%04d\n" % i), 0.0001 if i % 3 else 60)

        ends = await asyncio.gather(*[write(i) for i in range(3000)], return_exceptions=True)
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert len(lines) == len(set(lines)) >= 1000
    assert not any(isinstance(end, BaseException) for end in ends[::3])
    for i, end in enumerate(ends):
        if not isinstance(end, BaseException):
            assert lines[end // 5 - 1] == b"%04d" % i


async def test_tasks_keep_their_contexts(tmp_path: Path, engine: Any) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def write(log: LogWriter, i: int) -> None:
        variable.set(i)
        for _ in range(3):
            await log.append(b"x\n")
            assert variable.get() == i
            assert asyncio.current_task() is tasks[i]

    async with LogWriter(tmp_path / "log", engine=engine) as log:
        tasks = [asyncio.ensure_future(write(log, i)) for i in range(300)]
        await asyncio.gather(*tasks)


def test_a_task_that_exits_disturbs_no_other(tmp_path: Path, engine: str) -> None:
    log: LogWriter

    async def main() -> list[asyncio.Task[int]]:
        nonlocal log
        log = await LogWriter(tmp_path / "log", engine=engine)

        async def leave() -> None:
            await log.append(b"x\n")
            raise SystemExit(3)

        first = asyncio.ensure_future(log.append(b"x\n"))
        leaving.append(asyncio.ensure_future(leave()))
        tasks = [first, asyncio.ensure_future(log.append(b"x\n"))]
        await asyncio.sleep(60)
        return tasks

    async def rest() -> None:
        assert await log.append(b"y\n") == 8
        await log.close()

    leaving: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    with pytest.raises(SystemExit):
        loop.run_until_complete(main())
    with pytest.raises(SystemExit):
        leaving[0].result()
    run(rest(), loop)
    assert (tmp_path / "log").read_bytes() == b"x\n" * 3 + b"y\n"


@pytest.mark.parametrize("overlaps", [0, 1 << 30])
@pytest.mark.parametrize("sync", ["always", "interval"])
async def test_cancelled_at_any_moment(
    tmp_path: Path, engine: Any, sync: Any, overlaps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is torn, lost or doubled, and no other waiter notices."""
    monkeypatch.setattr(LogWriter, "_measure", lambda *_: None)
    rng = random.Random(7)
    path = tmp_path / "log"
    acknowledged: list[bytes] = []
    cancelled: set[bytes] = set()

    async def call(log: LogWriter, record: bytes) -> None:
        task = asyncio.ensure_future(log.append(record))
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.002)
            task.cancel()
        try:
            await task
            acknowledged.append(record)
        except asyncio.CancelledError:
            cancelled.add(record)

    async with LogWriter(
        path, sync=sync, max_buffered=1 << 20 if overlaps else 2000, engine=engine
    ) as log:
        log._overlaps = overlaps
        for i in range(30):
            await asyncio.gather(
                *[call(log, b"%d.%d %s\n" % (i, k, b"x" * rng.randrange(200))) for k in range(30)],
                *[cancelled_soon(rng.choice([log.drain, log.sync])) for _ in range(3)],
            )
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(set(lines)) == len(lines)
    assert set(acknowledged) <= set(lines) <= set(acknowledged) | cancelled
    assert cancelled


async def cancelled_soon(call: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(call(), 0.0005)


# ---- real limits ---


def test_a_file_that_must_not_grow(tmp_path: Path, engine: str) -> None:
    """RLIMIT_FSIZE: the write that crosses it falls short, its continuation is EFBIG."""
    code = """
import asyncio, errno, os, resource, sys
from uringfile import LogWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (50_005, 50_005))
async def main():
    log = await LogWriter(sys.argv[1], engine=sys.argv[2])
    ends = await asyncio.gather(*[log.append(b"%04d\\n" % i) for i in range(10_000)])
    results = await asyncio.gather(
        *[log.append(b"late %06d\\n" % i) for i in range(10_000)], return_exceptions=True)
    assert all(isinstance(r, OSError) and r.errno == errno.EFBIG for r in results), results[:3]
    assert len(results) == 10_000
    try:
        await log.close()
    except OSError as error:
        assert error.errno == errno.EFBIG
    else:
        raise AssertionError("close has kept quiet")
    assert os.path.getsize(sys.argv[1]) == ends[-1], os.path.getsize(sys.argv[1])
asyncio.run(main())
"""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if 0 <= hard < 50_005:
        pytest.skip("RLIMIT_FSIZE is lower already")
    check(code, str(tmp_path / "log"), engine)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    if os.geteuid():
        pytest.skip("a small file system needs root, to mount")
    where = tmp_path / "small"
    where.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(where)]
    else:
        image = tmp_path / "image"
        with open(image, "wb") as file:
            file.truncate(2 << 20)
        if not shutil.which("mkfs.ext4"):
            pytest.skip("mkfs.ext4 is not installed")
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], check=True)
        command = ["mount", "-o", "loop", str(image), str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr}")
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize("sync", ["always", "interval"])
async def test_a_full_disk(small: Path, engine: Any, sync: Any) -> None:
    """What was acknowledged is there; nothing of what failed is; and room helps a new log."""
    path = small / "log"
    log = await LogWriter(path, sync=sync, engine=engine, max_buffered=1 << 16)
    tasks = [
        asyncio.ensure_future(log.append(b"%06d %s\n" % (i, b"x" * (i % 1000))))
        for i in range(10_000)
    ]
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    failed = next(i for i, end in enumerate(ends) if isinstance(end, BaseException))
    assert failed
    for end in ends[failed:]:
        assert isinstance(end, OSError)
        assert end.errno == errno.ENOSPC
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        log.append_nowait(b"x")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        await log.close()
    expected = b"".join(b"%06d %s\n" % (i, b"x" * (i % 1000)) for i in range(failed))
    assert path.read_bytes() == expected
    path.rename(small / "old")
    os.truncate(small / "old", 1000)
    async with LogWriter(path, sync=sync, engine=engine) as log:
        assert await log.append(b"new\n") == 4


async def test_a_path_that_cannot_be_looked_at(
    tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is in the file, and so acknowledged: whether the file was moved away is asked
    again later."""

    def refuse(*_: Any) -> bool:
        raise PermissionError(errno.EACCES, "refused")

    async with LogWriter(tmp_path / "log", engine=engine) as log:
        monkeypatch.setattr(LogFile, "is_at_path", refuse)
        for where in ("before the record has a place", "behind its write"):
            log._looked = log._driver.loop.time() - 2 * LOOK_SECONDS
            if where == "behind its write":
                monkeypatch.setattr(log, "_look_at_once", lambda: None)
            await log.append(b"x\n")
        log._looked = 0.0
        with pytest.raises(PermissionError):
            await log.reopen()
        await log.append(b"x\n")
        monkeypatch.undo()
    assert (tmp_path / "log").read_bytes() == b"x\n" * 3
