"""The logging handlers at the end of the interpreter, after fork, in worker processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import COUNTS_REFERENCES, check, run_python

START = """
import atexit, logging, os, signal, sys, threading, time
from uringfile.logging import FileHandler, RotatingFileHandler
path = sys.argv[1]
logger = logging.getLogger("test")
logger.setLevel(logging.INFO)
def log(n, start=0):
    for i in range(start, start + n):
        logger.info("%d", i)
"""

NUMBERED = "".join(f"{i}\n" for i in range(1000))


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "sys.exit(0)",
        "threading.Thread(target=sys.exit).start()",
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), 15)",
        "logging.shutdown()",
        "logging.shutdown(); logging.shutdown()",
        "logger.handlers[0].flush(); os._exit(0)",
        "logger.handlers.clear()",
    ],
)
def test_the_end_of_the_interpreter_loses_nothing(tmp_path: Path, end: str) -> None:
    path = tmp_path / "log"
    for make in ("FileHandler(path)", "RotatingFileHandler(path, maxBytes=10**6)"):
        path.unlink(missing_ok=True)
        check(f"{START}\nlogger.addHandler({make})\nlog(1000)\n{end}", str(path))
        assert path.read_text() == NUMBERED


def test_an_exception_ends_the_program(tmp_path: Path) -> None:
    path = tmp_path / "log"
    done = run_python(START + "logger.addHandler(FileHandler(path)); log(1000); 1 / 0", str(path))
    assert done.returncode == 1
    assert path.read_text() == NUMBERED


@pytest.mark.parametrize("mode", ["a", "w"])
def test_records_logged_at_exit(tmp_path: Path, mode: str) -> None:
    """By threads that outlive the main one, by atexit handlers that run before and after those
    of logging, and when modules are torn down."""
    code = (
        "import atexit\n"
        "atexit.register(lambda: log(100, 900))\n"
        + START
        + f"logger.addHandler(FileHandler(path, {mode!r}))\n"
        + """
atexit.register(lambda: log(100, 800))
def late():
    threading.main_thread().join()
    log(700, 100)
log(100)
threading.Thread(target=late).start()
class AtTearDown:
    def __del__(self, logger=logger):
        logger.info("1000")
import builtins
builtins.at_tear_down = AtTearDown()
"""
    )
    path = tmp_path / "log"
    done = run_python(code, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    # Once logging.shutdown has closed it, the mode "w" would empty the file. And PyPy tears
    # nothing down.
    last = 900 if mode == "w" else 1001 if COUNTS_REFERENCES else 1000
    assert path.read_text() == "".join(f"{i}\n" for i in range(last))


def test_the_thread_has_ended_before_the_interpreter_does(tmp_path: Path) -> None:
    """Stopped in the midst of a write it would keep the lock for ever, which what is logged when
    modules are torn down waits for."""
    code = """
import atexit, threading
atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))
"""
    code += START + "logger.addHandler(FileHandler(path)); log(1000)"
    assert check(code, str(tmp_path / "log")) == "['MainThread']\n"


def test_daemon_threads_log_while_the_interpreter_ends(tmp_path: Path) -> None:
    code = """
logger.addHandler(FileHandler(path))
def forever(me):
    i = 0
    while True:
        logger.info("%d %d", me, i)
        i += 1
for me in range(4):
    threading.Thread(target=forever, args=(me,), daemon=True).start()
time.sleep(0.2)
"""
    path = tmp_path / "log"
    check(START + code, str(path))
    seen = [0] * 4
    for line in path.read_text().splitlines():
        me, i = map(int, line.split())
        assert i == seen[me]
        seen[me] += 1
    assert sum(seen) > 0


def test_what_cannot_be_written_at_exit_is_reported() -> None:
    done = run_python(START + "logger.addHandler(FileHandler(path)); log(5)", "/dev/full")
    assert done.returncode == 0
    assert "5, '/dev/full'" in done.stderr
    assert "log records are lost that %s should have got" in done.stderr


def test_sigterm_by_default(tmp_path: Path) -> None:
    """The kernel ends the process: what had been logged a little earlier is there, and
    nothing is missing in the midst."""
    code = """
logger.addHandler(FileHandler(path))
log(1000)
time.sleep(0.5)
print("waited", flush=True)
log(10**9, 1000)
"""
    path = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", START + code, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.readline() == b"waited\n"
    time.sleep(0.1)
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    *lines, torn = path.read_text().split("\n")
    assert len(lines) >= 1000
    assert lines == [str(i) for i in range(len(lines))]
    assert str(len(lines)).startswith(torn)


@pytest.mark.parametrize("mode", ["a", "w"])
def test_fork_in_use(tmp_path: Path, mode: str) -> None:
    """Both sides go on; what waits at the time of a fork is written once, by the parent."""
    code = (
        START
        + f"logger.addHandler(FileHandler(path, {mode!r}))\n"
        + """
stop = threading.Event()
def busy(me):
    i = 0
    while not stop.is_set():
        logger.info("thread%d %d", me, i)
        i += 1
        if i % 100 == 0:
            time.sleep(0.001)
    counts[me] = i
counts = [0, 0]
threads = [threading.Thread(target=busy, args=(me,)) for me in range(2)]
for thread in threads:
    thread.start()
children = []
for child in range(20):
    logger.info("main %d", child)
    pid = os.fork()
    if pid == 0:
        for i in range(100):
            logger.info("child%d %d", child, i)
        if child % 2:
            logger.handlers[0].flush()
            os._exit(0)
        sys.exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
logger.handlers[0].close()
print(*counts)
"""
    )
    path = tmp_path / "log"
    counts = check(code, str(path), PYTHONWARNINGS="ignore").split()
    expected = {"thread0": int(counts[0]), "thread1": int(counts[1]), "main": 20}
    expected |= {f"child{child}": 100 for child in range(20)}
    seen = dict.fromkeys(expected, 0)
    for line in path.read_text().splitlines():
        who, i = line.split()
        assert int(i) == seen[who]
        seen[who] += 1
    assert seen == expected


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    """Its workers end with os._exit."""
    program = tmp_path / "program.py"
    program.write_text(
        START
        + """
import multiprocessing
handler = FileHandler(path)
logger.addHandler(handler)

def work(me):
    for i in range(100):
        logger.info("%d %d", me, i)

def work_until_the_end(me):
    from multiprocessing.util import Finalize
    Finalize(None, lambda: logger.info("%d 100", me), exitpriority=0)
    work(me)

if __name__ == "__main__":
    logger.info("parent 0")
    context = multiprocessing.get_context(sys.argv[2])
    with context.Pool(2) as pool:
        pool.map(work, range(10), chunksize=1)
        pool.close()
        pool.join()
    processes = [context.Process(target=work_until_the_end, args=(me,)) for me in range(10, 15)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    logger.info("parent 1")
"""
    )
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, path, method],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    seen: dict[str, int] = {}
    for line in path.read_text().splitlines():
        who, i = line.split()
        assert int(i) == seen.get(who, 0)
        seen[who] = int(i) + 1
    expected = {"parent": 2} | {str(me): 100 for me in range(10)}
    assert seen == expected | {str(me): 101 for me in range(10, 15)}
