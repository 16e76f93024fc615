"""Writes of one file that come while others are under way go out together."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from test_driver import driver, fake, open_on_fake, turns  # noqa: F401  (fixtures)

from uringfile import AIOFile, stats


async def test_many_tasks_write(tmp_path: Path, engine: Any) -> None:
    """Each writes its own blocks, some are cancelled: the file is what was written."""
    rng = random.Random(7)
    size = 1 << 18
    expected = bytearray(size)
    free = set(range(0, size, 512))
    async with AIOFile(tmp_path / "file", "wb+", engine=engine) as f:
        await f.truncate(size)

        async def write(blocks: list[int]) -> None:
            for offset in blocks:
                data = os.urandom(rng.choice([1, 100, 512]))
                assert await f.write(data, offset) == len(data)
                expected[offset : offset + len(data)] = data
                free.discard(offset)

        offsets = sorted(free)
        tasks = [asyncio.ensure_future(write(offsets[i::64])) for i in range(64)]
        for _ in range(20):
            await asyncio.sleep(0.0005)
            rng.choice(tasks).cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        content = await f.read_bytes()
    for offset in offsets:
        if offset not in free:  # of a cancelled write nothing is promised
            assert content[offset : offset + 512] == expected[offset : offset + 512]


async def test_they_take_few_operations(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "file", "wb", engine=engine) as f:
        before = stats(engine).submitted
        await asyncio.gather(*[f.write(bytes([i]) * 100, 100 * i) for i in range(200)])
        assert stats(engine).submitted - before < 60
    assert (tmp_path / "file").read_bytes() == b"".join(bytes([i]) * 100 for i in range(200))


async def gathered(f: AIOFile, engine: FakeEngine) -> tuple[list[Any], Any]:
    """A write under way, and five that wait for it: the calls, and their one operation."""
    calls = [asyncio.ensure_future(f.write(b"first", 0))]
    await turns()
    blocks = [(b"aaa", 100), (b"bbb", 103), (b"ccc", 106), (b"ddd", 200), (b"eee", 203)]
    calls += [asyncio.ensure_future(f.write(*block)) for block in reversed(blocks)]
    await turns()
    (first,) = engine.pending()
    engine.perform(first.token)
    await turns()
    (batch,) = engine.pending()
    assert [part.len for part in batch.parts()] == [9, 6]
    assert [part.offset for part in batch.parts()] == [100, 200]
    return calls, batch


async def test_neighbours_become_one_write(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    f = await open_on_fake()
    calls, batch = await gathered(f, fake)
    fake.perform(batch.token)
    assert await asyncio.gather(*calls) == [5, 3, 3, 3, 3, 3]
    assert os.pread(f.fileno(), 9, 100) == b"aaabbbccc"
    assert os.pread(f.fileno(), 6, 200) == b"dddeee"
    await f.close()


async def test_a_short_one_is_continued_by_those_it_concerns(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    f = await open_on_fake()
    calls, batch = await gathered(f, fake)
    fake.perform_only(batch.token)
    for part, result in zip(batch.parts(), (4, -errno.ENOSPC), strict=True):
        part.result = result
    fake.complete(batch.token, 0)
    await turns()
    asked = sorted((operation.offset, operation.length) for operation in fake.pending())
    assert asked == [(104, 2), (106, 3), (200, 3), (203, 3)]
    for operation in fake.pending():
        if operation.offset == 203:
            fake.complete(operation.token, -errno.ENOSPC)
        else:
            fake.perform(operation.token)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0] == 5
    assert results[2:] == [3, 3, 3, 3]
    assert isinstance(results[1], OSError)
    assert (results[1].errno, results[1].characters_written) == (errno.ENOSPC, 0)
    assert os.pread(f.fileno(), 9, 100) == b"aaabbbccc"
    await f.close()


async def test_cancelled_while_it_waits_and_while_it_is_under_way(
    open_on_fake: Callable[..., Any],  # noqa: F811
    fake: FakeEngine,  # noqa: F811
) -> None:
    f = await open_on_fake()
    calls = [asyncio.ensure_future(f.write(b"x" * 10, 10 * i)) for i in range(4)]
    await turns()
    calls[2].cancel()
    await turns()
    (first,) = fake.pending()
    fake.perform(first.token)
    await turns()
    (batch,) = fake.pending()
    assert [part.offset for part in batch.parts()] == [10, 30]
    calls[3].cancel()
    closing = asyncio.ensure_future(f.close())
    await turns()
    assert not closing.done(), "it waits for what is under way"
    fake.perform(batch.token)
    assert await calls[1] == 10
    await closing
    assert calls[2].cancelled()
    assert calls[3].cancelled()


async def test_what_is_no_bytes_or_appends_goes_alone(tmp_path: Path, engine: Any) -> None:
    for mode in ("wb", "ab"):
        async with AIOFile(tmp_path / mode, mode, engine=engine) as f:
            buffers = [bytearray([65 + i]) * 10 for i in range(20)]
            await asyncio.gather(*[f.write(b, 10 * i) for i, b in enumerate(buffers)])
            with pytest.raises(TypeError):
                await asyncio.gather(f.write(b"1", 500), f.write(17, 600))
        content = (tmp_path / mode).read_bytes()
        assert all(bytes(buffer) in content for buffer in buffers)
