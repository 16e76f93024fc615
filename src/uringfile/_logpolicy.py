"""What a log is asked to do and to be: the parameters of ``LogWriter``."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

SyncPolicy = Literal["always", "interval", "never"]
TornLine = Literal["newline", "cut", "keep"]


class Policy(NamedTuple):
    """What it does when."""

    sync: SyncPolicy
    interval: float
    max_buffered: int
    rotate_size: int
    rotate_seconds: float | None
    keep: int | None
    compress: bool


class Shape(NamedTuple):
    """How the file of a log is opened, and what may stand at its end."""

    permissions: int
    dsync: bool
    framed: bool
    torn_line: TornLine
    preallocate: int
    direct: bool

    @property
    def flags(self) -> int:
        return os.O_RDWR | os.O_CLOEXEC | (os.O_DSYNC if self.dsync else 0)
