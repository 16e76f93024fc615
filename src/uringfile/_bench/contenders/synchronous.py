"""The floor: plain system calls in a plain loop.

Each workload holds its own synchronous loop, written as anyone would write it; this
contender says that it is to be run.
"""

from __future__ import annotations

import platform

from uringfile._bench.contenders._contender import Contender


class Synchronous(Contender):
    name = "sync"

    def version(self) -> str:
        return f"{platform.python_implementation()} {platform.python_version()}, os.pread"


CONTENDERS = [Synchronous()]
