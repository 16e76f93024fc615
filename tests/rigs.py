"""What some tests need besides an engine (root, FUSE, a tool), and how many have had it."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faulty_fs
import pytest
import small_fs

_ran: Counter[str] = Counter()
_missing: dict[str, str] = {}


def rig(name: str, reason: str | None = None) -> None:
    """The running test needs that: skip it by the reason why there is none, or count it."""
    if reason is not None:
        _missing[name] = reason
        pytest.skip(reason)
    _ran[name] += 1


def tool(command: str) -> None:
    """The running test needs that command."""
    rig(command, None if shutil.which(command) else f"{command} is not installed")


def summary() -> Iterator[str]:
    """A line for each, for the end of the run."""
    for name in sorted({*_ran, *_missing}):
        ran = [f"{_ran[name]} tests"] if name in _ran else []
        why = [_missing[name]] if name in _missing else []
        yield f"{name}: {'; others not: '.join([*ran, *why])}"


@pytest.fixture(scope="session")
def mounted_faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for the whole run, or the reason why there is none."""
    if reason := faulty_fs.why_missing():
        yield reason
        return
    with contextlib.ExitStack() as stack:
        mount = faulty_fs.mounted(tmp_path_factory.mktemp("faulty"))
        try:
            found: Any = stack.enter_context(mount)
        except OSError as error:
            found = str(error)
        yield found


@pytest.fixture
def faulty(mounted_faulty: Any) -> Iterator[faulty_fs.FaultyFS]:
    """A file system that hangs and fails on demand; afterwards it is healed."""
    rig("FUSE", mounted_faulty if isinstance(mounted_faulty, str) else None)
    yield mounted_faulty
    mounted_faulty.rule()


@pytest.fixture
def small_mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``small_mount(kind)`` mounts a small file system of ``small_fs``."""
    with contextlib.ExitStack() as stack:

        def mount(kind: str, image: Path | None = None) -> Path:
            reason, where = small_fs.why_missing(kind), tmp_path
            if reason is None:
                try:
                    where = stack.enter_context(small_fs.mounted(kind, tmp_path, image))
                except OSError as error:
                    reason = str(error)
            rig("small file systems", reason)
            return where

        yield mount
