"""uringfile.tempfile: what it makes, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile as standard
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import check, collect, count, leaves_unclosed, open_fds, watched_threads
from suspensions import cancelled_at_each, descriptors

from uringfile import _temporary, aiofiles, async_open, clone, tempfile
from uringfile._kernel import O_TMPFILE


@pytest.fixture(autouse=True, params=["io_uring", "posix_aio"])
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    count(request.param)
    monkeypatch.setenv("URINGFILE_ENGINE", request.param)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go by default."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(standard, "tempdir", str(folder))
    return folder


@pytest.fixture(params=["O_TMPFILE", "unlinked"])
def _unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has O_TMPFILE, and where it has not."""
    if request.param == "unlinked":
        real = _temporary.open_path

        async def open_path(driver: Any, path: Any, flags: int, *args: Any) -> int:
            if flags & O_TMPFILE == O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "made to fail")
            return await real(driver, path, flags, *args)

        monkeypatch.setattr(_temporary, "open_path", open_path)


# ---- TemporaryFile ------------------------------------------------------------------


@pytest.mark.usefixtures("_unnamed")
async def test_a_file_without_a_name(folder: Path) -> None:
    async with tempfile.TemporaryFile() as file:
        assert os.listdir(folder) == []
        await file.write(b"line 1\nline 2\n")
        assert file.seek(0) == 0
        assert [line async for line in file] == [b"line 1\n", b"line 2\n"]
        assert file.name == file.fileno()
        status = os.fstat(file.fileno())
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_nlink == 0
        assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(str(folder))
        assert not os.get_inheritable(file.fileno())


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("mode", ["w+", "r+", "a+", "w", "wb+", "rb+", "ab", "xb"])
@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile])
async def test_modes(mode: str, make: Any) -> None:
    with standard.TemporaryFile(mode, encoding=None if "b" in mode else "utf-8") as theirs:
        async with make(mode) as ours:
            for data in ("äb\n", "c"):
                ours_or_theirs: Any = data if "b" not in mode else data.encode()
                assert await ours.write(ours_or_theirs) == theirs.write(ours_or_theirs)
            assert ours.tell() == theirs.tell()
            assert ours.readable() == theirs.readable()
            if ours.readable():
                assert ours.seek(0) == theirs.seek(0)
                assert await ours.read() == theirs.read()


async def test_encoding_newline_errors_dir(tmp_path: Path) -> None:
    async with tempfile.TemporaryFile(
        "w+", encoding="latin-1", newline="\r\n", errors="replace", dir=tmp_path
    ) as file:
        await file.write("ä\u20ac\n")
        await file.flush()
        assert os.pread(file.fileno(), 10, 0) == b"\xe4?\r\n"
        assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(str(tmp_path))


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile])
async def test_errors(tmp_path: Path, make: Any) -> None:
    with pytest.raises(ValueError, match="encoding"):
        make("wb", encoding="utf-8")
    with pytest.raises(TypeError, match="all bytes"):
        make(prefix=b"x", dir=tmp_path)
    with pytest.raises(ValueError, match="mode"):
        make("rw")
    before = open_fds()
    file = make(dir=tmp_path / "nowhere")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await file
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        await make(dir=tmp_path / "file")
    assert len(open_fds() - before) <= 2  # the engine's


def test_the_default_folder_is_found(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from uringfile import tempfile
async def main():
    async with tempfile.NamedTemporaryFile() as file:
        print(file.name.startswith(sys.argv[1]))
asyncio.run(main())
"""
    assert check(code, str(tmp_path), TMPDIR=str(tmp_path)) == "True\n"


# ---- NamedTemporaryFile -------------------------------------------------------------


async def test_a_file_with_a_name(folder: Path) -> None:
    file = await tempfile.NamedTemporaryFile("w+", prefix="pre", suffix=".txt")
    assert isinstance(file.name, str)
    path = Path(file.name)
    assert path.parent == folder
    assert path.name.startswith("pre")
    assert path.suffix == ".txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert file.delete
    await file.write("text")
    await file.flush()
    assert path.read_text() == "text"
    await file.close()
    await file.close()
    assert os.listdir(folder) == []


@pytest.mark.usefixtures("folder")
async def test_bytes_for_a_name() -> None:
    async with tempfile.NamedTemporaryFile(prefix=b"x\xff", suffix=b"\xfe") as file:
        assert isinstance(file.name, bytes)
        assert os.path.basename(file.name).startswith(b"x\xff")
        assert os.path.exists(file.name)


async def test_delete_on_close(folder: Path) -> None:
    async with tempfile.NamedTemporaryFile(delete_on_close=False) as file:
        await file.write(b"kept")
        await file.close()
        async with async_open(file.name, "rb") as again:
            assert await again.read() == b"kept"
    assert os.listdir(folder) == []


async def test_delete_false(folder: Path) -> None:
    async with tempfile.NamedTemporaryFile(delete=False) as file:
        name = file.name
    file2 = await tempfile.NamedTemporaryFile(delete=False)
    await file2.close()
    del file2
    collect()
    assert len(os.listdir(folder)) == 2
    assert os.path.exists(name)


async def test_a_relative_folder_is_left_meanwhile(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    async with tempfile.NamedTemporaryFile(dir=".") as file:
        monkeypatch.chdir("/")
        assert os.path.exists(file.name)
    assert os.listdir(folder) == []


async def test_a_name_that_is_gone_already(folder: Path) -> None:
    """As the standard library has it."""
    file = await tempfile.NamedTemporaryFile()
    before = open_fds()
    os.unlink(file.name)
    with pytest.raises(FileNotFoundError):
        await file.close()
    assert file.closed
    assert len(open_fds()) == len(before) - 1


async def test_names_that_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["taken", "taken", "free"])
    monkeypatch.setattr(_temporary.secrets, "token_hex", lambda size: next(names))
    async with tempfile.NamedTemporaryFile() as first:
        assert str(first.name).endswith("taken")
        async with tempfile.NamedTemporaryFile() as second:
            assert str(second.name).endswith("free")
    monkeypatch.setattr(_temporary.secrets, "token_hex", lambda size: "one")
    (folder / "tmpone").touch()
    with pytest.raises(FileExistsError):
        await tempfile.NamedTemporaryFile()


async def test_an_error_at_the_end_still_removes_it(folder: Path) -> None:
    file = await tempfile.NamedTemporaryFile()

    async def fail(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "made to fail")

    file.file.write_bytes = fail  # type: ignore[method-assign]
    await file.write(b"x")
    with pytest.raises(OSError, match="made to fail"):
        await file.close()
    assert os.listdir(folder) == []


async def test_the_last_clone_removes_it(folder: Path) -> None:
    file = await tempfile.NamedTemporaryFile()
    twin = await clone(file)
    await file.close()
    assert len(os.listdir(folder)) == 1
    await twin.close()
    assert os.listdir(folder) == []


async def test_collected(folder: Path) -> None:
    files = [await tempfile.NamedTemporaryFile()]
    with leaves_unclosed("unclosed"):
        files.clear()
    assert os.listdir(folder) == []


def test_the_end_of_the_interpreter(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from uringfile import tempfile
async def main():
    return await tempfile.NamedTemporaryFile(dir=sys.argv[1])
file = asyncio.run(main())
if os.fork() == 0:
    sys.exit()  # which removes nothing of its parent's
os.wait()
print(len(os.listdir(sys.argv[1])))
"""
    assert check(code, str(tmp_path)) == "1\n"
    assert os.listdir(tmp_path) == []


# ---- SpooledTemporaryFile -----------------------------------------------------------


@pytest.mark.parametrize("mode", ["w+b", "w+"])
@pytest.mark.parametrize("max_size", [0, 5, 10, 100])
@pytest.mark.usefixtures("folder")
async def test_spooled_as_the_standard_one(mode: str, max_size: int) -> None:
    codec = None if "b" in mode else "utf-8"

    def of(text: str) -> Any:
        return text.encode() if "b" in mode else text

    with standard.SpooledTemporaryFile(max_size, mode, encoding=codec) as theirs:
        async with tempfile.SpooledTemporaryFile(max_size, mode) as ours:
            for text in ("one\n", "äöü\n", "three\n", "4"):
                assert await ours.write(of(text)) == theirs.write(of(text))
                assert ours.rolled == theirs._rolled
                assert ours.tell() == theirs.tell()
            assert ours.seek(0) == theirs.seek(0)
            assert await ours.readline() == theirs.readline()
            assert ours.tell() == theirs.tell()
            assert await ours.readlines() == theirs.readlines()
            assert await ours.truncate(3) == (theirs.truncate(3) or 3)  # None before Python 3.11
            assert ours.rolled == theirs._rolled
            ours.seek(0)
            assert await ours.read() == of("one")
            assert await ours.truncate(50) == (theirs.truncate(50) or 50)
            assert ours.rolled == theirs._rolled
            assert ours.mode == theirs.mode
            await ours.rollover()
            assert ours.tell() == 3
            assert isinstance(await ours.fileno(), int)
    assert ours.closed
    with pytest.raises(ValueError, match="closed"):
        await ours.read()


async def test_spooled_and_closed() -> None:
    file = await tempfile.SpooledTemporaryFile()
    await file.close()
    await file.close()
    with pytest.raises(ValueError, match="closed"):
        await file
    with pytest.raises(ValueError, match="closed"):
        await file.rollover()


async def test_spooled_in_the_middle_of_a_text() -> None:
    async with tempfile.SpooledTemporaryFile(0, "w+", encoding="utf-16", newline="") as file:
        await file.writelines(["one\r\n", "twö\n", "three"])
        file.seek(0)
        assert await file.readline() == "one\r\n"
        position = file.tell()
        await file.rollover()
        assert file.tell() == position
        assert [line async for line in file] == ["twö\n", "three"]
        file.seek(position)
        assert await file.readline() == "twö\n"


async def test_spooled_while_others_use_it(folder: Path) -> None:
    async with tempfile.SpooledTemporaryFile(10) as file:
        await asyncio.gather(*[file.write(b"%04d\n" % i) for i in range(100)], file.rollover())
        file.seek(0)
        assert await file.readlines() == [b"%04d\n" % i for i in range(100)]


async def test_spooled_where_there_is_no_room(tmp_path: Path) -> None:
    file = tempfile.SpooledTemporaryFile(3, dir=tmp_path / "nowhere")
    await file.write(b"abc")
    with pytest.raises(FileNotFoundError):
        await file.write(b"d")
    file.seek(0)
    assert await file.read() == b"abcd"
    await file.close()


# ---- TemporaryDirectory -------------------------------------------------------------


async def test_a_folder(folder: Path) -> None:
    async with tempfile.TemporaryDirectory("suf", "pre") as path:
        assert path.startswith(str(folder / "pre"))
        assert path.endswith("suf")
        os.makedirs(os.path.join(path, "a", "b"))
        Path(path, "a", "file").touch()
    assert os.listdir(folder) == []
    directory = await tempfile.TemporaryDirectory()
    assert os.listdir(folder) == [os.path.basename(directory.name)]
    await directory.cleanup()
    await directory.cleanup()
    assert os.listdir(folder) == []
    async with tempfile.TemporaryDirectory(delete=False) as path:
        pass
    assert os.path.isdir(path)
    with pytest.raises(ValueError, match="not been made"):
        _ = tempfile.TemporaryDirectory().name
    with pytest.raises(FileNotFoundError):
        await tempfile.TemporaryDirectory(dir=folder / "nowhere")


# ---- cancellation -------------------------------------------------------------------


async def _unnamed_file() -> None:
    async with tempfile.TemporaryFile("w+") as file:
        await file.write("x" * 200_000)
        file.seek(0)
        await file.read(100_000)


async def _named_file() -> None:
    async with tempfile.NamedTemporaryFile() as file:
        await file.write(b"x" * 200_000)
        file.seek(0)
        await file.read(100_000)


async def _closed_by_hand() -> None:
    file = await tempfile.NamedTemporaryFile(delete_on_close=False)
    try:
        await file.write(b"x")
        await file.close()
    finally:
        await file.__aexit__(None, None, None)


async def _spooled_file() -> None:
    async with tempfile.SpooledTemporaryFile(1000, "w+") as file:
        for _ in range(5):
            await file.write("x" * 300)
        await file.fileno()


async def _folder() -> None:
    async with tempfile.TemporaryDirectory() as path:
        await (await async_open(os.path.join(path, "file"), "w")).close()


async def _drop_in() -> None:
    async with aiofiles.tempfile.NamedTemporaryFile("w+") as file:
        await file.write("x")
        await file.seek(0)
    async with aiofiles.tempfile.TemporaryFile():
        pass
    async with aiofiles.tempfile.SpooledTemporaryFile(1) as spooled:
        await spooled.write(b"123")
    async with aiofiles.tempfile.TemporaryDirectory():
        pass


@pytest.mark.parametrize(
    "work", [_unnamed_file, _named_file, _closed_by_hand, _spooled_file, _folder, _drop_in]
)
@pytest.mark.parametrize("known", [True, False], ids=["known mount", "new mount"])
async def test_cancelling_leaves_nothing(
    folder: Path, work: Any, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:  # whether a mount is local is asked once: here each time
        from uringfile import _open

        monkeypatch.setattr(_open.MOUNTS, "get", lambda mount: None)
    await work()
    before = descriptors()
    removing = watched_threads(monkeypatch, "unlink", "rmdir")
    async for _ in cancelled_at_each(work):
        assert os.listdir(folder) == []
        assert descriptors() - before == set()
    assert threading.get_ident() not in removing  # over a network it waits for the server


@pytest.mark.usefixtures("_unnamed")
async def test_cancelling_without_o_tmpfile(folder: Path) -> None:
    await _unnamed_file()
    before = descriptors()
    async for _ in cancelled_at_each(_unnamed_file):
        assert os.listdir(folder) == []
        assert descriptors() - before == set()


def test_the_end_of_a_loop_with_all_of_them_under_way(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys, tempfile as standard
from uringfile import aiofiles, tempfile
standard.tempdir = sys.argv[1]
async def use(make):
    async with make():
        await asyncio.sleep(10)
async def main(turns):
    makers = [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.TemporaryDirectory]
    tasks = [asyncio.create_task(use(make)) for make in makers * 5]
    for _ in range(turns):
        await asyncio.sleep(0)
for turns in (1, 2, 3, 5, 10, 50):
    asyncio.run(main(turns))
    print(os.listdir(sys.argv[1]))
"""
    assert check(code, str(tmp_path)) == "[]\n" * 6
