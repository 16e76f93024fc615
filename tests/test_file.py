"""AIOFile on real files, on each engine, on disk, tmpfs and with O_DIRECT."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    SQPOLL_MS,
    count,
    leaves_unclosed,
    make_cold,
    nothing_is_closing,
    open_fds,
    sqpoll_engine,
)

from uringfile import AIOFile, ClosedFileError, stats
from uringfile._engine import ENGINE_NAMES

TMPFS = Path("/dev/shm")


@pytest.fixture(params=[*ENGINE_NAMES, "io_uring-sqpoll"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine in turn, and io_uring with SQPOLL."""
    name, _, sqpoll = request.param.partition("-")
    if sqpoll:
        sqpoll_engine().destroy()
        monkeypatch.setenv("URINGFILE_SQPOLL_MS", str(SQPOLL_MS))
    else:
        count(name)
    return str(name)


@pytest.fixture(params=["disk", "tmpfs", "direct"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    """A folder, and whether to open its files with O_DIRECT."""
    if request.param == "tmpfs":
        if not os.access(TMPFS, os.W_OK):
            pytest.skip("no tmpfs at /dev/shm")
        folder = Path(tempfile.mkdtemp(dir=TMPFS))
        yield folder, False
        shutil.rmtree(folder)
    else:
        yield tmp_path, request.param == "direct"


def opened(place: tuple[Path, bool], mode: str, engine: Any, name: str = "file") -> AIOFile:
    folder, direct = place
    return AIOFile(folder / name, mode, direct=direct, engine=engine)


async def test_write_and_read_back(place: tuple[Path, bool], engine: Any) -> None:
    async with opened(place, "wb+", engine) as f:
        assert await f.write(b"hello", 3) == 5
        assert await f.read() == b"\0\0\0hello"
        assert await f.read(2, 4) == b"el"
        assert await f.read(100, 4) == b"ello"
        assert await f.read(100, 8) == b""
        assert await f.read(100, 1 << 40) == b""
        assert await f.read(0, 0) == b""
        assert await f.write(b"", 10) == 0
        assert (await f.stat()).st_size == 8
        await f.fsync()
        await f.fdsync()
        await f.fdatasync()
    assert (place[0] / "file").read_bytes() == b"\0\0\0hello"


async def test_random_operations_agree_with_a_model(place: tuple[Path, bool], engine: Any) -> None:
    rng = random.Random(7)
    model = bytearray()
    async with opened(place, "wb+", engine) as f:
        for _ in range(150):
            size = rng.choice([1, 7, 511, 4096, 5000, 40_000, 300_000])
            offset = rng.choice([0, 1, 4096, 8192, len(model), rng.randrange(200_000)])
            what = rng.random()
            if what < 0.4:
                data = rng.randbytes(size)
                assert await f.write(data, offset) == size
                model.extend(bytes(max(0, offset - len(model))))
                model[offset : offset + size] = data
            elif what < 0.7:
                assert await f.read(size, offset) == model[offset : offset + size]
            elif what < 0.9:
                buffer = bytearray(size)
                n = await f.readinto(buffer, offset)
                assert buffer[:n] == model[offset : offset + size]
                assert n == len(model[offset : offset + size])
            else:
                length = rng.randrange(250_000)
                await f.truncate(length)
                del model[length:]
                model.extend(bytes(length - len(model)))
        assert await f.read() == model
    assert (place[0] / "file").read_bytes() == model


async def test_many(place: tuple[Path, bool], engine: Any) -> None:
    blocks = [os.urandom(4096) for _ in range(300)]
    async with opened(place, "wb+", engine) as f:
        written = await f.write_many([(b, i * 4096) for i, b in enumerate(blocks)])
        assert written == [4096] * 300
        order = list(range(300))
        random.Random(1).shuffle(order)
        assert await f.read_many([(4096, i * 4096) for i in order]) == [blocks[i] for i in order]
        buffers = [bytearray(4096) for _ in range(300)]
        assert await f.readinto_many([(b, i * 4096) for i, b in enumerate(buffers)]) == [4096] * 300
        assert buffers == blocks
        assert await f.read_many([]) == await f.write_many([]) == []
        end = 300 * 4096
        assert await f.read_many([(10, end - 3), (10, end)]) == [blocks[-1][-3:], b""]


async def test_ten_thousand_at_once(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        f._inline = False  # all of them through the engine
        offsets = [random.randrange(1 << 17) * 8 for _ in range(10_000)]
        results = await asyncio.gather(*[f.read(8, offset) for offset in offsets])
        assert [int.from_bytes(r, "big") for r in results] == offsets
        counters = stats(engine)
        assert counters.in_flight == counters.queued == 0
        assert counters.submitted >= 10_000


async def test_cold_and_warm_cache(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        make_cold(f.fileno())
        before = stats(engine)
        assert await f.read(8, 512 * 1024) == (512 * 1024).to_bytes(8, "big")
        middle = stats(engine)
        assert await f.read(8, 512 * 1024) == (512 * 1024).to_bytes(8, "big")
        after = stats(engine)
        # The attempt itself starts a read-ahead, which on a fast disk may win the race.
        assert middle.submitted + middle.inline == before.submitted + before.inline + 1
        assert after.submitted == middle.submitted, "now the page cache has it"
        assert after.inline == middle.inline + 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, "array"])
async def test_any_buffer_is_written(tmp_path: Path, engine: Any, kind: Any) -> None:
    import array

    data: Any = array.array("i", [1, 2, 3]) if kind == "array" else kind(b"abc" * 100)
    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        assert await f.write(data) == memoryview(data).nbytes
    assert (tmp_path / "f").read_bytes() == bytes(data)


async def test_buffers_that_do_not_fit(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "wb+", engine=engine) as f:
        with pytest.raises(TypeError):
            await f.write("text")
        with pytest.raises(TypeError):
            await f.write(12)
        with pytest.raises(TypeError):
            await f.readinto(b"read-only")
        with pytest.raises(BufferError):
            await f.write(memoryview(bytearray(10))[::2])
        assert await f.read() == b""


async def test_text(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "w+", engine=engine) as f:
        assert await f.write("\u00e4\u00f6") == 4
        assert await f.read() == "\u00e4\u00f6"
        assert await f.read(2, 2) == "\u00f6"
        assert await f.read_bytes() == "\u00e4\u00f6".encode()
        with pytest.raises(UnicodeDecodeError):
            await f.read(1)
        with pytest.raises(TypeError):
            await f.write(b"bytes")
    async with AIOFile(tmp_path / "f", "r", "ascii", errors="replace", engine=engine) as f:
        assert await f.read() == "\ufffd" * 4


async def test_one_byte_order_mark(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "w+", "utf-16", engine=engine) as f:
        end = await f.write("ab")
        end += await f.write("cd", end)
        assert await f.read() == "abcd"
        assert await f.read(4, 6) == "cd"
    assert (tmp_path / "f").read_text("utf-16") == "abcd"


async def test_bad_arguments(tmp_path: Path, engine: Any) -> None:
    for mode in ("", "rw", "rr", "bt", "q", "r++", "+"):
        with pytest.raises(ValueError, match="mode"):
            AIOFile(tmp_path / "f", mode)
    with pytest.raises(LookupError):
        AIOFile(tmp_path / "f", "r", "no-such-codec")
    with pytest.raises(TypeError):
        AIOFile(3.5)  # type: ignore[arg-type]
    async with AIOFile(tmp_path / "f", "wb+", engine=engine) as f:
        await f.write(b"stays")
        for offset in (-1, 2**63, 2**64):
            for call in (
                f.read(1, offset),
                f.write(b"x", offset),
                f.readinto(bytearray(1), offset),
            ):
                with pytest.raises(ValueError, match="offset"):
                    await call
        with pytest.raises(ValueError, match="size"):
            await f.read(-2)
        with pytest.raises(ValueError, match="offset"):
            await f.truncate(-1)
        with pytest.raises(ValueError, match="length"):
            await f.allocate(0)
        with pytest.raises(OSError, match=r"large|Invalid") as raised:
            await f.write(b"xy", 2**63 - 1)
        assert raised.value.errno in (errno.EFBIG, errno.EINVAL)
        assert await f.read(1, 2**63 - 1) == b""
        assert await f.read() == b"stays"


async def test_a_size_is_a_number_whatever_the_file(
    place: tuple[Path, bool], pipe: tuple[int, int], engine: Any
) -> None:
    size: Any = None
    for kind in ("file", "pipe"):
        file = opened(place, "wb+", engine) if kind == "file" else AIOFile(pipe[0], engine=engine)
        async with file as f:
            for call in (f.read(size), f.read_bytes(size)):
                with pytest.raises(TypeError):
                    await asyncio.wait_for(call, 5)


async def test_unsupported_operations(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        for call in (f.write(b"x"), f.truncate(0), f.allocate(1)):
            with pytest.raises(io.UnsupportedOperation, match="not writable"):
                await call
    async with AIOFile(data, "ab", engine=engine) as f:
        for call in (f.read(1), f.read(), f.readinto(bytearray(1))):
            with pytest.raises(io.UnsupportedOperation, match="not readable"):
                await call


async def test_errors_name_errno_and_file(tmp_path: Path, engine: Any) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as raised:
        await AIOFile(missing, engine=engine)
    assert raised.value.filename == str(missing)
    with pytest.raises(IsADirectoryError) as isdir:
        await AIOFile(tmp_path, engine=engine)
    assert isdir.value.filename == str(tmp_path)
    with pytest.raises(IsADirectoryError):
        await AIOFile(tmp_path, "w", engine=engine)
    (tmp_path / "there").touch()
    with pytest.raises(FileExistsError):
        await AIOFile(tmp_path / "there", "x", engine=engine)
    with pytest.raises(ValueError, match="null"):
        await AIOFile("a\0b", engine=engine)
    full = Path("/dev/full")
    async with AIOFile(full, "wb", engine=engine) as f:
        with pytest.raises(OSError, match="No space") as nospace:
            await f.write(b"x")
    assert nospace.value.errno == errno.ENOSPC
    assert nospace.value.filename == "/dev/full"


async def test_a_failed_open_is_not_remembered(tmp_path: Path, engine: Any) -> None:
    f = AIOFile(tmp_path / "later", engine=engine)
    with pytest.raises(FileNotFoundError):
        await f.open()
    assert f.closed
    (tmp_path / "later").write_text("now")
    assert await f.open() == f.fileno()
    assert await f.open() is None
    assert await f.read() == "now"
    await f.close()
    with pytest.raises(ClosedFileError):
        await f.open()


async def test_parallel_open_opens_once(data: Path, engine: Any) -> None:
    f = AIOFile(data, "rb", engine=engine)
    fds = await asyncio.gather(*[f.open() for _ in range(5)])
    assert sorted(fd is None for fd in fds) == [False] + [True] * 4
    await f.close()


async def test_closed_files(data: Path, engine: Any) -> None:
    f = AIOFile(data, "rb+", engine=engine)
    assert f.closed
    with pytest.raises(ValueError, match="not open"):
        await f.read(1)
    async with f:
        assert not f.closed
        fd = f.fileno()
    assert f.closed
    await f.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    calls = (f.read(1), f.read(), f.write(b"x"), f.fsync(), f.truncate(), f.stat(), f.allocate(1))
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            await call
    with pytest.raises(ValueError, match="closed"):
        f.fileno()


async def test_paths_and_descriptors(data: Path, engine: Any) -> None:
    for path in (data, str(data), os.fsencode(data), os.open(data, os.O_RDONLY)):
        async with AIOFile(path, "rb", engine=engine) as f:
            assert await f.read(8, 64) == (64).to_bytes(8, "big")
            assert f.name == (os.fspath(path) if isinstance(path, os.PathLike) else path)
            assert f.mode == "rb"
            fd = f.fileno()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
    with pytest.raises(OSError, match="Bad file"):
        await AIOFile(987, engine=engine)


async def test_from_fp_leaves_its_file_open(data: Path, engine: Any) -> None:
    with open(data, "r+b") as fp:
        fp.write(b"buffered")
        async with AIOFile.from_fp(fp, engine=engine) as f:
            assert await f.read(8) == b"buffered"
            assert f.name == str(data)
        assert not fp.closed
        fp.seek(0)
        assert fp.read(8) == b"buffered"


async def test_modes(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "f"
    async with AIOFile(path, "x", engine=engine) as f:
        await f.write("one")
    async with AIOFile(path, "a+", engine=engine) as f:
        await f.write("two")
        await f.write("six", 0)  # appends all the same
        assert await f.read() == "onetwosix"
    async with AIOFile(path, "r+", engine=engine) as f:
        await f.write("ONE")
    assert path.read_text() == "ONEtwosix"
    async with AIOFile(path, "w", engine=engine) as f:
        assert path.read_text() == ""
    old = os.umask(0o027)
    try:
        async with AIOFile(tmp_path / "new", "w", engine=engine):
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    finally:
        os.umask(old)


async def test_truncate_and_allocate(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "wb+", engine=engine) as f:
        await f.write(b"0123456789")
        await f.truncate(4)
        assert await f.read() == b"0123"
        await f.truncate(6)
        assert await f.read() == b"0123\0\0"
        await f.truncate()
        assert await f.read() == b""
        await f.allocate(1 << 20, 4096)
        assert (await f.stat()).st_size == (1 << 20) + 4096
        assert (await f.stat()).st_blocks * 512 >= 1 << 20


async def test_stat_through_the_engine(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        f._local = False
        await f.fsync()  # st_blocks settles
        theirs, ours = os.stat(data), await f.stat()
        for field in dir(theirs):
            if field.startswith("st_") and "atime" not in field:
                assert getattr(ours, field) == getattr(theirs, field), field


@pytest.mark.parametrize(
    "path", ["/proc/self/status", "/proc/mounts", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
async def test_proc_and_sys_are_read_to_the_end(path: str, engine: Any) -> None:
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    async with AIOFile(path, engine=engine) as f:
        text = await f.read()
    with open(path) as fp:
        assert text.splitlines()[0] == fp.read().splitlines()[0]
    assert text


async def test_dev_null_and_zero(engine: Any) -> None:
    async with AIOFile("/dev/null", "rb+", engine=engine) as f:
        assert await f.write(b"gone") == 4
        assert await f.read() == b""
    async with AIOFile("/dev/zero", "rb", engine=engine) as f:
        assert await f.read(10) == bytes(10)


async def test_pipes_are_streams(pipe: tuple[int, int], engine: Any) -> None:
    reader = await AIOFile(os.dup(pipe[0]), "rb", engine=engine)
    writer = await AIOFile(os.dup(pipe[1]), "wb", engine=engine)
    waiting = asyncio.ensure_future(reader.read(100))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    assert await writer.write(b"abc", 12345) == 3
    assert await waiting == b"abc", "what there is, not a hundred bytes"
    big = os.urandom(1 << 20)  # more than a pipe holds
    sending = asyncio.ensure_future(writer.write(big))
    received = b""
    while len(received) < len(big):
        received += await reader.read(1 << 16)
    assert await sending == len(big)
    assert received == big
    await writer.write(b"rest")
    await writer.close()
    os.close(pipe[1])
    assert await reader.read() == b"rest"
    await reader.close()


async def test_a_cancelled_read_of_a_stream_loses_nothing(
    pipe: tuple[int, int], engine: Any
) -> None:
    async with AIOFile(os.dup(pipe[0]), "rb", engine=engine) as f:
        for size in (100, 5):
            for delay in (0, 0, 0.01):
                reading = asyncio.ensure_future(f.read(size))
                await asyncio.sleep(delay)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            os.write(pipe[1], b"0123456789")
            got = b""
            while len(got) < 10:
                got += await asyncio.wait_for(f.read(3), 5)
            assert got == b"0123456789"


async def test_readers_of_a_stream_take_turns(pipe: tuple[int, int], engine: Any) -> None:
    async with AIOFile(os.dup(pipe[0]), "rb", engine=engine) as f:
        reads = [asyncio.ensure_future(f.read(2)) for _ in range(5)]
        await asyncio.sleep(0.01)
        reads[1].cancel()
        os.write(pipe[1], b"aabbccdd")
        assert await asyncio.gather(*reads[:1], *reads[2:]) == [b"aa", b"bb", b"cc", b"dd"]


async def test_records_of_concurrent_writers_stay_whole(pipe: tuple[int, int], engine: Any) -> None:
    reader = await AIOFile(os.dup(pipe[0]), "rb", engine=engine)
    async with AIOFile(os.dup(pipe[1]), "wb", engine=engine) as f:
        size = 300_000  # more than a pipe holds
        writes = [asyncio.ensure_future(f.write(bytes([i]) * size)) for i in range(3)]
        got = b""
        while len(got) < 3 * size:
            got += await reader.read(1 << 16)
        assert got == b"".join(bytes([i]) * size for i in range(3))
        assert await asyncio.gather(*writes) == [size] * 3
    await reader.close()


async def test_fifo(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader, writer = AIOFile(path, "rb", engine=engine), AIOFile(path, "wb", engine=engine)
    opening = asyncio.ensure_future(reader.open())
    await asyncio.sleep(0.05)
    assert not opening.done(), "as open(2) does, it waits for the other end"
    await asyncio.gather(opening, writer.open())
    await writer.write(b"through")
    await writer.close()
    assert await reader.read() == b"through"
    await reader.close()


async def test_terminals(engine: Any) -> None:
    import pty

    controller, terminal = pty.openpty()
    async with AIOFile(terminal, "rb", engine=engine) as f:
        os.write(controller, b"line\n")
        assert await f.read(100) == b"line\n"
    os.close(controller)


async def test_a_file_that_grows(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 100_000)
    async with AIOFile(path, "rb", engine=engine) as f:
        real = f.stat

        async def outdated() -> os.stat_result:
            result = await real()
            with open(path, "ab") as fp:
                fp.write(b"b" * 50_000)
            return result

        f.stat = outdated  # type: ignore[method-assign]
        assert await f.read() == b"a" * 100_000 + b"b" * 50_000


async def test_sparse_and_large(tmp_path: Path, engine: Any) -> None:
    size = (2 << 30) + (1 << 20)  # more than one read(2) moves
    # For holes a tmpfs needs no memory, and a disk's file system gigabytes of the page cache.
    folder = TMPFS if os.access(TMPFS, os.W_OK) else tmp_path
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        async with AIOFile(file.name, "wb+", engine=engine) as f:
            await f.truncate(size)
            await f.write(b"end", size - 3)
            await f.write(b"far", 5 << 30)
            data = await f.read(size)
            assert len(data) == size
            assert data[-3:] == b"end"
            assert not any(data[i] for i in range(0, size - 3, 1 << 20))
            del data
            assert await f.read(10, 5 << 30) == b"far"


async def test_a_descriptor_that_is_not_closed_warns(data: Path, engine: Any) -> None:
    f = await AIOFile(data, "rb", engine=engine)
    fd = f.fileno()
    with leaves_unclosed("unclosed file <AIOFile"):
        del f
    nothing_is_closing()  # where the file is not known to be local
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


async def test_no_descriptor_is_left(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        await f.read(8)
    before = open_fds()
    for _ in range(50):
        async with AIOFile(data, "rb+", engine=engine, direct=True) as f:
            await f.write(b"x", 1)
            await asyncio.gather(*[f.read(8, i) for i in range(20)])
        with pytest.raises(FileNotFoundError):
            await AIOFile(data.parent / "none", engine=engine)
    assert open_fds() == before


async def test_direct_keeps_every_unaligned_write(tmp_path: Path, engine: Any) -> None:
    """Concurrent writes to one block through O_DIRECT lose nothing."""
    async with AIOFile(tmp_path / "f", "wb+", direct=True, engine=engine) as f:
        pieces = [bytes([i % 251]) * 37 for i in range(1000)]
        await f.write_many([(piece, i * 37) for i, piece in enumerate(pieces)])
        assert await f.read() == b"".join(pieces)
        big = os.urandom(3_000_001)
        await f.write(big, 4099)
        assert await f.read(len(big), 4099) == big
        assert (await f.stat()).st_size == 4099 + len(big)
    async with AIOFile(tmp_path / "f", "ab", direct=True, engine=engine) as f:
        await f.write(b"tail")
    assert (tmp_path / "f").read_bytes().endswith(b"tail")
