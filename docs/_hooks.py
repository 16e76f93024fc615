"""Pages whose text stands elsewhere in the source, or in the help of the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from uringfile.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    elsewhere = {
        "changelog.md": ROOT / "CHANGELOG.md",
        "benchmark-report.md": ROOT / "benchmarks" / "REPORT.md",
        **{f"plots/{plot.name}": plot for plot in (ROOT / "benchmarks" / "plots").glob("*.png")},
        "examples/index.md": ROOT / "examples" / "README.md",
        **{f"examples/{file.name}": file for file in (ROOT / "examples").glob("*.py")},
    }
    for page, source in elsewhere.items():
        files.append(File.generated(config, page, abs_src_path=str(source)))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    return files


def commands() -> str:
    parts = ["# Commands\n", "`python -m uringfile COMMAND`. What each says with `--help`:\n"]
    for name in COMMANDS:
        usage = subprocess.run(
            [sys.executable, "-m", "uringfile", name, "--help"],
            env={**os.environ, "COLUMNS": "78", "NO_COLOR": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        parts.append(f"## {name}\n\n```text\n{usage}```\n")
    return "\n".join(parts)
