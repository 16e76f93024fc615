"""How cached reads are served without an operation: by preadv2, on the ring, or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SQPOLL_MS, count, make_cold, needs_inline_reads, sqpoll_engine
from test_contract import Rig

from uringfile import AIOFile, stats
from uringfile._engine import READ, WRITE
from uringfile._native_engine import INLINE_WAYS, NativeEngine, pin


@pytest.fixture
def ring() -> Iterator[Rig]:
    count("io_uring")
    rig = Rig(NativeEngine("io_uring", inline="ring"))
    yield rig
    rig.engine.destroy()


@pytest.fixture
def fd(data: Path) -> Iterator[int]:
    fd = os.open(data, os.O_RDWR)
    os.pread(fd, 1 << 20, 0)
    needs_inline_reads(fd)
    yield fd
    os.close(fd)


def read(rig: Rig, fd: int, size: int, offset: int) -> bytes | int:
    buffer = bytearray(size)
    n = rig.engine.read_nowait(fd, pin(buffer), size, offset)
    return bytes(buffer[:n]) if n >= 0 else n


def number(offset: int) -> bytes:
    return offset.to_bytes(8, "big")


# ---- on the ring ---


def test_what_it_answers(ring: Rig, fd: int) -> None:
    assert read(ring, fd, 8, 4096) == number(4096)
    assert read(ring, fd, 100, (1 << 20) - 8) == number((1 << 20) - 8)
    assert read(ring, fd, 8, 1 << 20) == b""
    assert read(ring, 999, 8, 0) == -errno.EBADF
    assert ring.reap() == 0
    make_cold(fd)
    assert read(ring, fd, 8, 512 * 1024) in (-errno.EAGAIN, number(512 * 1024))  # a fast disk
    assert ring.reap() == 0


def test_what_it_submits_by_the_way_wakes_the_loop(ring: Rig, fd: int) -> None:
    """The eventfd is off during the call; what completes in it is not lost."""
    for _ in range(50):
        tokens = [ring.submit(READ, fd, bytearray(8), 8 * i) for i in range(5)]
        assert read(ring, fd, 8, 800) == number(800)
        while not all(token in ring.results for token in tokens):
            assert ring.engine.wait(5000) == 1, "a wake-up was lost"
            ring.reap()
        assert [ring.results[token] for token in tokens] == [8] * 5
        assert ring.engine.wait(0) == 0


def test_completions_that_stand_before_it(ring: Rig, fd: int) -> None:
    """They stay in the queue, each once, and its own is not among them."""
    tokens = [ring.submit(READ, fd, bytearray(8), 8 * i) for i in range(30)]
    assert ring.engine.flush() == 30
    for i in range(300):  # more of them than stay unreaped by rights
        assert read(ring, fd, 8, 8 * i) == number(8 * i)
    tokens += [ring.submit(READ, fd, bytearray(8), 8 * i) for i in range(30)]
    assert ring.finish(tokens) == [8] * 60
    assert len(ring.results) == 60
    assert ring.reap() == 0


def test_operations_in_flight_go_on(ring: Rig, fd: int, pipe: tuple[int, int]) -> None:
    hung = ring.submit(READ, pipe[0], bytearray(4))
    assert read(ring, fd, 8, 8) == number(8)
    assert ring.reap() == 0
    os.write(pipe[1], b"late")
    assert ring.finish([hung]) == [4]


def test_a_full_queue_does_without(ring: Rig, fd: int) -> None:
    tokens = []
    while (token := ring.submit(WRITE, fd, number(0), 0)) >= 0:
        tokens.append(token)
    assert read(ring, fd, 8, 16) == number(16)
    assert ring.finish(tokens) == [8] * len(tokens)


def test_a_ring_that_takes_nothing_does_without(ring: Rig, fd: int) -> None:
    """Its descriptor is gone: what was staged before fails as ever, the read is served."""
    (ring_fd,) = [
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
        and os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[io_uring]"
    ]
    staged = ring.submit(READ, fd, bytearray(8))
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, ring_fd)
    os.close(null)
    assert read(ring, fd, 8, 16) == number(16)
    assert ring.finish([staged])[0] < 0


def test_sqpoll_does_without(fd: int) -> None:
    sqpoll_engine().destroy()
    rig = Rig(NativeEngine("io_uring", sqpoll_ms=SQPOLL_MS, inline="ring"))
    assert read(rig, fd, 8, 16) == number(16)
    rig.engine.destroy()


def test_after_the_end_and_in_a_child(fd: int) -> None:
    count("io_uring")
    rig = Rig(NativeEngine("io_uring", inline="ring"))
    read_nowait = rig.engine.read_nowait  # as a driver keeps it
    child = os.fork()
    if not child:
        os._exit(read(rig, fd, 8, 16) != -errno.ECHILD)
    assert os.waitpid(child, 0)[1] == 0
    rig.engine.destroy()
    assert read_nowait(fd, pin(bytearray(8)), 8, 0) == -errno.ESHUTDOWN


# ---- each way ---


@pytest.mark.parametrize("way", INLINE_WAYS)
async def test_reads_are_right_beside_everything_else(
    data: Path, engine: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URINGFILE_INLINE", way)
    rng = random.Random(6)
    wrong: list[int] = []

    async def reader(f: AIOFile) -> None:
        for _ in range(100):
            offset = rng.randrange(1 << 14) * 8
            size = rng.choice([8, 4096, 32768, 100_000])
            buffer = bytearray(size)
            block = await f.read(size, offset)
            await f.readinto(buffer, offset)
            many = await f.read_many([(8, offset), (8, offset + 8)])
            into = [bytearray(8), bytearray(8)]
            await f.readinto_many([(into[0], offset), (into[1], offset + 8)])
            if block != content[offset : offset + size] or block != buffer or many != into:
                wrong.append(offset)

    async def writer(f: AIOFile) -> None:
        for i in range(60):
            await f.write(number(1 << 19) * 100, (1 << 19) + 800 * i)

    content = data.read_bytes()
    async with AIOFile(data, "rb+", engine=engine) as f:
        await asyncio.gather(*[reader(f) for _ in range(4)], *[writer(f) for _ in range(4)])
        counters = stats(engine)
    assert not wrong
    assert counters.in_flight == counters.queued == 0
    if counters.demoted:
        pytest.skip("reads are right, but never inline on this file system")
    assert counters.inline == 0 if way == "off" else counters.inline > 1000


async def test_an_empty_variable_means_the_default(
    data: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URINGFILE_INLINE", "")
    async with AIOFile(data, "rb", engine=engine) as f:
        await f.read(8)
        assert stats(engine).inline == 1


# ---- a file system in memory ---


async def test_tmpfs_is_read_without_an_operation(engine: Any) -> None:
    """It has no RWF_NOWAIT, but nothing to wait for either."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no tmpfs at /dev/shm")
    content = os.urandom(300_000)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(content)
        file.flush()
        async with AIOFile(file.name, "rb", engine=engine) as f:
            before = stats(engine)
            assert await f.read(4096, 1000) == content[1000:5096]
            assert await f.read(4096, 299_000) == content[299_000:]
            assert await f.read_many([(100, 5), (100, 105)]) == [content[5:105], content[105:205]]
            after = stats(engine)
            assert after.submitted == before.submitted
            assert after.inline - before.inline == 4
            assert await f.read() == content  # long: by a worker
            assert await f.read(10, 7) == content[7:17]
            assert stats(engine).demoted == before.demoted
