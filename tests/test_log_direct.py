"""LogWriter with direct=True: all that it promises otherwise, and blocks that are rewritten."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_log
import test_log_faults
import test_log_rotation
from conftest import collect, need_direct, run
from fake_engine import FakeEngine, Submitted
from test_driver import driver, fake, turns  # noqa: F401  (fixtures)
from test_log import path  # noqa: F401
from test_log_faults import next_operation, opcode, open_log, small  # noqa: F401

from uringfile import LogReader, LogWriter, _logopen
from uringfile._engine import FALLOCATE, FTRUNCATE, WRITE

BLOCK = 4096
STEP = 1 << 20


class DirectLogWriter(LogWriter):
    def __init__(self, path: Any, **options: Any) -> None:  # noqa: F811
        super().__init__(path, **{"direct": True, **options})


# These look at the zeros of a log that is not closed, or are not about LogWriter's file.
_OTHERS = {
    "test_one_commit_serves_all_that_came_in_one_turn",
    "test_the_benchmarks_run",
    "test_a_log_that_is_not_closed",
    "test_the_end_of_the_loop_while_a_write_is_under_way",
    "test_a_framed_log_is_cut_behind_its_last_whole_record",
}

for _module in (test_log, test_log_faults, test_log_rotation):
    for _name, _test in vars(_module).items():
        if not _name.startswith("test_") or not callable(_test) or _name in _OTHERS:
            continue
        if {"fake", "open_log"} & set(inspect.signature(_test).parameters):
            continue  # it says which operations there are
        assert _name not in globals(), _name
        globals()[_name] = _test


@pytest.fixture(autouse=True)
def every_log_is_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    need_direct(tmp_path)
    with monkeypatch.context() as patch:
        for module in (test_log, test_log_faults, test_log_rotation):
            patch.setattr(module, "LogWriter", DirectLogWriter)
        yield


# ---- the last block ---


async def test_random_records_across_many_openings(
    path: Path,  # noqa: F811
    engine: Any,
) -> None:
    """Each begins within a block, at a block's end, or behind more than one piece."""
    rng = random.Random(13)
    expected = b""
    for _ in range(12):
        async with DirectLogWriter(
            path, engine=engine, preallocate=rng.choice([0, 1, 9000])
        ) as log:
            assert log.written == log.durable == len(expected)
            for _ in range(8):
                sizes = (1, 100, BLOCK - len(expected) % BLOCK, 2 * BLOCK, 50_000)
                records = [
                    bytes([rng.randrange(1, 256)]) * (rng.choice(sizes) - 1) + b"\n"
                    for _ in range(rng.choice((1, 3, 20)))
                ]
                expected += b"".join(records)
                ends = await asyncio.gather(*[log.append(record) for record in records])
                assert ends[-1] == log.durable == len(expected)
                assert path.stat().st_size % BLOCK == 0
                assert path.read_bytes().rstrip(b"\0") == expected
        assert path.read_bytes() == expected


async def test_a_record_larger_than_its_memory(path: Path, engine: Any) -> None:  # noqa: F811
    records = [b"x\n", random.Random(1).randbytes((3 << 20) + 17) + b"\n", b"y\n"]
    async with DirectLogWriter(path, engine=engine) as log:
        for record in records:
            await log.append(record)
    assert path.read_bytes() == b"".join(records)


async def test_an_empty_log_is_left_empty(path: Path, engine: Any) -> None:  # noqa: F811
    async with DirectLogWriter(path, engine=engine):
        pass
    assert path.stat().st_size == 0


async def test_what_a_crash_has_left_is_cut(path: Path, engine: Any) -> None:  # noqa: F811
    log = await DirectLogWriter(path, engine=engine)
    await log.append(b"one\n" * 2000)
    crashed = path.with_name("crashed")
    crashed.write_bytes(path.read_bytes())
    await log.close()
    assert crashed.stat().st_size == STEP
    async with DirectLogWriter(crashed, engine=engine) as log:
        assert log.written == 8000
        await log.append(b"two\n")
    assert crashed.read_bytes() == b"one\n" * 2000 + b"two\n"


async def test_a_framed_direct_log(path: Path, engine: Any) -> None:  # noqa: F811
    pytest.importorskip("google_crc32c")
    records = [b"", b"x", b"y" * 5000, b"z" * 300]
    async with DirectLogWriter(path, engine=engine, framed=True) as log:
        ends = [await log.append(record) for record in records]
    whole = path.read_bytes()
    assert len(whole) == ends[3]
    for torn in (1, 5, 300):
        for zeros in (0, torn, 10_000):
            path.write_bytes(whole[:-torn] + bytes(zeros))
            async with DirectLogWriter(path, engine=engine, framed=True) as log:
                assert log.written == log.durable == ends[2]
                await log.append(records[3])
            assert path.read_bytes() == whole


def test_the_end_of_the_loop_while_a_direct_write_is_under_way(
    path: Path,  # noqa: F811
    engine: Any,
) -> None:
    logs = []

    async def main() -> None:
        log = await DirectLogWriter(path, engine=engine)
        logs.append(log)
        await log.append(b"x\n")
        log.append_nowait(b"y" * 500_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def drop() -> None:
        logs.clear()
        collect()

    run(main())
    with pytest.warns(ResourceWarning, match="unclosed log"):
        drop()
    assert path.read_bytes().rstrip(b"\0") in (b"x\n", b"x\n" + b"y" * 500_000)


async def test_a_file_system_without_it(
    path: Path,  # noqa: F811
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = _logopen.fcntl.fcntl

    def fcntl(fd: int, command: int, argument: int = 0) -> int:
        if command == _logopen.fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, command, argument)

    monkeypatch.setattr(_logopen.fcntl, "fcntl", fcntl)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        await DirectLogWriter(path, engine=engine)
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    async with LogWriter(path, engine=engine):  # its lock is free
        pass


# ---- when something goes wrong ---


def block_of(operation: Submitted) -> bytes:
    from uringfile._native import ffi

    return bytes(ffi.buffer(operation.addr, operation.length))


async def reserve(fake: FakeEngine, length: int = STEP, start: int = 0) -> None:  # noqa: F811
    """The blocks ahead of a new file: reserved, then filled."""
    operation = await next_operation(fake)
    assert (opcode(operation), operation.offset) == (FALLOCATE, start)
    assert operation.length == length
    fake.complete(operation.token, 0)
    operation = await next_operation(fake)
    assert (opcode(operation), operation.offset) == (WRITE, start)
    assert block_of(operation) == bytes(length)
    fake.perform(operation.token)


async def test_the_last_block_is_written_again_with_the_same_bytes(
    open_log: Any,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    log = await open_log()
    expected = b""
    for size in (10, BLOCK - 11, 1, 5, 2 * BLOCK, 100):
        record = bytes([65 + size % 26]) * size
        task = asyncio.ensure_future(log.append(record))
        if not expected:
            await reserve(fake)
        operation = await next_operation(fake)
        start = len(expected) - len(expected) % BLOCK
        expected += record
        assert opcode(operation) == WRITE
        assert operation.offset == start
        assert block_of(operation).rstrip(b"\0") == expected[start:]
        assert operation.length == -(-len(expected[start:]) // BLOCK) * BLOCK
        fake.perform(operation.token)
        assert await task == len(expected)


async def test_short_direct_writes_are_continued(
    open_log: Any,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    path: Path,  # noqa: F811
) -> None:
    """At a sector; what is less does not count."""
    log = await open_log()
    task = asyncio.ensure_future(log.append(b"x" * 10_000))
    await reserve(fake)
    expected = [(0, 12288), (4096, 8192), (8192, 4096), (8192, 4096)]
    for (offset, length), short in zip(expected, (4096, 4097, -errno.EINTR, 0), strict=True):
        operation = await next_operation(fake)
        assert (operation.offset, operation.length) == (offset, length)
        assert not task.done()
        if short > 0:
            operation.length = short - short % BLOCK
            fake.perform_only(operation.token)
            fake.complete(operation.token, short)
        elif short < 0:
            fake.complete(operation.token, short)
        else:
            fake.perform(operation.token)
    assert await task == 10_000
    assert path.read_bytes().rstrip(b"\0") == b"x" * 10_000


@pytest.mark.parametrize("result", [0, 100, -errno.EIO])
async def test_a_failed_direct_write_is_final_and_cut(
    open_log: Any,  # noqa: F811
    fake: FakeEngine,  # noqa: F811
    path: Path,  # noqa: F811
    result: int,
) -> None:
    """Also one that gets nowhere."""
    log = await open_log()
    task = asyncio.ensure_future(log.append(b"good\n"))
    await reserve(fake)
    fake.perform((await next_operation(fake)).token)
    assert await task == 5
    task = asyncio.ensure_future(log.append(b"bad\n"))
    operation = await next_operation(fake)
    fake.perform_only(operation.token)
    fake.complete(operation.token, result)
    operation = await next_operation(fake)
    assert (opcode(operation), operation.offset) == (FTRUNCATE, 5)
    fake.perform(operation.token)
    for call in (task, log.append(b"x\n"), log.close()):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await call
    assert path.read_bytes() == b"good\n"


async def test_no_room_for_a_step(open_log: Any, fake: FakeEngine) -> None:  # noqa: F811
    """Then as little as is needed; no room for that, either, is the error to tell."""
    log = await open_log()
    task = asyncio.ensure_future(log.append(b"x" * 5000))
    for code in (errno.EINTR, errno.ENOSPC):
        operation = await next_operation(fake)
        assert (opcode(operation), operation.length) == (FALLOCATE, STEP)
        fake.complete(operation.token, -code)
    await reserve(fake, 2 * BLOCK)
    fake.perform((await next_operation(fake)).token)
    assert await task == 5000
    task = asyncio.ensure_future(log.append(b"y" * 5000))
    for length in (STEP, BLOCK):
        operation = await next_operation(fake)
        assert (opcode(operation), operation.offset) == (FALLOCATE, 2 * BLOCK)
        assert operation.length == length
        fake.complete(operation.token, -errno.ENOSPC)
    fake.perform((await next_operation(fake)).token)  # the cut
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        await task


async def test_no_fallocate(open_log: Any, fake: FakeEngine) -> None:  # noqa: F811
    log = await open_log()
    task = asyncio.ensure_future(log.append(b"x\n"))
    fake.complete((await next_operation(fake)).token, -errno.EOPNOTSUPP)
    for length in (STEP, BLOCK):
        operation = await next_operation(fake)
        assert (opcode(operation), operation.length) == (WRITE, length)
        fake.perform(operation.token)
    assert await task == 2


@pytest.mark.parametrize("framed", [False, True])
async def test_a_reader_that_follows_a_direct_log(
    path: Path,  # noqa: F811
    engine: Any,
    framed: bool,
) -> None:
    """It reads through the page cache, at the side of blocks that are written again."""
    if framed:
        pytest.importorskip("google_crc32c")
    rng = random.Random(17)
    records = [b"%d %s\n" % (i, b"x" * rng.choice((1, 50, 5000))) for i in range(500)]

    async def write() -> None:
        for record in records:
            await log.append(record)

    async with (
        DirectLogWriter(path, engine=engine, framed=framed) as log,
        LogReader(path, engine=engine, framed=framed, follow=True) as reader,
    ):
        writing = asyncio.ensure_future(write())
        for record in records:
            assert await asyncio.wait_for(reader.__anext__(), 30) == record
            assert reader.torn is None
        await writing
