"""LogWriter: what it promises to those who append, on each engine."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import random
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import check, collect, open_fds, run, watched_threads

from uringfile import ClosedFileError, CorruptLogError, LogReader, LogWriter
from uringfile._loop import running_driver


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
async def test_append_returns_the_offset_behind_the_record(
    path: Path, engine: Any, sync: Any
) -> None:
    async with LogWriter(path, sync=sync, engine=engine) as log:
        assert await log.append(b"one\n") == 4
        assert await log.append("zwölf\n") == 11
        assert await log.append(bytearray(b"x\n")) == 13
        assert await log.append(memoryview(b"yy\n")) == 16
        assert await log.append(array.array("I", [1])) == 20  # type: ignore[arg-type]
        assert log.written == 20
        assert log.durable == (20 if sync == "always" else 0)
        await log.sync()
        assert log.durable == 20
    assert path.read_bytes() == "one\nzwölf\nx\nyy\n".encode() + array.array("I", [1]).tobytes()


@pytest.mark.parametrize("overlaps", [0, 1 << 30])
@pytest.mark.parametrize("sync", ["always", "interval", "never"])
async def test_records_of_many_tasks_land_whole_once_in_call_order(
    path: Path, engine: Any, sync: Any, overlaps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogWriter, "_measure", lambda *_: None)
    rng = random.Random(5)
    calls: list[bytes] = []

    async def write(task: int) -> None:
        for i in range(20):
            record = b"%d %d %s\n" % (task, i, b"x" * rng.choice([0, 1, 100, 5000]))
            if rng.random() < 0.3:
                with contextlib.suppress(BufferError):
                    log.append_nowait(record)
                    calls.append(record)
            else:
                calls.append(record)
                end = await log.append(record)
                assert log.written >= end
                assert sync != "always" or log.durable >= end
            if rng.random() < 0.1:
                await log.sync()

    # Little room, so that some wait for it.
    async with LogWriter(path, sync=sync, engine=engine, max_buffered=50_000) as log:
        log._overlaps = overlaps
        await asyncio.gather(*[write(task) for task in range(50)])
    assert path.read_bytes() == b"".join(calls)


async def test_a_second_log_goes_on_where_the_first_ended(path: Path, engine: Any) -> None:
    for i in range(3):
        async with LogWriter(path, engine=engine) as log:
            assert log.written == log.durable == 2 * i
            assert await log.append(b"%d\n" % i) == 2 * i + 2
    assert path.read_bytes() == b"0\n1\n2\n"


async def test_one_commit_serves_all_that_came_in_one_turn(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine) as log:
        submitted = log._driver.stats().submitted
        await asyncio.gather(*[log.append(b"x\n") for _ in range(1000)])
        assert log._driver.stats().submitted == submitted + 1


async def test_appending_nowait_is_bounded(path: Path, engine: Any) -> None:
    async with LogWriter(path, sync="never", engine=engine, max_buffered=1000) as log:
        for _ in range(10):
            log.append_nowait(b"x" * 100)
        with pytest.raises(BufferError, match="1000 bytes wait"):
            log.append_nowait(b"x")
        await log.drain()
        assert log.written == 1000
        assert log.append_nowait(b"y" * 5000) == 6000  # larger than the bound, but alone
        with pytest.raises(BufferError):
            log.append_nowait(b"x")
        assert log.written == 1000
        assert await log.append(b"z") == 6001  # waits for room
    assert path.read_bytes() == b"x" * 1000 + b"y" * 5000 + b"z"


async def test_waiting_for_room_keeps_the_order_of_calls(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine, max_buffered=10) as log:
        tasks = [asyncio.ensure_future(log.append(b"%04d\n" % i)) for i in range(100)]
        await asyncio.sleep(0)
        with pytest.raises(BufferError):
            log.append_nowait(b"")
        drained = asyncio.ensure_future(log.drain())
        tasks[50].cancel()
        await drained
        assert log.written == 99 * 5
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ends.pop(50), asyncio.CancelledError)
    assert ends == [5 * (i + 1) for i in range(99)]
    assert path.read_bytes() == b"".join(b"%04d\n" % i for i in range(100) if i != 50)


async def test_empty_records(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine) as log:
        assert await log.append(b"") == 0
        assert log.append_nowait("") == 0
        assert await log.append(b"\n") == 1
        await log.drain()
        await log.sync()
    assert path.read_bytes() == b"\n"


async def test_what_is_no_record(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine) as log:
        for bad in (5, None, [1, 2]):
            with pytest.raises(TypeError):
                await log.append(bad)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                log.append_nowait(bad)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            await log.append("\ud800")
        assert await log.append(b"x\n") == 2
    assert path.read_bytes() == b"x\n"


async def test_the_caller_may_change_its_buffer_afterwards(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine) as log:
        record = bytearray(b"before\n")
        task = asyncio.ensure_future(log.append(record))
        await asyncio.sleep(0)
        record[:] = b"behind and longer\n"
        await task
    assert path.read_bytes() == b"before\n"


# ---- syncing ---


async def test_interval_makes_durable_within_the_interval(path: Path, engine: Any) -> None:
    async with LogWriter(path, sync="interval", interval=0.05, engine=engine) as log:
        for end in (2, 4):
            await log.append(b"x\n")
            assert log.durable < end
            async with asyncio.timeout(5) if sys.version_info >= (3, 11) else _nothing():
                while log.durable < end:
                    await asyncio.sleep(0.01)


class _nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


async def test_never_syncs_when_it_is_asked_to(path: Path, engine: Any) -> None:
    async with LogWriter(path, sync="never", interval=0.01, engine=engine) as log:
        await log.append(b"x\n")
        await asyncio.sleep(0.05)
        assert log.durable == 0
        await asyncio.gather(*[log.sync() for _ in range(5)], log.append(b"y\n"))
        assert log.durable >= 2


async def test_the_file_and_its_name_are_durable_before_the_first_record(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without O_DSYNC and that order no acknowledgement is worth anything."""
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))
    )
    async with LogWriter(path, engine=engine) as log:
        assert synced == [str(path), str(path.parent)]
        assert fcntl.fcntl(log.fileno(), fcntl.F_GETFL) & os.O_DSYNC
    async with LogWriter(path, sync="interval", engine=engine) as log:
        assert not fcntl.fcntl(log.fileno(), fcntl.F_GETFL) & os.O_DSYNC


# ---- opening and closing ---


async def test_before_open_and_after_close(path: Path, engine: Any) -> None:
    log = LogWriter(path, engine=engine)
    for _ in range(2):
        assert log.closed
        with pytest.raises(ClosedFileError, match="closed" if log._closed else "not open"):
            await log.append(b"x")
        with pytest.raises(ClosedFileError, match="closed" if log._closed else "not open"):
            log.append_nowait(b"x")
        for wait in (log.drain, log.sync, log.reopen):
            with pytest.raises(ValueError, match="I/O operation on a log that is"):
                await wait()
        with pytest.raises(ValueError, match="I/O operation"):
            log.fileno()
        if not log._closed:
            assert isinstance(await log.open(), int)
            assert await log.open() is None
            assert not log.closed
            assert repr(log) == f"<LogWriter {str(path)!r} open>"
            await log.close()
            await log.close()
    with pytest.raises(ClosedFileError):
        await log.open()
    never_opened = LogWriter(path.with_name("other"))
    await never_opened.close()
    with pytest.raises(ClosedFileError):
        await never_opened.open()
    assert not path.with_name("other").exists()


async def test_awaiting_opens(path: Path, engine: Any) -> None:
    log = await LogWriter(os.fsencode(path), engine=engine)
    assert log.name == os.fsencode(path)
    await log.append(b"x\n")
    await log.close()
    assert path.read_bytes() == b"x\n"


async def test_parallel_opens_and_closes(path: Path, engine: Any) -> None:
    log = LogWriter(path, engine=engine)
    opened = await asyncio.gather(*[log.open() for _ in range(5)])
    assert sum(fd is not None for fd in opened) == 1
    log.append_nowait(b"x\n")
    await asyncio.gather(*[log.close() for _ in range(5)])
    assert path.read_bytes() == b"x\n"


async def test_close_writes_what_was_accepted(path: Path, engine: Any) -> None:
    before = open_fds()
    log = await LogWriter(path, engine=engine, max_buffered=20)
    tasks = [asyncio.ensure_future(log.append(b"%04d\n" % i)) for i in range(20)]
    await asyncio.sleep(0)
    await log.close()
    assert await asyncio.gather(*tasks) == [5 * (i + 1) for i in range(20)]
    assert path.read_bytes() == b"".join(b"%04d\n" % i for i in range(20))
    assert {fd for fd in open_fds() - before if str(path) in fd} == set()


async def test_a_cancelled_close_goes_on(path: Path, engine: Any) -> None:
    log = await LogWriter(path, engine=engine)
    log.append_nowait(b"x\n")
    closing = asyncio.ensure_future(log.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await log.close()
    assert path.read_bytes() == b"x\n"
    async with LogWriter(path, engine=engine) as again:  # the lock is free
        assert again.written == 2


async def test_a_cancelled_open_leaves_nothing_open(path: Path, engine: Any) -> None:
    def opened() -> set[str]:
        return {fd for fd in open_fds() if str(path) in fd}

    for turns in range(6):
        log = LogWriter(path, engine=engine)
        opening = asyncio.ensure_future(log.open())
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        opening.cancel()
        try:
            await opening
        except asyncio.CancelledError:
            deadline = time.monotonic() + 20
            while opened():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
        else:
            await log.close()
        async with LogWriter(path, engine=engine):
            pass
    assert opened() == set()


@pytest.mark.parametrize("kind", ["LogWriter", "LogReader", "follow"])
async def test_closed_while_it_opens(path: Path, engine: Any, kind: str) -> None:
    path.write_bytes(b"x\n")
    if kind == "LogWriter":
        log: Any = LogWriter(path, engine=engine)
    else:
        log = LogReader(path, engine=engine, follow=kind == "follow")
    async with LogReader(path, engine=engine):  # the driver is there
        pass
    before = open_fds()
    if kind == "LogReader":
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(log.close()))
        running_driver(engine).budget = 0  # or it would open at once
    opening = asyncio.ensure_future(log.open())
    if kind != "LogReader":
        await asyncio.sleep(0)
        await log.close()
    with pytest.raises(ClosedFileError):
        await asyncio.wait_for(opening, 20)
    assert open_fds() == before


async def test_permissions_and_other_kinds_of_files(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine, mode=0o600):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(IsADirectoryError):
        await LogWriter(path.parent, engine=engine)
    with pytest.raises(FileNotFoundError):
        await LogWriter(path.parent / "no" / "such", engine=engine)
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="regular file") as caught:
        await LogWriter(fifo, engine=engine)
    assert caught.value.filename == str(fifo)


def test_wrong_parameters(path: Path) -> None:
    for wrong in (
        {"sync": "sometimes"},
        {"torn_line": "mend"},
        {"interval": 0},
        {"max_buffered": 0},
        {"preallocate": -1},
        {"rotate_size": 0},
        {"rotate_seconds": -1.0},
        {"keep": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LogWriter(path, **wrong)  # type: ignore[arg-type]


# ---- one owner ---


async def test_a_second_owner_is_told_so(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine) as log:
        with pytest.raises(BlockingIOError, match="another owner") as caught:
            await LogWriter(path, engine=engine)
        assert caught.value.filename == str(path)
        code = (
            "import asyncio, sys, uringfile\nasyncio.run(uringfile.LogWriter(sys.argv[1]).open())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
        )
        assert "BlockingIOError" in done.stderr
        assert await log.append(b"x\n") == 2
    async with LogWriter(path, engine=engine) as log:
        assert log.written == 2


def test_the_log_of_a_killed_process_can_be_opened_at_once(path: Path, engine: str) -> None:
    """The kernel still works at its last writes then, and holds its lock."""
    code = """
import asyncio, os, sys
from uringfile import LogWriter
async def write(log):
    while True:
        await log.append(b"x" * 5000)
async def main():
    async with LogWriter(sys.argv[1], engine=sys.argv[2]) as log:
        os.write(1, b".")
        await asyncio.gather(*[write(log) for _ in range(8)])
asyncio.run(main())
"""

    async def main() -> None:
        for _ in range(5):
            with subprocess.Popen(
                [sys.executable, "-c", code, str(path), engine], stdout=subprocess.PIPE
            ) as child:
                assert child.stdout is not None
                assert child.stdout.read(1) == b"."
                await asyncio.sleep(0.03)
                child.kill()
                child.wait()
            async with LogWriter(path, engine=engine):  # type: ignore[arg-type]
                pass

    run(main())


def test_a_forked_child_has_no_part_in_it(tmp_path: Path, engine: str) -> None:
    """It writes nothing, holds no lock, and using the log there is an error."""
    code = """
import asyncio, os, sys
from uringfile import LogWriter
async def main():
    log = await LogWriter(sys.argv[1], engine=sys.argv[2])
    await log.append(b"first\\n")
    tasks = [asyncio.ensure_future(log.append(b"second\\n")) for _ in range(3)]
    await asyncio.sleep(0)
    log.append_nowait(b"third\\n")
    out, into = os.pipe()
    if not os.fork():
        os.close(into)
        try:
            log.append_nowait(b"child\\n")
        except RuntimeError as error:
            print(error, flush=True)
        try:
            await log.sync()
        except RuntimeError as error:
            print("again", flush=True)
        await log.close()
        os.read(out, 1)  # as long as the parent lives
        os._exit(0)
    await asyncio.gather(*tasks)
    await log.close()
    async with LogWriter(sys.argv[1], engine=sys.argv[2]) as log:  # no lock in the child
        await log.append(b"fourth\\n")
asyncio.run(main())
"""
    path = tmp_path / "log"
    out = check(code, str(path), engine)
    assert "belongs to the process that forked this one\nagain\n" in out
    assert path.read_bytes() == b"first\n" + b"second\n" * 3 + b"third\nfourth\n"


def test_a_foreign_loop(path: Path, engine: Any) -> None:
    loop = asyncio.new_event_loop()
    log = loop.run_until_complete(LogWriter(path, engine=engine).__aenter__())

    async def foreign() -> None:
        with pytest.raises(RuntimeError, match="different event loop"):
            log.append_nowait(b"x\n")
        for call in (log.append(b"x\n"), log.drain(), log.sync(), log.close()):
            with pytest.raises(RuntimeError, match="different event loop"):
                await call

    run(foreign())
    thread = threading.Thread(target=run, args=(foreign(),))
    thread.start()
    thread.join()
    with pytest.raises((RuntimeError, ValueError)):
        log.append_nowait(b"x\n")  # in no loop at all

    async def back() -> None:
        log.append_nowait(b"y\n")
        # While a write is under way, too.
        await asyncio.to_thread(run, foreign())
        await log.close()

    run(back(), loop)
    assert path.read_bytes() == b"y\n"


def test_a_log_that_is_not_closed(path: Path, engine: Any) -> None:
    async def main() -> None:
        log = await LogWriter(path, engine=engine)
        await log.append(b"x\n")
        log.append_nowait(b"y\n")
        log = None  # type: ignore[assignment]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    with pytest.warns(ResourceWarning, match=r"unclosed log .*2 bytes not known to be written"):
        collect()
    assert path.read_bytes() in (b"x\n", b"x\ny\n")


def test_the_end_of_the_loop_while_a_write_is_under_way(path: Path, engine: Any) -> None:
    logs = []

    async def main() -> None:
        logs.append(await LogWriter(path, engine=engine))
        logs[0].append_nowait(b"x" * 1_000_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def drop() -> None:
        logs.clear()
        collect()

    run(main())
    with pytest.warns(ResourceWarning, match="unclosed log"):
        drop()
    assert path.stat().st_size in (0, 1_000_000)


# ---- the end of the file when it is opened ---


@pytest.mark.parametrize(
    ("torn_line", "expected"),
    [("newline", b"one\ntw\nnew\n"), ("cut", b"one\nnew\n"), ("keep", b"one\ntwnew\n")],
)
async def test_a_torn_line(path: Path, engine: Any, torn_line: Any, expected: bytes) -> None:
    for zeros in (0, 1, 5000, 200_000):
        if zeros and torn_line == "keep":
            break
        path.write_bytes(b"one\ntw" + bytes(zeros))
        async with LogWriter(path, engine=engine, torn_line=torn_line) as log:
            assert log.written == log.durable == len(expected) - 4
            await log.append(b"new\n")
        assert path.read_bytes() == expected


@pytest.mark.parametrize("torn_line", ["newline", "cut", "keep"])
async def test_ends_that_are_not_torn(path: Path, engine: Any, torn_line: Any) -> None:
    for content in (b"", b"\n", b"x" * 70_000 + b"\n"):
        path.write_bytes(content)
        async with LogWriter(path, engine=engine, torn_line=torn_line) as log:
            await log.append(b"new\n")
        assert path.read_bytes() == content + b"new\n"


async def test_a_torn_line_longer_than_a_block(path: Path, engine: Any) -> None:
    for head in (b"", b"whole\n"):
        path.write_bytes(head + b"x" * 200_000)
        async with LogWriter(path, engine=engine, torn_line="cut") as log:
            assert log.written == len(head)


async def test_preallocated_zeros_are_cut(path: Path, engine: Any) -> None:
    for torn_line in ("newline", "cut", "keep"):
        log = await LogWriter(path, engine=engine, preallocate=1 << 20, torn_line=torn_line)  # type: ignore[arg-type]
        await log.append(b"one\n")
        if path.stat().st_size == 4:
            pytest.skip("this file system does not preallocate")
        assert path.stat().st_size >= 1 << 20
        crashed = path.with_name("crashed")
        crashed.write_bytes(path.read_bytes())
        await log.append(b"x" * (3 << 20) + b"\n")
        await log.close()
        assert path.stat().st_size == 4 + (3 << 20) + 1
        again = LogWriter(crashed, engine=engine, preallocate=4096, torn_line=torn_line)  # type: ignore[arg-type]
        async with again as log:
            assert await log.append(b"two\n") == 8
        assert crashed.read_bytes() == b"one\ntwo\n"
        path.unlink()


async def test_a_framed_log_is_cut_behind_its_last_whole_record(path: Path, engine: Any) -> None:
    pytest.importorskip("google_crc32c")
    from uringfile._frames import FrameSplitter, frame

    records = [b"", b"x", b"y" * 5000, "zwölf".encode()]
    async with LogWriter(path, engine=engine, framed=True) as log:
        for record in records[:3]:
            end = await log.append(record)
        assert await log.append("zwölf") == end + len(frame(records[3])) == path.stat().st_size
    whole = path.read_bytes()
    assert whole == b"".join(frame(record) for record in records)
    for torn in range(1, 15):
        path.write_bytes(whole[:-torn] + bytes(torn % 3))
        async with LogWriter(path, engine=engine, framed=True, preallocate=4096) as log:
            assert log.written == log.durable == len(whole) - len(frame(records[3]))
            await log.append(b"new")
        splitter = FrameSplitter()
        assert splitter.feed(path.read_bytes()) == [*records[:3], b"new"]
        assert splitter.offset == path.stat().st_size


async def test_damage_in_a_framed_log_is_not_cut(path: Path, engine: Any) -> None:
    pytest.importorskip("google_crc32c")
    async with LogWriter(path, engine=engine, framed=True) as log:
        ends = [await log.append(b"x" * 1000) for _ in range(10)]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[ends[4] + 500] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptLogError) as caught:
        await LogWriter(path, engine=engine, framed=True)
    assert caught.value.offset == ends[4]
    assert path.read_bytes() == damaged
    # A sector that never got to the disk: the power went before anybody was told.
    unwritten = bytearray(whole)
    unwritten[ends[7] - 600 : ends[7] + 600] = bytes(1200)
    path.write_bytes(unwritten)
    async with LogWriter(path, engine=engine, framed=True) as log:
        assert log.written == ends[6]
    assert path.read_bytes() == whole[: ends[6]]


async def test_opening_asks_the_file_system_in_no_loops_thread(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow one, or one that hangs, would hold up the loop."""
    asking = watched_threads(monkeypatch, "stat", "lstat", "readlink", "open", "fstat")
    async with LogWriter(path, engine=engine) as log:
        await log.append(b"one\n")
    assert asking
    assert threading.get_ident() not in asking


async def test_an_open_that_is_cancelled_closes_in_no_loops_thread(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect()  # what other tests have left is closed anywhere
    closing = watched_threads(monkeypatch, "close")
    log = LogWriter(path, engine=engine)
    opening = asyncio.ensure_future(log.open())
    while not path.exists():
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    while any(str(path) in fd for fd in open_fds()):
        await asyncio.sleep(0.001)
    assert closing
    assert threading.get_ident() not in closing


# ---- its benchmarks ---


@pytest.mark.parametrize(
    ("module", "options", "row"),
    [
        ("log", ["--rounds", "1", "--seconds", "0.02"], "| 256 tasks | write + fdatasync |"),
        ("log_disk", ["--rounds", "1", "--batches", "2"], "| 128 | O_DSYNC |"),
    ],
)
def test_the_benchmarks_run(tmp_path: Path, module: str, options: list[str], row: str) -> None:
    root = Path(__file__).parent.parent
    if not (root / "benchmarks" / f"{module}.py").exists():
        pytest.skip("the benchmarks are not here")
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--dir", str(tmp_path), *options],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert row in done.stdout, done.stderr
