"""The test-suite of aiofiles against ours, if the package index can be reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from peers import PEERS, UNREACHABLE


@pytest.mark.timeout(300)
def test_the_tests_of_aiofiles_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.peers", "aiofiles"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNREACHABLE:
        pytest.skip(done.stderr.strip()[:200])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"aiofiles {PEERS['aiofiles'].version}\n")


def test_a_name_that_is_no_peers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.peers", "nobody"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "aiocsv" in done.stderr
