"""4,000 files of 1 KiB, each opened, read to its end and closed, by 64 tasks; cached."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from uringfile._bench.contenders import ASYNCIO, SYNC, Contender
from uringfile._bench.files import read_whole
from uringfile._bench.workloads._workload import Run, Workload, awaiting, calling, together

FILES = 4_000
SIZE = 1024
TASKS = 64


class SmallFiles(Workload):
    name = "small-files"
    title = f"{FILES:,} files of 1 KiB: open, read, close; cached, {TASKS} tasks"
    unit = "file"
    per_loop = FILES
    contenders = (SYNC, *ASYNCIO)

    def prepare(self, directory: Path, size: int) -> None:
        folder = directory / "small"
        if folder.exists():
            return
        folder.mkdir()
        for i in range(FILES):
            (folder / f"{i:04}").write_bytes(os.urandom(SIZE))

    @asynccontextmanager
    async def job(self, contender: Contender, directory: Path) -> AsyncIterator[Run]:
        paths = sorted((directory / "small").iterdir())
        _read_all(paths, 1)
        if contender.name == SYNC:
            yield calling(_read_all, paths)
        else:
            if await contender.read_whole(paths[0]) != paths[0].read_bytes():
                raise RuntimeError("read other bytes than there are in the file")
            yield awaiting(_read_in_tasks, contender, paths)


async def _read_in_tasks(contender: Contender, paths: list[Path], times: int) -> None:
    shares = [paths[task::TASKS] * times for task in range(TASKS)]
    await together([_read(contender, share) for share in shares])


async def _read(contender: Contender, paths: list[Path]) -> None:
    for path in paths:
        await contender.read_whole(path)


def _read_all(paths: list[Path], times: int) -> None:
    for path in paths * times:
        read_whole(path)


WORKLOADS = [SmallFiles()]
