"""Operations of the library, each of which tells whether what it gave is right.

Each gets an empty directory and the name of an engine, and leaves nothing open, also when it
raises. What it has acknowledged before it raised holds all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from uringfile import (
    AIOFile,
    BufferPool,
    LineReader,
    LogReader,
    LogWriter,
    Reader,
    Writer,
    async_open,
    clone,
    recover,
)

SIZE = 3 * 4096 + 100
DATA = os.urandom(SIZE)
LINES = b"".join(b"line %d\n" % i for i in range(400))

Operation = Callable[[Path, Any], Awaitable[None]]
OPERATIONS: dict[str, Operation] = {}


def operation(function: Operation) -> Operation:
    OPERATIONS[function.__name__] = function
    return function


def _file(where: Path, content: bytes = DATA) -> str:
    path = where / "file"
    path.write_bytes(content)
    return str(path)


@contextlib.asynccontextmanager
async def _submitted(path: str, mode: str, engine: Any) -> AsyncIterator[AIOFile]:
    """Whose reads do not look into the page cache, as if nothing was there."""
    async with AIOFile(path, mode, engine=engine) as f:
        f._inline = False
        yield f


def _expect(path: str, content: bytes) -> None:
    found = Path(path).read_bytes()
    assert found == content, f"{len(found)} bytes, not {len(content)}, or others"


async def _all(*calls: Any) -> list[Any]:
    """Their results; the first error when all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


# ---- open and close ---


@operation
async def open_and_close(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb", engine=engine) as f:
        assert os.fstat(f.fileno()).st_size == SIZE


@operation
async def create(where: Path, engine: Any) -> None:
    async with AIOFile(where / "new", "wb+", engine=engine) as f:
        assert os.fstat(f.fileno()).st_size == 0


# ---- reading ---


@operation
async def read_cached(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb", engine=engine) as f:
        assert await f.read(100, 50) == DATA[50:150]
        assert await f.read(SIZE, 10) == DATA[10:]
        assert await f.read(10, SIZE) == b""


@operation
async def read_submitted(where: Path, engine: Any) -> None:
    async with _submitted(_file(where), "rb", engine) as f:
        assert await f.read(100, 50) == DATA[50:150]
        offsets = range(0, 3000, 300)
        found = await _all(*[f.read(300, offset) for offset in offsets])
        assert found == [DATA[offset : offset + 300] for offset in offsets]


@operation
async def read_direct(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb", direct=True, engine=engine) as f:
        assert await f.read(5000, 50) == DATA[50:5050]
        assert await f.read(8192, 4096) == DATA[4096:12288]


@operation
async def read_to_the_end(where: Path, engine: Any) -> None:
    async with _submitted(_file(where), "rb", engine) as f:
        assert await f.read(-1, 50) == DATA[50:]
    async with AIOFile("/proc/self/comm", "rb", engine=engine) as f:
        assert (await f.read()).endswith(b"\n")


@operation
async def readinto(where: Path, engine: Any) -> None:
    path = _file(where)
    buffer = bytearray(6000)
    async with _submitted(path, "rb", engine) as f:
        assert await f.readinto(buffer, 4000) == 6000
        assert buffer == DATA[4000:10000]
    aligned = mmap.mmap(-1, 8192)
    async with AIOFile(path, "rb", direct=True, engine=engine) as f:
        assert await f.readinto(aligned, 4096) == 8192
        assert aligned[:] == DATA[4096:12288]
        assert await f.readinto(buffer, 1) == 6000
        assert buffer == DATA[1:6001]


PAIRS = [(40 + i, 500 * i) for i in range(12)]
PARTS = [DATA[offset : offset + size] for size, offset in PAIRS]


@operation
async def read_many(where: Path, engine: Any) -> None:
    path = _file(where)
    async with AIOFile(path, "rb", engine=engine) as f:
        assert await f.read_many(PAIRS) == PARTS
    async with _submitted(path, "rb", engine) as f:
        assert await f.read_many(PAIRS) == PARTS


@operation
async def read_many_direct(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb", direct=True, engine=engine) as f:
        assert await f.read_many(PAIRS) == PARTS


@operation
async def readinto_many(where: Path, engine: Any) -> None:
    async with _submitted(_file(where), "rb", engine) as f:
        buffers = [bytearray(size) for size, _ in PAIRS]
        requests = [(b, offset) for b, (_, offset) in zip(buffers, PAIRS, strict=True)]
        assert await f.readinto_many(requests) == [size for size, _ in PAIRS]
        assert buffers == PARTS


# ---- writing ---


@operation
async def write(where: Path, engine: Any) -> None:
    path = _file(where, b"")
    async with AIOFile(path, "rb+", engine=engine) as f:
        assert await f.write(DATA) == SIZE
    _expect(path, DATA)


@operation
async def append(where: Path, engine: Any) -> None:
    path = _file(where, b"begin")
    async with AIOFile(path, "ab", engine=engine) as f:
        assert await f.write(DATA) == SIZE
        assert await f.write(b"end") == 3
    _expect(path, b"begin" + DATA + b"end")


@operation
async def write_gathered(where: Path, engine: Any) -> None:
    path = _file(where, b"")
    async with AIOFile(path, "rb+", engine=engine) as f:
        writes = [f.write(DATA[i : i + 600], i) for i in range(0, SIZE, 600)]
        assert sum(await _all(*writes)) == SIZE
    _expect(path, DATA)


@operation
async def write_direct(where: Path, engine: Any) -> None:
    path = _file(where, b"")
    aligned = mmap.mmap(-1, 8192)
    aligned[:] = DATA[:8192]
    async with AIOFile(path, "rb+", direct=True, engine=engine) as f:
        assert await f.write(aligned, 4096) == 8192
        assert await f.write(DATA, 100) == SIZE
    _expect(path, bytes(100) + DATA)


@operation
async def write_many(where: Path, engine: Any) -> None:
    path = _file(where, bytes(SIZE))
    content = bytearray(SIZE)
    for (size, offset), part in zip(PAIRS, PARTS, strict=True):
        content[offset : offset + size] = part
    async with AIOFile(path, "rb+", engine=engine) as f:
        requests = [(part, offset) for part, (_, offset) in zip(PARTS, PAIRS, strict=True)]
        assert await f.write_many(requests) == [size for size, _ in PAIRS]
    _expect(path, bytes(content))


@operation
async def writer(where: Path, engine: Any) -> None:
    path = _file(where, b"")
    async with AIOFile(path, "rb+", engine=engine) as f:
        write = Writer(f)
        await _all(*[write(b"record %d\n" % i) for i in range(10)])
    _expect(path, b"".join(b"record %d\n" % i for i in range(10)))


# ---- the rest of AIOFile ---


@operation
async def sync(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb+", engine=engine) as f:
        await f.fsync()
        await f.fdsync()


@operation
async def truncate_and_stat(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb+", engine=engine) as f:
        await f.truncate(5000)
        assert (await f.stat()).st_size == 5000
        f._local = False  # so that the engine is asked
        assert (await f.stat()).st_size == 5000


@operation
async def allocate(where: Path, engine: Any) -> None:
    path = _file(where, b"")
    async with AIOFile(path, "rb+", engine=engine) as f:
        await f.allocate(8192)
    _expect(path, bytes(8192))


@operation
async def advise(where: Path, engine: Any) -> None:
    async with AIOFile(_file(where), "rb", engine=engine) as f:
        await f.fadvise(0, 0, os.POSIX_FADV_WILLNEED)
        await f.fadvise(4096, 100, os.POSIX_FADV_DONTNEED)


# ---- readers and file objects ---


@operation
async def readers(where: Path, engine: Any) -> None:
    async with _submitted(_file(where, LINES), "rb", engine) as f:
        lines = [line async for line in LineReader(f, chunk_size=1000)]
        assert lines == LINES.splitlines(keepends=True)
        chunks = [chunk async for chunk in Reader(f, chunk_size=1500)]
        assert b"".join(chunks) == LINES


@operation
async def binary_file(where: Path, engine: Any) -> None:
    path = _file(where, LINES)
    async with async_open(path, "rb+", engine=engine) as f:
        f.file._inline = False
        assert await f.read(7) == b"line 0\n"
        assert await f.readline() == b"line 1\n"
        f.seek(0, 2)
        assert await f.write(DATA) == SIZE
        await f.flush()
        f.seek(0)
        assert await f.read() == LINES + DATA
    _expect(path, LINES + DATA)


@operation
async def text_file(where: Path, engine: Any) -> None:
    path = _file(where, LINES)
    text = LINES.decode()
    async with async_open(path, "r+", engine=engine) as f:
        f.file._inline = False
        assert await f.readline() == "line 0\n"
        assert await f.read(6) == "line 1"
        f.seek(0)
        assert [line async for line in f] == text.splitlines(keepends=True)
        assert await f.write("ä" * 3000) == 3000
        await f.flush()
    _expect(path, LINES + "ä".encode() * 3000)


@operation
async def buffered_write(where: Path, engine: Any) -> None:
    path = where / "new"
    async with async_open(path, "wb", engine=engine) as f:
        for i in range(0, SIZE, 1000):
            await f.write(DATA[i : i + 1000])
    _expect(str(path), DATA)


@operation
async def clones(where: Path, engine: Any) -> None:
    async with async_open(_file(where, LINES), "rb", engine=engine) as f:
        f.file._inline = False
        async with clone(f) as other:
            assert await f.read(1000) == LINES[:1000]
            assert await other.read(500) == LINES[:500]


@operation
async def pool(where: Path, engine: Any) -> None:
    path = _file(where)
    buffers = BufferPool(4096, 2)
    async with AIOFile(path, "rb+", direct=True, engine=engine) as f:

        async def one(offset: int) -> None:
            async with buffers.buffer() as buffer:
                assert await f.readinto(buffer, offset) == 4096
                assert buffer == DATA[offset : offset + 4096]
                assert await f.write(buffer, offset) == 4096

        await _all(*[one(offset) for offset in (0, 4096, 8192)])
    _expect(path, DATA)
    await asyncio.sleep(0)
    assert buffers.free == 2


@operation
async def streams(where: Path, engine: Any) -> None:
    path = where / "fifo"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)  # so that neither open waits for the other
    try:
        async with AIOFile(path, "rb", engine=engine) as r:
            async with AIOFile(path, "wb", engine=engine) as w:
                assert await w.write(DATA) == SIZE
            os.close(keep)
            keep = -1
            assert await r.read() == DATA
    finally:
        if keep >= 0:
            os.close(keep)


# ---- logs ---


async def _append(log: LogWriter, records: list[bytes], acknowledged: list[bytes]) -> None:
    async def one(record: bytes) -> None:
        await log.append(record)
        acknowledged.append(record)

    await _all(*[one(record) for record in records])


def _rotated(path: Path) -> bytes:
    older = sorted(path.parent.glob(path.name + ".0*"))
    return b"".join(file.read_bytes() for file in [*older, path] if file.exists())


async def _log(where: Path, engine: Any, **options: Any) -> None:
    """Whatever fails: what was acknowledged is there, in order, once, and nothing else."""
    path = where / "log"
    records = [b"record %d\n" % i for i in range(40)]
    acknowledged: list[bytes] = []
    complete = False
    try:
        async with LogWriter(path, engine=engine, **options) as log:
            for i in range(0, 40, 8):
                await _append(log, records[i : i + 8], acknowledged)
            await log.sync()
        complete = True
    finally:
        found = _rotated(path).rstrip(b"\0").splitlines(keepends=True)
        assert found == records[: len(found)], found
        assert {*acknowledged} <= {*found}
        assert len(found) == 40 or not complete


@operation
async def log_always(where: Path, engine: Any) -> None:
    await _log(where, engine, sync="always")


@operation
async def log_interval(where: Path, engine: Any) -> None:
    await _log(where, engine, sync="interval", interval=0.001)


@operation
async def log_preallocated(where: Path, engine: Any) -> None:
    await _log(where, engine, sync="never", preallocate=4096)


@operation
async def log_rotation(where: Path, engine: Any) -> None:
    await _log(where, engine, sync="always", rotate_size=100, keep=100)


@operation
async def log_reader(where: Path, engine: Any) -> None:
    async with LogReader(_file(where, LINES), chunk_size=1000, engine=engine) as reader:
        assert b"".join([record async for record in reader]) == LINES


@operation
async def recovery(where: Path, engine: Any) -> None:
    path = _file(where, LINES + b"torn")
    await recover(path, engine=engine)
    _expect(path, LINES)
