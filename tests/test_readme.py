"""The README is what users run first: its examples are executed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def fences(language: str) -> list[str]:
    if not README.exists():
        return []
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.S | re.M)


@pytest.mark.parametrize("code", fences("python"))
def test_examples(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for expected in re.findall(r"# prints (.*)$", code, re.M):
        assert expected in done.stdout


def test_there_are_examples() -> None:
    assert len(fences("python")) >= 3


def test_quick_start_has_two_commands() -> None:
    section = README.read_text().partition("## Quick start")[2].partition("\n## ")[0]
    commands = re.findall(r"^```sh\n(.*?)^```", section, re.S | re.M)
    assert len(commands) == 2
    assert "python -m uringfile bench --quick" in commands[0]
    assert "pytest" in commands[1]
