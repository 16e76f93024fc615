"""Descriptors, loops, limits and refusals: what a process meets in its life."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import check, collect, count, run
from rigs import tool

from uringfile import AIOFile, async_open, stats

# ---- descriptors ---


@pytest.fixture
def busy_cores() -> Iterator[None]:
    """Two processes for each core that do nothing but compute."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("busy_cores")
async def test_a_number_that_is_another_files_at_once(tmp_path: Path, engine: Any) -> None:
    """close() and open() in the turn in which reads were started, while workers get no core."""
    paths = []
    for letter in b"AB":
        paths.append(tmp_path / chr(letter))
        paths[-1].write_bytes(bytes([letter]) * 65536)
    same = 0
    for i in range(60):
        mine, other = paths[i % 2], paths[1 - i % 2]
        f = await AIOFile(mine, "rb", engine=engine)
        f._inline = False
        number = f.fileno()
        reads = [asyncio.ensure_future(f.read(4096, 4096 * k)) for k in range(8)]
        if i % 3:
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(f.close())
        if i % 2:
            await asyncio.sleep(0)
        async with AIOFile(other, "rb", engine=engine) as g:
            g._inline = False
            same += g.fileno() == number
            expected = other.name.encode() * 4096
            assert await asyncio.gather(*[g.read(4096) for _ in range(4)]) == [expected] * 4
            await closing
        for result in await asyncio.gather(*reads, return_exceptions=True):
            assert isinstance(result, ValueError) or result == mine.name.encode() * 4096
    assert same < 60, "a number is not given away while operations hold it"


def test_whoever_comes_last_gets_no_descriptor(data: Path, engine: str) -> None:
    """The limit of open files strikes at each of those that an engine and a file take."""
    code = """
import asyncio, errno, os, resource, sys, uringfile
engine, path = sys.argv[1:]
async def main():
    async with uringfile.AIOFile(path, "rb", engine=engine) as f:
        f._inline = False
        return len(await f.read(8))
def once():
    try:
        return asyncio.run(main())
    except OSError as error:
        assert error.errno == errno.EMFILE, error
        assert isinstance(error, uringfile.EngineUnavailable) or error.filename == path, error
        return None
assert once() == 8
before = sorted(os.listdir("/proc/self/fd"))
outcomes = []
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(60)]  # no holes below
limit = taken[-1] + 1
for fd in taken[-16:]:
    os.close(fd)
for room in range(16, 2, -1):  # three are the loop's
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit - 16 + room, hard))
    outcomes.append(once())
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert outcomes[0] == 8 and outcomes[-1] is None, outcomes
for fd in taken[:-16]:
    os.close(fd)
assert once() == 8
assert sorted(os.listdir("/proc/self/fd")) == before
"""
    check(code, engine, str(data))


# ---- loops ---


def test_a_foreign_loop_is_refused_before_anything_starts(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    opened: list[Any] = []

    async def first() -> None:
        opened.append(await AIOFile(path, "rb+", engine=engine))
        opened.append(await async_open(path, "rb+", engine=engine))
        opened.append(await async_open(tmp_path / "text", "w", engine=engine))
        await opened[1].write(b"C")
        await opened[2].write("text")

    async def second() -> None:
        before = stats(engine)
        f, stream, text = opened
        for call in (
            lambda: f.read(3),
            lambda: f.read_bytes(),
            lambda: f.readinto(bytearray(3)),
            lambda: f.read_many([(3, 0)]),
            lambda: f.write(b"x"),
            lambda: f.write_many([(b"x", 0)]),
            lambda: f.fsync(),
            lambda: f.fdatasync(),
            lambda: f.truncate(1),
            lambda: f.allocate(100),
            lambda: f.stat(),
            lambda: f.close(),
            lambda: stream.read(),
            lambda: stream.readline(),
            lambda: stream.flush(),
            lambda: stream.truncate(1),
            lambda: stream.close(),
            lambda: text.flush(),
            lambda: text.close(),
        ):
            with pytest.raises(RuntimeError, match="different event loop"):
                await call()
        # But for what takes place in memory alone.
        assert await stream.write(b"o") == 1
        assert await text.write("!") == 1
        assert stats(engine) == before

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    run(second())

    async def last() -> None:
        assert await opened[0].read() == b"content"
        for file in opened:
            await file.close()
        assert path.read_bytes() == b"Content"
        assert (tmp_path / "text").read_text() == "text!"

    run(last(), loop)


async def test_what_is_buffered_is_written_by_the_parent_alone(tmp_path: Path, engine: Any) -> None:
    file = await async_open(tmp_path / "f", "ab", engine=engine)
    await file.write(b"once")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there may be threads
        pid = os.fork()
    if not pid:
        del file
        collect()
        os._exit(0)
    os.waitpid(pid, 0)
    await file.close()
    assert (tmp_path / "f").read_bytes() == b"once"


def test_fork_with_reads_that_hang_on_both_sides(engine: str, data: Path) -> None:
    code = """
import asyncio, os, sys, uringfile
engine, path = sys.argv[1:]
async def work():
    ends = os.pipe()
    hung = await uringfile.AIOFile(ends[0], "rb", engine=engine)
    reading = asyncio.ensure_future(hung.read(5))
    async with uringfile.AIOFile(path, "rb", engine=engine) as f:
        f._inline = False
        for _ in range(20):
            blocks = await asyncio.gather(*[f.read(8, 8 * i) for i in range(50)])
            assert [int.from_bytes(b, "big") for b in blocks] == list(range(0, 400, 8))
    return ends[1], reading, hung
async def finish(end, reading, hung, message):
    os.write(end, message)
    assert await asyncio.wait_for(reading, 5) == message
    await hung.close()
async def main():
    state = await work()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            asyncio._set_running_loop(None)
            async def child():
                await finish(*await work(), b"child")
            asyncio.run(child())
            status = 0
        finally:
            os._exit(status)
    await work()
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        await asyncio.sleep(0.01)
    assert done[1] == 0, done
    await finish(*state, b"adult")
asyncio.run(main())
"""
    check(code, engine, str(data), PYTHONWARNINGS="ignore")


def test_killed_while_it_writes(tmp_path: Path, engine: str) -> None:
    """What write() has returned for is in the file, whatever ended the process."""
    code = """
import asyncio, os, sys, uringfile
engine, path = sys.argv[1:]
async def main():
    f = await uringfile.AIOFile(path, "wb", engine=engine)
    async def write(first):
        for i in range(first, 10**6, 8):
            await f.write(b"%08d" % i * 100, i * 800)
            os.write(1, b"%d\\n" % i)
    await asyncio.gather(*[write(i) for i in range(8)])
asyncio.run(main())
"""
    for i in range(3):
        path = tmp_path / str(i)
        command = [sys.executable, "-c", code, engine, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            told = process.stdout.readline()
            end = time.monotonic() + 0.05 * i
            while time.monotonic() < end:
                told += os.read(process.stdout.fileno(), 1 << 16)
            process.kill()
            start = time.monotonic()
            told += process.stdout.read()
            assert process.wait() == -signal.SIGKILL
        assert time.monotonic() - start < 5
        content = path.read_bytes()
        for line in told.rpartition(b"\n")[0].split(b"\n"):
            number = int(line)
            assert content[number * 800 : number * 800 + 800] == b"%08d" % number * 100


# ---- refusals ---


REFUSED_LATER = """
import asyncio, json, sys, threading, uringfile
sys.path.insert(0, sys.argv[1])
from seccomp_filter import install
call, code, path = sys.argv[2], int(sys.argv[3]), sys.argv[4]

def refuse():
    rule = {"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": code}
    install({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})

async def read(n=20):
    async with uringfile.AIOFile(path, "rb") as f:
        f._inline = False
        blocks = await asyncio.gather(*[f.read(8, 8 * i) for i in range(n)])
        assert [int.from_bytes(b, "big") for b in blocks] == list(range(0, 8 * n, 8))
    return uringfile.engine_info().engine

async def other():
    engines = []
    # A thread that has begun before is not filtered.
    thread = threading.Thread(target=lambda: engines.append(asyncio.run(read())))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)
    return engines[0]

async def main():
    assert await read() == "io_uring"
    refuse()
    engines = [await other()]
    try:
        engines.append(await asyncio.wait_for(read(), 10))
    except OSError as error:
        engines.append(error.errno)
    engines.append(await other())
    print(json.dumps(engines))
asyncio.run(main())
"""


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.ENOMEM])
@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_register", "io_uring_enter"])
def test_refused_at_a_later_ring(data: Path, call: str, code: int) -> None:
    """The ring that there is goes on, as far as it can; later loops get POSIX AIO. (ENOMEM of
    io_uring_enter might pass: it is told after a second.)"""
    count("io_uring")
    count("posix_aio")
    here = str(Path(__file__).parent)
    printed = check(REFUSED_LATER, here, call, str(code), str(data), URINGFILE_ENGINE="")
    engines = json.loads(printed)
    assert engines == ["posix_aio", code if call == "io_uring_enter" else "io_uring", "posix_aio"]


# ---- locked memory ---


def without_capabilities(limit: int) -> list[str]:
    """The command that runs another as if it were unprivileged, with so much locked memory."""
    tool("prlimit")
    command = ["prlimit", f"--memlock={limit}:{limit}"]
    if os.getuid() == 0:
        tool("setpriv")
        command = ["setpriv", "--bounding-set=-sys_admin,-ipc_lock", *command]
    return command


MANY = """
import asyncio, collections, json, os, sys, uringfile
path, n = sys.argv[1], int(sys.argv[2])

async def work(ready, go):
    info = uringfile.engine_info()
    async with uringfile.AIOFile(path, "rb") as f:
        f._inline = False
        os.write(ready, b".")
        os.read(go, 1)  # all have their rings now
        blocks = await asyncio.gather(*[f.read(8, 8 * i) for i in range(200)])
        assert [int.from_bytes(b, "big") for b in blocks] == list(range(0, 1600, 8))
    return f"{info.engine} {info.entries if info.engine == 'io_uring' else ''}".strip()

ready, go, told = os.pipe(), os.pipe(), os.pipe()
children = []
for _ in range(n):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(go[1])
            os.write(told[1], asyncio.run(work(ready[1], go[0])).encode() + b"\\n")
            status = 0
        finally:
            os._exit(status)
    children.append(pid)
for _ in range(n):
    os.read(ready[0], 1)
os.write(go[1], b"." * n)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * n
os.close(told[1])
print(json.dumps(collections.Counter(os.fdopen(told[0]).read().split("\\n")[:-1])))
"""


@pytest.mark.parametrize("limit", [0, 64 << 10, 8 << 20])
def test_ninety_processes_of_one_user(data: Path, limit: int) -> None:
    """Locked memory is counted for the user: what does not fit gets a smaller ring or none."""
    count("io_uring")
    command = [*without_capabilities(limit), sys.executable, "-c", MANY, str(data), "90"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "URINGFILE_ENGINE": ""},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found.values()) == 90
    if limit == 0:
        assert set(found) <= {"posix_aio", "io_uring 64"}  # not all kernels count rings
    if limit == 8 << 20:
        assert any(name.startswith("io_uring") for name in found)
    for name in found:
        assert name == "posix_aio" or 0 < int(name.split()[1]) <= 64
