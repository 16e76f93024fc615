"""Lines of 70 bytes, iterated over from the first to the last; opening the file included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders import OURS, SYNC, Contender
from uringfile._bench.contenders._contender import Lines as AnyLines
from uringfile._bench.files import warm
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling

LINES = 20_000
_LINE = b"%069d\n"


class Lines(Workload):
    unit = "line"
    per_loop = LINES

    def __init__(self, by_reader: bool, text: bool) -> None:
        of_what = "text" if text else "bytes"
        self.name = f"{'lines' if by_reader else 'file-lines'}-{of_what}"
        by_what = "a LineReader" if by_reader else "a file object"
        self.title = f"Lines of 70 bytes, {LINES:,} of them, cached, by {by_what}, as {of_what}"
        # aiofiles has no reader of lines.
        self.contenders = (SYNC, *OURS, *([] if by_reader else ["aiofiles"]), "aiofile")
        self._by_reader = by_reader
        self._text = text

    def prepare(self, directory: Path, size: int) -> None:
        (directory / "lines.txt").write_bytes(b"".join(_LINE % i for i in range(LINES)))

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        path = directory / "lines.txt"
        warm(path)
        if contender.name == SYNC:
            yield calling(_iterate_text if self._text else _iterate_bytes, path)
        else:
            async with self._open(contender, path) as lines:
                found = "".join([x if isinstance(x, str) else x.decode() async for x in lines])
            if found != path.read_text():
                raise RuntimeError("found other lines than there are in the file")
            yield awaiting(self._iterate, contender, path)

    def _open(self, contender: Contender, path: Path) -> AbstractAsyncContextManager[AnyLines]:
        opened = contender.lines if self._by_reader else contender.file_lines
        return opened(path, text=self._text)

    async def _iterate(self, contender: Contender, path: Path, times: int) -> None:
        for _ in range(times):
            async with self._open(contender, path) as lines:
                async for _line in lines:
                    pass


def _iterate_text(path: Path, times: int) -> None:
    for _ in range(times):
        with open(path, encoding="utf-8") as lines:
            for _line in lines:
                pass


def _iterate_bytes(path: Path, times: int) -> None:
    for _ in range(times):
        with open(path, "rb") as lines:
            for _line in lines:
                pass


WORKLOADS = [Lines(by_reader, text) for by_reader in (True, False) for text in (False, True)]
