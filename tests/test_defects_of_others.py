"""What other libraries of this kind get wrong, one test for each, on both engines."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run_python

from uringfile import AIOFile, LineReader, Writer, async_open, stats
from uringfile._driver import Driver
from uringfile._engine import ASYNC, CLOSE, FDATASYNC

# ---- errors and offsets ---


async def test_errors_are_os_errors_with_errno_and_filename(tmp_path: Path, engine: Any) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        await async_open(tmp_path / "missing", "rb", engine=engine)
    assert (missing.value.errno, missing.value.filename) == (
        errno.ENOENT,
        str(tmp_path / "missing"),
    )
    async with AIOFile("/dev/full", "wb", engine=engine) as f:
        with pytest.raises(OSError, match="No space") as full:
            await f.write(b"x")
        assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "/dev/full")


async def test_proc_gives_something(engine: Any) -> None:
    async with async_open("/proc/self/stat", "rb", engine=engine) as f:
        assert (await f.read()).startswith(str(os.getpid()).encode())


async def test_an_offset_of_minus_one_is_an_error(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb+", engine=engine) as f:
        os.lseek(f.fileno(), 100, os.SEEK_SET)
        for call in (f.read(1, -1), f.write(b"x", -1), f.readinto(bytearray(1), -1)):
            with pytest.raises(ValueError, match="offset"):
                await call


# ---- close ---


async def test_close_does_not_sync(
    tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = await AIOFile(tmp_path / "f", "wb", engine=engine)
    await f.write(b"data")
    started = []
    real = Driver.start

    def start(driver: Driver, opcode: int, *args: Any) -> Any:
        started.append(opcode & ~ASYNC)
        return real(driver, opcode, *args)

    monkeypatch.setattr(Driver, "start", start)
    await f.fdsync()
    assert started == [FDATASYNC]
    started.clear()
    await f.close()
    assert set(started) <= {CLOSE}


async def test_close_of_dev_null(engine: Any) -> None:
    await (await AIOFile("/dev/null", "wb", engine=engine)).close()
    before = open_fds()
    f = await AIOFile("/dev/null", "wb", engine=engine)
    await f.write(b"x")
    await f.close()
    assert open_fds() == before


async def test_close_tells_of_a_full_disk_and_releases_the_descriptor(engine: Any) -> None:
    f = await async_open("/dev/full", "wb", engine=engine)
    fd = f.fileno()
    await f.write(b"x")
    with pytest.raises(OSError, match="No space") as full:
        await f.close()
    assert full.value.errno == errno.ENOSPC
    assert f.closed
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


# ---- arguments ---


async def test_truncate_means_the_position(data: Path, engine: Any) -> None:
    async with async_open(data, "rb+", engine=engine) as f:
        await f.read(100)
        assert await f.truncate() == 100
    assert data.stat().st_size == 100


async def test_bad_modes_and_good_buffers(tmp_path: Path, engine: Any) -> None:
    for mode in ("", "rw", "z", "rbt"):
        with pytest.raises(ValueError, match="mode"):
            async_open(tmp_path / "f", mode, engine=engine)
        with pytest.raises(ValueError, match="mode"):
            AIOFile(tmp_path / "f", mode)
    async with async_open(tmp_path / "f", "wb+", engine=engine) as f:
        for data in (b"a", bytearray(b"b"), memoryview(b"c")):
            assert await f.write(data) == 1
        f.seek(0)
        assert await f.read() == b"abc"
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    for path in (tmp_path / "f", str(tmp_path / "f"), os.fsencode(tmp_path / "f"), fd):
        async with async_open(path, "rb", engine=engine) as f:
            assert await f.read() == b"abc"


# ---- lines ---


async def test_readline_with_a_size_loses_nothing(tmp_path: Path, engine: Any) -> None:
    (tmp_path / "f").write_bytes(b"0123456789\nabc\n")
    async with async_open(tmp_path / "f", "rb", engine=engine) as f:
        assert [await f.readline(4) for _ in range(5)] == [b"0123", b"4567", b"89\n", b"abc\n", b""]


async def test_iteration_starts_at_the_position(tmp_path: Path, engine: Any) -> None:
    (tmp_path / "f").write_text("one\ntwo\nthree\n")
    async with async_open(tmp_path / "f", engine=engine) as f:
        f.seek(4)
        assert [line async for line in f] == ["two\n", "three\n"]


async def test_line_separators_of_any_length_at_any_border(tmp_path: Path, engine: Any) -> None:
    (tmp_path / "f").write_bytes(b"one<->two<->\nthree")
    async with AIOFile(tmp_path / "f", "rb", engine=engine) as f:
        for size in range(1, 20):
            lines = [line async for line in LineReader(f, 0, size, "<->")]
            assert lines == [b"one<->", b"two<->", b"\nthree"]


async def test_long_lines_are_linear(tmp_path: Path, engine: Any) -> None:
    async def seconds(size: int) -> float:
        (tmp_path / "f").write_bytes(b"x" * size + b"\n")
        best = 1e9
        async with AIOFile(tmp_path / "f", "rb", engine=engine) as f:
            for _ in range(3):
                start = time.process_time()
                assert len(await LineReader(f, chunk_size=4096).readline()) == size + 1
                best = min(best, time.process_time() - start)
        return best

    small, large = await seconds(1 << 18), await seconds(1 << 22)
    assert large < 16 * small * 5, "sixteen times the length: quadratic would be 256 times"


async def test_one_byte_order_mark(tmp_path: Path, engine: Any) -> None:
    async with async_open(tmp_path / "f", "w", encoding="utf-16", engine=engine) as f:
        assert await f.write("\u00e4b") == 2, "characters, not bytes"
        await f.write("c")
    async with AIOFile(tmp_path / "g", "w", "utf-16", engine=engine) as g:
        writer = Writer(g)
        for part in ("\u00e4b", "c"):
            await writer(part)
    for name in ("f", "g"):
        assert (tmp_path / name).read_bytes() == "\u00e4bc".encode("utf-16")


# ---- cancellation, failure, fork ---


async def test_close_with_reads_pending_releases_their_awaiters(
    pipe: tuple[int, int], engine: Any
) -> None:
    f = await AIOFile(os.dup(pipe[0]), "rb", engine=engine)
    reads = [asyncio.ensure_future(f.read(1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    await asyncio.wait_for(f.close(), 5)
    done, pending = await asyncio.wait(reads, timeout=5)
    assert not pending
    assert all(isinstance(task.exception(), ValueError) for task in done)


async def test_a_cancelled_record_lands_whole(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        writer = Writer(f)
        tasks = [asyncio.ensure_future(writer(b"%d;" % i)) for i in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (tmp_path / "f").read_bytes() == b"0;1;2;"


async def test_a_failed_open_can_be_tried_again(tmp_path: Path, engine: Any) -> None:
    f = AIOFile(tmp_path / "f", "rb", engine=engine)
    with pytest.raises(FileNotFoundError):
        await f.open()
    (tmp_path / "f").write_bytes(b"now")
    async with f:
        assert await f.read() == b"now"


def test_a_fork_in_use_leaves_the_parent_alone(data: Path, engine: Any) -> None:
    code = """
import asyncio, os, sys, uringfile
async def main():
    async with uringfile.AIOFile(sys.argv[2], "rb", engine=sys.argv[1]) as f:
        f._inline = False
        reads = [asyncio.ensure_future(f.read(8, 8 * i)) for i in range(100)]
        await asyncio.sleep(0)
        pid = os.fork()
        if not pid:
            os._exit(0)
        blocks = await asyncio.gather(*reads)
        assert [int.from_bytes(b, "big") for b in blocks] == [8 * i for i in range(100)]
        os.waitpid(pid, 0)
asyncio.run(main())
"""
    done = run_python(code, engine, str(data), PYTHONWARNINGS="ignore::DeprecationWarning")
    assert done.returncode == 0, done.stderr


# ---- what it costs ---


async def test_no_kernel_thread_polls(
    data: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("URINGFILE_SQPOLL_MS", raising=False)
    async with AIOFile(data, "rb", engine=engine) as f:
        await f.read(8)
        names = [
            Path(f"/proc/self/task/{t}/comm").read_text() for t in os.listdir("/proc/self/task")
        ]
    assert not [name for name in names if name.startswith("iou-sqp")]


async def test_no_thread_hop_for_a_line(tmp_path: Path, engine: Any) -> None:
    (tmp_path / "f").write_bytes(b"a line of text\n" * 100_000)
    async with async_open(tmp_path / "f", "rb", engine=engine) as f:
        threads, before = threading.active_count(), stats(engine)
        assert sum([1 async for _ in f]) == 100_000
        after = stats(engine)
    assert threading.active_count() == threads
    assert after.submitted + after.inline - before.submitted - before.inline < 1000
