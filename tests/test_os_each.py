"""Each function of uringfile.os, on a slow file system and cancelled at each of its awaits."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from slow_fuse import answering_at_once, mounted
from suspensions import cancelled_at_each, descriptors
from test_os import longest_delay

from uringfile import _names, _osfiles
from uringfile import os as aos
from uringfile._loop import running_driver


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


@dataclass
class Place:
    """A folder for one function alone: ``file``, ``link`` that leads to it, ``dir/file`` and
    ``vacant``."""

    folder: Path
    #: Descriptors of another file and of another folder of the same file system.
    file_fd: int
    folder_fd: int

    @property
    def file(self) -> Path:
        return self.folder / "file"

    @property
    def link(self) -> Path:
        return self.folder / "link"

    @property
    def new(self) -> Path:
        return self.folder / "new"


def make_place(folder: Path) -> None:
    for name in ("dir", "vacant"):
        (folder / name).mkdir(parents=True)
    (folder / "file").write_bytes(b"some data")
    (folder / "dir" / "file").touch()
    (folder / "link").symlink_to("file")


async def scan(path: Any) -> None:
    async with aos.scandir(path) as entries:
        async for entry in entries:
            entry.is_dir()
            await entry.stat()


async def walk(path: Path) -> None:
    async for _ in aos.walk(path):
        pass


async def open_and_close(path: Path, flags: int) -> None:
    await aos.close(await aos.open(path, flags))


EACH: dict[Any, Callable[[Place], Coroutine[Any, Any, Any]]] = {
    aos.access: lambda at: aos.access(at.file, os.R_OK),
    aos.chmod: lambda at: aos.chmod(at.file, 0o640),
    aos.close: lambda at: aos.close(os.dup(at.file_fd)),
    aos.exists: lambda at: aos.exists(at.link),
    aos.ftruncate: lambda at: aos.ftruncate(at.file_fd, 100),
    aos.getsize: lambda at: aos.getsize(at.link),
    aos.isdir: lambda at: aos.isdir(at.link),
    aos.isfile: lambda at: aos.isfile(at.link),
    aos.islink: lambda at: aos.islink(at.link),
    aos.lexists: lambda at: aos.lexists(at.folder / "missing"),
    aos.link: lambda at: aos.link(at.file, at.new),
    aos.listdir: lambda at: aos.listdir(at.folder),
    aos.lstat: lambda at: aos.lstat("dir", dir_fd=at.folder_fd),
    aos.makedirs: lambda at: aos.makedirs(at.new / "er" / "est"),
    aos.mkdir: lambda at: aos.mkdir(at.new),
    aos.open: lambda at: open_and_close(at.new, os.O_CREAT | os.O_RDWR),
    aos.posix_fallocate: lambda at: aos.posix_fallocate(at.file_fd, 0, 20),
    aos.readlink: lambda at: aos.readlink(at.link),
    aos.remove: lambda at: aos.remove(at.file),
    aos.removedirs: lambda at: aos.removedirs(at.folder / "vacant"),
    aos.rename: lambda at: aos.rename(at.file, at.new),
    aos.renames: lambda at: aos.renames(at.file, at.new / "er"),
    aos.replace: lambda at: aos.replace(at.file, at.new),
    aos.rmdir: lambda at: aos.rmdir(at.folder / "vacant"),
    aos.scandir: lambda at: scan(at.folder),
    aos.sendfile: lambda at: aos.sendfile(at.file_fd, at.file_fd, 0, 4),
    aos.stat: lambda at: aos.stat(at.file_fd),
    aos.statvfs: lambda at: aos.statvfs(at.folder),
    aos.symlink: lambda at: aos.symlink("target", at.new),
    aos.truncate: lambda at: aos.truncate(at.file, 5),
    aos.unlink: lambda at: aos.unlink(at.file),
    aos.utime: lambda at: aos.utime(at.file, (1, 2)),
    aos.walk: lambda at: walk(at.folder),
    aos.path.getatime: lambda at: aos.path.getatime(at.file),
    aos.path.getctime: lambda at: aos.path.getctime(at.file),
    aos.path.getmtime: lambda at: aos.path.getmtime(at.file),
    aos.path.ismount: lambda at: aos.path.ismount(at.folder),
    aos.path.realpath: lambda at: aos.path.realpath(at.link),
    aos.path.samefile: lambda at: aos.path.samefile(at.file, at.link),
    aos.path.sameopenfile: lambda at: aos.path.sameopenfile(at.file_fd, at.folder_fd),
}


def test_none_is_left_out() -> None:
    named = [getattr(aos, name) for name in aos.__all__]
    named += [getattr(aos.path, name) for name in aos.path.__all__]
    assert {each for each in named if inspect.isfunction(each)} == set(EACH)


# Longer than the loop mostly stands still on a machine that has much else to do.
DELAY = 0.25


def test_none_waits_for_a_slow_file_system(tmp_path: Path) -> None:
    """Side by side: what holds up the loop in one of them is seen beside all."""
    back = tmp_path / "back"
    back.mkdir()

    def prepare(mount: Path) -> None:
        for each in EACH:
            shutil.rmtree(back / each.__name__, ignore_errors=True)
            make_place(back / each.__name__)
        # A folder looks for names that it does not know one after another.
        with answering_at_once(tmp_path):
            for each in EACH:
                os.stat(mount / each.__name__)

    make_place(back / "other")
    with mounted(tmp_path, DELAY) as mount:
        file_fd = os.open(mount / "other" / "file", os.O_RDWR)
        folder_fd = os.open(mount / "other", os.O_RDONLY)

        async def timed(each: Any) -> float:
            start = time.perf_counter()
            await EACH[each](Place(mount / each.__name__, file_fd, folder_fd))
            return time.perf_counter() - start

        async def cancelled_open() -> None:
            task = asyncio.ensure_future(aos.open(mount / "other" / "file", os.O_RDONLY))
            await asyncio.sleep(DELAY / 4)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(3 * DELAY)

        async def scan_by_number() -> None:
            if sys.version_info >= (3, 11):  # before, os.DirEntry holds up all threads then
                await scan(folder_fd)

        async def main() -> float:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(len(EACH)))
            await aos.stat(tmp_path)
            await asyncio.sleep(1.1)  # so long the kernel remembers what it was told
            took: dict[Any, float] = {}

            async def note(each: Any) -> None:
                took[each] = await timed(each)

            longest = await longest_delay(*map(note, EACH), cancelled_open(), scan_by_number())
            at_once = {each.__name__ for each, seconds in took.items() if seconds < DELAY / 2}
            assert not at_once, "these did not ask the slow file system"
            return longest

        def attempt() -> bool:
            prepare(mount)
            return run(main()) < DELAY * 0.75

        try:
            assert any(attempt() for _ in range(3))  # the machine may stand still
        finally:
            os.close(file_fd)
            os.close(folder_fd)


@pytest.mark.parametrize("by_engine", [True, False], ids=["operations", "threads"])
def test_cancelled_at_any_await_none_leaks_a_descriptor(
    by_engine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``threads``: as where the kernel has none of the operations."""
    # Nothing is known, or all is answered at once and there is nothing to cancel.
    monkeypatch.setattr(_names.MOUNTS, "open_path_cached", lambda *args: -errno.EAGAIN)
    monkeypatch.setattr(_names.MOUNTS, "get", lambda mount: None)
    monkeypatch.setattr(_osfiles, "open_cached", lambda *args: -1)
    make_place(tmp_path / "other")
    file_fd = os.open(tmp_path / "other" / "file", os.O_RDWR)
    folder_fd = os.open(tmp_path / "other", os.O_RDONLY)
    place = Place(tmp_path / "own", file_fd, folder_fd)

    async def main() -> None:
        driver = running_driver()
        if not by_engine:
            driver.engine.opcodes = 0
        for each, call in EACH.items():

            async def work(call: Any = call) -> None:
                shutil.rmtree(place.folder, ignore_errors=True)
                make_place(place.folder)
                await call(place)

            await work()
            before = descriptors()
            async for _ in cancelled_at_each(work):
                assert descriptors() == before, each.__name__

    try:
        run(main())
    finally:
        os.close(file_fd)
        os.close(folder_fd)
