"""What the type checkers say about tests/typing_examples.py: nothing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import uringfile

EXAMPLES = Path(__file__).with_name("typing_examples.py")


def test_the_package_is_marked_as_typed() -> None:
    assert Path(uringfile.__file__).with_name("py.typed").is_file()


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy(tmp_path: Path) -> None:
    # --strict: an error that is expected and does not come is an error, too.
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(EXAMPLES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright() -> None:
    if shutil.which("pyright") is None:
        pytest.skip("pyright is not installed")
    if subprocess.run(["pyright", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("pyright does not start: it needs Node.js")
    command = ["pyright", "--pythonpath", sys.executable, str(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
