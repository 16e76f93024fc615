"""Many requests in one call: what they give is what one by one would give."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import collect, make_cold
from fake_engine import FakeEngine
from test_driver import driver, fake, open_on_fake, turns  # noqa: F401  (fixtures)

from uringfile import AIOFile, stats
from uringfile._batch import Batch
from uringfile._engine import BATCH, READ
from uringfile._fd import Descriptor
from uringfile._loop import running_driver
from uringfile._native_engine import address, pin

SIZE = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(SIZE))
    return path


def sliced(content: bytes, pairs: list[tuple[int, int]]) -> list[bytes]:
    return [content[offset : offset + size] for size, offset in pairs]


async def test_neighbours_gaps_and_overlaps(data: Path, engine: Any) -> None:
    content = data.read_bytes()
    rng = random.Random(1)
    async with AIOFile(data, "rb", engine=engine) as f:
        for _ in range(200):
            pairs = []
            offset = 0
            for _ in range(rng.randrange(1, 150)):
                size = rng.choice([1, 7, 512, 4096, 5000])
                offset = rng.choice([offset, offset + 1, rng.randrange(SIZE)])
                pairs.append((size, offset))
                offset += size
            assert await f.read_many(pairs) == sliced(content, pairs)


async def test_neighbours_are_one_system_call_and_count_each(data: Path, engine: Any) -> None:
    pairs = [(4096, i * 4096) for i in range(SIZE // 4096)]
    async with AIOFile(data, "rb", engine=engine) as f:
        before = stats(engine)
        assert b"".join(await f.read_many(pairs)) == data.read_bytes()
        after = stats(engine)
        if after.demoted != before.demoted or not after.inline:
            pytest.skip("reads are never inline on this file system")
        assert after.inline - before.inline == len(pairs)
        assert after.submitted == before.submitted


async def test_across_the_end_of_the_file(data: Path, engine: Any) -> None:
    content = data.read_bytes()
    pairs = [(100, SIZE - 150), (100, SIZE - 50), (100, SIZE + 50), (100, 0), (0, 5), (100, 100)]
    async with AIOFile(data, "rb", engine=engine) as f:
        assert await f.read_many(pairs) == sliced(content, pairs)
        assert await f.read_many([(10, 2**63 - 1), (10, 0)]) == [b"", content[:10]]
        assert await f.read_many([(-1, SIZE - 3), (10, 0)]) == [content[-3:], content[:10]]
        large = [(SIZE, 0), (10, 10), (300 * 1024, 5), (10, 20)]
        assert await f.read_many(large) == sliced(content, large)


async def test_partly_cached(data: Path, engine: Any) -> None:
    content = data.read_bytes()
    pairs = [(4096, i * 4096) for i in range(SIZE // 4096)]
    random.Random(2).shuffle(pairs)
    with open(data, "rb") as warm:
        make_cold(warm.fileno())
        os.posix_fadvise(warm.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for size, offset in pairs[::3]:
            os.pread(warm.fileno(), size, offset)
    async with AIOFile(data, "rb", engine=engine) as f:
        assert await f.read_many(pairs) == sliced(content, pairs)


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        ([(10, 0), (10, -1)], ValueError),
        ([(10, 0), (-2, 0)], ValueError),
        ([(10, 0), (10, 2**63)], ValueError),
        ([(10, 0), (10, 0.5)], TypeError),
        ([(10, 0), ("10", 0)], TypeError),
        ([(10, 0), (10, 0, 0)], ValueError),
        ([(10, 0), 10], TypeError),
    ],
)
async def test_bad_requests(data: Path, engine: Any, pairs: Any, error: type) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        with pytest.raises(error):
            await f.read_many(pairs)
        assert await f.read_many([(10, 0)]) == [data.read_bytes()[:10]]


# ---- what is submitted ---


@pytest.mark.parametrize("direct", [False, True])
async def test_uncached_reads_are_one_operation(data: Path, engine: Any, direct: bool) -> None:
    content = data.read_bytes()
    rng = random.Random(3)
    pairs = [(rng.choice([1, 100, 4096, 6000]), rng.randrange(SIZE)) for _ in range(300)]
    pairs[7] = (5000, SIZE - 1000)
    async with AIOFile(data, "rb", direct=direct, engine=engine) as f:
        f._inline = False
        before = stats(engine).submitted
        assert await f.read_many(pairs) == sliced(content, pairs)
        short = sum(offset + size > SIZE for size, offset in pairs)
        assert stats(engine).submitted - before <= 1 + 2 * short


async def test_readinto_many(data: Path, engine: Any) -> None:
    content = data.read_bytes()
    rng = random.Random(4)
    async with AIOFile(data, "rb", engine=engine) as f:
        for inline in (True, False):
            f._inline = inline
            buffers = [bytearray(rng.choice([0, 1, 4096, 100_000])) for _ in range(200)]
            offsets = [rng.randrange(SIZE + 100) for _ in buffers]
            expected = [content[o : o + len(b)] for b, o in zip(buffers, offsets, strict=True)]
            lengths = await f.readinto_many(zip(buffers, offsets, strict=True))
            assert lengths == [len(block) for block in expected]
            for buffer, block in zip(buffers, expected, strict=True):
                assert buffer[: len(block)] == block
        with pytest.raises(TypeError):
            await f.readinto_many([(bytearray(8), 0), (b"read-only", 0)])


async def test_write_many(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "written"
    rng = random.Random(5)
    expected = bytearray(SIZE)
    async with AIOFile(path, "wb+", engine=engine) as f:
        await f.truncate(SIZE)
        for _ in range(10):
            offsets = rng.sample(range(0, SIZE, 8192), 64)
            datas = [os.urandom(rng.choice([0, 1, 511, 4096, 8192])) for _ in offsets]
            assert await f.write_many(zip(datas, offsets, strict=True)) == [*map(len, datas)]
            for data, offset in zip(datas, offsets, strict=True):
                expected[offset : offset + len(data)] = data
        large = os.urandom(300_000)
        assert await f.write_many([(large, 0), (b"x", 400_000)]) == [300_000, 1]
        expected[:300_000], expected[400_000:400_001] = large, b"x"
        with pytest.raises(TypeError):
            await f.write_many([(b"lost", 0), ("text", 100)])
        assert await f.read_bytes() == expected
    async with AIOFile(path, "rb", engine=engine) as f:
        with pytest.raises(io.UnsupportedOperation):
            await f.write_many([(b"a", 0), (b"b", 1)])


async def test_short_parts_are_continued(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    content = bytes(range(256)) * 16
    f = await open_on_fake()

    async def parts_give(results: tuple[int, ...]) -> None:
        await turns()
        (operation,) = fake.pending()
        fake.perform_only(operation.token)
        for part, result in zip(operation.parts(), results, strict=True):
            part.result = result
        fake.complete(operation.token, 0)

    writing = asyncio.ensure_future(f.write_many([(b"a" * 10, 0), (b"b" * 10, 50)]))
    await parts_give((3, 10))
    await turns()
    (operation,) = fake.pending()
    assert (operation.length, operation.offset) == (7, 3)
    fake.perform(operation.token)
    assert await writing == [10, 10]

    pairs = [(10, 0), (10, 50), (10, len(content) - 5), (10, 5000)]
    reading = asyncio.ensure_future(f.read_many(pairs))
    await parts_give((4, -errno.EINTR, 5, 0))
    await perform_all(fake, reading)
    assert await reading == [b"a" * 10, b"b" * 10, content[-5:], b""]

    failing = asyncio.ensure_future(f.write_many([(b"1", 0), (b"2", 1), (b"3", 2)]))
    await parts_give((1, -errno.ENOSPC, -errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        await failing
    await f.close()


async def perform_all(engine: FakeEngine, task: asyncio.Future[Any]) -> None:
    while not task.done():
        await asyncio.sleep(0)
        for operation in engine.pending():
            engine.perform(operation.token)


async def test_cancelled_batch_keeps_its_memory(engine: Any) -> None:
    """Parts of it may still be written to: the in-flight table keeps what they point to."""
    read_end, write_end = os.pipe()
    keep = bytearray(8)
    place = pin(keep)
    batch = Batch([address(place)], [8], [0], [place])
    del place
    here = running_driver(engine)
    descriptor = Descriptor(read_end)
    task = asyncio.ensure_future(here.run(READ | BATCH, descriptor, batch.memory, batch.n))
    await asyncio.sleep(0)
    held = weakref.ref(batch.memory)
    del batch
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task
    if here.stats().in_flight:
        assert held() is not None
        with contextlib.suppress(BufferError):
            keep.extend(b"longer")
        assert len(keep) == 8
    os.write(write_end, b"late....")
    while here.stats().in_flight:
        await asyncio.sleep(0.001)
    collect()
    assert held() is None
    os.close(read_end)
    os.close(write_end)
