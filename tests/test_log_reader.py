"""LogReader: records from any offset, and the torn end."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import check, open_fds, run
from log_kinds import KINDS, encode, given, write_at

from uringfile import (
    ClosedFileError,
    CorruptLogError,
    LogReader,
    Torn,
)
from uringfile._frames import frame


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return KINDS[request.param]


RECORDS = [b"", b"one", b"x" * 300, b"two\r", b"\0\0\0\0\0\0\0\0\0", b"last"]


async def read_all(path: Path, **kwargs: Any) -> tuple[list[bytes], LogReader]:
    async with LogReader(path, **kwargs) as reader:
        return [record async for record in reader], reader


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 64 * 1024])
def test_records_and_offsets(
    tmp_path: Path, engine: str, kind: dict[str, Any], chunk_size: int
) -> None:
    """The offset is behind each record that was given out, and a reader can begin there."""
    path = tmp_path / "log"
    path.write_bytes(b"".join(encode(r, kind) for r in RECORDS))

    async def main() -> None:
        end = 0
        async with LogReader(path, chunk_size=chunk_size, engine=engine, **kind) as reader:
            for i, record in enumerate(RECORDS):
                assert await anext(reader) == given(record, kind)
                end += len(encode(record, kind))
                assert reader.offset == end
                rest, other = await read_all(path, offset=end, engine=engine, **kind)
                assert rest == [given(r, kind) for r in RECORDS[i + 1 :]]
                assert other.offset == path.stat().st_size
            with pytest.raises(StopAsyncIteration):
                await anext(reader)
            assert reader.torn is None
            with open(path, "ab") as log:
                log.write(encode(b"more", kind))
            assert await anext(reader) == given(b"more", kind)

    run(main())


def test_random_records_in_random_chunks(tmp_path: Path, engine: str, kind: dict[str, Any]) -> None:
    rng = random.Random(1)
    path = tmp_path / "log"

    async def main() -> None:
        for _ in range(30):
            records = [bytes(rng.choices(b"xyz\n\r", k=rng.randrange(80))) for _ in range(50)]
            if not kind.get("framed"):
                records = [r.replace(kind["separator"][:1], b"") for r in records]
            path.write_bytes(b"".join(encode(r, kind) for r in records))
            size = rng.randrange(1, 200)
            records = [given(r, kind) for r in records]
            assert (await read_all(path, chunk_size=size, engine=engine, **kind))[0] == records
            batches = []
            async with LogReader(path, chunk_size=size, engine=engine, **kind) as reader:
                async for batch in reader.batches():
                    assert batch
                    batches += batch
                    overhead = 8 if kind.get("framed") else 0
                    assert reader.offset == sum(len(r) + overhead for r in batches)
            assert batches == records

    run(main())


def test_every_truncation(tmp_path: Path, engine: str, kind: dict[str, Any]) -> None:
    """What is no whole record is left out, and told."""
    path = tmp_path / "log"
    data = b"".join(encode(r, kind) for r in RECORDS)
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + len(encode(record, kind)))

    async def main() -> None:
        for size in range(len(data), -1, -1):
            os.truncate(path, size)
            records, reader = await read_all(path, engine=engine, **kind)
            whole = max(i for i, end in enumerate(ends) if end <= size)
            assert records == [given(r, kind) for r in RECORDS[:whole]]
            assert reader.offset == ends[whole]
            torn = size - ends[whole]
            assert reader.torn == (Torn(ends[whole], torn) if torn else None)

    path.write_bytes(data)
    run(main())


def test_every_flipped_byte_of_a_framed_log(tmp_path: Path, engine: str) -> None:
    """In the last record it is a torn end, before that damage."""
    path = tmp_path / "log"
    records = [b"one", b"", b"three " * 5, b"four"]
    data = b"".join(map(frame, records))
    starts = [0]
    for record in records:
        starts.append(starts[-1] + len(frame(record)))

    async def main() -> None:
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 0xFF
            path.write_bytes(damaged)
            hit = max(i for i, start in enumerate(starts) if start <= position)
            got = []
            async with LogReader(path, framed=True, engine=engine) as reader:
                if hit == len(records) - 1:
                    got = [record async for record in reader]
                    assert reader.torn == Torn(starts[hit], len(data) - starts[hit])
                else:
                    for _ in range(hit):
                        got.append(await anext(reader))
                    with pytest.raises(CorruptLogError, match="valid one at") as caught:
                        await anext(reader)
                    error = caught.value
                    assert (error.offset, error.next_offset) == (starts[hit], starts[hit + 1])
                    assert reader.offset == starts[hit]
                    with pytest.raises(CorruptLogError):  # and so it stays
                        await anext(reader)
            assert got == records[:hit]

    run(main())


def test_a_preallocated_end_holds_no_records(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(frame(b"one") + b"\0" * 100_000)

    async def main() -> None:
        async with LogReader(path, framed=True, engine=engine) as reader:
            assert await anext(reader) == b"one"
            with pytest.raises(StopAsyncIteration):
                await anext(reader)
            assert reader.torn == Torn(11, 100_000)
            write_at(path, 11, frame(b"two"))
            assert await anext(reader) == b"two"

    run(main())


def test_a_line_of_ten_megabytes_takes_linear_time(
    tmp_path: Path, engine: str, kind: dict[str, Any]
) -> None:
    path = tmp_path / "log"

    async def seconds(size: int) -> float:
        path.write_bytes(encode(b"x" * size, kind))
        start = time.process_time()
        records, _ = await read_all(path, chunk_size=4096, engine=engine, **kind)
        assert records == [given(b"x" * size, kind)]
        return time.process_time() - start

    async def main() -> None:
        small = min([await seconds(1_000_000) for _ in range(3)])
        large = min([await seconds(10_000_000) for _ in range(2)])
        assert large < 30 * small + 0.5, "with each chunk all before it, it takes some seconds"

    run(main())


def test_what_is_refused(tmp_path: Path, engine: str) -> None:
    for wrong in ({"offset": -1}, {"separator": b""}, {"chunk_size": 0}, {"poll_interval": 0}):
        with pytest.raises(ValueError, match=r"must|empty"):
            LogReader(tmp_path / "log", **wrong)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await LogReader(tmp_path / "log", engine=engine).open()  # type: ignore[arg-type]
        for follow in (False, True):
            reader = LogReader(tmp_path, follow=follow)
            with pytest.raises(IsADirectoryError):
                await reader.open()
            with pytest.raises(ValueError, match="not a regular file"):
                await LogReader("/dev/null", follow=follow).open()
        with pytest.raises(ClosedFileError):
            await anext(reader)
        (tmp_path / "log").touch()
        reader = LogReader(tmp_path / "log")
        async with reader:
            await reader.open()
        await reader.close()
        with pytest.raises(ClosedFileError):
            await anext(reader)
        with pytest.raises(ClosedFileError):
            await reader.open()

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_framed_without_the_library() -> None:
    code = """
import sys
sys.modules["google_crc32c"] = None
import uringfile
try:
    uringfile.LogReader("log", framed=True)
except ImportError as error:
    print(error)
"""
    assert "uringfile[framed]" in check(code)
