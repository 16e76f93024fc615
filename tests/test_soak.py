"""The soak runs for some seconds here, and would notice a log that acknowledges too early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import run_python

ROOT = Path(__file__).parent.parent
SECONDS = float(os.environ.get("URINGFILE_SOAK_SECONDS", "3"))


def test_a_few_seconds(tmp_path: Path) -> None:
    report = tmp_path / "report"
    command = ["-m", "tests.soak", "--minutes", str(SECONDS / 60), "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    for engine, counts in found["counts"].items():
        assert found["stats"][engine]["in_flight"] == 0
        for what in ("blocks", "lines", "logs", "pipe bytes", "pool reads"):
            assert counts[f"{what} verified"] > 0, what


LIAR = """
import os, sys
sys.path.insert(0, sys.argv[1])
from soak import __main__, logs
from uringfile import LogWriter

class Liar(LogWriter):
    "Says that a record is in the file, which it is not."

    async def append(self, record):
        if record.startswith("7 "):
            return 1
        return await super().append(record)

logs.LogWriter = Liar
sys.argv[1:] = ["--minutes", "0.2", "--seed", "1"]
sys.exit(__main__.main())
"""


def test_that_it_would_notice() -> None:
    done = run_python(LIAR, str(Path(__file__).parent))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "acknowledged records are missing" in done.stdout
