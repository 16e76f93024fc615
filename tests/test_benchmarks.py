"""The benchmarks run, their report has its tables, and the regression check fails when it must."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MISSING

ROOT = Path(__file__).parents[1]

_missing = [name for name in ("pyperf", "aiofiles") if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(_missing) or not (ROOT / "benchmarks").is_dir(),
    reason=f"the benchmarks need {' and '.join(_missing) or 'their folder'} (pip install .[bench])",
)


def _python(*arguments: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr + done.stdout
    return done.stdout


def _run(directory: Path, workload: str, *contenders: str) -> Path:
    results = directory / "results.json"
    options = ["--rounds", "2", "--seconds", "0.01", "--size", "1", "--dir", directory]
    _python(
        *("-m", "benchmarks.run", "--workloads", workload, "--contenders", *contenders),
        *(*options, "--json", results),
    )
    return results


def test_the_report_has_a_row_for_each_contender_and_ratios_between_them(tmp_path: Path) -> None:
    results = _run(tmp_path, "read-4k-cached-8", "uringfile-posix_aio", "aiofiles")
    report = _python("-m", "benchmarks.report", results, "--baselines", "aiofiles")
    (header,) = [line for line in report.splitlines() if line.startswith("| contender |")]
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    cost = ["CPU us/read", "system calls/read"]
    assert cells == ["contender", "read/s", "spread", *cost, "x aiofiles"]
    rows = [line for line in report.splitlines() if line.startswith(("| **uring", "| aiofiles"))]
    ratios = [float(row.strip("| ").split("|")[-1].split()[0]) for row in rows]
    assert len(ratios) == 2
    assert ratios[0] > ratios[1] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_a_contender_cannot_do_is_a_named_gap(tmp_path: Path) -> None:
    pytest.importorskip("aiofile", reason="aiofile is not installed")
    results = _run(tmp_path, "read-4k-direct-1", "sync", "aiofile")
    report = _python("-m", "benchmarks.report", results)
    assert "Not measured: aiofile: aiofile has no O_DIRECT." in report


def test_the_report_tells_which_targets_are_met_and_has_plots(tmp_path: Path) -> None:
    """And what it does not find it does not tell of: a target, a plot, a contender."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install .[bench])")
    (results := tmp_path / "out").mkdir()
    options = ["--rounds", "1", "--seconds", "0.01", "--size", "1", "--dir", tmp_path]
    workloads = ["read-4k-cached-1", "idle", "in-flight-10000"]
    setting = ("URINGFILE_POLL_US=0", "--workloads", "read-4k-cached-1", "--rounds", "1")
    script = f"""
from benchmarks import run
setting = run.Program("A setting", "benchmarks.settings", {setting}, is_markdown=False)
run.PROGRAMS = [run.Program("None", "benchmarks.none"), setting]
run.find_counter = lambda: ("not counted here", None)
run.main()
"""
    chosen = ("--workloads", *workloads, "--contenders", "executor", "uringfile-posix_aio")
    _python("-c", script, *chosen, *options, "--json", results / "r.json", "--report", results)
    report = (results / "REPORT.md").read_text()
    again = results / "again"
    again.mkdir()
    _python("-m", "benchmarks.report", results / "r.json", "--to", again)
    report, _, sections = report.partition("\n## A setting\n")
    assert (again / "REPORT.md").read_text() == report
    command = "python -m benchmarks.settings URINGFILE_POLL_US=0 --workloads read-4k-cached-1"
    assert sections.startswith(f"\n`{command} --rounds 1`:\n\n```\nread-4k-cached-1\n")
    rows = [line.strip("| ").split(" | ") for line in report.splitlines()]
    targets = {row[0]: row for row in rows if row[-1] in ("met", "**not met**")}
    assert targets.keys() == {"read-4k-cached-1", "idle"}
    measured = float(targets["read-4k-cached-1"][4].split()[0])
    assert (targets["read-4k-cached-1"][-1] == "met") == (measured >= 1)
    assert f"{sum(row[-1] == 'met' for row in targets.values())} of 2 are met." in report
    assert "| CPU us/second |" in report
    assert " MiB | " in report, "memory"
    assert "![reads](plots/reads.png)" in report
    assert (results / "plots" / "reads.png").read_bytes().startswith(b"\x89PNG")
    assert "plots/writes.png" not in report


@pytest.mark.parametrize("tool", ["perf", "strace"])
def test_system_calls_are_counted(tool: str) -> None:
    """Those of threads and children, too."""
    calls = """
import os, sys, threading
def call():
    for _ in range(int(sys.argv[1])):
        os.getppid()
thread = threading.Thread(target=call)
thread.start()
thread.join()
if not os.fork():
    call()
    os._exit(0)
os.wait()
"""
    script = f"""
import sys
from benchmarks import calls
counts = [calls._{tool}([sys.executable, "-c", sys.argv[1], n]) for n in ("0", "5000")]
print(*counts if counts[0] else ["none"])
"""
    counts = _python("-c", script, calls).split()
    if counts == ["none"]:
        pytest.skip(f"{tool} does not count system calls here")
    assert 9_500 < int(counts[1]) - int(counts[0]) < 11_000


def test_no_tool_for_system_calls_is_named() -> None:
    script = "from benchmarks import calls; print(calls.find_counter())"
    script = f"import os; os.environ['PATH'] = ''; {script}"
    assert "not measured: neither perf nor strace counts" in _python("-c", script)


def test_a_setting_is_measured_beside_the_default(tmp_path: Path) -> None:
    options = ["--rounds", "2", "--seconds", "0.01", "--size", "1", "--dir", tmp_path]
    settings = ("URINGFILE_POLL_US=0", "URINGFILE_POLL_US=soon")
    workload = ("--workloads", "write-4k-cached-1")
    contender = ("--contender", "uringfile-posix_aio")
    out = _python("-m", "benchmarks.settings", *settings, *workload, *contender, *options)
    rows = {line.split()[0]: line for line in out.splitlines() if "/s" in line}
    assert list(rows) == ["default", "URINGFILE_POLL_US=0"]
    assert "1.00 (1.00 to 1.00)" in rows["default"]
    assert "URINGFILE_POLL_US must be a number" in out, "the variable reached the contender"
    assert not list(tmp_path.iterdir())


def _check(*setup: str, status: int) -> str:
    """The check, in less time than it takes."""
    script = (
        "from benchmarks import check",
        "check.SECONDS, check.SECONDS_AGAIN, check.SLICE_SECONDS = 0.3, 1.0, 0.002",
        *setup,
        "check.main()",
    )
    return _python("-c", "\n".join(script), status=status)


ONE_READ = "check.NORMAL = {'read-4k-cached-1': (0.48, 0.48)}"
NO_IDLE = "check.WITHOUT_WORK = ()"


def test_the_check_passes_and_tells_its_limits() -> None:
    out = _check(ONE_READ, "check.LEAST_BY_CPU = 0.3", status=0)
    assert "ok   read-4k-cached-1: uringfile-posix_aio: " in out
    assert "normal 0.48, fails below 0.14 and 0.048" in out
    assert "ok   idle: uringfile-posix_aio: " in out
    assert out.splitlines()[-1].startswith("0 failed, ")


def test_a_pool_is_measured_beside_other_memory(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--seconds", "0.01", "--size", "32", "--dir", tmp_path]
    lines = _python("-m", "benchmarks.pool", *options).splitlines()
    assert [line.split()[0] for line in lines if "/s" in line] == [
        *["bytearray", "read", "mmap", "pool"] * 6
    ]


def test_the_parts_of_a_batch_are_measured_beside_pread(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--size", "1", "--dir", tmp_path]
    lines = _python("-m", "benchmarks.batch_parts", *options).splitlines()
    assert len(lines) == 5
    assert all(float(line.split(" ns")[0].split()[-1]) > 0 for line in lines)
    assert lines[0].endswith("x os.pread 1.00 (1.00 to 1.00)")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_registered_buffers_and_files_are_measured(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--seconds", "0.01", "--size", "4", "--dir", tmp_path]
    lines = _python("-m", "benchmarks.registered", *options).splitlines()
    assert sum(line.startswith("huge+both ") for line in lines) == 7


def test_logging_handlers_are_measured_side_by_side(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--records", "400", "--paced-records", "20", "--threads", "1", "2"]
    out = _python("-m", "benchmarks.logging_handlers", *options, "--dir", tmp_path)
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("| ")]
    assert rows == ["handler", "---", "uringfile", "FileHandler", "QueueHandler", "none"] * 4
    assert list(tmp_path.iterdir()) == []


def test_the_check_fails_for_a_read_that_takes_two_microseconds_more() -> None:
    slow = """
import time, uringfile
fast_read = uringfile.AIOFile.read
async def read(self, size=-1, offset=0):
    end = time.perf_counter() + 2e-6
    while time.perf_counter() < end:
        pass
    return await fast_read(self, size, offset)
uringfile.AIOFile.read = read
"""
    out = _check(ONE_READ, NO_IDLE, slow, status=1)
    assert "FAIL read-4k-cached-1: uringfile-posix_aio" in out


def test_the_check_fails_for_a_read_that_waits() -> None:
    """Which costs little processor time."""
    slow = """
import asyncio, uringfile
fast_read = uringfile.AIOFile.read
async def read(self, size=-1, offset=0):
    await asyncio.sleep(0.0005)
    return await fast_read(self, size, offset)
uringfile.AIOFile.read = read
check.LEAST_BY_CPU = 0
"""
    assert "FAIL read-4k-cached-1: uringfile-posix_aio" in _check(ONE_READ, NO_IDLE, slow, status=1)


def test_the_check_fails_for_an_idle_loop_that_turns() -> None:
    slow = """
import asyncio, uringfile
open_file = uringfile.AIOFile.open
async def open(self):
    loop = asyncio.get_running_loop()
    def turn():
        loop.call_soon(turn)
    turn()
    return await open_file(self)
uringfile.AIOFile.open = open
check.NORMAL = {}
"""
    assert "FAIL idle: uringfile-posix_aio" in _check(slow, status=1)


def test_all_threads_of_the_process_are_in_its_cost(tmp_path: Path) -> None:
    """Those of the kernel, too, that work for a ring: their ticks in /proc are part of it."""
    script = """
import asyncio, os, sys, time, uringfile
def ticks(directory):
    found = 0
    for thread in os.listdir(directory):
        if open(f"{directory}/{thread}/comm").read().startswith("iou-"):
            fields = open(f"{directory}/{thread}/stat").read().rpartition(")")[2].split()
            found += int(fields[11]) + int(fields[12])
    return found
async def main():
    cpu, own = time.process_time(), time.thread_time()
    async with uringfile.AIOFile(sys.argv[1], "wb", engine="io_uring") as f:
        end = time.monotonic() + 20
        while (found := ticks("/proc/self/task")) < 5 and time.monotonic() < end:
            await f.write_many([(bytes(4096), i * 4096) for i in range(1000)])
        others = time.process_time() - cpu - (time.thread_time() - own)
        print(found, others * os.sysconf("SC_CLK_TCK"))
asyncio.run(main())
"""
    if MISSING["io_uring"]:
        pytest.skip(MISSING["io_uring"])
    ticks, others = map(float, _python("-c", script, tmp_path / "file").split())
    if not ticks:
        pytest.skip("this file system writes without the ring's workers")
    assert others > ticks / 2
