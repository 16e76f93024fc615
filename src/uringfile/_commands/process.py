"""What the commands have in common: standard input and output, complaints, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from uringfile import BinaryFileWrapper, async_open

#: What is read at a time; two of these are in memory.
CHUNK = 256 * 1024

STDIN = "-"


class CannotWrite(Exception):
    """Standard output takes no more; the ``OSError`` is the cause."""


def run(command: str, main: Coroutine[Any, Any, int]) -> int:
    """The exit status. Ctrl-C and SIGTERM cancel ``main``, which so can clean up."""
    signals: list[int] = []

    async def cancellable() -> int:
        task = asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            signals.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        return await main

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        return 128 + signals[0]  # as a shell tells it
    except CannotWrite as error:
        cause = error.__cause__
        if isinstance(cause, BrokenPipeError):  # its reader has had enough
            return 128 + signal.SIGPIPE
        complain(command, f"write error: {reason(cause)}")
        return 1


def complain(command: str, text: str) -> None:
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print(f"{command}: {text}", file=sys.stderr, flush=True)


def reason(error: BaseException | None) -> str:
    """``No such file or directory``, and not the rest."""
    return getattr(error, "strerror", None) or str(error)


def open_input(path: str) -> BinaryFileWrapper:
    """A file for ``async with``; of standard input the position is taken, and given back."""
    if path != STDIN:
        return async_open(path, "rb", buffering=CHUNK)
    if sys.stdin is None:  # the number may be another file's by now
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return async_open(0, "rb", closefd=False, buffering=CHUNK)


class Output:
    """Standard output; what ``write`` has returned for has gone out."""

    _file: BinaryFileWrapper

    async def __aenter__(self) -> Output:
        if sys.stdout is None:
            raise CannotWrite from OSError(errno.EBADF, os.strerror(errno.EBADF))
        appends = fcntl.fcntl(1, fcntl.F_GETFL) & os.O_APPEND
        self._file = async_open(1, "ab" if appends else "wb", closefd=False, buffering=0)
        await self._file
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._file.close()

    async def write(self, data: bytes) -> None:
        try:
            await self._file.write(data)
        except OSError as error:
            raise CannotWrite from error

    async def is_at_end_of(self, file: BinaryFileWrapper) -> bool:
        """Whether what is written comes behind what is still to be read of the same file, so that
        copying would not end."""
        if not (file.seekable() and self._file.seekable()):
            return False
        same = os.path.samestat(await file.file.stat(), await self._file.file.stat())
        return same and self._file.tell() > file.tell()

    async def copy_from(self, file: BinaryFileWrapper) -> None:
        """The rest of the file: the next chunk is read while this one is written."""
        reading = asyncio.ensure_future(file.read1(CHUNK))
        try:
            while chunk := await reading:
                reading = asyncio.ensure_future(file.read1(CHUNK))
                await self.write(chunk)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
