"""Whole files: read_bytes, read_text, write_bytes, write_text, and read_files for many."""

from __future__ import annotations

import asyncio
import codecs
import io
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from uringfile._codec import check_codec, new_incremental_decoder
from uringfile._driver import INLINE_SIZE, Driver
from uringfile._engine import EngineName
from uringfile._file import AIOFile
from uringfile._loop import running_driver
from uringfile._native_engine import new_scratch
from uringfile._newlines import check_newline
from uringfile._open import MOUNTS
from uringfile._paths import StrOrBytesPath
from uringfile._turns import COPY_SHIFT

P = TypeVar("P", bound=StrOrBytesPath)

# What one call for many files may copy, and what a file takes from the turn's budget.
_GROUP_BYTES = 256 * 1024
_COST = 3

# Text is decoded and encoded in pieces of so many bytes or characters, and the loop let go
# on in between.
_PIECE = 1 << 19


async def read_bytes(path: StrOrBytesPath, *, engine: EngineName | None = None) -> bytes:
    """The contents of a file.

    Up to 32 KiB that the kernel has cached, on a local file system, come without suspending.
    Raises what ``open`` and ``read`` raise. Cancelled, it leaves no descriptor.
    """
    driver = running_driver(engine)
    if driver.budget <= 0:
        await driver.yield_turn()
    name = os.fsencode(path)
    if b"\0" not in name:
        driver.budget -= _COST
        (size,) = MOUNTS.read_cached_files(name + b"\0", 1, driver.scratch, INLINE_SIZE)
        if size >= 0:
            driver.inline += 1
            data: bytes = driver.scratch_buffer[:size]
            return data
    return await _read_file(path, engine)


async def _read_file(path: StrOrBytesPath, engine: EngineName | None) -> bytes:
    async with AIOFile(path, "rb", engine=engine) as file:
        data: bytes = await file.read()
        return data


async def read_text(
    path: StrOrBytesPath,
    encoding: str = "utf-8",
    errors: str = "strict",
    newline: str | None = None,
    *,
    engine: EngineName | None = None,
) -> str:
    """The contents of a text file; ``newline`` is that of ``open``.

    Also raises ``UnicodeDecodeError``, and ``LookupError`` for an encoding that nobody knows.
    """
    check_newline(newline)
    codec = check_codec(encoding, errors)
    data = await read_bytes(path, engine=engine)
    decoder: Any = new_incremental_decoder(codec, errors)
    if newline is None:
        decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    if len(data) <= _PIECE:
        text: str = decoder.decode(data, True)
        return text
    parts = []
    for start in range(0, len(data), _PIECE):
        parts.append(decoder.decode(data[start : start + _PIECE], start + _PIECE >= len(data)))
        await asyncio.sleep(0)
    return "".join(parts)


async def write_bytes(path: StrOrBytesPath, data: Any, *, engine: EngineName | None = None) -> int:
    """Make ``data`` the contents of the file, which is created, or overwritten: how many bytes.

    Nothing is synced, and a call that fails or is cancelled may leave a part of it: see
    ``atomic_write``. Raises what ``open`` and ``write`` raise.
    """
    memoryview(data).release()  # what is no buffer costs no file
    async with AIOFile(path, "wb", engine=engine) as file:
        return await file.write(data)


async def write_text(
    path: StrOrBytesPath,
    data: str,
    encoding: str = "utf-8",
    errors: str = "strict",
    newline: str | None = None,
    *,
    engine: EngineName | None = None,
) -> int:
    """Make ``data`` the contents of the text file: how many characters. See ``write_bytes``.

    ``newline`` is that of ``open``. Also raises ``UnicodeEncodeError`` (the file is empty then, or
    has what is before the character) and ``LookupError``.
    """
    if not isinstance(data, str):
        raise TypeError(f"data must be str, not {type(data).__name__}")
    check_newline(newline)
    codec = check_codec(encoding, errors)
    end = newline if newline in ("\r", "\r\n") else None
    async with AIOFile(path, "wb", engine=engine) as file:
        offset = 0
        for piece in _encoded(data, codec, errors, end):
            offset += await file.write(piece, offset)
    return len(data)


def _encoded(text: str, codec: str, errors: str, end: str | None) -> Iterator[bytes]:
    encoder = codecs.getincrementalencoder(codec)(errors)
    for start in range(0, max(len(text), 1), _PIECE):
        piece = text[start : start + _PIECE]
        if end is not None:
            piece = piece.replace("\n", end)
        yield encoder.encode(piece, start + _PIECE >= len(text))


# ---- many files -----------------------------------------------------------------------


async def read_files(
    paths: Iterable[P],
    *,
    limit: int = 64,
    return_exceptions: bool = False,
    engine: EngineName | None = None,
) -> AsyncGenerator[tuple[P, Any], None]:
    """The contents of many files: ``async for path, data in read_files(paths)``.

    They come in the order of ``paths``, which is asked for more as they are taken. At most
    ``limit`` files are open, and as many read ahead. Small ones that the kernel has cached, on
    a local file system, are opened, read and closed in groups, without suspending.

    The first error is raised in its place and ends it; with ``return_exceptions`` it is given
    out in the place of the data, and the others go on. Whoever leaves the loop early should
    close it (``contextlib.aclosing``). Cancelled, it leaves no descriptor.
    """
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    ahead = _ReadAhead(running_driver(engine), iter(paths), engine)
    try:
        while ahead.window or not ahead.exhausted:
            # Not one by one: a group is one call.
            while len(ahead.window) <= limit // 2 and not ahead.exhausted:
                await ahead.fetch(limit - len(ahead.window))
            if not ahead.window:
                return
            if not ahead.tasks:
                # All of them are there: nothing to be read ahead meanwhile.
                while ahead.window:
                    yield ahead.window.popleft()
                continue
            path, found = ahead.window.popleft()
            if isinstance(found, asyncio.Task):
                ahead.tasks -= 1
                try:
                    found = await found
                except Exception as error:
                    if not return_exceptions:
                        raise
                    found = error
            yield path, found
    finally:
        await ahead.stop()


class _ReadAhead:
    """Paths that are on their way, in their order, each with its data or with a task."""

    def __init__(self, driver: Driver, paths: Iterator[Any], engine: EngineName | None) -> None:
        self.window: deque[tuple[Any, Any]] = deque()
        #: How many of them are tasks.
        self.tasks = 0
        self.exhausted = False
        self._driver = driver
        self._engine = engine
        self._paths = paths
        # Looked at, but not in the window yet.
        self._next: list[Any] = []
        self._memory, self._buffer = new_scratch(_GROUP_BYTES)

    async def fetch(self, most: int) -> None:
        """Put up to so many into the window."""
        driver = self._driver
        if driver.budget <= 0:
            await driver.yield_turn()
        most = min(most, 1 + driver.budget // _COST)
        group = self._next[:most] or [*islice(self._paths, most)]
        if not group:
            self.exhausted = True
            return
        self._next = self._next[most:]
        sizes = self._read_cached(group)
        self._next = group[len(sizes) :] + self._next
        found: list[Any] = []
        end = 0
        for size in sizes:
            if size >= 0:
                found.append(self._buffer[end : end + size])
                end += size
            else:
                path = group[len(found)]
                found.append(asyncio.ensure_future(_read_file(path, self._engine)))
                self.tasks += 1
                driver.inline -= 1
        self.window.extend(zip(group, found, strict=False))
        driver.inline += len(sizes)
        driver.budget -= _COST * len(sizes) + (end >> COPY_SHIFT)

    def _read_cached(self, group: list[Any]) -> list[int]:
        try:
            names = os.fsencode("\0".join(group))
        except TypeError:
            names = b"\0".join(map(os.fsencode, group))
        if names.count(b"\0") != len(group) - 1:  # one has a zero byte: asked alone it says so
            return [-1] * len(group)
        return MOUNTS.read_cached_files(names + b"\0", len(group), self._memory, _GROUP_BYTES)

    async def stop(self) -> None:
        tasks = [found for _, found in self.window if isinstance(found, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
