"""copyfile: the results of shutil.copyfile, and what cancelling leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run, run_python, until
from slow_fuse import mounted
from suspensions import cancelled_at_each
from test_os import longest_delay

from uringfile import _copy, copyfile
from uringfile._loop import running_driver

PIECE = 1 << 16


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_copy, "_PIECE", PIECE)


Way = Callable[..., Any]


def ours(*args: Any, **kwargs: Any) -> Any:
    return run(copyfile(*args, **kwargs))


def no_clone(source: int, target: int) -> bool:
    return False


@pytest.fixture(params=["as it comes", "copy_file_range", "read and write"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the ways that the data may go."""
    if request.param != "as it comes":
        monkeypatch.setattr(_copy, "_clone", no_clone)
        monkeypatch.setattr(_copy, "fd_is_local", lambda fd: request.param == "read and write")


@pytest.mark.usefixtures("small_pieces", "way")
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 77])
def test_the_data(size: int, tmp_path: Path) -> None:
    src, dst, data = tmp_path / "src", tmp_path / "dst", os.urandom(size)
    src.write_bytes(data)
    seen: list[tuple[int, int]] = []

    async def main() -> None:
        result = await copyfile(src, dst, progress=lambda *amounts: seen.append(amounts))
        assert result == dst
        await asyncio.sleep(0)
        assert seen[-1] == (size, size)
        assert seen == sorted(seen)
        assert all(copied <= total for copied, total in seen)

    run(main())
    assert dst.read_bytes() == data
    dst.write_bytes(b"longer than that" * PIECE)  # it is cut
    dst.chmod(0o611)
    inode = dst.stat().st_ino
    assert ours(os.fsencode(src), os.fsencode(dst)) == os.fsencode(dst)
    assert dst.read_bytes() == data
    assert (dst.stat().st_ino, dst.stat().st_mode & 0o777) == (inode, 0o611)


@pytest.mark.usefixtures("way")
def test_what_does_not_tell_its_size(tmp_path: Path) -> None:
    ours("/proc/version", tmp_path / "dst")
    assert (tmp_path / "dst").read_bytes() == Path("/proc/version").read_bytes()


def test_between_file_systems(tmp_path: Path) -> None:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs /dev/shm")
    elsewhere = Path("/dev/shm") / f"uringfile-{os.getpid()}"
    (tmp_path / "src").write_bytes(b"data" * 100_000)
    try:
        ours(tmp_path / "src", elsewhere)
        ours(elsewhere, tmp_path / "dst")
    finally:
        elsewhere.unlink(missing_ok=True)
    assert (tmp_path / "dst").read_bytes() == b"data" * 100_000


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "missing": ("missing", "dst", {}),
    "no directory": ("src", "missing/dst", {}),
    "from a directory": ("folder", "dst", {}),
    "to a directory": ("src", "folder", {}),
    "onto itself": ("src", "src", {}),
    "onto itself by a link": ("src", "link", {}),
    "from a pipe": ("fifo", "dst", {}),
    "to a pipe": ("src", "fifo", {}),
    "a link": ("link", "dst", {}),
    "a link as a link": ("link", "dst", {"follow_symlinks": False}),
    "a link onto something": ("link", "other", {"follow_symlinks": False}),
    "a dangling link": ("dangling", "dst", {}),
    "a dangling link as a link": ("dangling", "dst", {"follow_symlinks": False}),
    "to a dangling link": ("src", "dangling", {}),
    "to a link": ("src", "to other", {}),
    "to a loop": ("src", "loop", {}),
    "a device": ("/dev/null", "dst", {}),
    "a long name": ("src", "n" * 256, {}),
    "a zero byte": ("src", "nul\0l", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_as_shutil(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src, dst, options = CASES[name]

    def outcome(folder: str, function: Way) -> Any:
        root = tmp_path / folder
        (root / "folder").mkdir(parents=True)
        monkeypatch.chdir(root)
        Path("src").write_bytes(b"some data")
        Path("other").write_bytes(b"something else")
        for link, target in [
            ("link", "src"),
            ("to other", "other"),
            ("dangling", "nowhere"),
            ("loop", "loop"),
        ]:
            os.symlink(target, link)
        os.mkfifo("fifo")
        try:
            result = function(src, dst, **options)
        except (OSError, ValueError) as error:
            result = type(error), getattr(error, "errno", None), getattr(error, "filename", None)
        tree = {}
        for path in sorted(root.rglob("*")):
            content: Any = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            tree[str(path.relative_to(root))] = content
        return result, tree

    assert outcome("ours", ours) == outcome("theirs", shutil.copyfile)


# ---- failing, and being cancelled --------------------------------------------------------


class Held:
    """Copies of pieces that wait until they are let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pieces = 0
        self.go = threading.Event()
        real = _copy.copy_data

        def held(*args: Any) -> int:
            self.pieces += 1
            assert self.go.wait(20)
            return real(*args)

        monkeypatch.setattr(_copy, "copy_data", held)


# A filter that answers 0 to write(2), each time.
NOTHING_WRITTEN = """
import ctypes, os, platform, sys
sys.path.insert(0, sys.argv[1])
from seccomp_filter import JUMP_EQUAL, LOAD_WORD, OFFSET_OF_NR, RET_ALLOW, RET_ERRNO, RETURN
from seccomp_filter import Instruction, put_in_force
from uringfile._native_engine import copy_data, new_scratch

target = os.open(sys.argv[2], os.O_RDWR)
write = {"x86_64": 1, "aarch64": 64}[platform.machine()]
memory, _ = new_scratch(4096)
put_in_force(
    Instruction(LOAD_WORD, 0, 0, OFFSET_OF_NR),
    Instruction(JUMP_EQUAL, 0, 1, write),
    Instruction(RETURN, 0, 0, RET_ERRNO),
    Instruction(RETURN, 0, 0, RET_ALLOW),
)
os._exit(-copy_data(os.open(sys.argv[3], os.O_RDONLY), target, 100, memory, 4096))
"""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="the number of write(2) is not known"
)
def test_a_target_that_takes_nothing(tmp_path: Path) -> None:
    """write(2) that answers 0 would do so again."""
    (tmp_path / "src").write_bytes(b"x" * 100)
    (tmp_path / "dst").touch()
    here = str(Path(__file__).parent)
    names = str(tmp_path / "dst"), str(tmp_path / "src")
    done = run_python(NOTHING_WRITTEN, here, *names, timeout=10)
    assert done.returncode == errno.EIO, done.stderr


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_error_on_the_way(
    old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.write_bytes(os.urandom(4 * PIECE))
    if old is not None:
        dst.write_bytes(old)
    real, pieces = _copy.copy_data, 0

    def fail(*args: Any) -> int:
        nonlocal pieces
        pieces += 1
        return real(*args) if pieces < 3 else -28  # ENOSPC

    monkeypatch.setattr(_copy, "_clone", no_clone)
    monkeypatch.setattr(_copy, "copy_data", fail)
    before = {fd for fd in open_fds() if str(tmp_path) in fd}
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        ours(src, dst)
    assert (caught.value.filename, caught.value.filename2) == (str(src), str(dst))
    if old is None:
        assert not dst.exists()
    else:
        assert dst.read_bytes() == src.read_bytes()[: 2 * PIECE]
    assert {fd for fd in open_fds() if str(tmp_path) in fd} == before


@pytest.mark.usefixtures("small_pieces")
def test_a_cancelled_copy_waits_for_its_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.write_bytes(os.urandom(10 * PIECE))
    monkeypatch.setattr(_copy, "_clone", no_clone)

    async def main() -> None:
        held = Held(monkeypatch)
        task = asyncio.ensure_future(copyfile(src, dst))
        await until(lambda: held.pieces == 1)
        assert dst.exists()
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()  # once more
        await asyncio.sleep(0.02)
        assert not task.done()
        held.go.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert held.pieces == 1
        assert not dst.exists()

    run(main())


@pytest.mark.usefixtures("small_pieces")
def test_a_cancelled_copy_that_hangs_is_left_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.write_bytes(os.urandom(10 * PIECE))
    monkeypatch.setattr(_copy, "_clone", no_clone)
    monkeypatch.setattr("uringfile._background.PATIENCE", 0.05)

    async def main() -> None:
        held = Held(monkeypatch)
        task = asyncio.ensure_future(copyfile(src, dst))
        await until(lambda: held.pieces == 1)
        task.cancel()
        await asyncio.wait([task], timeout=2)
        assert task.cancelled()
        held.go.set()
        await until(lambda: not dst.exists())

    run(main())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("old", [None, b"old"])
def test_cancelled_anywhere(old: bytes | None, tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.write_bytes(os.urandom(40 * PIECE))
    if old is not None:
        dst.write_bytes(old)

    async def main() -> None:
        running_driver()
        before = {fd for fd in open_fds() if str(tmp_path) in fd}
        async for cancelled in cancelled_at_each(lambda: copyfile(src, dst), at_once=True):
            if cancelled and old is None:
                # It may have been done in the moment in which it was cancelled.
                assert not dst.exists() or dst.read_bytes() == src.read_bytes()
            else:
                assert src.read_bytes().startswith(dst.read_bytes())
            assert {fd for fd in open_fds() if str(tmp_path) in fd} == before
            if old is None:
                dst.unlink(missing_ok=True)

    run(main())


# ---- the loop ------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pieces")
def test_the_loop_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = tmp_path / "src"
    src.write_bytes(os.urandom(10 * PIECE))
    monkeypatch.setattr(_copy, "_clone", no_clone)

    async def main() -> None:
        held = Held(monkeypatch)
        copying = asyncio.ensure_future(copyfile(src, tmp_path / "dst"))
        await until(lambda: held.pieces == 1)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert held.pieces == 1
        held.go.set()
        await copying

    run(main())


# Longer than the loop mostly stands still on a machine that has much else to do.
DELAY = 0.25


def test_nothing_waits_for_a_slow_file_system(tmp_path: Path) -> None:
    (tmp_path / "src").write_bytes(b"some data")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "there").write_bytes(b"some data")
    with mounted(tmp_path, DELAY) as mount:

        async def main() -> float:
            running_driver()
            start = time.perf_counter()
            longest = await longest_delay(
                copyfile(tmp_path / "src", mount / "new"),
                copyfile(mount / "there", tmp_path / "dst"),
            )
            assert time.perf_counter() - start > 3 * DELAY
            return longest

        assert any(run(main()) < DELAY * 0.75 for _ in range(3))  # the machine may stand still
        assert (
            (tmp_path / "back" / "new").read_bytes()
            == (tmp_path / "dst").read_bytes()
            == b"some data"
        )
