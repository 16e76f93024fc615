"""posix_fadvise(2) through AIOFile."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import make_cold, resident_pages

from uringfile import AIOFile, ClosedFileError, stats


def cold(fd: int, first: int) -> bool:
    """Whether the page cache has nothing from that page on."""
    return not any(resident_pages(fd)[first:])


async def until(is_so: Callable[[], bool], call: Callable[[], Awaitable[None]]) -> None:
    """The kernel promises nothing: it may be asked more than once."""
    deadline = time.monotonic() + 10
    await call()
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        await call()


async def test_it_empties_and_fills_the_page_cache(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        fd = f.fileno()
        make_cold(fd)
        await f.read()
        assert all(resident_pages(fd))
        drop = partial(f.fadvise, 128 << 12, 0, os.POSIX_FADV_DONTNEED)
        await until(lambda: cold(fd, 128), drop)
        assert all(resident_pages(fd)[:64])  # what surrounds the range may go with it

        need = partial(f.fadvise, 192 << 12, 2 << 12, os.POSIX_FADV_WILLNEED)
        await until(lambda: all(resident_pages(fd)[192:194]), need)
        for advice in (
            os.POSIX_FADV_SEQUENTIAL,
            os.POSIX_FADV_RANDOM,
            os.POSIX_FADV_NORMAL,
            os.POSIX_FADV_NOREUSE,
        ):
            await f.fadvise(0, 0, advice)


async def test_who_does_it(data: Path, engine: Any) -> None:
    in_ring = engine == "io_uring"
    async with AIOFile(data, "rb", engine=engine) as f:
        before = stats(engine)
        await f.fadvise(4096, (1 << 32) - 1, os.POSIX_FADV_WILLNEED)
        after = stats(engine)
        assert after.submitted - before.submitted == in_ring
        assert after.in_threads - before.in_threads == (not in_ring)
        await f.fadvise(0, 1 << 32, os.POSIX_FADV_WILLNEED)
        assert stats(engine).in_threads == after.in_threads + 1


async def test_what_is_refused(data: Path, pipe: tuple[int, int], engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        for numbers in ((-1, 0, 0), (0, -1, 0), (0, 2**63, 0), (0, 0, 77), (0, 0, -1)):
            with pytest.raises(ValueError, match="must be"):
                await f.fadvise(*numbers)
    with pytest.raises(ClosedFileError):
        await f.fadvise(0, 0, os.POSIX_FADV_NORMAL)
    async with AIOFile(os.dup(pipe[0]), "rb", engine=engine) as f:
        with pytest.raises(OSError, match="seek") as raised:
            await f.fadvise(0, 0, os.POSIX_FADV_WILLNEED)
        assert raised.value.errno == errno.ESPIPE
