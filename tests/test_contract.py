"""The eight sentences of the engine contract, on every engine."""

from __future__ import annotations

import errno
import os
import platform
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SQPOLL_MS, check, count, sqpoll_engine
from fake_engine import FakeEngine

from uringfile import engine_info
from uringfile._batch import Batch
from uringfile._engine import BATCH, ENGINE_NAMES, FDATASYNC, FSYNC, READ, WRITE
from uringfile._native_engine import NativeEngine, address, pin


class Rig:
    """An engine and the few moves that all tests make with it."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.fake = isinstance(engine, FakeEngine)
        self.results: dict[int, int] = {}
        self.keep: list[Any] = []
        self.tokens = 0

    def submit(self, opcode: int, fd: int, buffer: Any = b"", offset: int = 0) -> int:
        token = self.tokens
        self.tokens += 1
        self.keep.append(buffer)
        ret = self.engine.submit(
            opcode, fd, pin(buffer) if len(buffer) else b"", len(buffer), offset, token
        )
        return token if ret == 0 else ret

    def work(self) -> None:
        """Let the fake's kernel work; real kernels do by themselves."""
        if self.fake:
            for operation in self.engine.pending():
                if operation.cancel_asked:
                    self.engine.cancel_done(operation.token)
                elif not _is_pipe(operation.fd):
                    self.engine.perform(operation.token)

    def reap(self, drain: bool = True) -> int:
        pairs = self.engine.reap(drain)
        for token, result in zip(pairs[::2], pairs[1::2], strict=True):
            assert token not in self.results, "completed twice"
            self.results[token] = result
        return len(pairs) // 2

    def finish(self, tokens: list[int], seconds: float = 5) -> list[int]:
        """Flush and reap until all the tokens have completed: their results."""
        deadline = time.monotonic() + seconds
        while not all(token in self.results for token in tokens):
            assert time.monotonic() < deadline, f"{tokens} of {self.results} not completed"
            self.engine.flush()
            self.work()
            if not self.reap():
                self.engine.wait(50)
        return [self.results[token] for token in tokens]


def _is_pipe(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")


@pytest.fixture(params=[*ENGINE_NAMES, "io_uring-sqpoll", "fake"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    engine: Any
    if request.param == "fake":
        engine = FakeEngine()
    elif request.param == "io_uring-sqpoll":
        engine = sqpoll_engine()
    else:
        count(request.param)
        engine = NativeEngine(request.param)
    rig = Rig(engine)
    yield rig
    engine.destroy()


@pytest.fixture
def fd(data: Path) -> Iterator[int]:
    fd = os.open(data, os.O_RDWR)
    yield fd
    os.close(fd)


# ---- 1. submit answers 0, -EAGAIN, or -errno and no completion ---


def test_1_rejected_operations_do_not_complete(rig: Rig, fd: int) -> None:
    engine = rig.engine
    if not rig.fake:
        assert engine.submit(READ, fd, b"", 0, -1, 7) == -errno.EINVAL
        assert engine.submit(READ, fd, b"", 0, 0, -7) == -errno.EINVAL
        assert engine.submit(99, fd, b"", 0, 0, 7) == -errno.EINVAL
    engine.shutdown()
    assert rig.submit(READ, fd, bytearray(8)) == -errno.ESHUTDOWN
    engine.flush()
    assert engine.reap(True) == []


def test_1_full_engine_says_eagain_and_works_again(rig: Rig, fd: int) -> None:
    accepted = []
    for _ in range(5000):
        token = rig.submit(READ, fd, bytearray(8))
        if token == -errno.EAGAIN:
            break
        accepted.append(token)
    else:
        pytest.fail("the engine never filled up")
    assert rig.finish(accepted) == [8] * len(accepted)
    assert rig.finish([rig.submit(READ, fd, bytearray(8))]) == [8]


def test_1_a_flush_makes_room(rig: Rig, pipe: tuple[int, int]) -> None:
    """Reads that hang take room in the engine, but none in the submission queue."""
    hung: list[int] = []
    for _ in range(8 if rig.fake else 100):
        token = rig.submit(READ, pipe[0], bytearray(1))
        if token == -errno.EAGAIN:
            assert rig.engine.flush() >= 0
            token = rig.submit(READ, pipe[0], bytearray(1))
        assert token >= 0
        hung.append(token)
    rig.engine.flush()
    os.write(pipe[1], b"x" * len(hung))
    if rig.fake:
        for operation in rig.engine.pending():
            rig.engine.complete(operation.token, 1)
    assert rig.finish(hung) == [1] * len(hung)


# ---- 2. exactly one completion ---


def test_2_each_operation_completes_once(rig: Rig, fd: int) -> None:
    for _ in range(50):
        tokens = [rig.submit(READ, fd, bytearray(16), 8 * i) for i in range(4)]
        assert rig.finish(tokens) == [16] * 4
    assert len(rig.results) == 200
    assert rig.reap() == 0


def test_2_cancelled_operations_complete_once(rig: Rig, pipe: tuple[int, int]) -> None:
    if not rig.fake and rig.engine.name == "posix_aio":
        pytest.skip("POSIX AIO cannot stop a read that runs (test_6_stubborn_read)")
    tokens = [rig.submit(READ, pipe[0], bytearray(8)) for _ in range(4)]
    rig.engine.flush()
    assert [rig.engine.cancel(token) for token in tokens] == [0] * 4
    assert rig.finish(tokens) == [-errno.ECANCELED] * 4
    time.sleep(0.02)
    assert rig.reap() == 0


# ---- 3. the buffer belongs to the engine ---


def test_3_an_exported_buffer_cannot_be_resized(rig: Rig, pipe: tuple[int, int]) -> None:
    buffer = bytearray(8)
    token = rig.submit(READ, pipe[0], buffer)
    rig.keep.append(pin(buffer))
    rig.engine.flush()
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    os.write(pipe[1], b"12345678")
    if rig.fake:
        rig.engine.complete(token, os.readv(pipe[0], [buffer]))
    assert rig.finish([token]) == [8]
    assert buffer == b"12345678"


# ---- 4. submit stages, flush submits ---


def test_4_nothing_happens_before_the_flush(rig: Rig, fd: int) -> None:
    tokens = [rig.submit(WRITE, fd, b"X" * 8, 8 * i) for i in range(3)]
    rig.work()
    time.sleep(0.05)
    assert os.pread(fd, 8, 0) == bytes(8)
    assert rig.reap() == 0
    assert rig.finish(tokens) == [8] * 3
    assert os.pread(fd, 24, 0) == b"X" * 24


# ---- 5. the eventfd ---


def test_5_the_eventfd_wakes(rig: Rig, pipe: tuple[int, int]) -> None:
    buffer = bytearray(3)
    token = rig.submit(READ, pipe[0], buffer)
    rig.engine.flush()
    rig.reap()
    assert rig.engine.wait(20) == 0
    threading.Timer(0.05, os.write, (pipe[1], b"abc")).start()
    if rig.fake:
        time.sleep(0.1)
        rig.engine.complete(token, os.readv(pipe[0], [buffer]))
    assert rig.engine.wait(5000) == 1
    assert rig.finish([token]) == [3]
    assert rig.engine.wait(20) == 0, "reaping drains it"


def test_5_no_wake_up_is_lost(rig: Rig, fd: int) -> None:
    """Reap only when woken, or when flush says that something is ready."""
    for round_number in range(300):
        token = rig.submit(
            READ if round_number % 3 else FDATASYNC, fd, bytearray(4) if round_number % 3 else b""
        )
        ready = rig.engine.flush()
        rig.work()
        while token not in rig.results:
            if not ready:
                assert rig.engine.wait(5000) == 1, "a wake-up was lost"
            rig.reap(drain=not ready)
            ready = 0


def test_5_what_does_not_fit_into_one_reap_wakes_again(fd: int, engine: str) -> None:
    rig = Rig(NativeEngine(engine))
    tokens: list[int] = []
    while len(tokens) < 256:
        token = rig.submit(READ, fd, bytearray(8))
        if token < 0:
            rig.engine.flush()
        else:
            tokens.append(token)
    extra = []
    if engine == "io_uring":
        rig.engine.flush()
        extra = [rig.submit(READ, fd, bytearray(8)) for _ in range(20)]
    if rig.engine.flush():
        assert rig.reap(drain=False) <= 256
    while len(rig.results) < len(tokens + extra):
        assert rig.engine.wait(5000) == 1
        assert rig.reap() <= 256
    rig.engine.destroy()


# ---- 6. cancel is a request ---


def test_6_cancel_completes_nothing_by_itself(rig: Rig, pipe: tuple[int, int]) -> None:
    token = rig.submit(READ, pipe[0], bytearray(8))
    rig.engine.cancel(token)  # before the flush
    assert token not in rig.results
    assert rig.finish([token]) == [-errno.ECANCELED]


def test_6_cancelled_twice(rig: Rig, pipe: tuple[int, int]) -> None:
    """Before the flush, and again before the completion is reaped."""
    tokens = [rig.submit(READ, pipe[0], bytearray(8)) for _ in range(3)]
    for token in [tokens[1], tokens[1], tokens[0], tokens[1], tokens[2]]:
        rig.engine.cancel(token)
    assert rig.finish(tokens) == [-errno.ECANCELED] * 3


def test_6_cancel_loses_the_race(rig: Rig, fd: int) -> None:
    token = rig.submit(READ, fd, bytearray(8))
    assert rig.finish([token]) == [8]
    rig.engine.cancel(token)  # too late: harmless
    rig.engine.flush()
    time.sleep(0.02)
    assert rig.reap() == 0


def test_6_stubborn_read(pipe: tuple[int, int]) -> None:
    """A read that POSIX AIO has begun says EALREADY, and completes when there is data."""
    rig = Rig(NativeEngine("posix_aio"))
    buffer = bytearray(4)
    token = rig.submit(READ, pipe[0], buffer)
    rig.engine.flush()
    deadline = time.monotonic() + 5
    while rig.engine.cancel(token) != -errno.EALREADY:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        if rig.reap():  # cancelled before a worker took it: begin again
            rig.results.clear()
            token = rig.submit(READ, pipe[0], buffer)
            rig.engine.flush()
    os.write(pipe[1], b"late")
    assert rig.finish([token]) == [4]
    assert buffer == b"late"
    rig.engine.destroy()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="elsewhere a thread for each request: none waits"
)
def test_6_cancel_leaves_those_behind_it(fd: int) -> None:
    """glibc forgets the requests behind one that is cancelled while it waits for a worker."""
    rig = Rig(NativeEngine("posix_aio"))
    pipes = [os.pipe() for _ in range(130)]  # more than there are workers
    hung = [rig.submit(READ, reading, bytearray(1)) for reading, _ in pipes]
    rig.engine.flush()
    time.sleep(0.1)
    writes = [rig.submit(WRITE, fd, bytes([i]) * 8, 8 * i) for i in range(6)]
    rig.engine.flush()
    asked = [rig.engine.cancel(writes[i]) for i in (0, 2, 5, 4)]
    for _, writing in pipes:
        os.write(writing, b"x")
    assert rig.finish(hung) == [1] * 130
    assert rig.finish(writes) == [8, 8, 8, 8, -errno.ECANCELED, -errno.ECANCELED]
    assert asked == [-errno.EALREADY, -errno.EALREADY, 0, 0]
    for end in (end for both in pipes for end in both):
        os.close(end)
    rig.engine.destroy()


# ---- 7. closing ---


def test_7_close_refuses_cancels_and_reaps(rig: Rig, fd: int, pipe: tuple[int, int]) -> None:
    reads = [rig.submit(READ, fd, bytearray(8)) for _ in range(2)]
    hung = rig.submit(READ, pipe[0], bytearray(8))
    rig.engine.flush()
    rig.engine.shutdown()
    assert rig.submit(READ, fd, bytearray(8)) == -errno.ESHUTDOWN
    for token in [*reads, hung]:
        rig.engine.cancel(token)
    os.write(pipe[1], b"12345678")  # POSIX AIO cannot stop that read
    assert rig.finish([hung])[0] in (8, -errno.ECANCELED)
    assert set(rig.finish(reads)) <= {8, -errno.ECANCELED}


def test_7_destroy_with_a_read_in_flight(engine: str, pipe: tuple[int, int]) -> None:
    """The buffer that was leaked on purpose is the only memory that is written later."""
    rig = Rig(NativeEngine(engine))
    buffer = bytearray(8)
    rig.submit(READ, pipe[0], buffer)
    rig.engine.flush()
    rig.engine.shutdown()
    rig.engine.destroy()
    canaries = [bytearray(8) for _ in range(1000)]
    os.write(pipe[1], b"latedata")
    time.sleep(0.05)
    assert not any(any(canary) for canary in canaries)
    assert bytes(buffer) in (bytes(8), b"latedata")


# ---- 8. one thread, one process ---


def _maps_a_ring() -> bool:
    with open("/proc/self/maps") as maps:
        return "io_uring" in maps.read()


def test_8_a_forked_child_cannot_touch_the_ring(engine: str, fd: int) -> None:
    rig = Rig(NativeEngine(engine))
    token = rig.submit(READ, fd, bytearray(8))
    assert _maps_a_ring() == (engine == "io_uring")
    child = os.fork()
    if not child:
        if _maps_a_ring():
            os._exit(2)
        answers = [
            rig.engine.submit(READ, fd, b"", 0, 0, 9),
            rig.engine.flush(),
            rig.engine.cancel(token),
            rig.engine.wait(0),
        ]
        rig.engine.destroy()
        os._exit(0 if answers == [-errno.ECHILD] * 4 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert rig.finish([token]) == [8]
    rig.engine.destroy()


def test_8_a_forked_child_gets_a_fresh_engine(engine: str, fd: int) -> None:
    parent = Rig(NativeEngine(engine))
    parent.finish([parent.submit(READ, fd, bytearray(8))])
    child = os.fork()
    if not child:
        try:
            rig = Rig(NativeEngine(engine))
            tokens = [
                rig.submit(READ, fd, bytearray(8), 64),
                rig.submit(WRITE, fd, b"CHILD", 512),
                rig.submit(FSYNC, fd),
            ]
            assert rig.finish(tokens) == [8, 5, 0]
            rig.engine.destroy()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert parent.finish([parent.submit(READ, fd, bytearray(5), 512)]) == [5]
    assert parent.keep[-1] == b"CHILD"
    parent.engine.destroy()


# ---- what the operations do ---


def test_results_are_those_of_the_system_call(rig: Rig, fd: int) -> None:
    buffer = bytearray(16)
    tokens = [rig.submit(READ, fd, buffer, (1 << 20) - 8)]
    tokens.append(rig.submit(READ, fd, bytearray(8), 1 << 20))
    assert rig.finish(tokens) == [8, 0]
    assert buffer[:8] == ((1 << 20) - 8).to_bytes(8, "big")
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    assert rig.finish([rig.submit(WRITE, read_only, b"x")]) == [-errno.EBADF]
    os.close(read_only)


def test_fsync_after_completed_writes(rig: Rig, fd: int) -> None:
    rig.finish([rig.submit(WRITE, fd, b"synced", 0)])
    assert rig.finish([rig.submit(FSYNC, fd), rig.submit(FDATASYNC, fd)]) == [0, 0]


def test_a_lane_does_not_outlive_its_file(data: Path, tmp_path: Path) -> None:
    """POSIX AIO works on duplicates: a number that is reused means the new file."""
    rig = Rig(NativeEngine("posix_aio"))
    other = tmp_path / "other"
    other.write_bytes(b"other!!!")
    fd = os.open(data, os.O_RDONLY)
    assert rig.finish([rig.submit(READ, fd, bytearray(8), 8) for _ in range(8)]) == [8] * 8
    before = len(os.listdir("/proc/self/fd"))
    for lane in rig.engine.forget_fd(fd):
        os.close(lane)
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) < before
    assert os.open(other, os.O_RDONLY) == fd
    buffer = bytearray(8)
    assert rig.finish([rig.submit(READ, fd, buffer)]) == [8]
    assert buffer == b"other!!!"
    rig.engine.destroy()
    os.close(fd)


# ---- SQPOLL ---


def test_sqpoll_wakes_its_thread(fd: int) -> None:
    """Flushed while the thread works, falls asleep or sleeps: it is always taken."""
    rig = Rig(sqpoll_engine())
    rng = random.Random(3)
    for _ in range(200):
        time.sleep(rng.uniform(0, 2.5 * SQPOLL_MS) / 1000)
        token = rig.submit(READ, fd, bytearray(8), 8)
        rig.engine.flush()
        deadline = time.monotonic() + 5
        while token not in rig.results:
            assert time.monotonic() < deadline, "never taken"
            rig.engine.wait(5000)
            rig.reap()
        assert rig.results[token] == 8
    rig.engine.destroy()


def test_sqpoll_may_take_what_was_published_at_any_time(data: Path) -> None:
    """No flush reaches a ring whose descriptor is gone, but its thread may still wake: what
    it may take neither fails nor gives its memory back."""
    before = set(os.listdir("/proc/self/fd"))
    rig = Rig(sqpoll_engine())
    fd = os.open(data, os.O_RDONLY)
    assert rig.finish([rig.submit(READ, fd, bytearray(8))]) == [8]
    (ring,) = [
        int(name)
        for name in set(os.listdir("/proc/self/fd")) - before
        if os.path.lexists(f"/proc/self/fd/{name}")
        and os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[io_uring]"
    ]
    time.sleep(0.1)  # now it sleeps
    placeholder = os.open("/dev/null", os.O_RDONLY)
    os.dup2(placeholder, ring)
    published = rig.submit(READ, fd, bytearray(8))
    for _ in range(3):
        rig.engine.flush()
        rig.reap()
    assert published not in rig.results
    rig.engine.destroy()
    os.close(placeholder)
    os.close(fd)


def test_sqpoll_is_asked_for_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    sqpoll_engine().destroy()
    monkeypatch.delenv("URINGFILE_ENGINE", raising=False)
    monkeypatch.setenv("URINGFILE_SQPOLL_MS", "5")
    assert "sqpoll" in engine_info().features
    for off in ("0", ""):
        monkeypatch.setenv("URINGFILE_SQPOLL_MS", off)
        assert "sqpoll" not in engine_info().features


def test_without_a_thread_to_spare_the_ring_does_without_sqpoll() -> None:
    sqpoll_engine().destroy()
    code = """
import os, resource, uringfile
if not os.getuid():
    os.setuid(65534)  # no limit holds for root
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
info = uringfile.engine_info()
print(info.engine, "sqpoll" in info.features)
"""
    assert check(code, URINGFILE_SQPOLL_MS="5", URINGFILE_ENGINE="") == "io_uring False\n"


# ---- a batch is one operation ---


class Parts:
    """Reads of 8 bytes at these offsets, as one operation."""

    def __init__(self, offsets: list[int], size: int = 8) -> None:
        self.memory = bytearray(size * len(offsets))
        place = pin(self.memory)
        start = address(place)
        starts = range(start, start + len(self.memory), size)
        self.batch = Batch(starts, [size] * len(offsets), offsets, place)

    def submit(self, rig: Rig, fd: int, opcode: int = READ) -> int:
        token = rig.tokens
        rig.tokens += 1
        rig.keep.append(self)
        ret = rig.engine.submit(opcode | BATCH, fd, self.batch.memory, self.batch.n, 0, token)
        return token if ret == 0 else ret


def test_batch_completes_once_with_all_results(rig: Rig, fd: int) -> None:
    end = os.fstat(fd).st_size
    content = os.pread(fd, end, 0)
    parts = Parts([0, 100, end - 3, end, 5])
    assert rig.finish([parts.submit(rig, fd)]) == [0]
    assert parts.batch.results() == (8, 8, 3, 0, 8)
    assert parts.memory[8:16] == content[100:108]
    assert rig.reap() == 0


def test_batch_larger_than_the_engine(engine: str, fd: int) -> None:
    rig = Rig(NativeEngine(engine))
    content = os.pread(fd, 1000, 0)
    offsets = [i % 900 for i in range(5000)]
    parts = Parts(offsets)
    single = rig.submit(READ, fd, bytearray(8))
    token = parts.submit(rig, fd)
    rig.engine.flush()
    beside = Parts([100] * 400)
    second = beside.submit(rig, fd)
    assert rig.finish([token, single, second]) == [0, 8, 0]
    assert beside.memory == content[100:108] * 400
    assert parts.batch.results() == (8,) * 5000
    assert parts.memory == b"".join(content[i : i + 8] for i in offsets)
    rig.engine.destroy()


def test_batches_without_a_slot_say_eagain(engine: str, fd: int) -> None:
    rig = Rig(NativeEngine(engine))
    accepted = []
    for _ in range(1000):
        token = Parts([0, 8]).submit(rig, fd)
        if token == -errno.EAGAIN:
            break
        accepted.append(token)
    else:
        pytest.fail("there is no end of slots")
    assert rig.finish(accepted) == [0] * len(accepted)
    assert rig.finish([Parts([0, 8]).submit(rig, fd)]) == [0]
    rig.engine.destroy()


def test_batch_of_a_bad_descriptor(engine: str) -> None:
    rig = Rig(NativeEngine(engine))
    read_end, write_end = os.pipe()
    os.close(write_end)
    parts = Parts([0, 8, 16])
    token = parts.submit(rig, read_end, WRITE)  # not open for writing
    if token >= 0:
        assert rig.finish([token]) == [0]
        assert parts.batch.results() == (-errno.EBADF,) * 3
    else:
        assert token == -errno.EBADF
    os.close(read_end)
    rig.engine.destroy()


def test_batch_is_rejected_whole(engine: str, fd: int) -> None:
    rig = Rig(NativeEngine(engine))
    assert Parts([0, -1]).submit(rig, fd) == -errno.EINVAL
    assert Parts([0]).submit(rig, fd, FSYNC) == -errno.EINVAL
    parts = Parts([])
    assert parts.submit(rig, fd) == -errno.EINVAL
    assert rig.reap() == 0
    rig.engine.destroy()


def test_cancelled_batch_completes_once(rig: Rig, pipe: tuple[int, int]) -> None:
    if rig.engine.name == "posix_aio":
        pytest.skip("POSIX AIO cannot stop a read that runs (test_6_stubborn_read)")
    parts = Parts([0] * 6)
    token = parts.submit(rig, pipe[0])
    rig.engine.flush()
    assert rig.engine.cancel(token) in (0, -errno.EALREADY)
    if rig.fake:
        for part in rig.engine.in_flight[token].parts():
            part.result = -errno.ECANCELED
    rig.finish([token])
    assert set(parts.batch.results()) <= {-errno.ECANCELED, -errno.EINTR}
    assert rig.reap() == 0


@pytest.mark.parametrize("engine", ["io_uring"], indirect=True)
def test_cancelled_batch_that_waits_for_room(engine: str, fd: int, pipe: tuple[int, int]) -> None:
    rig = Rig(NativeEngine(engine))
    parts = Parts([0] * 3000)
    token = parts.submit(rig, pipe[0])
    rig.engine.flush()
    while (ret := rig.engine.cancel(token)) == -errno.EAGAIN:
        rig.engine.flush()
    assert ret == 0
    rig.finish([token])
    assert set(parts.batch.results()) <= {-errno.ECANCELED, -errno.EINTR}
    assert rig.finish([rig.submit(READ, fd, bytearray(8))]) == [8]
    rig.engine.destroy()


def test_batch_in_flight_at_the_end(engine: str, pipe: tuple[int, int]) -> None:
    rig = Rig(NativeEngine(engine))
    Parts([0] * 3).submit(rig, pipe[0])
    rig.engine.flush()
    rig.engine.shutdown()
    rig.engine.destroy()
