"""uringfile.os: what is answered at once, what the engine and what a thread does, descriptors
that are passed, and cancellation. That results are those of os: test_os_differential.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from conftest import COUNTS_REFERENCES, collect, counted_turns, open_fds, run, until
from suspensions import cancelled_at_each, descriptors

import uringfile
from uringfile import os as aos
from uringfile._engine import STATX_PATH, UNLINKAT
from uringfile._loop import running_driver


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


def counters() -> tuple[int, int]:
    """Operations, and calls of threads."""
    found = uringfile.stats()
    return found.submitted, found.in_threads


def tells_mounts() -> bool:
    """Whether the kernel tells the number of a mount, without which nothing is answered at once."""
    from uringfile._native_engine import identify

    fd = os.open("/", os.O_RDONLY)
    try:
        return identify(fd).mount != 0
    finally:
        os.close(fd)


async def mostly_at_once(ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Not always: when others mount or rename, the kernel may want to look twice."""
    await ask()  # now the mount is known, and the names are cached
    before = sum(counters())
    for _ in range(20):
        await ask()
    assert sum(counters()) - before <= 10


# ---- who does it -------------------------------------------------------------------


def test_a_cached_name_is_answered_at_once(tmp_path: Path) -> None:
    if not tells_mounts():
        pytest.skip("the kernel does not tell the number of a mount (Linux 6.8)")
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"some data")
    link.symlink_to(file)

    async def ask() -> None:
        assert await aos.stat(file) == os.stat(file)
        assert await aos.stat(os.fsencode(link)) == os.stat(file)
        assert await aos.lstat(str(link)) == os.lstat(link)
        assert stat.S_ISLNK((await aos.stat(link, follow_symlinks=False)).st_mode)
        assert await aos.path.getsize(file) == 9
        assert await aos.path.isfile(link)

    run(mostly_at_once(ask))


def test_a_missing_name_is_answered_at_once(tmp_path: Path) -> None:
    if not tells_mounts():
        pytest.skip("the kernel does not tell the number of a mount (Linux 6.8)")
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.touch()
    with file.open() as opened, contextlib.suppress(OSError):
        fcntl.fcntl(opened, fcntl.F_GET_SEALS)
        pytest.skip("a tmpfs does not remember what is missing")

    async def ask() -> None:
        assert not await aos.path.exists(missing)
        with pytest.raises(FileNotFoundError) as caught:
            await aos.stat(missing)
        assert caught.value.filename == str(missing)
        with pytest.raises(OSError, match="too long"):
            await aos.stat("n" * 5000)
        with pytest.raises(NotADirectoryError):
            await aos.lstat(f"{file}/")

    run(mostly_at_once(ask))


def test_cached_names_leave_the_loop_to_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with counted_turns() as turns:
            for _ in range(2000):
                await aos.stat(tmp_path)
        assert turns() >= 10

    run(main())


def test_operations_go_to_the_engine_where_it_has_them(engine: str, tmp_path: Path) -> None:
    async def main() -> None:
        driver = running_driver()
        before = counters()
        await aos.mkdir(tmp_path / "a")
        fd = await aos.open(tmp_path / "f", os.O_CREAT | os.O_RDWR, 0o600)
        await aos.ftruncate(fd, 10)
        await aos.posix_fallocate(fd, 0, 20)
        await aos.close(fd)
        await aos.symlink("f", tmp_path / "s")
        await aos.link(tmp_path / "f", tmp_path / "l")
        await aos.rename(tmp_path / "l", tmp_path / "m")
        await aos.replace(tmp_path / "m", tmp_path / "f")
        await aos.unlink(tmp_path / "s")
        await aos.rmdir(tmp_path / "a")
        submitted, in_threads = counters()
        assert (submitted - before[0]) + (in_threads - before[1]) == 11
        served = [op for op in range(2, 15) if driver.serves(op)]
        if engine == "posix_aio":
            assert submitted == before[0]
        elif len(served) == 13:  # all of them: Linux 6.9
            assert in_threads == before[1]

    run(main())
    assert (tmp_path / "f").stat().st_size == 20


def test_each_operation_is_missed_alone(tmp_path: Path) -> None:
    async def main() -> None:
        driver = running_driver()
        all_of_them = driver.engine.opcodes
        driver.engine.opcodes = all_of_them & ~(1 << UNLINKAT | 1 << STATX_PATH)
        before = counters()
        await aos.mkdir(tmp_path / "a")
        await aos.rmdir(tmp_path / "a")
        assert (await aos.stat("/proc/self/maps")).st_mode == os.stat("/proc/self/maps").st_mode
        submitted, in_threads = counters()
        assert in_threads - before[1] >= 2
        assert (submitted - before[0]) == (1 if all_of_them >> 13 & 1 else 0)

    run(main())


# ---- errors ------------------------------------------------------------------------


def test_other_file_systems(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system in /dev/shm")
    file = tmp_path / "file"
    file.touch()
    other = elsewhere / f"uringfile-{os.getpid()}"

    async def main() -> None:
        for function in (aos.rename, aos.link):
            with pytest.raises(OSError, match=os.strerror(errno.EXDEV)) as caught:
                await function(file, other)
            assert caught.value.errno == errno.EXDEV
            assert (caught.value.filename, caught.value.filename2) == (str(file), str(other))

    run(main())
    assert not other.exists()


def test_what_is_not_permitted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    if not shutil.which("chattr"):
        pytest.skip("chattr is not installed")
    if os.geteuid() != 0 or subprocess.run(["chattr", "+i", file], check=False).returncode:
        pytest.skip("needs root, and a file system with immutable files")

    async def main() -> None:
        with pytest.raises(PermissionError) as caught:
            await aos.unlink(file)
        assert (caught.value.errno, caught.value.filename) == (errno.EPERM, str(file))
        with pytest.raises(PermissionError) as caught:
            await aos.rename(file, tmp_path / "other")
        assert caught.value.filename2 == str(tmp_path / "other")

    try:
        run(main())
    finally:
        subprocess.run(["chattr", "-i", file], check=True)


@pytest.mark.parametrize("path", [None, 1.5, object()])
def test_what_is_no_path(path: Any) -> None:
    async def main() -> None:
        for call in (aos.stat, aos.unlink, aos.mkdir, aos.listdir, aos.path.getsize):
            if path is None and call is aos.listdir:
                continue  # that means "."
            with pytest.raises(TypeError):
                await call(path)
        with pytest.raises(TypeError):
            await aos.rename("a", path)

    run(main())


# ---- descriptors that are passed ------------------------------------------------------


def test_descriptors_in_the_place_of_paths(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"some data")

    async def main() -> None:
        running_driver()
        fd, folder = os.open(file, os.O_RDWR), os.open(tmp_path, os.O_RDONLY)
        before = open_fds()
        assert await aos.stat(fd) == os.stat(fd)
        assert await aos.path.exists(fd)
        assert await aos.listdir(folder) == ["file"]
        async with aos.scandir(folder) as entries:
            (entry,) = [entry async for entry in entries]
        assert (entry.name, entry.path) == ("file", "file")
        assert await entry.stat() == os.stat(file)
        await aos.truncate(fd, 4)
        await aos.chmod(fd, 0o640)
        assert (await aos.statvfs(fd)).f_bsize == os.statvfs(fd).f_bsize
        assert open_fds() == before
        os.close(fd)
        os.close(folder)
        for call in (aos.stat(fd), aos.chmod(fd, 0o600)):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                await call
            assert caught.value.filename == fd or not COUNTS_REFERENCES  # os of PyPy: None
        assert not await aos.path.exists(fd)
        for call in (
            aos.listdir(folder),
            aos.scandir(folder),
            aos.truncate(fd, 1),
            aos.ftruncate(fd, 1),
            aos.posix_fallocate(fd, 0, 1),
        ):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                await call
            assert caught.value.filename is None
        with pytest.raises(ValueError, match="follow_symlinks"):
            await aos.stat(0, follow_symlinks=False)
        with pytest.raises(ValueError, match="dir_fd"):
            await aos.stat(0, dir_fd=1)

    run(main())
    assert file.read_bytes() == b"some"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_dir_fd_may_be_closed_when_the_caller_is_released(tmp_path: Path) -> None:
    """Or the name would be looked for in the directory that has the number by then."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for folder in (right, wrong):
        folder.mkdir()
        (folder / "name").touch()

    async def main() -> None:
        fd = os.open(right, os.O_RDONLY)
        task = asyncio.ensure_future(aos.unlink("name", dir_fd=fd))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        other = os.open(wrong, os.O_RDONLY)
        os.dup2(other, fd)  # the number now means another directory
        os.close(other)
        await asyncio.sleep(0.05)
        os.close(fd)

    before = open_fds()
    run(main())
    assert (wrong / "name").exists()
    assert open_fds() == before


def test_a_bad_dir_fd_matters_to_relative_paths_alone(tmp_path: Path) -> None:
    fd = 9999

    async def main() -> None:
        assert (await aos.stat(str(tmp_path), dir_fd=fd)) == os.stat(tmp_path)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            await aos.stat("name", dir_fd=fd)
        assert caught.value.filename == "name"

    run(main())


def test_sendfile(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"0123456789")

    async def main() -> None:
        source = os.open(tmp_path / "in", os.O_RDONLY)
        out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT, 0o600)
        assert await aos.sendfile(out, source, 2, 5) == 5
        assert await aos.sendfile(out, source, None, 100) == 10
        assert await aos.sendfile(out, source, 10, 5) == 0
        os.close(out)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await aos.sendfile(out, source, 0, 1)
        os.close(source)

    run(main())
    assert (tmp_path / "out").read_bytes() == b"234560123456789"


# ---- directories --------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More entries than one call of a thread reads."""
    folder = tmp_path_factory.mktemp("crowd")
    for i in range(2500):
        (folder / f"{i:04}").touch()
    return folder


def test_scandir_reads_large_directories_in_groups(crowd: Path) -> None:
    async def main() -> None:
        running_driver()
        before = open_fds()
        names = [entry.name async for entry in aos.scandir(crowd)]
        assert sorted(names) == sorted(os.listdir(crowd))
        assert len(names) == 2500
        assert counters()[1] == 3
        assert open_fds() == before
        async with aos.scandir(os.fsencode(crowd)) as entries:
            assert isinstance((await entries.__anext__()).name, bytes)
        assert open_fds() == before
        assert [entry async for entry in entries] == []
        await entries.aclose()

    run(main())


def test_scandir_that_is_not_closed_warns(crowd: Path) -> None:
    async def main() -> None:
        running_driver()
        before = open_fds()
        left = [await aos.scandir(crowd)]
        with pytest.warns(ResourceWarning, match="scandir"):
            await until(lambda: not left.clear() and open_fds() == before)

    run(main())


def test_a_cancelled_scandir_loses_nothing(crowd: Path) -> None:
    async def main() -> None:
        async with aos.scandir(crowd) as entries:
            names = []
            while True:
                task = asyncio.ensure_future(entries.__anext__())
                await asyncio.sleep(0)
                task.cancel()
                try:
                    names.append((await task).name)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.01)
                except StopAsyncIteration:
                    break
        assert sorted(names) == sorted(os.listdir(crowd))

    run(main())


def test_scandir_errors(tmp_path: Path) -> None:
    async def main() -> None:
        missing = tmp_path / "missing"
        with pytest.raises(FileNotFoundError) as caught:
            await aos.scandir(missing)
        assert os.fsdecode(caught.value.filename) == str(missing)  # os of PyPy: bytes
        with pytest.raises(FileNotFoundError):
            async with aos.scandir(missing):
                raise AssertionError
        with pytest.raises(FileNotFoundError):
            _ = [entry async for entry in aos.scandir(missing)]

    run(main())


def test_walk_is_directed_by_its_caller(tmp_path: Path) -> None:
    for name in ("a/b", "c/d", "e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "to_c").symlink_to("c")

    async def main() -> None:
        seen = []
        async for path, dirs, _ in aos.walk(tmp_path):
            seen.append(os.path.relpath(path, tmp_path))
            if path == str(tmp_path):
                dirs[:] = ["e", "c", "to_c"]
                # What becomes a link meanwhile is not followed.
                (tmp_path / "e").rmdir()
                (tmp_path / "e").symlink_to("a")
        assert seen == [".", "c", "c/d"]
        followed = [path async for path, _, _ in aos.walk(tmp_path, followlinks=True)]
        assert str(tmp_path / "to_c" / "d") in followed
        upwards = [path async for path, _, _ in aos.walk(tmp_path, topdown=False)]
        assert upwards[-1] == str(tmp_path)
        errors: list[OSError] = []
        assert [x async for x in aos.walk(tmp_path / "missing", onerror=errors.append)] == []
        assert [error.errno for error in errors] == [errno.ENOENT]
        assert [x async for x in aos.walk(tmp_path / "missing")] == []

    run(main())


# ---- cancellation -------------------------------------------------------------------


def test_an_error_that_comes_too_late_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def ask() -> None:
            with contextlib.suppress(FileNotFoundError):
                await aos.readlink(tmp_path / "missing")

        async for _ in cancelled_at_each(ask):
            collect()

    run(main())
    assert not caplog.records


async def _scan(path: Path) -> None:
    async with aos.scandir(path) as entries:
        async for entry in entries:
            await entry.stat()


async def _open_and_close(path: Path) -> None:
    await aos.close(await aos.open(path, os.O_CREAT | os.O_RDWR, dir_fd=None))


async def _open_close_at(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        made = await aos.open(path.name, os.O_CREAT | os.O_RDWR, dir_fd=fd)
    finally:
        os.close(fd)
    await aos.close(made)


async def _make_and_remove(path: Path) -> None:
    await aos.makedirs(path / "a" / "b", exist_ok=True)
    await aos.removedirs(path / "a" / "b")


async def _walk(path: Path) -> None:
    async for _ in aos.walk(path):
        pass


async def _ask(path: Path) -> None:
    await aos.stat("/proc/self/maps")
    await aos.stat(path)
    await aos.stat("/proc/self/fd/0", follow_symlinks=False)
    await aos.access(path, os.R_OK)
    await aos.listdir(path)


async def _link(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        # A call that was cancelled may have been performed.
        with contextlib.suppress(FileExistsError):
            await aos.symlink("x", "s", dir_fd=fd)
        with contextlib.suppress(FileNotFoundError):
            await aos.rename("s", "t", src_dir_fd=fd, dst_dir_fd=fd)
        with contextlib.suppress(FileNotFoundError):
            await aos.unlink("t", dir_fd=fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "work", [_scan, _open_and_close, _open_close_at, _make_and_remove, _walk, _ask, _link]
)
def test_cancelled_anywhere_it_leaks_no_descriptor(
    work: Callable[[Path], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    path = tmp_path / "made" if work in (_open_and_close, _open_close_at) else tmp_path
    (tmp_path / "stays").touch()

    async def main() -> None:
        await work(path)
        before = descriptors()
        async for _ in cancelled_at_each(lambda: work(path)):
            assert descriptors() == before

    run(main())


# ---- a slow file system ---------------------------------------------------------------


async def longest_delay(*works: Coroutine[Any, Any, Any]) -> float:
    """How long the loop stood still at most while they ran side by side, in seconds."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - start - 0.001)

    ticking = asyncio.ensure_future(tick())
    await asyncio.gather(*works)
    ticking.cancel()
    return longest
