"""Reader, LineReader, Writer, and the pure splitter below them."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import LOOP
from hypothesis import given
from hypothesis import strategies as st

from uringfile import AIOFile, LineReader, Reader, Writer
from uringfile._splitter import LineSplitter

# ---- the splitter ---


@given(
    text=st.text(alphabet="ab\n\r", max_size=80),
    separator=st.sampled_from(["\n", "\r\n", "a", "aa", "aba", "\n\n"]),
    cuts=st.lists(st.integers(0, 80), max_size=10),
)
@pytest.mark.parametrize("binary", [False, True])
def test_splitting_does_not_depend_on_the_pieces(
    binary: bool, text: str, separator: str, cuts: list[int]
) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces: list[Any] = [text[a:b] for a, b in itertools.pairwise(bounds)]
    parts = text.split(separator)
    expected = [part + separator for part in parts[:-1]] + [parts[-1]] * bool(parts[-1])
    splitter: LineSplitter[Any] = LineSplitter(separator.encode() if binary else separator)
    lines: list[Any] = []
    for piece in pieces:
        lines += splitter.feed(piece.encode() if binary else piece)
    rest = splitter.finish()
    lines += [rest] if rest else []
    assert [line.decode() if binary else line for line in lines] == expected


def test_empty_separator() -> None:
    with pytest.raises(ValueError, match="empty separator"):
        LineSplitter("")


def test_long_lines_take_linear_time() -> None:
    def seconds(size: int) -> float:
        piece = b"x" * 4096
        splitter: LineSplitter[bytes] = LineSplitter(b"\r\n")
        start = time.thread_time()
        for _ in range(size // len(piece)):
            assert splitter.feed(piece) == []
        assert len(splitter.feed(b"\r\n")[0]) == size + 2
        return time.thread_time() - start

    seconds(1 << 20)
    small = min(seconds(1 << 20) for _ in range(3))
    large = min(seconds(16 << 20) for _ in range(3))
    assert large < 16 * small * 6, "sixteen times the length: quadratic would be 256 times"


# ---- Reader ---


async def test_chunks(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        content = data.read_bytes()
        for size in (1000, 4096, 1 << 16, 1 << 21, -1):
            assert b"".join([chunk async for chunk in Reader(f, chunk_size=size)]) == content
        reader = Reader(f, offset=len(content) - 10, chunk_size=4)
        assert [len(chunk) async for chunk in reader] == [4, 4, 2]
        assert await reader.read_chunk() == b""
    for bad in (0, -2):
        with pytest.raises(ValueError, match="chunk_size"):
            Reader(f, chunk_size=bad)
    with pytest.raises(ValueError, match="offset"):
        Reader(f, offset=-1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be", "shift_jis"])
async def test_characters_across_chunks(tmp_path: Path, engine: Any, encoding: str) -> None:
    text = "\u3042\u3044a\u3046\n" * 100
    (tmp_path / "f").write_text(text, encoding)
    async with AIOFile(tmp_path / "f", "r", encoding, engine=engine) as f:
        for size in (1, 2, 3, 7, 1000):
            chunks = [chunk async for chunk in Reader(f, chunk_size=size)]
            assert "".join(chunks) == text
            assert all(chunks)


async def test_a_failed_decode_consumes_nothing(tmp_path: Path, engine: Any) -> None:
    (tmp_path / "f").write_bytes(b"good\xff")
    async with AIOFile(tmp_path / "f", "r", engine=engine) as f:
        reader = Reader(f, chunk_size=4)
        assert await reader.read_chunk() == "good"
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError):
                await reader.read_chunk()


async def test_concurrent_readers_get_each_chunk_once(data: Path, engine: Any) -> None:
    async with AIOFile(data, "rb", engine=engine) as f:
        reader = Reader(f, chunk_size=8)
        chunks = await asyncio.gather(*[reader.read_chunk() for _ in range(100)])
        assert [int.from_bytes(c, "big") for c in chunks] == list(range(0, 800, 8))


# ---- LineReader ---


async def test_lines(tmp_path: Path, engine: Any) -> None:
    rng = random.Random(3)
    lines = ["x" * rng.choice([0, 1, 5, 70, 3000]) + "\n" for _ in range(100)] + ["no end"]
    (tmp_path / "f").write_text("".join(lines))
    for mode in ("r", "rb"):
        expected: list[Any] = lines if mode == "r" else [line.encode() for line in lines]
        async with AIOFile(tmp_path / "f", mode, engine=engine) as f:
            for size in (1, 10, 4096, 1 << 20):
                assert [line async for line in LineReader(f, chunk_size=size)] == expected
            batches = [batch async for batch in LineReader(f, chunk_size=1000).batches()]
            assert [line for batch in batches for line in batch] == expected
            assert all(batches)
            reader = LineReader(f, offset=len(lines[0]) + len(lines[1]))
            assert await reader.readline() == expected[2]
            assert await reader.__anext__() == expected[3]


@pytest.mark.parametrize("separator", ["\r\n", "--", ";", "\u2028"])
@pytest.mark.parametrize("mode", ["r", "rb"])
async def test_any_separator(tmp_path: Path, engine: Any, mode: str, separator: str) -> None:
    parts = ["one", "", "two - \r three", "\n", "last"]
    (tmp_path / "f").write_bytes(separator.join(parts).encode())
    async with AIOFile(tmp_path / "f", mode, engine=engine) as f:
        for size in (1, 2, 3, 100):
            lines = [line async for line in LineReader(f, 0, size, separator)]
            texts = [line.decode() if mode == "rb" else line for line in lines]
            assert texts == [part + separator for part in parts[:-1]] + parts[-1:]


async def test_leaving_the_loop_loses_nothing(tmp_path: Path, engine: Any) -> None:
    (tmp_path / "f").write_text("".join(f"{i}\n" for i in range(100)))
    async with AIOFile(tmp_path / "f", engine=engine) as f:
        reader = LineReader(f, chunk_size=16)
        seen = []
        while True:
            async for line in reader:
                seen.append(int(line))
                if len(seen) % 3 == 0:
                    break
            else:
                break
            if line := await reader.readline():
                seen.append(int(line))
        assert seen == list(range(100))


async def test_a_cancelled_readline_loses_nothing(pipe: tuple[int, int], engine: Any) -> None:
    async with AIOFile(os.dup(pipe[0]), "rb", engine=engine) as f:
        reader = LineReader(f)
        os.write(pipe[1], b"one\ntw")
        assert await reader.readline() == b"one\n"
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.readline(), 0.05)
        os.write(pipe[1], b"o\n")
        assert await reader.readline() == b"two\n"


# ---- Writer ---


async def test_records_whole_and_in_call_order(tmp_path: Path, engine: Any) -> None:
    records = [os.urandom(random.Random(i).choice([0, 1, 10, 5000])) for i in range(2000)]
    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        writer = Writer(f, 7)
        ends = await asyncio.gather(*[writer(record) for record in records])
    content = (tmp_path / "f").read_bytes()
    assert content == bytes(7) + b"".join(records)
    for end, record in zip(ends, records, strict=True):
        assert content[end - len(record) : end] == record


async def test_gathering(tmp_path: Path, engine: Any) -> None:
    from uringfile import stats

    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        writer = Writer(f)
        before = stats(engine).submitted
        await asyncio.gather(*[writer(b"x" * 100) for _ in range(1000)])
        assert stats(engine).submitted - before <= 3


async def test_text_records(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "w", "utf-16", engine=engine) as f:
        writer = Writer(f)
        await asyncio.gather(writer("a\u00e9"), writer("b"), writer("c"))
    assert (tmp_path / "f").read_text("utf-16") == "a\u00e9bc"


async def test_cancelling_one_writer_disturbs_no_other(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        writer = Writer(f)
        tasks = [asyncio.ensure_future(writer(b"%03d" % i)) for i in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(r) for r in results[::3]] == [asyncio.CancelledError] * 34
        await writer(b"end")
    expected = b"".join(b"%03d" % i for i in range(100)) + b"end"
    assert (tmp_path / "f").read_bytes() == expected, "cancelled ones too, each in its place"


async def test_a_failed_record_leaves_no_hole(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        writer = Writer(f)
        await writer(b"first")
        real = f.write_bytes

        async def disk_full(data: bytes, offset: int) -> int:
            await real(data[:7], offset)
            error = OSError(errno.ENOSPC, "full", f.name)
            error.characters_written = 7  # type: ignore[attr-defined]
            raise error

        f.write_bytes = disk_full  # type: ignore[method-assign]
        results = await asyncio.gather(
            writer(b"aaaa"), writer(b"bbbb"), writer(b"cccc"), return_exceptions=True
        )
        assert results[0] == 9, "this one had got there"
        assert [getattr(r, "errno", None) for r in results[1:]] == [errno.ENOSPC] * 2
        f.write_bytes = real  # type: ignore[method-assign]
        assert await writer(b"next") == 13
    assert (tmp_path / "f").read_bytes()[:13] == b"firstaaaanext"


async def test_writer_on_a_closed_file(tmp_path: Path, engine: Any) -> None:
    async with AIOFile(tmp_path / "f", "wb", engine=engine) as f:
        writer = Writer(f)
    with pytest.raises(ValueError, match="not open"):
        await writer(b"x")


@pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12"
)
@pytest.mark.skipif(
    LOOP == "uvloop" and sys.version_info < (3, 14),
    reason="uvloop 0.23 gives the factory an argument that it takes from Python 3.14 on",
)
async def test_a_writer_whose_task_ends_at_once(tmp_path: Path, engine: Any) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with AIOFile(tmp_path / "f", "wb+", engine=engine) as f:
        write = Writer(f)
        for data in (b"", b"ab", b"", b"c"):
            await asyncio.wait_for(write(data), 20)
        assert await f.read() == b"abc"


@pytest.mark.parametrize("record", [5, [65, 66], None])
async def test_a_record_that_is_no_buffer(tmp_path: Path, record: Any, engine: Any) -> None:
    """``bytes(5)`` would be five zeros."""
    async with AIOFile(tmp_path / "file", "wb", engine=engine) as f:
        writer = Writer(f)
        with pytest.raises(TypeError):
            await writer(record)
        assert await writer(b"ok") == 2
    assert (tmp_path / "file").read_bytes() == b"ok"
