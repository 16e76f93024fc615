"""A short run of the C code under each memory checker; long ones: sanitize.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sanitize
from native_build import why_no_build

INPUTS = int(os.environ.get("URINGFILE_SANITIZE_INPUTS", "120"))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda where: sanitize.asan_c(where, INPUTS), id="asan"),
        pytest.param(sanitize.lsan, id="lsan"),
        pytest.param(lambda where: sanitize.tsan(where, INPUTS), id="tsan"),
        pytest.param(lambda where: sanitize.valgrind_c(where, INPUTS // 4), id="valgrind"),
    ],
)
def test_nothing_is_found(step: Callable[[Path], None], tmp_path: Path) -> None:
    if (reason := why_no_build()) is not None:
        pytest.skip(reason)
    try:
        step(tmp_path)
    except sanitize.Missing as missing:
        pytest.skip(str(missing))
    except subprocess.CalledProcessError as error:
        pytest.fail(error.output)
