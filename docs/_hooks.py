"""Pages whose text stands elsewhere in the source."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

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
    return files
