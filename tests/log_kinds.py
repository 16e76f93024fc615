"""How the records of a log are told apart: what the tests of readers and of recover() share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uringfile._frames import frame

#: Arguments for LogReader and recover(), by the name of the case.
KINDS: dict[str, dict[str, Any]] = {
    "lf": {"separator": b"\n"},
    "crlf": {"separator": b"\r\n"},
    "aba": {"separator": b"aba"},
    "framed": {"framed": True},
}


def encode(record: bytes, kind: dict[str, Any]) -> bytes:
    """The record as it stands in the file."""
    return frame(record) if kind.get("framed") else record + kind["separator"]


def given(record: bytes, kind: dict[str, Any]) -> bytes:
    """What the reader gives out: as LogWriter got it."""
    return record if kind.get("framed") else record + kind["separator"]


def write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "rb+") as log:
        log.seek(offset)
        log.write(data)
