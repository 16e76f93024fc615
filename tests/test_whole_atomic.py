"""atomic_write and fsync_dir: all of it or nothing, on whatever errors, whenever cancelled."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run, until
from slow_fuse import mounted
from suspensions import cancelled_at_each
from test_os import longest_delay

import uringfile
from uringfile import AIOFile, _osfiles, atomic_write, fsync_dir
from uringfile._loop import running_driver


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


async def replace(path: Any, data: bytes, **options: Any) -> None:
    async with atomic_write(path, "wb", **options) as file:
        await file.write(data[:3])
        await file.write(data[3:])


@pytest.mark.parametrize("form", [Path, str, os.fsencode])
@pytest.mark.parametrize("old", [None, b"old"])
def test_it_replaces(form: Callable[[Path], Any], old: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)

    async def main() -> None:
        async with atomic_write(form(path), "wb") as file:
            await file.write(b"new data")
            await file.flush()
            assert file.tell() == 8
            # Nothing is seen yet; and all is in the same directory.
            assert (path.read_bytes() if path.exists() else None) == old
            (temporary,) = {p for p in tmp_path.iterdir() if p != path}
            assert os.fsencode(file.name) == os.fsencode(temporary)
            assert temporary.name.startswith(".file.")
            assert temporary.name.endswith(".tmp")
        assert path.read_bytes() == b"new data"
        assert os.listdir(tmp_path) == ["file"]

    run(main())


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with atomic_write(path, encoding="utf-16-le", newline="\r\n") as file:
            await file.write("é\n")
        assert path.read_bytes() == "é\r\n".encode("utf-16-le")
        async with atomic_write(path, "w+") as text:
            await text.write("first\nsecond")
            text.seek(0)
            assert await text.readline() == "first\n"
        assert path.read_text() == "first\nsecond"

    run(main())


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(replace("name", b"data"))
    run(replace(b"bytes", b"data"))
    assert sorted(os.listdir()) == ["bytes", "name"]


def test_long_and_odd_names(tmp_path: Path) -> None:
    for name in (b"n" * 255, b"not-\xffutf", "é".encode() * 127, b".tmp"):
        run(replace(os.path.join(os.fsencode(tmp_path), name), b"data"))
        assert os.listdir(os.fsencode(tmp_path)) == [name]
        (tmp_path / os.fsdecode(name)).unlink()


def test_a_file_that_was_closed_in_the_block(tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with atomic_write(path, "wb") as file:
            await file.write(b"data")
            await file.close()

    run(main())
    assert path.read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o444, 0o4755])
def test_permissions_are_kept(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    path.chmod(mode)
    before = path.stat()
    run(replace(path, b"data"))
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == mode
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_permissions_of_a_new_file_are_those_of_open(tmp_path: Path) -> None:
    run(replace(tmp_path / "ours", b"data"))
    (tmp_path / "theirs").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_links_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/file")
    (tmp_path / "dangling").symlink_to("folder/other")
    run(replace(tmp_path / "link", b"data"))
    run(replace(tmp_path / "dangling", b"data"))
    assert (tmp_path / "link").is_symlink()
    assert (folder / "file").read_bytes() == (folder / "other").read_bytes() == b"data"
    assert sorted(os.listdir(folder)) == ["file", "other"]


def test_what_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    cases = [
        (tmp_path, errno.EISDIR),
        (f"{tmp_path}/new/", errno.EISDIR),
        (tmp_path / "fifo", errno.EINVAL),
        (tmp_path / "loop", errno.ELOOP),
        (tmp_path / "missing" / "file", errno.ENOENT),
        (tmp_path / ("n" * 256), errno.ENAMETOOLONG),
    ]
    for path, code in cases:
        with pytest.raises(OSError, match=r".+") as caught:
            run(replace(path, b"data"))
        assert caught.value.errno == code
        assert caught.value.filename is not None
    for mode in ("r", "a", "x", "r+", "rb", "q"):
        with pytest.raises(ValueError, match="mode"):
            atomic_write(tmp_path / "file", mode)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="null"):
        run(replace("nul\0l", b"data"))
    with pytest.raises(LookupError):
        run(text_with(tmp_path / "file", encoding="no such codec"))
    assert sorted(os.listdir(tmp_path)) == ["fifo", "loop"]


async def text_with(path: Path, **options: Any) -> None:
    async with atomic_write(path, **options):
        raise AssertionError


def test_it_is_used_once(tmp_path: Path) -> None:
    async def main() -> None:
        writing = atomic_write(tmp_path / "file", "wb")
        async with writing:
            pass
        with pytest.raises(RuntimeError, match="once"):
            async with writing:
                pass

    run(main())


# ---- nothing is seen of what fails -------------------------------------------------------


def test_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    async def fail() -> None:
        async with atomic_write(path, "wb") as file:
            await file.write(b"x" * 1_000_000)
            raise ZeroDivisionError

    async def main() -> None:
        before = open_fds()
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]
        assert {fd for fd in open_fds() - before if str(tmp_path) in fd} == set()

    run(main())


@pytest.mark.parametrize("step", ["write", "fsync", "rename", "directory"])
def test_each_step_fails(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    async def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    where: dict[str, tuple[Any, str]] = {
        "write": (AIOFile, "write_bytes"),
        "fsync": (AIOFile, "fsync"),
        "rename": (_osfiles, "rename"),
        "directory": (uringfile._atomic, "fsync_dir"),
    }
    target, name = where[step]
    monkeypatch.setattr(target, name, refuse)
    before = {fd for fd in open_fds() if str(tmp_path) in fd}
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        run(replace(path, b"x" * 1_000_000))
    assert path.read_bytes() == (b"x" * 1_000_000 if step == "directory" else b"old")
    assert os.listdir(tmp_path) == ["file"]
    assert {fd for fd in open_fds() if str(tmp_path) in fd} == before


def test_it_is_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    seen: list[str] = []

    def watch(target: Any, name: str) -> None:
        real = getattr(target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return await real(*args, **kwargs)

        monkeypatch.setattr(target, name, call)

    watch(AIOFile, "write_bytes")
    watch(AIOFile, "fsync")
    watch(_osfiles, "rename")
    watch(uringfile._atomic, "fsync_dir")
    run(replace(path, b"data"))
    assert seen == ["write_bytes", "fsync", "rename", "fsync_dir"]
    seen.clear()
    run(replace(path, b"data", sync=False))
    assert seen == ["write_bytes", "rename"]


@pytest.mark.parametrize("old", [None, b"old"])
def test_cancelled_anywhere_nothing_is_left(old: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    (tmp_path / "link").symlink_to(path)
    if old is not None:
        path.write_bytes(old)
        path.chmod(0o611)

    async def main() -> None:
        running_driver()
        await uringfile.read_bytes(__file__)
        before = {fd for fd in open_fds() if str(tmp_path) in fd}
        replaced = 0
        async for cancelled in cancelled_at_each(
            lambda: replace(tmp_path / "link", b"new data"), at_once=True
        ):
            # At once, not later: the call has waited for it.
            assert os.listdir(path.parent) in ([], ["file"])
            content = path.read_bytes() if path.exists() else None
            assert content in (old, b"new data")
            replaced += content == b"new data"
            if not cancelled:
                assert content == b"new data"
            if old is None and content is not None:
                path.unlink()
            elif old is not None:
                path.write_bytes(old)
            await until(lambda: {fd for fd in open_fds() if str(tmp_path) in fd} == before)
        assert replaced >= 2

    run(main())


def test_what_is_cancelled_before_the_rename_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    real = AIOFile.fsync

    async def main() -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def held(file: AIOFile) -> None:
            reached.set()
            await go_on.wait()
            await real(file)

        monkeypatch.setattr(AIOFile, "fsync", held)
        task = asyncio.ensure_future(replace(path, b"new"))
        await reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    run(main())


@pytest.mark.parametrize("after", [0.0, 0.001, 0.003, 0.01])
def test_cancelled_twice_nothing_is_left(after: float, tmp_path: Path) -> None:
    async def main() -> None:
        for delay in (0, 0.0005, 0.002):
            task = asyncio.ensure_future(replace(tmp_path / "file", b"data"))
            await asyncio.sleep(after)
            task.cancel()
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            assert {*os.listdir(tmp_path)} <= {"file"}

    run(main())


def test_the_end_of_the_loop_leaves_nothing(tmp_path: Path) -> None:
    """asyncio.run cancels all tasks, and waits for them."""

    async def main() -> None:
        for i in range(20):
            _tasks.append(asyncio.ensure_future(replace(tmp_path / f"{i}", b"data")))
            await asyncio.sleep(0.0002 * i)

    _tasks: list[Any] = []
    asyncio.run(main())
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_closed_coroutine_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with atomic_write(tmp_path / "file", "wb"):
            await asyncio.sleep(0)

    async def main() -> None:
        coroutine = work()
        while not os.listdir(tmp_path):
            awaited: Any = coroutine.send(None)
            while awaited is not None and not awaited.done():
                await asyncio.sleep(0.001)
        coroutine.close()
        await until(lambda: os.listdir(tmp_path) == [])

    run(main())


# ---- fsync_dir ---------------------------------------------------------------------------


def test_fsync_dir(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        running_driver()
        before = open_fds()
        for path in (tmp_path, str(tmp_path), os.fsencode(tmp_path), "."):
            await fsync_dir(path)
        for path, error in [
            (tmp_path / "missing", FileNotFoundError),
            (tmp_path / "file", NotADirectoryError),
            ("", FileNotFoundError),
        ]:
            with pytest.raises(error) as caught:
                await fsync_dir(path)
            assert caught.value.filename == str(path)
        await fsync_dir("/proc")  # has no such thing
        await until(lambda: open_fds() == before)
        async for _ in cancelled_at_each(lambda: fsync_dir(tmp_path)):
            assert open_fds() == before

    run(main())


def test_fsync_dir_syncs(tmp_path: Path) -> None:
    """Seen from outside: the system call, on the directory."""
    try:
        subprocess.run(["strace", "-V"], check=True, capture_output=True)
    except OSError:
        pytest.skip("needs strace")
    code = f"import asyncio, uringfile; asyncio.run(uringfile.fsync_dir({str(tmp_path)!r}))"
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", "trace=fsync", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "URINGFILE_ENGINE": "posix_aio"},
    )
    assert f"<{tmp_path}>" in done.stderr, done.stderr


# Longer than the loop mostly stands still on a machine that has much else to do.
DELAY = 0.25


def test_nothing_waits_for_a_slow_file_system(tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "file").write_bytes(b"some data")
    with mounted(tmp_path, DELAY) as mount:

        async def cancelled() -> None:
            task = asyncio.ensure_future(replace(mount / "other", b"data"))
            await asyncio.sleep(1.5 * DELAY)
            task.cancel()
            await asyncio.wait([task])

        async def main() -> float:
            running_driver()
            start = time.perf_counter()
            longest = await longest_delay(
                replace(mount / "file", b"new data"), fsync_dir(mount), cancelled()
            )
            assert time.perf_counter() - start > 5 * DELAY
            await until(lambda: os.listdir(tmp_path / "back") == ["file"], 10)
            return longest

        assert any(run(main()) < DELAY * 0.75 for _ in range(3))  # the machine may stand still
        assert (tmp_path / "back" / "file").read_bytes() == b"new data"
