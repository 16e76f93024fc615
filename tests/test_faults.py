"""Faults in the C layer, at each place in turn, under each operation (fault_loop.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from native_build import run_with

from uringfile import _native

LOOP = Path(__file__).with_name("fault_loop.py")

EVERYWHERE = [
    "memory",
    "eventfd",
    "nowait",
    "shorten",
    "fail",
    "spoil",
    "interrupt",
    "delay",
    "reorder",
    "double",
]
IO_URING = ["setup", "register", "mmap", "enter"]
POSIX_AIO = ["dup", "thread", "aio"]


def test_without_faults_nothing_of_the_hook_is_there(fault_build: Path) -> None:
    (with_faults,) = fault_build.glob("build/uringfile/_native*.so")
    for name in (b"uf_fault_arm", b"uf_fault_passes"):
        assert name in with_faults.read_bytes()
        assert name not in Path(_native.__file__).read_bytes()


def _try_all(fault_build: Path, engine: Any, point: str) -> None:
    done = run_with(fault_build, [sys.executable, str(LOOP), engine, point])
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert any(not line.endswith("struck 0 times") for line in done.stdout.splitlines())


@pytest.mark.parametrize("point", EVERYWHERE)
def test_a_fault_at_each_place(fault_build: Path, engine: Any, point: str) -> None:
    _try_all(fault_build, engine, point)


@pytest.mark.parametrize("engine", ["io_uring"], indirect=True)
@pytest.mark.parametrize("point", IO_URING)
def test_a_fault_at_each_place_of_io_uring(fault_build: Path, engine: Any, point: str) -> None:
    _try_all(fault_build, engine, point)


@pytest.mark.parametrize("engine", ["posix_aio"], indirect=True)
@pytest.mark.parametrize("point", POSIX_AIO)
def test_a_fault_at_each_place_of_posix_aio(fault_build: Path, engine: Any, point: str) -> None:
    _try_all(fault_build, engine, point)
