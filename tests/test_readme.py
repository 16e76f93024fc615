"""The README and the pages of docs/ are what users run first: their examples are executed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SLOW_CRC

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

# A page is one process, and each block a program in an empty folder: what it printed. The lines
# are numbered as in the page, so that a traceback shows them.
RUNNER = """
import contextlib, gc, io, json, os, sys, tempfile

path, blocks = json.load(sys.stdin)
printed = []
for code in blocks:
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out):
        os.chdir(folder)
        exec(compile(code, path, "exec"), {"__name__": "__main__"})
        gc.collect()
        os.chdir("/")
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def fences(page: Path, language: str) -> list[str]:
    """The blocks, each with as many empty lines before it as bring it to its place in the page."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


WITH_EXAMPLES = [page for page in PAGES if fences(page, "python")]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples(page: Path) -> None:
    blocks = fences(page, "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", SLOW_CRC, "-c", RUNNER],
        input=json.dumps([str(page), blocks]),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    for code, printed in zip(blocks, json.loads(done.stdout), strict=True):
        for expected in re.findall(r"\bprints (.*)$", code, re.M):
            assert expected in printed, (page, expected, printed)


def test_there_are_examples() -> None:
    assert len(fences(README, "python")) >= 3
    assert len(WITH_EXAMPLES) > 10


def test_quick_start_has_two_commands() -> None:
    section = README.read_text().partition("## Quick start")[2].partition("\n## ")[0]
    commands = re.findall(r"^```sh\n(.*?)^```", section, re.S | re.M)
    assert len(commands) == 2
    assert "python -m uringfile bench --quick" in commands[0]
    assert "pytest" in commands[1]
