"""What kernels that are older than this one lack."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import check, count
from native_build import why_no_build

SOURCE = Path(__file__).with_name("old_kernel.c")

MANY = """
import asyncio, uringfile
async def main():
    async with uringfile.AIOFile("/dev/zero", "rb", engine="io_uring") as f:
        for _ in range(300):
            assert len(await asyncio.wait_for(f.read(8), 10)) == 8
    print(uringfile.stats("io_uring").submitted >= 300)
asyncio.run(main())
"""


def test_without_flags_of_the_completion_queue(tmp_path: Path) -> None:
    """Linux 5.6 and 5.7, with more operations than the ring has entries."""
    count("io_uring")
    if (reason := why_no_build()) is not None:
        pytest.skip(reason)
    library = tmp_path / "old_kernel.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    assert check(MANY, LD_PRELOAD=str(library)) == "True\n"
