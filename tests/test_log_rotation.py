"""Rotation of a LogWriter: nothing is lost, doubled or torn, whoever moves the file."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import random
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds

from uringfile import LogWriter, _commit, _logopen, _rotation
from uringfile._logfile import LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def rotated(path: Path) -> list[Path]:
    return sorted(path.parent.glob(path.name + ".*"))


def all_records(path: Path) -> bytes:
    """What is in all files, the oldest first."""
    pieces = [
        gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in rotated(path)
    ]
    return b"".join(pieces) + path.read_bytes()


async def until(condition: Any) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it does not come")


# ---- by size ---


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
async def test_by_size(path: Path, engine: Any, sync: Any) -> None:
    before = open_fds()
    path.touch(0o640)
    async with LogWriter(path, sync=sync, engine=engine, rotate_size=1000) as log:
        tasks = [log.append(b"%099d\n" % i) for i in range(95)]
        ends = await asyncio.gather(*tasks)
        assert ends == [100 * (i % 10 + 1) for i in range(95)]
        assert log.written == 500
    assert [file.name for file in rotated(path)] == [f"log.{i:06d}" for i in range(1, 10)]
    assert {file.stat().st_size for file in rotated(path)} == {1000}
    assert all_records(path) == b"".join(b"%099d\n" % i for i in range(95))
    assert {stat.S_IMODE(file.stat().st_mode) for file in [path, *rotated(path)]} == {0o640}
    assert {fd for fd in open_fds() - before if str(path) in fd} == set()


async def test_a_record_larger_than_a_file_has_one_of_its_own(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine, rotate_size=10) as log:
        ends = [await log.append(b"x" * size) for size in (5, 50, 5, 5, 1)]
    assert ends == [5, 50, 5, 10, 1]
    assert [file.stat().st_size for file in rotated(path)] == [5, 50, 10]


@pytest.mark.parametrize("compress", [False, True])
async def test_many_tasks_across_many_rotations(path: Path, engine: Any, compress: bool) -> None:
    rng = random.Random(3)
    calls = []

    async def write(log: LogWriter, task: int) -> None:
        for i in range(40):
            record = b"%d %d %s\n" % (task, i, b"x" * rng.randrange(300))
            calls.append(record)
            if rng.random() < 0.05:
                reopening = asyncio.ensure_future(log.reopen())
                await log.append(record)
                await reopening
            elif rng.random() < 0.2:
                log.append_nowait(record)
                await log.drain()
            else:
                await log.append(record)
            if rng.random() < 0.05:
                await log.sync()

    options: Any = {"rotate_size": 5000, "compress": compress, "max_buffered": 1 << 20}
    for _ in range(2):
        async with LogWriter(path, engine=engine, **options) as log:
            await asyncio.gather(*[write(log, task) for task in range(20)])
    assert all_records(path) == b"".join(calls)
    assert len(rotated(path)) > 10
    assert {file.suffix == ".gz" for file in rotated(path)} == {compress}
    assert all(file.stat().st_size <= 5000 for file in rotated(path))


async def test_what_is_old_is_deleted(path: Path, engine: Any) -> None:
    path.with_name("log.000007.gz").write_bytes(gzip.compress(b"old\n"))
    path.with_name("log.000008").write_bytes(b"old\n")
    for name in ("log.1", "log.000001.txt", "xlog.000001", "log.000009.gz.partial"):
        path.with_name(name).touch()
    async with LogWriter(path, engine=engine, rotate_size=1, keep=2) as log:
        for _ in range(4):
            await log.append(b"x")
    names = {file.name for file in path.parent.iterdir()}
    assert names >= {"log", "log.000010", "log.000011", "log.1", "log.000001.txt", "xlog.000001"}
    assert not names & {"log.000007.gz", "log.000008", "log.000009"}


async def test_none_is_kept(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine, rotate_size=1, keep=0) as log:
        for _ in range(3):
            await log.append(b"x")
    assert rotated(path) == []


async def test_framed_and_preallocated(path: Path, engine: Any) -> None:
    pytest.importorskip("google_crc32c")
    from uringfile._frames import FrameSplitter

    async with LogWriter(
        path, engine=engine, framed=True, preallocate=1 << 16, rotate_size=100
    ) as log:
        for i in range(20):
            await log.append(b"%030d" % i)
    found = []
    for file in [*rotated(path), path]:
        splitter = FrameSplitter()
        found += splitter.feed(file.read_bytes())
        assert splitter.offset == file.stat().st_size <= 100
    assert found == [b"%030d" % i for i in range(20)]


# ---- by time ---


async def test_by_time(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine, rotate_seconds=0.05) as log:
        await asyncio.sleep(0.12)
        assert rotated(path) == [], "an empty file is not rotated"
        for i in range(3):
            await log.append(b"%d\n" % i)
            await until(lambda: len(rotated(path)) == i + 1)  # noqa: B023
            await until(lambda: log.written == 0)
    assert [file.read_bytes() for file in rotated(path)] == [b"0\n", b"1\n", b"2\n"]
    assert path.read_bytes() == b""


# ---- what a crash leaves ---


async def test_a_crash_between_the_two_names(path: Path, engine: Any) -> None:
    """The log has its number already, and the new file is not in its place."""
    path.write_bytes(b"one\n")
    os.link(path, path.with_name("log.000001"))
    path.with_name("log.new").write_bytes(b"")
    async with LogWriter(path, engine=engine, rotate_size=8) as log:
        assert rotated(path) == [path.with_name("log.new")]
        assert await log.append(b"two\n") == 8
        await log.append(b"three\n")
    assert [file.name for file in rotated(path)] == ["log.000001"]
    assert all_records(path) == b"one\ntwo\nthree\n"


async def test_a_crash_while_compressing(path: Path, engine: Any) -> None:
    path.with_name("log.000001").write_bytes(b"one\n")
    path.with_name("log.000001.gz").write_bytes(gzip.compress(b"one\n"))
    path.with_name("log.000002").write_bytes(b"two\n")
    path.with_name("log.000002.gz.partial").write_bytes(b"\x1f")
    async with LogWriter(path, engine=engine, compress=True) as log:
        await log.append(b"three\n")
    assert [file.name for file in rotated(path)] == ["log.000001.gz", "log.000002.gz"]
    assert all_records(path) == b"one\ntwo\nthree\n"


# ---- moved by somebody else ---


async def idle(log: LogWriter) -> None:
    """Until the next record finds no commit under way: then the path is looked at first."""
    while log._committing:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.001)


async def test_a_moved_file_is_noticed(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_commit, "LOOK_SECONDS", -1.0)  # at each write, however coarse the clock
    async with LogWriter(path, engine=engine) as log:
        await log.append(b"one\n")
        await idle(log)
        path.rename(path.with_name("log.1"))
        assert await log.append(b"two\n") == 4
        await idle(log)
        path.unlink()
        assert await log.append(b"three\n") == 6
        await idle(log)
        path.rename(path.with_name("log.2"))
        path.write_bytes(b"somebody's\n")
        assert await log.append(b"four\n") == 16
        assert log.written == log.durable == 16
    assert path.with_name("log.1").read_bytes() == b"one\n"
    assert path.with_name("log.2").read_bytes() == b"three\n"
    assert path.read_bytes() == b"somebody's\nfour\n"


async def test_a_moved_file_is_noticed_by_who_never_pauses(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_commit, "LOOK_SECONDS", -1.0)  # at each write, however coarse the clock
    async with LogWriter(path, engine=engine) as log:
        for i in range(100):
            if i == 50:
                path.rename(path.with_name("log.1"))
            await log.append(b"%02d\n" % i)
    assert path.with_name("log.1").stat().st_size in (150, 153)
    assert all_records(path) == b"".join(b"%02d\n" % i for i in range(100))


async def test_moved_while_many_write(path: Path, engine: Any) -> None:
    records = []

    async def write(log: LogWriter, task: int) -> None:
        for i in range(100):
            records.append(b"%d %d\n" % (task, i))
            await log.append(records[-1])

    async def move(log: LogWriter) -> None:
        for i in range(10):
            await asyncio.sleep(0.01)
            if path.exists():
                path.rename(path.with_name(f"log.{i}"))
            await log.reopen()

    async with LogWriter(path, engine=engine) as log:
        await asyncio.gather(move(log), *[write(log, task) for task in range(20)])
    assert all_records(path) == b"".join(records)
    assert len(rotated(path)) == 10


async def test_reopening_what_is_not_moved(path: Path, engine: Any) -> None:
    async with LogWriter(path, engine=engine) as log:
        await log.append(b"one\n")
        fd = log.fileno()
        calls = [log.append(b"two\n"), log.reopen(), log.append(b"three\n"), log.reopen()]
        ends = await asyncio.gather(*calls)
        assert ends == [8, None, 14, None]
        assert log.fileno() == fd
        assert await log.append(b"four\n") == 19
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"


async def test_rotation_of_a_file_that_was_moved(path: Path, engine: Any) -> None:
    """Whoever has moved it has rotated it; and what stands at the path now is not replaced."""
    async with LogWriter(path, engine=engine, rotate_size=4) as log:
        await log.append(b"one\n")
        path.rename(path.with_name("moved"))
        path.write_bytes(b"x\n")
        await log.append(b"two\n")
    assert path.with_name("moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"x\ntwo\n"


@pytest.mark.skipif(not shutil.which("logrotate"), reason="logrotate is not installed")
async def test_logrotate(path: Path, engine: Any, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f'"{path}" {{\n size 1\n rotate 9\n nocompress\n}}\n')
    config.chmod(0o600)
    tmp_path.chmod(0o755)
    records = []
    async with LogWriter(path, engine=engine) as log:
        for i in range(4):
            records.append(b"%d\n" % i)
            await log.append(records[-1])
            command = ["logrotate", "-f", "-s", str(tmp_path / "state"), str(config)]
            await asyncio.to_thread(subprocess.run, command, check=True)
            await log.reopen()
    found = [path.with_name(f"log.{n}").read_bytes() for n in range(4, 0, -1)]
    assert found == records


# ---- errors ---


async def test_a_rotation_that_fails_is_final_and_loses_nothing(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a name")

    async with LogWriter(path, engine=engine, rotate_size=8) as log:
        await log.append(b"one\n")
        monkeypatch.setattr(_rotation, "_set_aside", full)
        results = await asyncio.gather(
            log.append(b"two\n"), log.append(b"three\n"), log.append(b"4\n"), return_exceptions=True
        )
        assert results[0] == 8
        for failure in results[1:]:
            assert isinstance(failure, OSError)
            assert failure.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space"):
            await log.append(b"five\n")
        with pytest.raises(OSError, match="No space"):
            await log.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert rotated(path) == []


async def test_without_hard_links(path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    async with LogWriter(path, engine=engine, rotate_size=4) as log:
        for record in (b"one\n", b"two\n", b"3\n"):
            await log.append(record)
    assert all_records(path) == b"one\ntwo\n3\n"


async def test_a_failed_compression_is_reported_by_close(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    real = _rotation._compress_one
    log = await LogWriter(path, engine=engine, rotate_size=4, compress=True)
    monkeypatch.setattr(_rotation, "_compress_one", full)
    for record in (b"one\n", b"two\n", b"3\n"):
        await log.append(record)
    with pytest.raises(OSError, match="No space"):
        await log.close()
    assert all_records(path) == b"one\ntwo\n3\n"
    monkeypatch.setattr(_rotation, "_compress_one", real)
    async with LogWriter(path, engine=engine, compress=True):
        pass
    assert [file.suffix for file in rotated(path)] == [".gz", ".gz"]
    assert all_records(path) == b"one\ntwo\n3\n"


async def test_a_second_owner_waits_for_no_rotated_file(path: Path, engine: Any) -> None:
    """Who has opened the file just before it was rotated does not take that for the log."""
    async with LogWriter(path, engine=engine, rotate_size=4) as log:
        await log.append(b"one\n")
        stale = os.open(path, os.O_RDWR)
        await log.append(b"two\n")
        real, opened = os.open, []

        def open_stale(name: Any, *args: Any) -> int:
            if name == str(path) and not opened:
                opened.append(os.dup(stale))
                return opened[0]
            return real(name, *args)

        pytest.MonkeyPatch().setattr(os, "open", open_stale)
        try:
            with pytest.raises(BlockingIOError, match="another owner"):
                await LogWriter(path, engine=engine)
        finally:
            os.open = real
        assert opened
        os.close(stale)


async def test_a_rotated_file_keeps_no_reserved_blocks(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut before it gets its number: nobody would, after a kill in between."""
    sizes = []
    real = _logopen.rotate

    def rotate(path: str, flags: int, permissions: int) -> int:
        sizes.append(os.stat(path).st_size)
        return real(path, flags, permissions)

    monkeypatch.setattr(_logopen, "rotate", rotate)
    async with LogWriter(path, engine=engine, rotate_size=100, preallocate=1 << 20) as log:
        for _ in range(3):
            await log.append(b"x" * 59 + b"\n")
    assert sizes == [60, 60]


async def test_offsets_of_what_comes_while_the_file_changes(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "log"
    records = [b"%d\n" % i for i in range(300)]
    async with LogWriter(path, sync="never", engine=engine) as log:
        await log.append(b"before\n")
        path.rename(tmp_path / "moved")
        path.write_bytes(b"somebody else's line\n")
        reopening = asyncio.ensure_future(log.reopen())
        appends = []
        for record in records:
            appends.append(asyncio.ensure_future(log.append(record)))
            await asyncio.sleep(0.0001)
        ends = await asyncio.gather(*appends)
        await reopening
    contents = [(tmp_path / name).read_bytes() for name in ("moved", "log")]
    for record, end in zip(records, ends, strict=True):
        assert any(content[:end].endswith(b"\n" + record) for content in contents), record


async def test_close_waits_for_a_change_of_the_file(
    tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closed the old file, which was then closed again, and left the new one open."""
    path = tmp_path / "log"
    monkeypatch.setattr(_commit, "LOOK_SECONDS", -1.0)  # at each write, however coarse the clock
    async with LogWriter(path, sync="never", engine=engine) as log:
        await log.append(b"0\n")
    before = open_fds()
    for i in range(1, 20):
        log = await LogWriter(path, sync="never", engine=engine)
        log.append_nowait(b"%d\n" % i)
        await asyncio.sleep(0)  # in which the write begins
        log.append_nowait(b"%d\n" % i)
        path.rename(tmp_path / f"moved{i}")
        await log.close()
        while log._committing:
            await asyncio.sleep(0.001)
        assert log._error is None
        assert (tmp_path / f"moved{i}").read_bytes().count(b"%d\n" % i) == 2
    assert open_fds() == before


async def test_close_while_reopen_looks(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it finds is of no interest any more; the change went on after the close."""
    go_on = threading.Event()
    is_at_path = LogFile.is_at_path

    def slow(self: LogFile) -> bool:
        go_on.wait()
        return is_at_path(self)

    async with LogWriter(path, engine=engine):  # the engine is open now
        pass
    before = open_fds()
    log = await LogWriter(path, engine=engine)
    await log.append(b"one\n")
    log._file.local = False  # it looks in a thread
    monkeypatch.setattr(LogFile, "is_at_path", slow)
    path.rename(path.with_name("moved"))
    reopening = asyncio.ensure_future(log.reopen())
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(log.close())
    await asyncio.sleep(0.01)
    go_on.set()
    await closing
    await asyncio.gather(reopening, return_exceptions=True)
    while log._committing:
        await asyncio.sleep(0.001)
    assert log._error is None
    assert not path.exists()
    assert open_fds() == before
