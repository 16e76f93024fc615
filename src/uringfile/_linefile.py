"""Lines of text to the end of an open file, past the buffers of its stream."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any


class LineFile:
    """A stream that ``open`` made in a text mode, of which only the descriptor is used.

    The stream's own buffers stay empty, so that its ``tell`` is right, and a forked child
    that closes it writes nothing of its parent's.

    Plain write(2): to the end of the file (mode "a"), or to the position that is shared with
    forked children ("w"). The position of a write to a ring is that of its submission.
    """

    def __init__(self, stream: TextIOWrapper[Any]) -> None:
        self.stream = stream
        #: ASCII stays as it is.
        self.keeps_ascii = "a\n".encode(stream.encoding) == b"a\n"
        self._errors = stream.errors or "strict"
        self._encoder: codecs.IncrementalEncoder | None = None
        self._rest = memoryview(b"")
        #: Lines of the last ``write``, if that failed and has left some of their bytes.
        self.unfinished = 0

    def _fd(self) -> int:
        """Asked for each time: a number that was closed may be another file's."""
        return self.stream.fileno()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """The functions of ``os`` do not know the name of what a descriptor is of."""
        try:
            yield
        except OSError as error:
            error.filename = self.stream.name
            raise

    def write(self, lines: list[str]) -> int:
        """Write the lines; the answer is how many of them.

        After an ``OSError`` the next call is given the same lines, and possibly more behind
        them: it goes on at the byte where this one has stopped.
        """
        if not self.unfinished:
            self._rest = memoryview(self._encode("".join(lines)))
            self.unfinished = len(lines)
        while self._rest:
            with self._named_errors():
                self._rest = self._rest[os.write(self._fd(), self._rest) :]
        written = self.unfinished
        self.unfinished = 0
        return written

    def _encode(self, text: str) -> bytes:
        if self._encoder is None:
            self._encoder = codecs.getincrementalencoder(self.stream.encoding)(self._errors)
            if self.position():
                self._encoder.setstate(0)  # as TextIOWrapper: no byte order mark here
        return self._encoder.encode(text)

    def forget_unfinished(self) -> None:
        self.unfinished = 0
        self._rest = memoryview(b"")
        self._encoder = None

    def length(self, line: str, position: int) -> int:
        """How many bytes ``write`` makes of a line at this position."""
        if self.keeps_ascii and line.isascii():
            return len(line)
        encoding = self.stream.encoding
        length = len(line.encode(encoding, self._errors))
        return length - len("".encode(encoding)) if position else length

    def position(self) -> int:
        """In bytes; 0 of what has none."""
        try:
            return os.lseek(self._fd(), 0, os.SEEK_CUR)
        except OSError:
            return 0

    def sync(self) -> None:
        """fdatasync(2), where there is a disk behind it."""
        with self._named_errors():
            if stat.S_ISREG(os.fstat(self._fd()).st_mode):
                os.fdatasync(self._fd())

    def is_at(self, path: str) -> bool:
        """Whether it still is the file of that name."""
        try:
            there = os.stat(path)
        except FileNotFoundError:
            return False
        here = os.fstat(self._fd())
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
