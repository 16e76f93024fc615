"""``python -m uringfile tail``: the last lines of files, and what comes after them."""

from __future__ import annotations

import argparse
import asyncio
import os
import stat
from collections import deque
from collections.abc import Sequence

from uringfile import AIOFile, BinaryFileWrapper, LogReader
from uringfile._commands.process import STDIN, Output, complain, open_input, reason, run

# What is looked through for the beginning of the last lines, at a time.
_BLOCK = 64 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the last lines of files to standard output. Of a large file only its end is read. "
        "The exit status is 1 when one could not be read."
    )
    add = parser.add_argument
    add("-n", "--lines", type=_count, default=10, metavar="N", help="how many; 10 by default")
    add(
        "-f",
        "--follow",
        action="store_true",
        help="go on with each line that is added, when it is whole, also in another file that "
        "takes the name (rotation), until Ctrl-C",
    )
    add("-F", dest="wait", action="store_true", help="as -f, and wait for files that are missing")
    add("files", nargs="*", default=[STDIN], metavar="FILE", help="- is standard input")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a number of lines, not {text!r}")
    return int(text)


def main(args: argparse.Namespace) -> int:
    tail = Tail(args.files, args.lines)
    return run("tail", tail.follow(args.wait) if args.follow or args.wait else tail.show())


class Tail:
    """The ends of some files. Each part of the output tells whose it is, if there are several."""

    def __init__(self, paths: Sequence[str], lines: int) -> None:
        self._paths = paths
        self._lines = lines
        self._status = 0
        self._output = Output()
        self._printing = asyncio.Lock()
        self._shown: str | None = None

    async def show(self) -> int:
        async with self._output:
            for path in self._paths:
                try:
                    await self._show(path)
                except OSError as error:
                    self._complain(path, error)
        return self._status

    async def follow(self, wait: bool) -> int:
        """Does not return while there is a file to follow."""
        async with self._output:
            offsets: dict[str, int] = {}
            for path in self._paths:
                try:
                    if path == STDIN:
                        await self._show(path)
                    else:
                        offsets[path] = await self._show_whole_lines(path)
                except (OSError, ValueError) as error:
                    self._complain(path, error)
                    if wait and isinstance(error, FileNotFoundError):
                        offsets[path] = 0
            await asyncio.gather(*[self._follow(path, at) for path, at in offsets.items()])
        return self._status

    async def _show(self, path: str) -> None:
        async with open_input(path) as file:
            await self._head(path)
            status = await file.file.stat()
            if stat.S_ISREG(status.st_mode) and status.st_size:
                start = await start_of_last(file.file, self._lines, file.tell())
                file.seek(start)
                await self._output.copy_from(file)
            else:  # a stream; and /proc, whose files do not tell their size
                await self._output.write(await last_lines_of(file, self._lines))

    async def _show_whole_lines(self, path: str) -> int:
        """Where the next line will begin."""
        async with AIOFile(path, "rb") as file:
            start = await start_of_last(file, self._lines)
        async with LogReader(path, offset=start) as reader:
            await self._head(path)
            async for lines in reader.batches():
                await self._output.write(b"".join(lines))
            return reader.offset

    async def _follow(self, path: str, offset: int) -> None:
        try:
            async with LogReader(path, offset=offset, follow=True) as reader:
                async for lines in reader.batches():
                    async with self._printing:
                        await self._head(path)
                        await self._output.write(b"".join(lines))
        except (OSError, ValueError) as error:
            self._complain(path, error)

    async def _head(self, path: str) -> None:
        if len(self._paths) > 1 and self._shown != path:
            name = b"standard input" if path == STDIN else os.fsencode(path)
            gap = b"\n" if self._shown is not None else b""
            self._shown = path
            await self._output.write(gap + b"==> " + name + b" <==\n")

    def _complain(self, path: str, error: OSError | ValueError) -> None:
        complain("tail", f"{path}: {reason(error)}")
        self._status = 1


async def start_of_last(file: AIOFile, lines: int, first: int = 0) -> int:
    """Where the last so many lines behind ``first`` begin; looked for from the end on."""
    position = size = (await file.stat()).st_size
    if not lines:
        return size
    while position > first:
        start = max(first, (position - 1) // _BLOCK * _BLOCK)
        block = await file.read_bytes(position - start, start)
        end = len(block)
        if position == size and block.endswith(b"\n"):
            end -= 1  # it ends the last line, and begins none
        while (end := block.rfind(b"\n", 0, end)) >= 0:
            lines -= 1
            if not lines:
                return start + end + 1
        position = start
    return first


async def last_lines_of(file: BinaryFileWrapper, lines: int) -> bytes:
    kept: deque[bytes] = deque(maxlen=lines)
    async for line in file:
        kept.append(line)
    return b"".join(kept)
