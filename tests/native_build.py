"""Builds of the C library for tests: with faults put in on purpose, or under a sanitizer.

A build is a directory for PYTHONPATH. Any interpreter that has it there, and any that this
one starts, imports that ``uringfile._native`` instead of the installed one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SITECUSTOMIZE = """
import importlib.machinery, importlib.util, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "uringfile._native":
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, {library!r})
        return importlib.util.spec_from_loader(name, loader)

sys.meta_path.insert(0, Finder)
"""


def why_no_build() -> str | None:
    """Why nothing can be compiled here, or ``None``."""
    if not (ROOT / "csrc").is_dir():
        return "the C sources are not here"
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "there is no C compiler (cc)"
    return None


def build(directory: Path, cflags: Sequence[str] = ()) -> Path:
    """Compile with the fault hook and these flags, into ``directory``, which it returns."""
    spec = importlib.util.spec_from_file_location("build_native", ROOT / "csrc/build_native.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    headers = ("engine_api.h", "fault_api.h")
    ffi = script.builder(ROOT, headers, ["-DUF_FAULTS", *cflags])
    with contextlib.redirect_stdout(io.StringIO()):
        library = ffi.compile(tmpdir=str(directory / "build"))
    (directory / "sitecustomize.py").write_text(SITECUSTOMIZE.format(library=library))
    return directory


def environment(build_directory: Path, **more: str) -> dict[str, str]:
    """What an interpreter that is to use the build is started with."""
    return {**os.environ, "PYTHONPATH": str(build_directory), **more}


def run_with(
    build_directory: Path, args: Sequence[str], *, timeout: float = 100, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that way, and wait for its end."""
    return subprocess.run(
        args,
        env=environment(build_directory, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
