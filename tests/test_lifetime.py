"""Loops, threads, processes and memory: what ends when, and what is never freed.

Most of these run in an interpreter of their own, since what they guard against is a
crash or a hang. Operations that must stay pending read from an empty pipe.
"""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    COUNTS_REFERENCES,
    check,
    collect,
    leaves_unclosed,
    nothing_in_flight,
    open_fds,
    run,
    run_python,
)
from suspensions import cancelled_at_each

from uringfile import AIOFile, LogWriter, _loop, async_open, pending_operations
from uringfile._native_engine import ffi, pin

NEEDS_MALLOC = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) or not COUNTS_REFERENCES,
    reason="Python without a GIL, or PyPy: cannot use malloc, whose memory is soon used again",
)

HUNG_READ = """
import asyncio, os, sys, uringfile
engine = sys.argv[1]
ends = os.pipe()
async def hung_read(f):
    return await f.read(100)
"""


async def test_what_owns_a_descriptor_is_not_copied(tmp_path: Path, engine: Any) -> None:
    """The copy would close the number when it is finalized."""
    for owner in (
        await AIOFile(tmp_path / "a", "wb", engine=engine),
        await async_open(tmp_path / "b", "wb", engine=engine),
        await async_open(tmp_path / "c", "w", engine=engine),
        await LogWriter(tmp_path / "log", engine=engine),
    ):
        for copier in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                copier(owner)
        await owner.close()


# ---- a read that hangs ---


async def test_timeout(pipe: tuple[int, int], engine: Any) -> None:
    f = await AIOFile(os.dup(pipe[0]), "rb", engine=engine)
    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(f.read(100), 0.05)
    assert time.monotonic() - start < 1
    await f.close()
    assert time.monotonic() - start < 2
    os.write(pipe[1], b"x" * 100)  # for the read that POSIX AIO cannot stop
    await nothing_in_flight(engine)


async def test_close_releases_a_pending_reader(pipe: tuple[int, int], engine: Any) -> None:
    f = await AIOFile(os.dup(pipe[0]), "rb", engine=engine)
    reading = asyncio.ensure_future(f.read(100))
    await asyncio.sleep(0.02)
    await asyncio.wait_for(f.close(), 2)
    with pytest.raises(ValueError, match="closed"):
        await reading
    os.write(pipe[1], b"x" * 100)
    await nothing_in_flight(engine)


async def test_other_files_go_on(pipe: tuple[int, int], data: Path, engine: Any) -> None:
    hung = await AIOFile(os.dup(pipe[0]), "rb", engine=engine)
    reads = [asyncio.ensure_future(hung.read(1)) for _ in range(64)]
    await asyncio.sleep(0.02)
    async with AIOFile(data, "rb+", engine=engine) as f:
        f._inline = False
        assert await asyncio.wait_for(f.read(8, 8), 5) == (8).to_bytes(8, "big")
        assert await asyncio.wait_for(f.write(b"x"), 5) == 1
        await asyncio.wait_for(f.fsync(), 5)
    os.write(pipe[1], b"y" * 64)
    assert await asyncio.gather(*reads) == [b"y"] * 64
    await hung.close()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("asyncio.run(asyncio.wait_for(main(), 0.1))", id="asyncio.run"),
        pytest.param(
            "loop = asyncio.new_event_loop(); task = loop.create_task(main());"
            "loop.call_later(0.1, loop.stop); loop.run_forever(); loop.close(); del loop, task",
            id="loop.close",
        ),
        pytest.param(
            "loop = asyncio.new_event_loop(); task = loop.create_task(main());"
            "loop.call_later(0.1, loop.stop); loop.run_forever()",
            id="never closed",
        ),
        pytest.param(
            "loop = asyncio.new_event_loop(); loop.create_task(main());"
            "loop.call_later(0.1, loop.stop); loop.run_forever();"
            "del loop; import gc; gc.collect()",
            id="collected",
        ),
        pytest.param(
            "loop = asyncio.new_event_loop(); task = loop.create_task(main());"
            "loop.call_later(0.1, sys.exit, 0); loop.run_forever()",
            id="sys.exit",
        ),
        pytest.param(
            "import threading, time\n"
            "threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()\n"
            "time.sleep(0.2)",
            id="daemon thread",
        ),
    ],
)
def test_a_hung_read_at_the_end(engine: Any, end: str) -> None:
    code = f"""{HUNG_READ}
async def main():
    f = await uringfile.AIOFile(ends[0], "rb", engine=engine)
    await f.read(100)
try:
    {end.replace(chr(10), chr(10) + "    ")}
except asyncio.TimeoutError:
    pass
print("survived")
"""
    start = time.monotonic()
    done = run_python(code, engine, PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr
    assert time.monotonic() - start < 10


def test_interrupted_by_sigint(engine: Any) -> None:
    code = f"""{HUNG_READ}
async def main():
    f = await uringfile.AIOFile(ends[0], "rb", engine=engine)
    print("ready", flush=True)
    await f.read(100)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, engine],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in stderr
    assert process.returncode in (1, 130, -signal.SIGINT)


# ---- memory that the kernel may write to ---


CANARIES = f"""{HUNG_READ}
import gc
from uringfile import _engine, _fd, _loop
from uringfile._blocks import new_block
from uringfile._native_engine import pin
SIZE = 65536
async def main():
    driver = _loop.running_driver(engine)
    descriptor = _fd.Descriptor(ends[0])
    for _ in range(20):
        read = driver.run(_engine.READ, descriptor, pin(new_block(SIZE)), SIZE)
        task = asyncio.ensure_future(read)
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task, read
        await asyncio.sleep(0)  # gather's result lives as long as the step that it woke
    gc.collect()
    canaries = [bytes(SIZE - 33) for _ in range(200)]
    os.write(ends[1], b"late" * 4000)
    await asyncio.sleep(0.1)
    assert not any(any(canary) for canary in canaries), "the kernel wrote into freed memory"
asyncio.run(main())
"""


def test_cancelled_reads_keep_their_memory(engine: Any) -> None:
    check(CANARIES, engine, PYTHONWARNINGS="ignore", PYTHONMALLOC="malloc")


@NEEDS_MALLOC
def test_that_the_canaries_would_notice(tmp_path: Path) -> None:
    """The same program with the in-flight table's reference taken away must fail."""
    broken = CANARIES.replace(
        "async def main():",
        "import uringfile._driver as d\n"
        "real = d.Driver._offer\n"
        "def forgetful(self, operation):\n"
        "    accepted = real(self, operation)\n"
        "    operation.request = None\n"
        "    return accepted\n"
        "d.Driver._offer = forgetful\n"
        "async def main():",
    )
    done = run_python(broken, "posix_aio", PYTHONWARNINGS="ignore", PYTHONMALLOC="malloc")
    assert done.returncode != 0, "no canary was touched: the test proves nothing"


BATCHES = f"""{HUNG_READ}
import gc
from uringfile import _engine, _fd, _loop
from uringfile._batch import Batch
from uringfile._blocks import new_block
from uringfile._native_engine import address, pin
SIZE, PARTS = 16384, 4
def batch():
    place = pin(new_block(SIZE * PARTS))
    starts = range(address(place), address(place) + SIZE * PARTS, SIZE)
    return Batch(starts, [SIZE] * PARTS, [0] * PARTS, place)
async def main():
    driver = _loop.running_driver(engine)
    for _ in range(20):
        # A lane of each: what waits behind a read that hangs can be cancelled, and is.
        descriptor = _fd.Descriptor(os.dup(ends[0]))
        parts = batch()
        read = driver.run(
            _engine.READ | _engine.BATCH, descriptor, parts.memory, parts.n
        )
        task = asyncio.ensure_future(read)
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task, read, parts
        await asyncio.sleep(0)
    gc.collect()
    canaries = [bytes(SIZE * PARTS - 33) for _ in range(100)]
    canaries += [bytes(32 * PARTS - i) for i in range(64) for _ in range(100)]
    os.write(ends[1], b"late" * 4000)
    await asyncio.sleep(0.2)
    assert not any(any(canary) for canary in canaries), "freed memory was written to"
asyncio.run(main())
"""

POOL = f"""{HUNG_READ}
import gc
from uringfile import _engine, _fd, _loop
from uringfile._native_engine import pin
SIZE = 65536
async def main():
    driver = _loop.running_driver(engine)
    descriptor = _fd.Descriptor(ends[0])
    pool = uringfile.BufferPool(SIZE, 24)
    for _ in range(20):
        buffer = await pool.acquire()
        read = driver.run(_engine.READ, descriptor, pin(buffer), SIZE)
        task = asyncio.ensure_future(read)
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pool.release(buffer)
        del task, read, buffer
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0.05)
    assert pool.free >= 4
    canaries = [await pool.acquire() for _ in range(pool.free)]
    for canary in canaries:
        canary[:] = bytes(SIZE)
    os.write(ends[1], b"late" * 4000)
    await asyncio.sleep(0.2)
    assert not any(any(canary) for canary in canaries), "a buffer of another was written to"
asyncio.run(main())
"""

FORGETFUL = """
import uringfile._driver as d
real = d.Driver._offer
def forgetful(self, operation):
    accepted = real(self, operation)
    operation.request = (operation.opcode,) + (None,) * 5
    return accepted
d.Driver._offer = forgetful
"""


@pytest.mark.parametrize("program", [BATCHES, POOL], ids=["batches", "pool"])
def test_cancelled_batches_and_buffers_keep_their_memory(engine: Any, program: str) -> None:
    check(program, engine, PYTHONWARNINGS="ignore", PYTHONMALLOC="malloc")


@NEEDS_MALLOC
@pytest.mark.parametrize("program", [BATCHES, POOL], ids=["batches", "pool"])
def test_that_canaries_of_batches_and_buffers_would_notice(program: str) -> None:
    broken = FORGETFUL + program
    done = run_python(broken, "posix_aio", PYTHONWARNINGS="ignore", PYTHONMALLOC="malloc")
    # Or it crashes, of memory that is no longer what it was.
    assert done.returncode < 0 or "was written to" in done.stderr, done.stderr


GARBAGE = """
import gc
from uringfile._native_engine import pin

class Frame: "stands for one that a traceback keeps"

for i in range(50):
    pinned = pin(memoryview(bytearray(10)), writable=True)
    frame = Frame()  # younger than all that was made for the pin, which is so cleared first
    frame.itself = frame
    frame.pinned = pinned
    del frame, pinned
    gc.collect()
"""


def test_a_pinned_memoryview_in_garbage() -> None:
    """CPython before 3.12.7 crashes on a cycle with a memoryview and its exporter (gh-77894)."""
    check(GARBAGE)


def test_a_pinned_memoryview_keeps_what_it_shows() -> None:
    memory = bytearray(b"0123456789")
    pinned = pin(memoryview(memory)[3:7], writable=True)
    assert bytes(ffi.buffer(pinned)) == b"3456"
    with pytest.raises(BufferError):
        memory.extend(b"longer")
    del pinned
    collect()
    memory.extend(b"longer")
    for refused in (memoryview(b"read-only"), memoryview(memory)[::2]):
        with pytest.raises(BufferError):
            pin(refused, writable=True)


# ---- loops ---


def test_a_hundred_loops_leave_nothing(data: Path, engine: Any) -> None:
    async def main() -> None:
        async with AIOFile(data, "rb", engine=engine) as f:
            f._inline = False
            await asyncio.gather(*[f.read(8, i) for i in range(10)])

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    run(main())
    time.sleep(1.2 if engine == "posix_aio" else 0)  # glibc's idle workers end after a second
    before = open_fds(), threads()
    for _ in range(100):
        run(main())
    assert open_fds() == before[0]
    deadline = time.monotonic() + 5
    while threads() > before[1] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert threads() <= before[1]


def test_loops_that_are_never_closed(data: Path, engine: Any) -> None:
    code = """
import asyncio, gc, os, sys, uringfile
async def main():
    async with uringfile.AIOFile(sys.argv[2], "rb", engine=sys.argv[1]) as f:
        assert len(await f.read(8)) == 8
def once():
    asyncio.new_event_loop().run_until_complete(main())
    gc.collect()
once()
before = len(os.listdir("/proc/self/fd"))
for _ in range(20):
    once()
after = os.listdir("/proc/self/fd")
# One loop may still wait to be collected; twenty would be a hundred descriptors.
assert len(after) <= before + 8, (before, after)
"""
    check(code, engine, str(data), PYTHONWARNINGS="ignore")


def test_a_file_that_outlives_its_loop(data: Path, engine: Any) -> None:
    files = []

    async def first() -> None:
        files.append(await AIOFile(data, "rb", engine=engine))

    async def second() -> None:
        with pytest.raises(RuntimeError, match="different event loop"):
            await files[0].read(8)
        with pytest.raises(RuntimeError, match="different event loop"):
            await files[0].close()
        async with AIOFile(data, "rb", engine=engine) as f:
            assert len(await f.read(8)) == 8

    run(first())
    run(second())
    with leaves_unclosed("unclosed file"):
        files.clear()


def test_sixteen_loops_in_sixteen_threads(data: Path, engine: Any) -> None:
    failures = []

    async def main(number: int) -> None:
        async with AIOFile(data, "rb", engine=engine) as f:
            f._inline = False
            for _ in range(20):
                offsets = [(number * 64 + i) * 8 for i in range(32)]
                blocks = await asyncio.gather(*[f.read(8, offset) for offset in offsets])
                assert [int.from_bytes(block, "big") for block in blocks] == offsets

    def thread(number: int) -> None:
        try:
            run(main(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []


def test_uvloop(data: Path, engine: Any) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with AIOFile(data, "rb+", engine=engine) as f:
            f._inline = False
            offsets = [i * 8 for i in range(1, 500)]
            blocks = await asyncio.gather(*[f.read(8, offset) for offset in offsets])
            assert [int.from_bytes(block, "big") for block in blocks] == offsets
            await f.write(b"uv")
            await f.fsync()

    run(main(), uvloop.new_event_loop())
    before = open_fds()
    for _ in range(5):
        run(main(), uvloop.new_event_loop())
    assert open_fds() == before


def test_drivers_are_found_without_patching_the_loop(data: Path) -> None:
    async def main() -> dict[str, Any]:
        await (await AIOFile(data, "rb")).close()
        return vars(asyncio.get_running_loop())

    async def untouched() -> dict[str, Any]:
        return vars(asyncio.get_running_loop())

    assert run(main()).keys() == run(untouched()).keys()
    assert len(_loop._by_loop) <= 2


# ---- fork ---


def test_fork_in_use(data: Path, engine: Any) -> None:
    code = """
import asyncio, os, sys, uringfile
engine, path = sys.argv[1:]
def expect(blocks, offsets):
    assert [int.from_bytes(b, "big") for b in blocks] == offsets
async def work(rounds):
    async with uringfile.AIOFile(path, "rb", engine=engine) as f:
        f._inline = False
        for _ in range(rounds):
            offsets = list(range(0, 800, 8))
            expect(await asyncio.gather(*[f.read(8, o) for o in offsets]), offsets)
async def parent():
    work_here = asyncio.ensure_future(work(200))
    children = []
    for _ in range(5):
        await asyncio.sleep(0.005)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                asyncio._set_running_loop(None)
                asyncio.run(work(5))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    await work_here
    for pid in children:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            await asyncio.sleep(0.01)
        assert status == 0, status
    await work(5)
asyncio.run(parent())
"""
    check(code, engine, str(data), PYTHONWARNINGS="ignore::DeprecationWarning")


@pytest.mark.parametrize("inline", [True, False])
def test_a_child_cannot_use_its_parents_file(data: Path, engine: Any, inline: bool) -> None:
    code = """
import asyncio, os, sys, uringfile
engine, path, inline = sys.argv[1:]
async def main():
    f = await uringfile.AIOFile(path, "rb", engine=engine)
    f._inline = inline == 'True'
    await f.read(8)
    pid = os.fork()
    if not pid:
        try:
            asyncio._set_running_loop(f._driver.loop)
            await f.read(8)
        except RuntimeError as error:
            os._exit(0 if "forked" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(await f.read(8, 8)) == 8
    await f.close()
asyncio.run(main())
"""
    check(code, engine, str(data), str(inline), PYTHONWARNINGS="ignore::DeprecationWarning")


# ---- descriptors ---


async def test_never_another_files_data(tmp_path: Path, engine: Any) -> None:
    """Files are closed and their numbers reused at once, with reads under way."""
    paths = []
    for i in range(4):
        path = tmp_path / str(i)
        path.write_bytes(bytes([i]) * 4096)
        paths.append(path)

    async def one(i: int) -> None:
        f = await AIOFile(paths[i % 4], "rb", engine=engine)
        f._inline = False
        reads = [asyncio.ensure_future(f.read(4096)) for _ in range(4)]
        if i % 3:
            await asyncio.sleep(0)
        close = asyncio.ensure_future(f.close())
        for result in await asyncio.gather(*reads, return_exceptions=True):
            if isinstance(result, bytes):
                assert result == bytes([i % 4]) * 4096
            else:
                assert isinstance(result, ValueError)
        await close

    for _ in range(60):
        await asyncio.gather(*[one(i) for i in range(16)])


async def test_cancelled_opens_leak_nothing(data: Path, engine: Any) -> None:
    await (await AIOFile(data, engine=engine)).close()
    before = open_fds()
    for steps in range(6):
        for i in range(10):
            # What is cached is opened at once, unless the mode might make the file.
            f = AIOFile(data, "ab" if i % 2 else "rb", engine=engine)
            task = asyncio.ensure_future(f.open())
            for _ in range(steps):
                await asyncio.sleep(0)
            if i % 4 == 1:
                time.sleep(0.002)  # it has been opened, and nobody has looked yet
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await f.close()  # it may have been open before the cancel
    deadline = time.monotonic() + 5
    while open_fds() != before:
        assert time.monotonic() < deadline, open_fds() - before
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("direct", [False, True])
async def test_cancelling_at_every_await(tmp_path: Path, engine: Any, direct: bool) -> None:
    """A whole life of a file, cancelled at each of its suspensions."""
    path = tmp_path / "f"
    path.write_bytes(b"before")

    async def life() -> None:
        async with AIOFile(path, "rb+", engine=engine, direct=direct) as f:
            f._inline = False
            await f.write(b"during")
            await f.fsync()
            await f.read(6)
            await f.truncate(6)
            await f.stat()

    await life()
    pending_operations()  # of the default engine, too, which cancelled_at_each() asks
    before = open_fds()
    async for _ in cancelled_at_each(life):
        assert path.read_bytes() in (b"before", b"during")
        path.write_bytes(b"before")
        deadline = time.monotonic() + 5
        while open_fds() != before:
            assert time.monotonic() < deadline, open_fds() - before
            await asyncio.sleep(0.01)


def test_out_of_descriptors(data: Path, engine: Any) -> None:
    code = """
import asyncio, os, resource, sys, uringfile
engine, path = sys.argv[1:]
async def main():
    async with uringfile.AIOFile(path, "rb", engine=engine) as f:
        f._inline = False
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        blocks = await asyncio.gather(*[f.read(8, i * 8) for i in range(100)])
        assert [int.from_bytes(b, "big") for b in blocks] == [i * 8 for i in range(100)]
        try:
            await uringfile.AIOFile(path, engine=engine)
        except OSError as error:
            assert error.errno == 24 and error.filename == path, error
        else:
            raise AssertionError
        for fd in taken:
            os.close(fd)
        await (await uringfile.AIOFile(path, engine=engine)).close()
asyncio.run(main())
"""
    check(code, engine, str(data))


# ---- fairness ---


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="it compiles for longer than that")
async def test_a_cached_reader_lets_others_run(data: Path, engine: Any) -> None:
    """A few milliseconds at most between two turns of the loop, in CPU time of the thread:
    what other processes take is not counted, what a hypervisor takes is (so 99 in 100)."""
    async with AIOFile(data, "rb", engine=engine) as f:
        await f.read()
        loop = asyncio.get_running_loop()
        turns: list[float] = []
        last = time.thread_time()

        def turn() -> None:
            nonlocal last
            now = time.thread_time()
            turns.append(now - last)
            last = now
            if now < end:
                loop.call_soon(turn)

        end = time.thread_time() + 0.5
        loop.call_soon(turn)
        sizes = [8, 4096, 32768, 65536, 1 << 20]
        while time.thread_time() < end:
            await f.read(sizes[len(turns) % 5], 0)
        assert len(turns) > 50
        assert sorted(turns)[len(turns) * 99 // 100] < 0.02


def test_an_idle_process_costs_nothing(pipe: tuple[int, int], engine: Any) -> None:
    """An open ring, a file, even a read that hangs: no CPU while nothing happens."""
    code = f"""{HUNG_READ}
import time
async def main():
    f = await uringfile.AIOFile(ends[0], "rb", engine=engine)
    reading = asyncio.ensure_future(f.read(1))
    await asyncio.sleep(0.2)
    start = time.process_time()
    await asyncio.sleep(1)
    used = time.process_time() - start
    os.write(ends[1], b"x")
    await reading
    await f.close()
    assert used < 0.02, used
asyncio.run(main())
"""
    check(code, engine)


def test_signals(data: Path, engine: Any) -> None:
    """A thousand signals a second: operations are repeated, none is lost."""
    code = """
import asyncio, signal, sys, uringfile
engine, path = sys.argv[1:]
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
async def main():
    async with uringfile.AIOFile(path, "rb+", engine=engine) as f:
        f._inline = False
        for i in range(300):
            offsets = list(range(0, 160, 8))
            blocks = await asyncio.gather(*[f.read(8, 4096 + o) for o in offsets])
            assert [int.from_bytes(b, "big") - 4096 for b in blocks] == offsets
            assert await f.write(b"12345678", 0) == 8
            if i % 50 == 0:
                await f.fsync()
asyncio.run(main())
signal.setitimer(signal.ITIMER_REAL, 0)
assert count > 10, count
"""
    check(code, engine, str(data))


def test_fork_after_a_loop_has_ended(data: Path, engine: Any) -> None:
    """A driver that has ended, and that a file still refers to, is ended once only."""
    code = """
import asyncio, os, sys, uringfile
from uringfile import _loop
engine, path = sys.argv[1:]
async def main():
    f = await uringfile.AIOFile(path, "rb", engine=engine)
    await f.read(8)
    return f, _loop.running_driver(engine)
f, driver = asyncio.run(main())
driver.close()
driver.close()
pid = os.fork()
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    check(code, engine, str(data), PYTHONWARNINGS="ignore")
