"""The logging handlers when the disk is slow, hung, full or failing."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import check, run_python
from test_logging import Errors, wait_until

from uringfile import _backlog, _linefile
from uringfile.logging import FileHandler, RotatingFileHandler


class HungDisk:
    """A FIFO that takes what fits into a pipe, and then nothing until somebody reads."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR)
        self._parts: list[bytes] = []
        self._reader: threading.Thread | None = None

    def fill(self, handler: FileHandler) -> None:
        """Have the handler's thread wait in a write."""
        handler.handle(logging.makeLogRecord({"msg": "#" * 100_000}))
        wait_until(lambda: handler._backlog.writing)

    def heal(self) -> None:
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def _read(self) -> None:
        while not self._parts or not self._parts[-1].endswith(b"\0"):
            self._parts.append(os.read(self._fd, 1 << 16))

    def text(self) -> str:
        """What was written, without what has filled the pipe."""
        self.heal()
        assert self._reader is not None
        if self._reader.is_alive():
            os.write(self._fd, b"\0")
        self._reader.join()
        os.close(self._fd)
        return b"".join(self._parts)[:-1].decode().lstrip("#")[1:]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[HungDisk]:
    disk = HungDisk(tmp_path / "fifo")
    yield disk
    disk.heal()  # or closing would wait for ever


def logger_of(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


# A backlog that is full


def test_drop(disk: HungDisk) -> None:
    handler = FileHandler(disk.path, capacity=10, overflow="drop")
    logger = logger_of(handler)
    disk.fill(handler)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    start = time.monotonic()
    for i in range(1000):
        logger.info("%d", i)
    assert time.monotonic() - start < 5
    assert handler.dropped == 991  # the line that fills the pipe waits, too
    disk.heal()
    handler.flush()
    logger.info("after")
    handler.close()
    kept = "".join(f"INFO {i}\n" for i in range(9))
    expected = f"{kept}WARNING 991 log records were not written\nINFO after\n"
    assert disk.text() == expected
    assert handler.dropped == 991


def test_the_note_when_the_formatter_wants_more_than_it_has(disk: HungDisk) -> None:
    handler = FileHandler(disk.path, capacity=2, overflow="drop")
    logger = logger_of(handler)
    disk.fill(handler)
    handler.setFormatter(logging.Formatter("%(request)s %(message)s"))
    for i in range(4):
        logger.info("%d", i, extra={"request": "GET"})
    disk.heal()
    handler.close()
    assert disk.text() == "GET 0\n3 log records were not written\n"


def test_raise(disk: HungDisk) -> None:
    handler = FileHandler(disk.path, capacity=10, overflow="raise")
    errors = Errors(handler)
    logger = logger_of(handler)
    disk.fill(handler)
    for i in range(9):
        logger.info("%d", i)
    for _ in range(3):
        with pytest.raises(queue.Full, match="10 log records wait"):
            logger.info("not this")
    disk.heal()
    handler.close()
    assert disk.text() == "".join(f"{i}\n" for i in range(9))
    assert (handler.dropped, errors.records) == (0, [])


def test_block(disk: HungDisk) -> None:
    threads, each = 4, 100
    handler = FileHandler(disk.path, capacity=10, overflow="block")
    logger = logger_of(handler)
    disk.fill(handler)

    def log(me: int) -> None:
        for i in range(each):
            logger.info("%d %d", me, i)

    callers = [threading.Thread(target=log, args=(me,)) for me in range(threads)]
    for caller in callers:
        caller.start()
    time.sleep(0.2)
    assert all(caller.is_alive() for caller in callers)
    assert len(handler._backlog.lines) == 10
    disk.heal()
    for caller in callers:
        caller.join()
    handler.close()
    lines = disk.text().splitlines()
    assert len(lines) == threads * each
    for me in range(threads):
        mine = [int(line.split()[1]) for line in lines if line.startswith(f"{me} ")]
        assert mine == list(range(each))
    assert handler.dropped == 0


def test_a_full_backlog_of_a_thread_that_holds_the_lock(tmp_path: Path) -> None:
    handler = FileHandler(tmp_path / "log", capacity=5)
    logger = logger_of(handler)
    handler.acquire()  # as logging.shutdown does
    for i in range(100):
        logger.info("%d", i)
    handler.release()
    handler.close()
    assert (tmp_path / "log").read_text() == "".join(f"{i}\n" for i in range(100))


def test_logging_while_writing(tmp_path: Path) -> None:
    """A rotator that logs to its own handler, more than there is room for."""
    handler = RotatingFileHandler(tmp_path / "log", maxBytes=40, backupCount=99, capacity=5)

    def rotate(old: str, new: str) -> None:
        os.rename(old, new)
        for _ in range(20 if new.endswith(".1") and not os.path.exists(old + ".2") else 0):
            logger.info("rotated")
            handler.flush()

    handler.rotator = rotate
    logger = logger_of(handler)
    for i in range(20):
        logger.info("line %d", i)
    handler.close()
    lines = "".join(path.read_text() for path in tmp_path.iterdir()).splitlines()
    assert sorted(line for line in lines if "line" in line) == sorted(
        f"line {i}" for i in range(20)
    )
    assert lines.count("rotated") == 20


@pytest.mark.parametrize("overflow", ["drop", "raise"])
def test_memory_is_bounded(disk: HungDisk, overflow: Any) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none
    handler = FileHandler(disk.path, capacity=200, overflow=overflow)
    logger = logger_of(handler)
    disk.fill(handler)
    text = "x" * 1000
    for _ in range(1000):
        try:
            logger.info(text)
        except queue.Full:
            assert overflow == "raise"
    tracemalloc.start()
    for _ in range(10_000):
        try:
            logger.info(text)
        except queue.Full:
            assert overflow == "raise"
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(handler._backlog.lines) == 200
    assert grown < 100_000
    disk.heal()
    handler.close()


def test_the_event_loop_goes_on_while_the_disk_hangs(disk: HungDisk) -> None:
    handler = FileHandler(disk.path)
    logger = logger_of(handler)
    disk.fill(handler)

    async def main() -> float:
        longest = 0.0
        for i in range(200):
            start = time.monotonic()
            for _ in range(20):
                logger.info("%d", i)
            longest = max(longest, time.monotonic() - start)
            await asyncio.sleep(0.001)
        return longest

    assert asyncio.run(main()) < 1
    disk.heal()
    handler.close()
    assert disk.text() == "".join(f"{i}\n" * 20 for i in range(200))


# Writing fails


def test_a_full_disk(tmp_path: Path) -> None:
    """Reported once, kept in order, dropped when there is no room, lost at the end."""
    handler = FileHandler("/dev/full", capacity=10)
    errors = Errors(handler)
    logger = logger_of(handler)
    logger.info("one")
    wait_until(lambda: bool(errors.records))
    (error,) = errors.exceptions
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert errors.records[0].getMessage() == "1 log records wait for /dev/full to be written"
    start = time.monotonic()
    for _ in range(100):
        logger.info("more")  # does not block, as nobody knows for how long
    assert time.monotonic() - start < 5
    assert handler.dropped == 91
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as full:
            handler.flush()
        assert full.value.filename == "/dev/full"
    assert len(errors.records) == 1
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        handler.close()
    assert handler.stream is None
    assert handler.dropped == 101
    assert len(errors.records) == 2
    assert "10 log records are lost" in errors.records[1].getMessage()
    logger.info("closed")
    assert handler.dropped == 102
    handler.close()


def test_the_standard_report(capfd: pytest.CaptureFixture[str]) -> None:
    handler = FileHandler("/dev/full")
    logger = logger_of(handler)
    logger.info("x")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        handler.flush()
    stderr, end = "", time.monotonic() + 20
    while "log records wait" not in stderr and time.monotonic() < end:
        time.sleep(0.001)  # it is the thread that reports
        stderr += capfd.readouterr().err
    logging.raiseExceptions = False
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            handler.close()
    finally:
        logging.raiseExceptions = True
    stderr += capfd.readouterr().err
    assert stderr.count("--- Logging error ---") == 1
    assert f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}" in stderr
    assert "log records wait for %s to be written" in stderr


def test_what_waits_is_written_when_there_is_space_again(tmp_path: Path) -> None:
    """A limit of the file's size cuts a line in two; it is continued where it was cut."""
    code = """
import logging, resource, sys
from uringfile.logging import FileHandler
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1003, hard))
logger = logging.Logger("x")
handler = FileHandler(sys.argv[1])
handler.setFormatter(logging.Formatter("%(message)-20s"))
logger.addHandler(handler)
for i in range(100):
    logger.info("%d", i)
try:
    handler.flush()
except OSError as error:
    print(error.strerror, len(open(sys.argv[1]).read()))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for i in range(100, 200):
    logger.info("%d", i)
handler.flush()
print(handler.dropped)
assert open(sys.argv[1]).read() == "".join(f"{i:<20}\\n" for i in range(200))
"""
    assert check(code, str(tmp_path / "log")) == "File too large 1003\n0\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("rotating", [False, True])
def test_short_writes_and_errors_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, rotating: bool
) -> None:
    """Each line is in the files once, whole and in order, whatever write(2) answers."""
    chance = random.Random(1)

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, fd: int, data: memoryview) -> int:
            if chance.random() < 0.3:
                raise OSError(chance.choice([errno.ENOSPC, errno.EIO]), "at random")
            return os.write(fd, data[: chance.randint(1, len(data))])

    monkeypatch.setattr(_linefile, "os", Os())
    monkeypatch.setattr(_backlog, "RETRY_SECONDS", 0.001)
    path = tmp_path / "log"
    handler: Any
    if rotating:
        handler = RotatingFileHandler(path, maxBytes=500, backupCount=999, encoding=encoding)
    else:
        handler = FileHandler(path, encoding=encoding)
    errors = Errors(handler)
    logger = logger_of(handler)
    for i in range(2000):
        logger.info("é%d", i)
        if i % 50 == 0:
            time.sleep(0.001)
    wait_until(lambda: not handler._backlog.lines)
    handler.close()
    names = sorted(tmp_path.iterdir(), key=lambda path: int(path.suffix[1:] or 0), reverse=True)
    text = "".join(path.read_text(encoding) for path in names)
    assert text == "".join(f"é{i}\n" for i in range(2000))
    assert len(names) > 20 or not rotating
    assert errors.records
    assert handler.dropped == 0


def test_no_thread_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    path = tmp_path / "log"
    handler = FileHandler(path)
    logger = logger_of(handler)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for i in range(10):
            logger.info("%d", i)
            assert path.read_text().endswith(f"{i}\n")
    logger.info("a thread again")
    assert any(thread.name == "uringfile-logging" for thread in threading.enumerate())
    handler.close()
    assert len(path.read_text().splitlines()) == 11


@pytest.mark.parametrize("pause", [0, 0.1])
def test_a_failing_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """The kernel reports it once, and then says success."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "at the disk")

    handler = RotatingFileHandler(tmp_path / "log", sync="always")
    errors = Errors(handler)
    logger = logger_of(handler)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        logger.info("one")
        time.sleep(pause)  # the handler's thread meets the error, or flush() does
        with pytest.raises(OSError, match="at the disk") as failed:
            handler.flush()
        assert failed.value.filename == str(tmp_path / "log")
        logger.info("two")
        with pytest.raises(OSError, match="at the disk"):
            handler.flush()
    logger.info("three")
    handler.doRollover()
    with pytest.raises(OSError, match="at the disk"):
        handler.close()
    assert [record.getMessage() for record in errors.records] == [f"cannot sync {tmp_path / 'log'}"]
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"
    assert handler.dropped == 0
    assert handler.stream is None


def test_a_handler_that_could_not_open_its_file(tmp_path: Path) -> None:
    """Its error keeps it alive to the end of the interpreter, and over a fork."""
    code = """
import os, sys
from uringfile.logging import FileHandler
try:
    FileHandler(sys.argv[1])
except FileNotFoundError as error:
    kept = error
if os.fork():
    os.wait()
"""
    done = run_python(code, str(tmp_path / "missing" / "log"))
    assert (done.returncode, done.stderr) == (0, "")
