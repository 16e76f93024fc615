"""benchmarks/serve.py: each server answers, and the table is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("server", ["aiohttp", "starlette"])
def test_the_table(server: str, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn" if server == "starlette" else "aiohttp")
    options = ["--rounds", "1", "--seconds", "0.1", "--workloads", "small", "--servers", server]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve", *options, "--dir", str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\nsmall\n")
    *_, row = done.stdout.splitlines()
    cells = row.split("|")
    assert cells[1].strip() == server
    assert all(float(rate) > 0 for rate in cells[2].split(","))
