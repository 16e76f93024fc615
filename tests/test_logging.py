"""The logging handlers take the place of the standard ones: same arguments, same bytes."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.config
import logging.handlers
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import check

from uringfile.logging import FileHandler, RotatingFileHandler


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of the test's own; its handlers are closed afterwards."""
    logger = logging.Logger("test")
    yield logger
    for handler in logger.handlers:
        handler.close()
    wait_until(lambda: not writers())


class Errors:
    """Records given to ``handleError``, in which thread, and what was the exception."""

    def __init__(self, handler: logging.Handler) -> None:
        self.records: list[logging.LogRecord] = []
        self.exceptions: list[BaseException | None] = []
        self.threads: list[int] = []
        handler.handleError = self._add  # type: ignore[method-assign]

    def _add(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.exceptions.append(sys.exc_info()[1])
        self.threads.append(threading.get_ident())


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "uringfile-logging"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# The place of the standard handlers


@pytest.mark.parametrize("name", ["FileHandler", "RotatingFileHandler"])
def test_dict_config(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log"
    arguments: dict[str, Any] = {"filename": str(path), "encoding": "utf-8"}
    if name == "RotatingFileHandler":
        arguments |= {"maxBytes": 100, "backupCount": 2}
    configuration = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
        "handlers": {
            "file": {
                "class": f"uringfile.logging.{name}",
                "formatter": "short",
                "level": "INFO",
                "capacity": 1000,
                "overflow": "drop",
                **arguments,
            }
        },
        "loggers": {"test.dict_config": {"level": "DEBUG", "handlers": ["file"]}},
    }
    logging.config.dictConfig(configuration)
    logger = logging.getLogger("test.dict_config")
    logger.debug("not this")
    logger.info("grüße")
    (handler,) = logger.handlers
    assert type(handler) is {c.__name__: c for c in (FileHandler, RotatingFileHandler)}[name]
    assert isinstance(handler, logging.FileHandler)
    assert handler.baseFilename == str(path)
    assert repr(handler) == f"<{name} {path} (INFO)>"
    logging.config.dictConfig({"version": 1})  # closes all handlers
    assert path.read_text("utf-8") == "INFO grüße\n"
    logger.removeHandler(handler)


ENCODINGS = [
    ("utf-8", None),
    ("utf-8-sig", None),
    ("utf-16", None),
    ("utf-16-be", None),
    ("utf-32", None),
    ("ascii", "backslashreplace"),
    ("latin-1", "replace"),
    ("cp037", "xmlcharrefreplace"),
    ("iso2022_jp", "ignore"),
    (None, None),
]


@pytest.mark.parametrize(("encoding", "errors"), ENCODINGS)
@pytest.mark.parametrize("before", ["", "before\n"])
@pytest.mark.parametrize("delay", [False, True])
def test_the_same_bytes(
    tmp_path: Path, encoding: str | None, errors: str | None, before: str, delay: bool
) -> None:
    def log_to(handler: logging.Handler) -> None:
        handler.terminator = "|\n"  # type: ignore[attr-defined]
        handler.setFormatter(logging.Formatter("%(levelname)s:%(message)s"))
        logger = logging.Logger("test")
        logger.addHandler(handler)
        for i, text in enumerate(["ascii", "é", "日本", "", "last é\nline"]):
            logger.info("%d %s", i, text)
            if i % 2:
                handler.flush()
        try:
            raise ValueError("oops")
        except ValueError:
            logger.exception("failed")
        handler.close()

    paths = [tmp_path / "theirs", tmp_path / "ours"]
    for path, make in zip(paths, [logging.FileHandler, FileHandler], strict=True):
        if before:
            path.write_text(before, encoding)
        log_to(make(path, encoding=encoding, errors=errors, delay=delay))
    theirs, ours = (path.read_bytes() for path in paths)
    assert ours == theirs
    assert len(ours) > 100


def test_modes(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    with pytest.raises(FileExistsError):
        FileHandler(path, "x")
    for mode, expected in [("a", "before\na\n"), ("w", "w\n"), ("a+", "w\na+\n")]:
        handler = FileHandler(path, mode)
        logger.addHandler(handler)
        logger.info(mode)
        logger.removeHandler(handler)
        handler.close()
        assert path.read_text() == expected


@pytest.mark.parametrize(
    "options",
    [{"capacity": 0}, {"overflow": "wait"}, {"sync": "sometimes"}],
)
def test_misuse(tmp_path: Path, options: dict[str, Any]) -> None:
    for make in (FileHandler, RotatingFileHandler):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(tmp_path / "log", **options)
    assert not (tmp_path / "log").exists()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileHandler(tmp_path / "missing" / "log")


def test_delay(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "new" / "log"
    handler = FileHandler(path, delay=True)
    logger.addHandler(handler)
    errors = Errors(handler)
    assert handler.stream is None
    logger.info("one")
    with pytest.raises(FileNotFoundError):
        handler.flush()
    path.parent.mkdir()
    logger.info("two")
    handler.flush()
    assert path.read_text() == "one\ntwo\n"
    assert len(errors.records) == 1


# What is rendered in the caller's thread


def test_arguments_are_rendered_when_the_record_is_emitted(
    tmp_path: Path, logger: logging.Logger
) -> None:
    handler = FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    changing = [1]
    with handler._backlog.lock:  # nothing is written meanwhile
        logger.info("%s", changing)
        changing.append(2)
        logger.info("%s", changing)
    handler.flush()
    assert (tmp_path / "log").read_text() == "[1]\n[1, 2]\n"


@pytest.mark.parametrize("delay", [False, True])
def test_what_cannot_be_formatted_or_encoded_goes_to_handle_error(
    tmp_path: Path, logger: logging.Logger, delay: bool
) -> None:
    handler = FileHandler(tmp_path / "log", encoding="ascii", delay=delay)
    errors = Errors(handler)
    logger.addHandler(handler)
    logger.info("good")
    logger.info("%d", "no number")
    logger.info("nöt ascii")
    logger.info("good again")
    handler.flush()
    assert (tmp_path / "log").read_text() == "good\ngood again\n"
    assert [record.msg for record in errors.records] == ["%d", "nöt ascii"]
    assert [type(error) for error in errors.exceptions] == [TypeError, UnicodeEncodeError]
    assert set(errors.threads) == {threading.get_ident()}
    assert handler.dropped == 0


def test_filters(tmp_path: Path, logger: logging.Logger) -> None:
    def hide(record: logging.LogRecord) -> Any:
        if "secret" not in record.getMessage():
            return True
        if sys.version_info < (3, 12):
            return False
        return logging.makeLogRecord({"msg": "hidden"})

    handler = FileHandler(tmp_path / "log")
    handler.addFilter(hide)
    logger.addHandler(handler)
    logger.info("open")
    logger.info("secret")
    handler.flush()
    expected = "open\nhidden\n" if sys.version_info >= (3, 12) else "open\n"
    assert (tmp_path / "log").read_text() == expected


# Order, flush, close


def test_order_under_many_threads(tmp_path: Path, logger: logging.Logger) -> None:
    threads, each = 16, 3000
    handler = FileHandler(tmp_path / "log", capacity=5000)
    logger.addHandler(handler)
    start = threading.Barrier(threads)

    def log(me: int) -> None:
        start.wait()
        for i in range(each):
            logger.info("%d %d %s", me, i, "x" * (i % 50))

    callers = [threading.Thread(target=log, args=(me,)) for me in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    handler.flush()
    seen: dict[int, int] = dict.fromkeys(range(threads), 0)
    for line in (tmp_path / "log").read_text().splitlines():
        me, i, xs = line.split(" ")
        assert seen[int(me)] == int(i)
        assert xs == "x" * (int(i) % 50)
        seen[int(me)] += 1
    assert set(seen.values()) == {each}


def test_flush_before_in_and_after_loops(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "log"
    handler = FileHandler(path)
    logger.addHandler(handler)

    async def task(i: int) -> None:
        logger.info("task %d", i)
        await asyncio.sleep(0)
        logger.info("task %d", i)

    async def main() -> None:
        await asyncio.gather(*[task(i) for i in range(10)])
        handler.flush()
        assert len(path.read_text().splitlines()) % 21 == 0

    for i in range(2):
        logger.info("outside")
        handler.flush()
        assert path.read_text().endswith("outside\n")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        assert len(path.read_text().splitlines()) == (i + 1) * 21


def test_lines_are_written_without_a_flush(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "log"
    handler = FileHandler(path)
    logger.addHandler(handler)
    for i in range(3):
        logger.info("%d", i)
        wait_until(lambda: path.read_text().count("\n") == i + 1)  # noqa: B023
        wait_until(lambda: handler._backlog.asleep)  # an idle thread sleeps
        time.sleep(0.02)


def test_emit_does_not_wait_for_who_writes(tmp_path: Path, logger: logging.Logger) -> None:
    handler = FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    held, done = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with handler._backlog.lock:
            held.set()
            assert done.wait(20)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    held.wait()
    for i in range(1000):
        logger.info("%d", i)
    assert (tmp_path / "log").read_text() == ""
    done.set()
    thread.join()
    handler.flush()
    assert (tmp_path / "log").read_text() == "".join(f"{i}\n" for i in range(1000))


@pytest.mark.parametrize("pause", [0, 0.02, 0.2])
def test_close_writes_and_ends_the_thread(
    tmp_path: Path, logger: logging.Logger, pause: float
) -> None:
    path = tmp_path / "log"
    handler = FileHandler(path)
    stream = handler.stream
    logger.addHandler(handler)
    for _ in range(1000):
        logger.info("x")
    assert len(writers()) == 1
    time.sleep(pause)  # the thread is awake, or asleep
    handler.close()
    assert path.read_text() == "x\n" * 1000
    assert stream.closed
    assert handler.stream is None
    wait_until(lambda: not writers())
    handler.close()


@pytest.mark.parametrize("mode", ["a", "w"])
def test_after_close_records_are_written_at_once(
    tmp_path: Path, logger: logging.Logger, mode: str
) -> None:
    """As by the standard handler, which opens the file again, but not to empty it."""
    contents = []
    for make in (logging.FileHandler, FileHandler):
        path = tmp_path / make.__module__
        handler = make(path, mode)
        logger.addHandler(handler)
        logger.info("before")
        handler.close()
        wait_until(lambda: not writers())
        logger.info("after")
        contents.append(path.read_text())
        handler.close()
        logger.removeHandler(handler)
    assert contents[0] == contents[1] == ("before\nafter\n" if mode == "a" else "before\n")
    assert not writers()


def test_a_handler_that_nobody_holds_any_more(tmp_path: Path) -> None:
    code = """
import gc, logging, sys, threading, time
from uringfile.logging import FileHandler
for pause in (0, 0.3):  # its thread is awake, or asleep
    logger = logging.Logger("x")
    logger.addHandler(FileHandler(sys.argv[1]))
    time.sleep(pause)
    for i in range(1000):
        logger.info("%d", i)
    time.sleep(pause)
    del logger
    [gc.collect() for _ in range(4)]  # without reference counts one is not enough
deadline = time.monotonic() + 20
while threading.active_count() > 1:
    assert time.monotonic() < deadline
    time.sleep(0.01)
print(len(open(sys.argv[1]).readlines()), logging._handlerList[1:])
"""
    assert check(code, str(tmp_path / "log"), PYTHONWARNINGS="ignore") == "2000 []\n"


def test_a_signal_handler_may_log_and_flush_at_any_place(tmp_path: Path) -> None:
    code = """
import logging, signal, sys
from uringfile.logging import FileHandler
logger = logging.Logger("x")
logger.addHandler(FileHandler(sys.argv[1], capacity=100))
fired = 0
def on_alarm(*_):
    global fired
    fired += 1
    logger.info("alarm %d", fired)
    logger.handlers[0].flush()
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0003)
i = 0
while fired < 300:
    logger.info("line %d", i)
    i += 1
    if i % 7 == 0:
        logger.handlers[0].flush()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
logger.handlers[0].close()
lines = open(sys.argv[1]).read().split()
numbers = {"alarm": [], "line": []}
for kind, number in zip(lines[::2], lines[1::2]):
    numbers[kind].append(int(number))
assert numbers["line"] == list(range(i))
assert numbers["alarm"] == list(range(1, fired + 1))
"""
    check(code, str(tmp_path / "log"))


# Streams


def test_set_stream(tmp_path: Path, logger: logging.Logger) -> None:
    handler = FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    file, other = handler.stream, io.StringIO()
    logger.info("to the file")
    assert handler.setStream(other) is file  # type: ignore[arg-type]
    logger.info("to the other é")
    assert handler.setStream(file) is other  # type: ignore[comparison-overlap]
    logger.info("to the file again")
    handler.flush()
    assert other.getvalue() == "to the other é\n"
    assert (tmp_path / "log").read_text() == "to the file\nto the file again\n"


def test_a_stream_that_fails_loses_what_it_was_given(
    tmp_path: Path, logger: logging.Logger
) -> None:
    class Failing(io.StringIO):
        fails = True

        def write(self, text: str) -> int:
            if self.fails:
                raise OSError("broken")
            return super().write(text)

    handler = FileHandler(tmp_path / "log")
    errors = Errors(handler)
    logger.addHandler(handler)
    stream = Failing()
    file = handler.setStream(stream)  # type: ignore[arg-type]
    with handler._backlog.lock:  # or the thread is first to be told
        for _ in range(3):
            logger.info("lost")
        with pytest.raises(OSError, match="broken"):
            handler.flush()
    assert handler.dropped == 3
    stream.fails = False
    logger.info("kept")
    handler.flush()
    assert stream.getvalue() == "kept\n3 log records were not written\n"
    assert len(errors.records) == 1
    handler.setStream(file)  # type: ignore[arg-type]


def test_a_subclass_with_a_stream_of_its_own(tmp_path: Path, logger: logging.Logger) -> None:
    import gzip

    class Compressed(FileHandler):
        def _open(self) -> Any:
            return gzip.open(self.baseFilename, "at", encoding="utf-8")

    handler = Compressed(tmp_path / "log.gz")
    logger.addHandler(handler)
    for i in range(1000):
        logger.info("é %d", i)
    handler.close()
    with gzip.open(tmp_path / "log.gz", "rt", encoding="utf-8") as file:
        assert file.read() == "".join(f"é {i}\n" for i in range(1000))


def test_what_others_write_into_the_stream_is_not_in_the_way(
    tmp_path: Path, logger: logging.Logger
) -> None:
    handler = FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    logger.info("one")
    handler.flush()
    handler.stream.write("two\n")
    handler.flush()
    logger.info("three")
    handler.flush()
    assert handler.stream.tell() == os.path.getsize(tmp_path / "log")
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"


# watch, sync


def test_watch(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "log"
    handler = FileHandler(path, watch=True)
    logger.addHandler(handler)
    logger.info("one")
    handler.flush()
    path.rename(tmp_path / "moved")
    logger.info("two")
    handler.flush()
    path.unlink()
    logger.info("three")
    handler.flush()
    assert (tmp_path / "moved").read_text() == "one\n"
    assert path.read_text() == "three\n"


@pytest.mark.parametrize("sync", ["never", "always"])
def test_sync(
    tmp_path: Path, logger: logging.Logger, sync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    fdatasync = os.fdatasync

    def counted(fd: int) -> None:
        fdatasync(fd)
        sizes.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fdatasync", counted)
    handler = RotatingFileHandler(tmp_path / "log", maxBytes=10, backupCount=1, sync=sync)
    logger.addHandler(handler)
    logger.info("one")
    logger.info("two")
    logger.info("three")
    handler.flush()
    assert (sizes[:2], sizes[-1:]) == (([8, 6], [6]) if sync == "always" else ([], []))
