"""The benchmarks run, their report has its tables, and the regression check fails when it must."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_check_fails_for_a_ratio_that_is_out_of_reach() -> None:
    script = (
        "from benchmarks import check, targets",
        "check.SECONDS = check.SECONDS_AGAIN = 0.1",
        "out_of_reach = targets.Target('read-4k-cached-1', targets.POSIX_AIO, 'sync', 1000)",
        "check.TARGETS[:] = [out_of_reach]",
        "check.main()",
    )
    out = _python("-c", "\n".join(script), status=1)
    assert "FAIL  read-4k-cached-1: uringfile-posix_aio" in out
