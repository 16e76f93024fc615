"""RotatingFileHandler beside the standard one: same records, same files."""

from __future__ import annotations

import gzip
import logging
import logging.handlers
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uringfile.logging import RotatingFileHandler

EXAMPLES = int(os.environ.get("URINGFILE_EXAMPLES", "150"))


class Standard(logging.handlers.RotatingFileHandler):
    """The standard handler as it is from Python 3.12.4 on: an empty file is not rotated."""

    def shouldRollover(self, record: logging.LogRecord) -> int:
        empty = self.stream is not None and self.stream.tell() == 0
        if self.stream is None:
            path = self.baseFilename
            empty = not os.path.exists(path) or os.path.getsize(path) == 0
        return 0 if empty else super().shouldRollover(record)


messages = st.tuples(st.text(st.sampled_from("abé日😀\n"), max_size=3), st.integers(0, 40))
steps = st.lists(
    st.one_of(messages, messages, messages, st.sampled_from(["flush", "roll", "close", "open"])),
    max_size=60,
)


def log_to(make: type, path: Path, arguments: dict[str, Any], terminator: str, steps: Any) -> None:
    logger = logging.Logger("test")

    def open_handler() -> Any:
        handler = make(path, **arguments)
        handler.terminator = terminator
        logger.handlers[:] = [handler]
        return handler

    handler = open_handler()
    for step in steps:
        if step == "flush":
            handler.flush()
        elif step == "roll":
            handler.doRollover()
        elif step == "close":
            # In the mode "w" the standard one opens the file anew then, and empties it.
            if arguments["mode"] == "a":
                handler.close()
        elif step == "open":
            handler.close()
            handler = open_handler()
        else:
            start, length = step
            logger.info("%s%s", start, "x" * length)
    handler.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=steps,
    max_bytes=st.integers(0, 200),
    backups=st.integers(0, 3),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1", "shift_jis"]),
    errors=st.sampled_from(["replace", "backslashreplace", "ignore", "xmlcharrefreplace"]),
    mode=st.sampled_from(["a", "w"]),
    delay=st.booleans(),
    terminator=st.sampled_from(["\n", "", "\r\n"]),
)
def test_the_same_files(
    tmp_path_factory: pytest.TempPathFactory,
    steps: Any,
    max_bytes: int,
    backups: int,
    encoding: str,
    errors: str | None,
    mode: str,
    delay: bool,
    terminator: str,
) -> None:
    arguments = {
        "mode": mode,
        "maxBytes": max_bytes,
        "backupCount": backups,
        "encoding": encoding,
        "errors": errors,
        "delay": delay,
    }
    directory = tmp_path_factory.mktemp("rotation")
    contents = []
    for make in (Standard, RotatingFileHandler):
        folder = directory / make.__name__
        folder.mkdir()
        log_to(make, folder / "log", arguments, terminator, steps)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    shutil.rmtree(directory)
    assert contents[1] == contents[0]


def make_logger(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


def test_namer_and_rotator(tmp_path: Path) -> None:
    def rotate(source: str, destination: str) -> None:
        with open(source, "rb") as old, gzip.open(destination, "wb") as new:
            shutil.copyfileobj(old, new)
        os.remove(source)

    contents = []
    for make in (Standard, RotatingFileHandler):
        folder = tmp_path / make.__name__
        folder.mkdir()
        handler: Any = make(folder / "log", maxBytes=300, backupCount=3)
        handler.namer = lambda name: name + ".gz"
        handler.rotator = rotate
        logger = make_logger(handler)
        for i in range(200):
            logger.info("line %d", i)
        handler.close()
        texts = {}
        for path in folder.iterdir():
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                texts[path.name] = file.read()
        contents.append(texts)
    assert sorted(contents[0]) == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    assert contents[1] == contents[0]


@pytest.mark.parametrize("delay", [False, True])
def test_a_subclass_decides_itself(tmp_path: Path, delay: bool) -> None:
    def subclass_of(base: Any) -> Any:
        class Mine(base):
            def shouldRollover(self, record: logging.LogRecord) -> bool:
                return record.getMessage() == "new" or super().shouldRollover(record)

        return Mine

    contents = []
    for base in (Standard, RotatingFileHandler):
        folder = tmp_path / base.__name__
        folder.mkdir()
        path = folder / "log"
        handler = subclass_of(base)(path, maxBytes=60, backupCount=9, delay=delay)
        logger = make_logger(handler)
        for i in range(30):
            logger.info("new" if i % 7 == 3 else "line %d", *([] if i % 7 == 3 else [i]))
        handler.close()
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[1] == contents[0]
    assert len(contents[0]) > 4


def test_a_subclass_that_fails_to_decide(tmp_path: Path) -> None:
    class Failing(RotatingFileHandler):
        def shouldRollover(self, record: logging.LogRecord) -> int:
            if record.getMessage() == "3":
                raise ValueError
            return 0

    handler = Failing(tmp_path / "log")
    reported: list[logging.LogRecord] = []
    handler.handleError = reported.append  # type: ignore[method-assign]
    logger = make_logger(handler)
    for i in range(10):
        logger.info("%d", i)
    handler.close()
    assert (tmp_path / "log").read_text() == "".join(f"{i}\n" for i in range(10))
    assert len(reported) == 1


def test_rotation_happens_behind_the_callers_backs(tmp_path: Path) -> None:
    threads: set[int] = set()
    handler = RotatingFileHandler(tmp_path / "log", maxBytes=1000, backupCount=500)
    handler.rotator = lambda old, new: (threads.add(threading.get_ident()), os.rename(old, new))

    def log(me: int) -> None:
        for i in range(500):
            logger.info("%d %d", me, i)

    logger = make_logger(handler)
    callers = [threading.Thread(target=log, args=(me,)) for me in range(8)]
    with handler._backlog.lock:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert [path.name for path in tmp_path.iterdir()] == ["log"]
    handler.close()
    paths = sorted(tmp_path.iterdir(), key=lambda path: int(path.suffix[1:] or 0), reverse=True)
    assert all(path.stat().st_size < 1000 for path in paths)
    lines = "".join(path.read_text() for path in paths).splitlines()
    for me in range(8):
        mine = [int(line.split()[1]) for line in lines if line.startswith(f"{me} ")]
        assert mine == list(range(500))


def test_a_rollover_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported, and the lines go to the file that is there; later it is tried again."""
    reported: list[str] = []
    handler = RotatingFileHandler(tmp_path / "log", maxBytes=50, backupCount=2)
    handler.handleError = lambda record: reported.append(record.getMessage())  # type: ignore[method-assign]
    logger = make_logger(handler)

    def refuse(old: str, new: str) -> None:
        raise PermissionError("no")

    handler.rotator = refuse
    for i in range(100):
        logger.info("%d", i)
    handler.flush()
    assert reported == [f"cannot rotate {tmp_path / 'log'}"]
    assert (tmp_path / "log").read_text() == "".join(f"{i}\n" for i in range(100))
    handler.rotator = None
    monkeypatch.setattr(handler, "_no_rollover_before", 0)
    logger.info("new")
    handler.close()
    assert (tmp_path / "log").read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "".join(f"{i}\n" for i in range(100))
    assert handler.dropped == 0


def test_what_is_no_regular_file_is_not_rotated(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDWR)
    handler = RotatingFileHandler(tmp_path / "log", maxBytes=10, backupCount=1)
    logger = make_logger(handler)
    for i in range(100):
        logger.info("%d", i)
    handler.close()
    assert handler.dropped == 0
    assert os.listdir(tmp_path) == ["log"]
    assert os.read(reader, 1 << 16) == b"".join(b"%d\n" % i for i in range(100))
    os.close(reader)


def test_what_has_taken_the_place_of_the_file_is_not_rotated(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = RotatingFileHandler(path, maxBytes=100, backupCount=1, watch=False)
    logger = make_logger(handler)
    logger.info("x" * 90)
    handler.flush()
    path.rename(tmp_path / "before")
    os.mkfifo(path)
    logger.info("y" * 90)
    handler.close()
    assert {*os.listdir(tmp_path)} == {"log", "before"}
    assert (tmp_path / "before").read_text() == "x" * 90 + "\n" + "y" * 90 + "\n"
    assert path.is_fifo()


def test_should_rollover_counts_what_waits(tmp_path: Path) -> None:
    handler = RotatingFileHandler(tmp_path / "log", maxBytes=100, backupCount=1)
    logger = make_logger(handler)
    record = logging.makeLogRecord({"msg": "x" * 50, "levelno": logging.INFO})
    assert not handler.shouldRollover(record)
    logger.handle(record)
    assert handler.shouldRollover(record)
    handler.close()
