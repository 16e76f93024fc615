"""``python -m benchmarks.files`` runs, and has a row for each contender."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks need their folder")
def test_the_benchmark_of_files_runs(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--files", "70", "--size", "1", "--dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "benchmarks.files", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    rows = {line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:2] == "| "}
    ours = {"read_files", "read_bytes, 64 tasks", "stat", "copyfile", "atomic_write"}
    assert ours | {"open, read, close", "os.stat", "shutil.copyfile", "at rest"} <= rows
    assert list(tmp_path.iterdir()) == []
