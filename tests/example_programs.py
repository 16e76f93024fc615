"""The programs of examples/, as modules and as commands."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import SLOW_CRC

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> Any:
    """The module; one that has been loaded already is the same."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def command(name: str, *args: object) -> list[str]:
    warnings = ("-W", "error", "-W", SLOW_CRC)
    return [sys.executable, *warnings, str(EXAMPLES / f"{name}.py"), *map(str, args)]


def run_command(
    name: str, *args: object, stdin: str | bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what it prints is text in UTF-8."""
    done = subprocess.run(
        command(name, *args),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )
    return subprocess.CompletedProcess(
        done.args,
        done.returncode,
        done.stdout.decode(errors="surrogateescape"),
        done.stderr.decode(errors="surrogateescape"),
    )
