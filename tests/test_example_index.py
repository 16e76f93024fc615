"""examples/jsonl_index.py: lookups find what a plain loop over the file finds."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run
from example_programs import load, run_command

jsonl_index = load("jsonl_index")


@pytest.fixture
def path(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    return str(tmp_path / "data.jsonl")


def a_file(path: str, lines: int, seed: int = 1) -> list[bytes]:
    """Objects with keys of all kinds, with some twice, without some, and what is no object."""
    rng = random.Random(seed)
    found = []
    for i in range(lines):
        key: Any = rng.choice([i, f"name {i}", i / 3, f"ünï {i % 50}", True, None, [1], ""])
        thing: Any = {"id": key, "n": i, "text": "x" * rng.choice([0, 10, 300])}
        if rng.random() < 0.05:
            thing = rng.choice([{"n": i}, [key], "text", 5])
        found.append(json.dumps(thing, ensure_ascii=rng.random() < 0.5).encode() + b"\n")
    found[lines // 2] = b" \n"
    found[-1] = found[-1].rstrip(b"\n")
    Path(path).write_bytes(b"".join(found))
    return found


def keys_of(lines: list[bytes]) -> dict[str, bytes]:
    found = {}
    for line in lines:
        thing = json.loads(line) if line.strip() else None
        if isinstance(thing, dict) and isinstance(thing.get("id"), str | int | float):
            found[str(thing["id"])] = line
    return found


def test_lookups(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sorted runs that are merged, and several buckets."""
    monkeypatch.setattr(jsonl_index, "RUN", 700)
    monkeypatch.setattr(jsonl_index, "BLOCK", 10)
    lines = a_file(path, 3000)
    expected = keys_of(lines)

    async def main() -> None:
        header = await jsonl_index.build(path, "id")
        assert (header["lines"], header["bits"] > 2) == (3000, True)
        async with jsonl_index.Index(path) as index:
            assert await index.lines(range(3000)) == lines
            assert await index.lines([7, 2999, 0, 7]) == [lines[i] for i in (7, 2999, 0, 7)]
            assert await index.lines([]) == []
            keys = [*expected, "none", "name", 3.5]
            assert await index.find(keys) == [expected.get(str(key)) for key in keys]
            assert await index.find([json.loads(lines[0])["n"]]) == [expected.get("0")]
            for number in (-1, 3000):
                with pytest.raises(IndexError):
                    await index.lines([number])
            both = await asyncio.gather(index.find(keys[:9]), index.lines(range(9)))
            assert both[1] == lines[:9]

    before = open_fds()
    run(main())
    assert open_fds() == before
    assert sorted(os.listdir(os.path.dirname(path))) == ["data.jsonl", "data.jsonl.index"]


def test_hashes_that_are_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = a_file(path, 300)
    monkeypatch.setattr(jsonl_index, "hashed", lambda key: b"sameHASH")

    async def main() -> None:
        await jsonl_index.build(path, "id")
        async with jsonl_index.Index(path) as index:
            expected = keys_of(lines)
            assert await index.find(expected) == [*expected.values()]
            assert await index.find(["none"]) == [None]

    run(main())


def test_a_file_that_changes_is_noticed(path: str) -> None:
    a_file(path, 20)

    async def main() -> None:
        with pytest.raises(jsonl_index.StaleIndex, match="has no index"):
            await jsonl_index.Index(path).__aenter__()
        await jsonl_index.build(path, "id")
        async with jsonl_index.Index(path) as index:
            await index.lines([0])
            with open(path, "ab") as file:
                file.write(b"\n{}\n")
            with pytest.raises(jsonl_index.StaleIndex):
                await index.lines([0])
            with pytest.raises(jsonl_index.StaleIndex):
                await index.find(["x"])
        with pytest.raises(jsonl_index.StaleIndex, match="has changed"):
            await jsonl_index.Index(path).__aenter__()
        await jsonl_index.build(path)
        async with jsonl_index.Index(path) as index:
            assert len(await index.lines([19, 20])) == 2
            with pytest.raises(LookupError, match="line numbers only"):
                await index.find(["x"])

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_a_build_that_fails_leaves_the_old_index(path: str) -> None:
    a_file(path, 20)

    async def main() -> None:
        await jsonl_index.build(path, "id")
        old = Path(jsonl_index.index_path(path)).read_bytes()
        with open(path, "ab") as file:
            file.write(b"\n{not json}\n")
        with pytest.raises(ValueError, match="line 20: "):
            await jsonl_index.build(path, "id")
        assert Path(jsonl_index.index_path(path)).read_bytes() == old
        with pytest.raises(ValueError, match="too long"):
            await jsonl_index.build(path, "k" * 300)
        Path(path).write_bytes(b"")
        assert (await jsonl_index.build(path, "id"))["lines"] == 0
        async with jsonl_index.Index(path) as index:
            assert await index.find(["x"]) == [None]

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_memory_does_not_grow_with_the_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_index, "RUN", 400)
    monkeypatch.setattr(jsonl_index, "BLOCK", 4)
    monkeypatch.setattr(jsonl_index, "CHUNK", 32 * 1024)
    peaks = []

    async def main(lines: int) -> None:
        a_file(path, lines)
        # Without a GIL a thread has some 100 KB of its own; how many start is a matter of timing.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        tracemalloc = pytest.importorskip("tracemalloc")  # PyPy has none
        tracemalloc.start()
        try:
            await jsonl_index.build(path, "id")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    run(main(5_000))
    run(main(10_000))
    assert peaks[1] < peaks[0] + 300_000


def test_the_command(path: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = a_file(path, 100)
    done = run_command("jsonl_index", path, "build", "--key", "id")
    assert done.stdout.startswith("100 lines, "), done.stderr
    key, line = next(iter(keys_of(lines).items()))
    done = run_command("jsonl_index", path, "get", key, "none")
    assert (done.returncode, done.stdout) == (1, line.decode())
    done = run_command("jsonl_index", path, "line", 100)
    assert (done.returncode, done.stderr) == (2, "there is no line 100: there are 100\n")
    for arguments, expected in (
        (["line", "99", "0"], lines[99] + b"\n" + lines[0]),
        (["info"], b"100 lines, %d with the key 'id'\n"),
    ):
        capfdbinary.readouterr()
        assert run(jsonl_index.command(jsonl_index.parse([path, *arguments]))) == 0
        sys.stdout.flush()
        out = capfdbinary.readouterr().out
        assert re.sub(rb"[0-9]+ with", b"%d with", out) == expected
