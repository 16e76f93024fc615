"""Modes of files: what the string means to open(2) and to the layers above."""

from __future__ import annotations

import functools
import os

#: Python's own default: the umask takes from it.
PERMISSIONS = 0o666


class Mode(str):
    """A mode as ``open`` takes it. A plain string to look at, with its meaning at hand."""

    readable: bool
    writable: bool
    plus: bool
    appending: bool
    created: bool
    binary: bool
    flags: int

    def __new__(cls, mode: str) -> Mode:
        """Raises ``ValueError`` for what ``open`` refuses, ``TypeError`` for no string."""
        if not isinstance(mode, str):
            raise TypeError(f"mode must be str, not {type(mode).__name__}")
        letters = set(mode)
        if letters - set("rwxabt+") or len(mode) > len(letters):
            raise ValueError(f"invalid mode: {mode!r}")
        if len(letters & set("rwxa")) != 1:
            raise ValueError("must have exactly one of create/read/write/append mode")
        if letters >= {"b", "t"}:
            raise ValueError("can't have text and binary mode at once")
        self = super().__new__(cls, mode)
        self.plus = "+" in letters
        self.readable = "r" in letters or self.plus
        self.writable = "r" not in letters or self.plus
        self.appending = "a" in letters
        self.created = "x" in letters
        self.binary = "b" in letters
        self.flags = _flags(self)
        return self


@functools.cache
def _parsed(mode: str) -> Mode:
    return Mode(mode)


def parse_mode(mode: str) -> Mode:
    """``Mode(mode)``, remembered."""
    return _parsed(mode) if isinstance(mode, str) else Mode(mode)


def _flags(mode: Mode) -> int:
    flags = os.O_RDWR if mode.plus else os.O_WRONLY if mode.writable else os.O_RDONLY
    if "w" in mode:
        flags |= os.O_CREAT | os.O_TRUNC
    if mode.created:
        flags |= os.O_CREAT | os.O_EXCL
    if mode.appending:
        flags |= os.O_CREAT | os.O_APPEND
    return flags | os.O_CLOEXEC
