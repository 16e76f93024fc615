"""``python -m uringfile bench`` as its users run it, on whatever engine serves."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import run_python

from uringfile.__main__ import main

BENCH = (sys.executable, "-W", "error::ResourceWarning", "-m", "uringfile", "bench")
SHORT = ("--rounds", "2", "--seconds", "0.005", "--size", "1")


def bench(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*BENCH, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == status, done.stderr + done.stdout
    return done


# Without the gigabytes that the workload of the ticker reads.
FEWER_READS = """
import sys
from uringfile._bench.workloads import ticker
from uringfile.__main__ import main
ticker.READS = 1
sys.exit(main(sys.argv[1:]))
"""


def test_all_workloads_are_measured_and_explained(engine: str, tmp_path: Path) -> None:
    options = ("--rounds", "1", "--seconds", "0.005", "--size", "2")
    done = run_python(FEWER_READS, "bench", *options, "--dir", str(tmp_path), "--engine", engine)
    assert done.returncode == 0, done.stderr + done.stdout
    names = {line.split()[0] for line in bench("--list").stdout.splitlines()}
    assert {"read-4k-cached-1", "write-4k-fdatasync-64", "ticker-delay"} <= names
    assert {line.split(":")[0].split(" ")[0] for line in done.stdout.splitlines()[1:-2]} == names
    meaning = done.stdout.splitlines()[-1]
    assert meaning.startswith(
        "uringfile runs on " + {"io_uring": "io_uring.", "posix_aio": "POSIX AIO"}[engine]
    )
    assert "than a thread pool in" in meaning
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_json_has_the_rates_the_cost_and_the_ratios(tmp_path: Path) -> None:
    out = bench(*SHORT, "--dir", tmp_path, "--workloads", "read-4k-cached-*", "--json").stdout
    report = json.loads(out)
    assert report["not_measured"] == []
    first = report["results"][0]
    assert (first["workload"], first["contender"]) == ("read-4k-cached-1", "uringfile")
    assert first["rate"]["low"] <= first["rate"]["median"] <= first["rate"]["high"]
    assert 0 < first["cpu_seconds_per_operation"]["median"] < 0.01
    contenders = [
        one["contender"] for one in report["results"] if one["workload"] == first["workload"]
    ]
    assert contenders == ["uringfile", "executor", "sync"]
    by_round = first["times_as_fast"]["sync"]
    assert by_round["low"] <= by_round["median"] <= by_round["high"]
    # Two rounds: a round's ratio lies within the quotients of the extremes.
    floor = next(one for one in report["results"] if one["contender"] == "sync")
    assert first["rate"]["low"] / floor["rate"]["high"] <= by_round["low"] * 1.001


def test_a_file_of_the_user_is_read_and_left_as_it_is(data: Path, tmp_path: Path) -> None:
    before = data.read_bytes(), data.stat().st_mtime_ns
    done = bench(*SHORT, "--file", data, "--dir", tmp_path)
    assert "read-4k-cached-1" in done.stdout
    assert "write" not in done.stdout
    assert (data.read_bytes(), data.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--rounds", "0"], "--rounds: must be a whole number from 1 on, not '0'"),
        (["--seconds", "nan"], "--seconds: must be a number of seconds above 0, not 'nan'"),
        (["--size", "1048576"], "--size: 1024 is the most"),
        (["--dir", "/nowhere"], "--dir: /nowhere is not a folder"),
        (["--dir", "/proc"], "--dir: [Errno"),
        (["--file", "/nowhere"], "--file: [Errno 2] No such file or directory: '/nowhere'"),
        (["--file", "/dev/null"], "--file: /dev/null is not a regular file"),
        (["--file", __file__], "is smaller than 1 MiB"),
        (["--workloads", "reed-*"], "no workload is named reed-*; there are: read-4k-cached-1, "),
        (["--engine", "threads"], "invalid choice: 'threads'"),
    ],
)
def test_bad_arguments(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *options])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_plot_is_refused_before_anything_is_measured_where_matplotlib_is_missing() -> None:
    script = (
        "import sys",
        "sys.modules['matplotlib'] = None",
        "from uringfile.__main__ import main",
        "main(['bench', '--plot', 'bars.png'])",
    )
    done = run_python("\n".join(script))
    assert done.returncode == 2
    assert "--plot: matplotlib is needed" in done.stderr
    assert "pip install 'uringfile[plot]'" in done.stderr


def test_a_plot_has_a_panel_for_each_workload(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install .[plot])")
    options = (*SHORT, "--dir", tmp_path, "--workloads", "read-4k-cached-*")
    bench(*options, "--plot", tmp_path / "bars.svg")
    plot = (tmp_path / "bars.svg").read_text()
    assert plot.count('<g id="axes_') == 3
    assert "must end with one of" in bench("--plot", tmp_path / "bars.doc", status=2).stderr
    assert "is not a folder" in bench("--plot", tmp_path / "no" / "bars.svg", status=2).stderr


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """In the middle of it: its files are there."""
    with subprocess.Popen(
        [*BENCH, "--quick", "--rounds", "1000", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            end = time.monotonic() + 60
            while not list(tmp_path.glob("uringfile-bench-*/read.bin")):
                assert time.monotonic() < end
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.0, 0.3, 1.0])
def test_an_interrupted_run_deletes_its_files(
    started: subprocess.Popen[str], number: int, after: float, tmp_path: Path
) -> None:
    time.sleep(after)
    started.send_signal(number)
    out, error = started.communicate(timeout=90)
    assert (started.returncode, out) == (130, "")
    assert error == "interrupted; the files are deleted\n"
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_on_the_disk_is_left_out_by_name(tmp_path: Path) -> None:
    """A limit of the size of files stands for a full disk."""
    script = (
        "import resource, signal, sys",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))",
        "from uringfile.__main__ import main",
        "sys.exit(main(sys.argv[1:]))",
    )
    options = (*SHORT, "--dir", str(tmp_path), "--workloads", "small-files", "read-many-256")
    done = run_python("\n".join(script), "bench", *options)
    assert done.returncode == 0, done.stderr
    assert "read-many-256: not measured: its files: [Errno 27] File too large" in done.stdout
    assert "\nsmall-files " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    if importlib.util.find_spec("tqdm") is None:
        pytest.skip("tqdm is not installed (pip install .[progress])")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    options = (*SHORT, "--dir", str(tmp_path), "--workloads", "read-4k-cached-1")
    with subprocess.Popen(
        [*BENCH, *options], stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as p:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # EIO: the other end is closed
            pass
        out = p.communicate()[0]
    os.close(ours)
    assert p.returncode == 0
    assert b"read-4k-cached-1" in shown
    assert b"/9 " in shown
    assert out.count("\n") == 4
