"""fio's io_uring engine: what the disk and the kernel give to a program in C.

It measures itself, and only random reads are asked of it. Its processor time is that of its
reading thread.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from uringfile._bench.contenders._contender import Contender, Gap
from uringfile._bench.cost import Cost
from uringfile._bench.files import BLOCK


class Fio(Contender):
    name = "fio"
    is_program = True

    def version(self) -> str:
        out = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=True)
        return f"{out.stdout.strip()} (io_uring)"

    def random_reads(self, path: Path, direct: bool, in_flight: int, reads: int) -> Cost:
        command = [
            _program(),
            "--name=read",
            f"--filename={path}",
            "--readonly",
            "--rw=randread",
            f"--bs={BLOCK}",
            "--ioengine=io_uring",
            f"--iodepth={in_flight}",
            f"--direct={int(direct)}",
            "--invalidate=0",
            "--norandommap",
            "--randrepeat=0",
            f"--size={path.stat().st_size}",
            f"--io_size={reads * BLOCK}",
            "--output-format=json",
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        job = json.loads(out[out.index("{") :])["jobs"][0]
        seconds = job["read"]["runtime"] / 1000  # fio tells whole milliseconds
        return Cost(seconds, seconds * (job["usr_cpu"] + job["sys_cpu"]) / 100)


def _program() -> str:
    program = shutil.which("fio")
    if program is None:
        raise Gap("fio is not installed")
    return program


CONTENDERS = [Fio()]
