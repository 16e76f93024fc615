"""How many test cases stand behind each promise of docs/guarantees.md.

python -m tests.guarantees
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "guarantees.md"


def named_tests(text: str) -> list[str]:
    """Each ``file.py::test`` once, in the order of the text."""
    return list(dict.fromkeys(re.findall(r"`(test_\w+\.py::test_\w+)`", text)))


def sections() -> dict[str, list[str]]:
    heading, *parts = re.split(r"^## (.*)$", DOCUMENT.read_text(), flags=re.M)
    return {
        "": named_tests(heading),
        **{title: named_tests(text) for title, text in zip(parts[::2], parts[1::2], strict=True)},
    }


def collected() -> Counter[str]:
    """The number of cases of each test function."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(ROOT / "tests")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    cases = re.findall(r"^tests/(test_\w+\.py::test_\w+)", done.stdout, re.M)
    return Counter(cases)


def main() -> None:
    counts = collected()
    for title, tests in sections().items():
        if tests:
            print(f"{sum(counts[test] for test in tests):5}  {title or 'what would notice'}")
    print(f"{sum(counts.values()):5}  all tests")


if __name__ == "__main__":
    main()
