"""examples/log_shipper.py: every line arrives, through rotation, restarts and failures."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import run
from example_programs import command, load, run_command

from uringfile import LogWriter


class Sink:
    """An HTTP server that remembers the lines of each log; it answers with ``statuses`` first."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        self.statuses: list[int] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                status = sink.statuses.pop(0) if sink.statuses else 204
                if status < 300:
                    name = os.path.basename(unquote(self.headers["X-Log"]))
                    sink.lines[name] += data.splitlines()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/logs?a=b"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def sink(engine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    sink = Sink()
    yield sink
    sink.close()


@contextmanager
def shipping(sink: Sink, *logs: Path, stop: int = signal.SIGTERM) -> Iterator[Path]:
    """The shipper runs; what it writes to standard error is in the file that this gives."""
    state = logs[0].parent / "state"
    told = logs[0].parent / "told"
    args = ["--to", sink.url, "--state", state, "--save-interval", 0.02, *logs]
    with told.open("ab") as stderr:
        child = subprocess.Popen(command("log_shipper", *args), stderr=stderr)
    try:
        yield told
    finally:
        child.send_signal(stop)
        assert child.wait(30) == (0 if stop == signal.SIGTERM else -stop), told.read_text()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def append(log: Path, *numbers: int) -> None:
    with log.open("ab") as file:
        file.writelines(b"line %d\n" % i for i in numbers)


def lines(numbers: range) -> list[bytes]:
    return [b"line %d" % i for i in numbers]


def test_rotation_and_restarts(sink: Sink, tmp_path: Path) -> None:
    """Of two logs, one of which is not there yet; stopped in order, nothing comes twice."""
    log, other = tmp_path / "app.log", tmp_path / "öther.log"
    append(log, *range(10))
    with shipping(sink, log, other) as told:
        until(lambda: sink.lines["app.log"] == lines(range(10)))
        append(other, *range(3))
        append(log, *range(10, 20))
        log.rename(tmp_path / "app.log.1")
        append(log, *range(20, 30))
        until(lambda: sink.lines["app.log"] == lines(range(30)))
        until(lambda: sink.lines["öther.log"] == lines(range(3)))
    append(log, *range(30, 35))
    (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
    (tmp_path / "app.log.2.gz").write_bytes(gzip.compress(b"line 0\n"))
    (tmp_path / "app.log-latest").symlink_to("none")
    log.rename(tmp_path / "app.log.1")
    append(log, *range(35, 40))
    log.rename(tmp_path / "app.log-20250101")
    append(log, *range(40, 45))
    with shipping(sink, log, other):
        until(lambda: sink.lines["app.log"] == lines(range(45)))
        append(other, 3)
        append(log, 45)
        until(lambda: len(sink.lines["app.log"]) == 46 and len(sink.lines["öther.log"]) == 4)
    assert sink.lines["app.log"] == lines(range(46))
    assert told.read_text() == ""


def test_rotated_by_a_log_writer_while_the_server_is_down(sink: Sink, tmp_path: Path) -> None:
    """Several times: files that come and go between two attempts are not missed."""
    log = tmp_path / "app.log"
    append(log, 0)

    async def write() -> None:
        async with LogWriter(log, rotate_size=200, sync="never") as writer:
            for i in range(1, 200):
                await writer.append(b"line %d\n" % i)

    with shipping(sink, log) as told:
        until(lambda: sink.lines["app.log"] == lines(range(1)))
        sink.statuses = [503, 429, 500]
        run(write())
        until(lambda: len(sink.lines["app.log"]) >= 200)
        assert len(list(tmp_path.glob("app.log.0*"))) > 5
    assert sink.lines["app.log"] == lines(range(200))
    assert "status 503; again in 0.2 s" in told.read_text()


def test_killed_at_any_moment(sink: Sink, tmp_path: Path) -> None:
    """While lines are written, and the log is rotated: each arrives, the first time in order."""
    rng = random.Random()
    log = tmp_path / "app.log"
    append(log, 0)
    count = 1
    for attempt in range(int(os.environ.get("URINGFILE_KILLS", "2"))):
        with shipping(sink, log, stop=signal.SIGKILL):
            until((tmp_path / "state").exists)  # it knows of the log
            end = time.monotonic() + 0.3 + rng.random() * 0.3
            while time.monotonic() < end:
                append(log, *range(count, count + 20))
                count += 20
                if rng.random() < 0.1:
                    log.rename(tmp_path / f"app.log.{attempt}-{count}")
                time.sleep(0.005)
    append(log, count)
    with shipping(sink, log):
        until(lambda: b"line %d" % count in sink.lines["app.log"])
    assert list(dict.fromkeys(sink.lines["app.log"])) == lines(range(count + 1))


def test_a_server_that_refuses(sink: Sink, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, 1, 2)
    sink.statuses = [400]
    state = tmp_path / "state"
    done = run_command("log_shipper", "--to", sink.url, "--state", state, log)
    assert done.returncode == 1
    assert "refuses lines of" in done.stderr
    assert "status 400" in done.stderr
    assert json.loads(state.read_text())[str(log)]["offset"] == 0


def test_a_url_that_is_none() -> None:
    with pytest.raises(ValueError, match="is no URL such as"):
        load("log_shipper").Sink("ftp://x", 1)


def test_copytruncate_and_what_is_gone(sink: Sink, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, *range(10))
    with shipping(sink, log):
        until(lambda: len(sink.lines["app.log"]) == 10)
        os.truncate(log, 0)
        append(log, 10)
        until(lambda: len(sink.lines["app.log"]) == 11)
    place = json.loads((tmp_path / "state").read_text())[str(log)]
    assert (place["offset"], place["inode"]) == (8, log.stat().st_ino)
    # The inode is used anew for a file that is longer: its beginning tells.
    log.write_bytes(b"other lines\nline 11\n")
    with shipping(sink, log) as told:
        until(lambda: len(sink.lines["app.log"]) == 13)
    assert sink.lines["app.log"][11:] == [b"other lines", b"line 11"]
    assert "is gone" in told.read_text()
