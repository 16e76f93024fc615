"""uringfile.anyio.open_file beside anyio's: same calls, same results."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run, run_python

pytest.importorskip("anyio")

import anyio

from uringfile.anyio import AsyncFile, open_file


@pytest.fixture(autouse=True)
def on_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


BINARY: list[tuple[Any, ...]] = [
    ("write", b"one\ntwo\nthree\n"),
    ("seek", 0),
    ("read", 5),
    ("tell",),
    ("readline",),
    ("read1", 3),
    ("seek", -4, 2),
    ("readlines",),
    ("writelines", [b"four\n", b"five"]),
    ("flush",),
    ("seek", 0),
    ("read",),
    ("truncate", 6),
    ("seek", 0, 0),
    ("read", -1),
    ("fileno",),
    ("readable",),
    ("isatty",),
]

TEXT: list[tuple[Any, ...]] = [
    ("write", "einß\nzwei\n"),
    ("seek", 0),
    ("readline",),
    ("tell",),
    ("read", 2),
    ("seek", 0, 2),
    ("writelines", ["drei\n"]),
    ("seek", 0),
    ("readlines",),
]


async def replay(file: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    results = []
    for name, *args in calls:
        result = getattr(file, name)(*args)
        if asyncio.iscoroutine(result):
            result = await result
        results.append((name, "fd" if name == "fileno" else result))
    results.append((file.name.rpartition("/")[2], file.mode, file.closed))
    results.append([line async for line in file])
    await file.aclose()
    results.append(file.closed)
    return results


@pytest.mark.parametrize(("mode", "calls"), [("wb+", BINARY), ("w+", TEXT)])
def test_the_same_results(tmp_path: Path, mode: str, calls: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        results, contents = [], []
        for number, opened in enumerate((open_file, anyio.open_file)):
            (tmp_path / str(number)).mkdir()
            path = tmp_path / str(number) / "file"
            file = await opened(str(path), mode, encoding=None if "b" in mode else "utf-8")
            assert isinstance(file, anyio.AsyncFile)
            results.append(await replay(file, calls))
            contents.append(path.read_bytes())
        assert results[0] == results[1]
        assert contents[0] == contents[1]

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_as_a_context(tmp_path: Path) -> None:
    async def main() -> None:
        async with await open_file(tmp_path / "file", "w+b") as file:
            assert isinstance(file, AsyncFile)
            assert file.wrapped.file.fileno() == file.fileno()
            await file.write(b"data")
            await file.seek(0)
            buffer = bytearray(3)
            assert await file.readinto(buffer) == 3
            assert await file.readinto1(memoryview(buffer)) == 1
            assert buffer == b"aat"
            with pytest.raises(AttributeError, match="aclose"):
                file.close()
        assert file.closed
        with pytest.raises(FileNotFoundError):
            await open_file(tmp_path / "none")
        with pytest.raises(ValueError, match="mode"):
            await open_file(tmp_path / "none", "q")

    run(main())


def test_cancel_scopes(tmp_path: Path) -> None:
    """A read that hangs ends with its scope; a file in a scope that is cancelled is closed, with
    what was written to it."""

    async def main() -> None:
        ends = os.pipe()
        async with await open_file(ends[0], "rb") as pipe:
            with anyio.move_on_after(0.05) as scope:
                await pipe.read(1)
            assert scope.cancelled_caught
            os.write(ends[1], b"x")
            assert await pipe.read(1) == b"x"
        os.close(ends[1])
        with anyio.CancelScope() as scope:
            async with await open_file(tmp_path / "file", "w") as file:
                await file.write("text")
                scope.cancel()
        assert file.closed
        assert (tmp_path / "file").read_text() == "text"

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_without_anyio() -> None:
    done = run_python("import sys; sys.modules['anyio'] = None; import uringfile.anyio")
    assert "needs anyio: pip install 'uringfile[anyio]'" in done.stderr
