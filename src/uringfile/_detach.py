"""From a file object with coroutines to one of Python's own, for the same descriptor."""

from __future__ import annotations

import errno
import io
import os

from uringfile._background import NOTHING_TO_DO
from uringfile._binary import BinaryFileWrapper
from uringfile._textfile import TextFileWrapper
from uringfile._writeback import write_now


def detach(file: BinaryFileWrapper | TextFileWrapper) -> io.RawIOBase | io.BufferedIOBase:
    """What ``detach`` of Python's file object gives: unbuffered below a binary file, buffered
    below a text.

    It is where this one was (below a text, where that has read to), and closes the descriptor
    if this one would have. What is buffered is written first, and not in the background.
    Raises ``BlockingIOError`` while an operation is under way, or if others share the file.
    """
    core = file._core
    core._check_open()
    core._seal()
    position = core._position()
    rest = core._writes.take_rest()
    if core._shared.users > 1 or core._writes.size > sum(len(data) for _, data in rest):
        for extent in rest:
            core._writes.put(*extent)
        raise BlockingIOError(errno.EAGAIN, "it is in use", file.name)
    write_now(core.file.fileno(), rest, core._seekable)
    mode = file.file.mode
    name = file.name
    fd = core.file.detach()
    core._shared.users = 0
    core._closed = True
    core.file._release_from_file_object()
    core._closing = NOTHING_TO_DO
    core._room = 0
    core._end_of_block()
    core._ahead.close()
    letters = ("a" if mode.appending else "r" if mode.readable else "w") + "+" * (
        mode.readable and mode.writable
    )
    raw = io.FileIO(fd, letters, closefd=core.file._owner)
    raw.name = name
    if core._seekable:
        os.lseek(fd, position, os.SEEK_SET)
    if isinstance(file, BinaryFileWrapper):
        return raw
    if mode.readable and mode.writable:
        return io.BufferedRandom(raw)
    return io.BufferedReader(raw) if mode.readable else io.BufferedWriter(raw)
