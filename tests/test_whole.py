"""read_bytes, read_text, write_bytes, write_text, read_files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from conftest import counted_turns, make_cold, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_fuse import mounted
from suspensions import cancelled_at_each, descriptors

import uringfile
from uringfile import read_bytes, read_files, read_text, write_bytes, write_text
from uringfile._loop import running_driver


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


# ---- one file ------------------------------------------------------------------------

SIZES = [0, 1, 1000, 32767, 32768, 32769, 100_000, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_bytes(size: int, tmp_path: Path) -> None:
    path, data = tmp_path / "file", os.urandom(size)

    async def main() -> None:
        for name in (path, str(path), os.fsencode(path)):
            assert await write_bytes(name, data) == size
            assert await read_bytes(name) == data == path.read_bytes()
        assert await write_bytes(path, memoryview(bytearray(b"short"))) == 5
        assert await read_bytes(path) == b"short"

    run(main())


def test_files_that_do_not_tell_their_size() -> None:
    async def main() -> None:
        assert (await read_bytes("/proc/self/cmdline")).startswith(b"")
        assert b"Linux" in await read_bytes("/proc/version")
        assert "Linux" in await read_text("/proc/version")
        assert await read_bytes("/dev/null") == b""

    run(main())


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        time.sleep(0.02)
        with open(fifo, "wb") as file:
            file.write(b"x" * 100_000)

    async def main() -> None:
        writing = asyncio.get_running_loop().run_in_executor(None, write)
        assert await read_bytes(fifo) == b"x" * 100_000
        await writing
        writing = asyncio.get_running_loop().run_in_executor(None, write)
        assert [len(data) async for _, data in read_files([fifo])] == [100_000]
        await writing

    run(main())


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.text("ab\r\n~é€あ\U0001f40d\x85\u2028", max_size=40).map(str.encode),
    ),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1", "shift_jis", "utf-7"]),
    errors=st.sampled_from(["strict", "replace", "ignore", "surrogateescape"]),
    newline=st.sampled_from([None, "", "\n", "\r", "\r\n", "x"]),
    piece=st.sampled_from([1, 2, 3, 7, 1000]),
)
def test_text_is_that_of_open(
    data: bytes, encoding: str, errors: str, newline: str | None, piece: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("text") / "file"
    path.write_bytes(data)

    def expected(mode: str, use: Callable[[Any], Any]) -> Any:
        try:
            with open(path, mode, encoding=encoding, errors=errors, newline=newline) as file:
                return use(file)
        except (ValueError, LookupError) as error:
            return UnicodeError if isinstance(error, UnicodeError) else type(error)

    def outcome(work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return run(work)
        except (ValueError, LookupError) as error:
            return UnicodeError if isinstance(error, UnicodeError) else type(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uringfile._whole._PIECE", piece)
        text = expected("r", lambda file: file.read())
        assert outcome(read_text(path, encoding, errors, newline)) == text
        if not isinstance(text, str):
            return
        written = expected("w", lambda file: file.write(text))
        theirs = path.read_bytes()
        path.write_bytes(b"")
        assert outcome(write_text(path, text, encoding, errors, newline)) == written
        if isinstance(written, int) and encoding == "utf-7":  # written in pieces or at once
            assert path.read_bytes().decode("utf-7") == theirs.decode("utf-7")
        elif isinstance(written, int):
            assert path.read_bytes() == theirs


def test_errors(tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    async def main() -> None:
        for read in (read_bytes, read_text):
            with pytest.raises(FileNotFoundError) as caught:
                await read(missing)
            assert caught.value.filename == str(missing)
            with pytest.raises(IsADirectoryError):
                await read(tmp_path)
            with pytest.raises(ValueError, match="null"):
                await read("a\0b")
        with pytest.raises(TypeError):
            await write_bytes(missing, "text")
        with pytest.raises(TypeError):
            await write_text(missing, b"bytes")  # type: ignore[arg-type]
        with pytest.raises(LookupError):
            await write_text(missing, "text", "no such codec")
        with pytest.raises(ValueError, match="newline"):
            await write_text(missing, "text", newline="x")
        assert not missing.exists()
        with pytest.raises(LookupError):
            await read_text(missing, "no such codec")

    run(main())


# ---- many files ------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> dict[Path, bytes]:
    """Small ones, empty ones, some that fill a group, some that are too large for one."""
    files = {}
    for i in range(300):
        size = (i % 7) * 100 if i % 50 else (20_000 if i % 100 else 400_000)
        path = tmp_path / f"d{i % 3}" / f"{i:03}"
        path.parent.mkdir(exist_ok=True)
        files[path] = os.urandom(size)
        path.write_bytes(files[path])
    return files


@pytest.mark.parametrize("limit", [1, 2, 5, 64, 1000])
def test_many_files(many: dict[Path, bytes], limit: int) -> None:
    async def main() -> None:
        found = [pair async for pair in read_files(many, limit=limit)]
        assert found == list(many.items())
        names = [os.fsencode(path) for path in many]
        assert [data async for _, data in read_files(names)] == list(many.values())
        mixed = [path if i % 2 else os.fsencode(path) for i, path in enumerate(many)]
        assert [data async for _, data in read_files(mixed)] == list(many.values())
        assert [pair async for pair in read_files([])] == []

    run(main())


def test_relative_paths(many: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = next(iter(many)).parent
    monkeypatch.chdir(folder)
    names = sorted(os.listdir(folder))
    expected = [Path(name).read_bytes() for name in names]

    async def main() -> None:
        for written in (names, [f"./{name}" for name in names], [f"../d0/{n}" for n in names]):
            assert [data async for _, data in read_files(written)] == expected

    run(main())


def test_cached_ones_take_no_operation(many: dict[Path, bytes]) -> None:
    small = [path for path, data in many.items() if len(data) < 1000]

    async def main() -> None:
        await read_bytes(small[0])  # the mount is known now
        before = uringfile.stats()
        async for _ in read_files(small):
            pass
        for path in small:
            await read_bytes(path)
        after = uringfile.stats()
        few = len(small) // 10  # when others mount or rename, the kernel wants to look twice
        assert after.submitted - before.submitted <= 3 * few
        assert after.in_threads - before.in_threads <= 3 * few
        assert after.inline - before.inline >= 2 * (len(small) - few)

    run(main())


def test_cold_files_come_too(many: dict[Path, bytes]) -> None:
    for path in list(many)[:40]:
        if many[path]:
            fd = os.open(path, os.O_RDONLY)
            make_cold(fd)
            os.close(fd)

    async def main() -> None:
        assert [pair async for pair in read_files(many)] == list(many.items())

    run(main())


def test_what_fails_is_in_its_place(many: dict[Path, bytes], tmp_path: Path) -> None:
    paths: list[Any] = list(many)[:20]
    paths[3:3] = [tmp_path / "missing"]
    paths[10:10] = [tmp_path]
    paths[12:12] = ["nul\0l"]

    async def main() -> None:
        found: list[Any] = []

        async def collect() -> None:
            async for pair in read_files(paths):
                found.append(pair)

        with pytest.raises(FileNotFoundError) as caught:
            await collect()
        assert found == [(path, many[path]) for path in paths[:3]]
        assert caught.value.filename == str(tmp_path / "missing")
        all_of_them = [data async for _, data in read_files(paths, return_exceptions=True)]
        kinds = [type(data) for data in all_of_them if not isinstance(data, bytes)]
        assert kinds == [FileNotFoundError, IsADirectoryError, ValueError]
        assert [d for d in all_of_them if isinstance(d, bytes)] == list(many.values())[:20]
        with pytest.raises(ValueError, match="limit"):
            async for _ in read_files(paths, limit=0):
                pass
        with pytest.raises(TypeError):
            async for _ in read_files([paths[0], 5]):  # type: ignore[list-item]
                pass

    run(main())


def test_no_more_than_limit_are_open(many: dict[Path, bytes], tmp_path: Path) -> None:
    large = [path for path, data in many.items() if len(data) == 400_000] * 10
    most = 0
    waiting = 0

    async def slow_read(path: Path, engine: Any) -> bytes:
        nonlocal most, waiting
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.001)
        waiting -= 1
        return b""

    async def main() -> None:
        async for _ in read_files(large, limit=4):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uringfile._whole._read_file", slow_read)
        run(main())
    assert 2 <= most <= 4


def test_paths_are_asked_for_as_they_are_taken(many: dict[Path, bytes]) -> None:
    asked = 0

    def paths() -> Any:
        nonlocal asked
        for path in many:
            asked += 1
            yield path

    async def main() -> None:
        async with aclosing(read_files(paths(), limit=10)) as files:
            async for _ in files:
                break
        assert asked <= 10

    run(main())


def test_the_loop_runs_while_many_are_read(many: dict[Path, bytes]) -> None:
    async def main() -> None:
        async with counted_turns() as turns:
            async for _ in read_files(list(many) * 5):
                pass
        assert turns() >= 5

    run(main())


# ---- cancellation ----------------------------------------------------------------------


async def _read_large(folder: Path) -> None:
    fd = os.open(folder / "large", os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    await read_bytes(folder / "large")


async def _read_text(folder: Path) -> None:
    await read_text(folder / "large", "latin-1")


async def _write(folder: Path) -> None:
    await write_bytes(folder / "new", b"x" * 300_000)


async def _write_text(folder: Path) -> None:
    await write_text(folder / "new", "x" * 1_200_000)


async def _read_all(folder: Path) -> None:
    paths = [folder / "large", folder / "small", "/proc/version"] * 3
    async for _ in read_files(paths, limit=3):
        pass


@pytest.mark.parametrize("work", [_read_large, _read_text, _write, _write_text, _read_all])
def test_cancelled_anywhere_it_leaks_no_descriptor(
    work: Callable[[Path], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(1_500_000))
    (tmp_path / "small").write_bytes(b"some data")

    async def main() -> None:
        running_driver()
        await work(tmp_path)
        before = descriptors()
        async for _ in cancelled_at_each(lambda: work(tmp_path)):
            assert descriptors() == before

    run(main())


def test_whoever_stops_reading_files_leaves_no_task(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "file").write_bytes(b"some data")

    async def stop_early() -> None:
        async with aclosing(read_files([tmp_path / "file", fifo, fifo])) as files:
            async for _ in files:
                break

    async def main() -> None:
        await stop_early()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        task = asyncio.ensure_future(read_files([fifo, fifo]).__anext__())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await let_go(fifo)

    run(main())


async def let_go(fifo: Path) -> None:
    """A thread that opens a pipe to read it waits until somebody opens it to write."""

    def opened() -> bool:
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    for _ in range(20):
        opened()
        await asyncio.sleep(0.005)


# ---- a slow file system ------------------------------------------------------------------

# Longer than the loop mostly stands still on a machine that has much else to do.
DELAY = 0.25


def test_nothing_waits_for_a_slow_file_system(tmp_path: Path) -> None:
    from test_os import longest_delay

    back = tmp_path / "back"
    back.mkdir()
    for i in range(4):
        (back / f"{i}").write_bytes(b"some data")
    with mounted(tmp_path, DELAY) as mount:

        async def read_all() -> None:
            paths = [mount / f"{i}" for i in range(4)]
            assert len([data async for _, data in read_files(paths)]) == 4

        async def main() -> float:
            await read_bytes(__file__)
            start = time.perf_counter()
            longest = await longest_delay(
                read_bytes(mount / "0"),
                read_text(mount / "1"),
                write_bytes(mount / "new", b"other"),
                write_text(mount / "2", "some data"),
                read_all(),
            )
            assert time.perf_counter() - start > 3 * DELAY
            return longest

        assert any(run(main()) < DELAY * 0.75 for _ in range(3))  # the machine may stand still
