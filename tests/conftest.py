"""Engines to test on, file systems to test on, and the report of what ran where."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from native_build import build, why_no_build
from rigs import faulty, mounted_faulty, small_mount, summary  # noqa: F401  (fixtures)

from uringfile import _loop, pending_operations, stats
from uringfile._engine import ENGINE_NAMES
from uringfile._native_engine import NativeEngine, closing

with contextlib.suppress(ImportError):  # a choice of the tests runs without it
    from hypothesis import HealthCheck, settings

    # The machine may have much else to do, and PyPy compiles.
    settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("slow")

T = TypeVar("T")

#: For ``-W``: google-crc32c has no compiled wheel for each interpreter, and says so.
SLOW_CRC = "ignore:As the c extension:RuntimeWarning"

#: Whether what nobody refers to any more is gone at once.
COUNTS_REFERENCES = sys.implementation.name == "cpython"

#: The loops that the tests run in: ``asyncio``, or ``uvloop``. What a test makes in an
#: interpreter of its own, or for its own ends, is asyncio's.
LOOP = os.environ.get("URINGFILE_TEST_LOOP") or "asyncio"


def new_loop() -> asyncio.AbstractEventLoop:
    if LOOP == "asyncio":
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = importlib.import_module(LOOP).new_event_loop()
    return loop


if LOOP != "asyncio":  # needs pytest-asyncio 1.4

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        return {LOOP: new_loop}


_ran: Counter[str] = Counter()


def why_missing(name: str) -> str | None:
    """Why an engine does not start here, or None when it does."""
    try:
        NativeEngine(name).destroy()
    except OSError as refusal:
        return f"{name} does not start here: {refusal}"
    return None


MISSING = {name: why_missing(name) for name in ENGINE_NAMES}

#: For how long the kernel's thread looks for work in tests of SQPOLL: short enough that it also
#: falls asleep in them.
SQPOLL_MS = 2


def sqpoll_engine() -> NativeEngine:
    """io_uring with SQPOLL; where it is not to be had, a named skip."""
    count("io_uring")
    engine = NativeEngine("io_uring", sqpoll_ms=SQPOLL_MS)
    if "sqpoll" not in engine.describe(None).features:
        engine.destroy()
        pytest.skip("the kernel refuses SQPOLL (needs Linux 5.11, for the unprivileged 5.13)")
    return engine


@pytest.fixture(params=ENGINE_NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn; one that is missing is a named skip."""
    count(request.param)
    return str(request.param)


def count(name: str) -> None:
    """The running test needs that engine: skip it by name, or count it."""
    reason = MISSING.get(name)
    if reason is not None:
        pytest.skip(reason)
    _ran[name] += 1


def pytest_configure() -> None:
    """What a shell starts in the background, in a script, ignores SIGINT, and so would each
    program that a test interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def what_is_there_already() -> None:
    """What pytest has collected, imported and reported stays: no gc.collect() of a module's tests
    need look at what was there before them."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not on PyPy
        gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in ENGINE_NAMES:
        terminalreporter.write_line(f"{name}: {MISSING[name] or f'{_ran[name]} tests'}")
    for line in summary():
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With URINGFILE_REQUIRE_IO_URING=1 a run without io_uring is a failure."""
    if os.environ.get("URINGFILE_REQUIRE_IO_URING") == "1" and MISSING["io_uring"]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def fault_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C library with the fault hook, compiled once; without a compiler a named skip."""
    if (reason := why_no_build()) is not None:
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of 1 MiB in which each block of eight bytes tells its own offset."""
    path = tmp_path / "data"
    path.write_bytes(b"".join(i.to_bytes(8, "big") for i in range(0, 1 << 20, 8)))
    return path


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe; its ends are closed afterwards if they are still open."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def needs_inline_reads(fd: int) -> None:
    """Skip the test where preadv2(RWF_NOWAIT) is refused: overlayfs, tmpfs; or this Python, made
    for an older musl, does not have it."""
    if not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("this Python has no os.RWF_NOWAIT")
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        pass
    except OSError as error:
        pytest.skip(f"this file system cannot tell what is cached: {error}")


def resident_pages(fd: int) -> list[bool]:
    """Which pages of the file the page cache has: mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as pages:
        resident = (ctypes.c_ubyte * -(-len(pages) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(pages)
        ret = libc.mincore(ctypes.byref(start), ctypes.c_size_t(len(pages)), resident)
        del start
    assert ret == 0, os.strerror(ctypes.get_errno())
    return [bool(page & 1) for page in resident]


def make_cold(fd: int) -> None:
    """Drop the file from the page cache, and see with mincore(2) that it is gone."""
    needs_inline_reads(fd)
    for _ in range(100):
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if not any(resident_pages(fd)):
            return
        time.sleep(0.01)
    pytest.skip("the page cache does not let go of the file here")


def need_direct(directory: Path) -> None:
    """A named skip where the file system has no O_DIRECT."""
    try:
        os.close(os.open(directory / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"this file system has no O_DIRECT: {error}")
    finally:
        (directory / "probe").unlink(missing_ok=True)


def collect() -> None:
    """Collect all garbage. Without reference counts (PyPy) what only a finalizer lets go of
    is left for the next time."""
    for _ in range(1 if COUNTS_REFERENCES else 4):
        gc.collect()


@contextlib.contextmanager
def leaves_unclosed(match: str) -> Iterator[None]:
    """What is let go of in the block warns that it was never closed."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.warns(ResourceWarning, match=match))
        stack.callback(collect)
        yield


def nothing_is_closing() -> None:
    """What nobody waits for may be closed by a thread (close_unasked)."""
    deadline = time.monotonic() + 10
    while closing():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def open_fds() -> set[str]:
    collect()
    if not COUNTS_REFERENCES:
        _loop._free_closed_loops()  # as whoever opens the next engine does
    nothing_is_closing()
    return {
        f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}"
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    }


def watched_threads(monkeypatch: pytest.MonkeyPatch, *names: str) -> set[int]:
    """The threads in which functions of ``os`` are called from now on."""
    threads: set[int] = set()

    def watched(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            threads.add(threading.get_ident())
            return function(*args, **options)

        return call

    for name in names:
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    return threads


def run_python(
    code: str, *args: str, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, for tests that may crash or hang it."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):  # it has its one allocator
        environment.pop("PYTHONMALLOC", None)
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )


def run(main: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None) -> T:
    """asyncio.run() that leaves the current event loop of the thread alone."""
    loop = loop or new_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_end(loop))
        loop.close()


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    pending = asyncio.all_tasks() - {asyncio.current_task()}
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


@contextlib.asynccontextmanager
async def counted_turns() -> AsyncIterator[Callable[[], int]]:
    """Tells how many turns another task of the loop has had meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(count())
    try:
        yield lambda: turns
    finally:
        task.cancel()


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for what goes on in the background."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "it never became true"
        await asyncio.sleep(0.002)


async def nothing_in_flight(engine: Any = None) -> None:
    """Until all that was submitted has completed: what still runs at the end of the loop a
    ``ResourceWarning`` tells of."""
    deadline = time.monotonic() + 10
    while stats(engine).in_flight:
        assert time.monotonic() < deadline, pending_operations(engine)
        await asyncio.sleep(0.001)


def check(code: str, *args: str, timeout: float = 60, **environment: str) -> str:
    done = run_python(code, *args, timeout=timeout, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
