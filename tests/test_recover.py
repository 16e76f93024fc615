"""recover(): a torn end is cut, damage within is an error; and the search that tells them apart."""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run
from hypothesis import given, settings
from hypothesis import strategies as st
from log_kinds import KINDS, encode

from uringfile import AIOFile, CorruptLogError, LogReader, LogWriter, Recovery, Torn, recover
from uringfile._frames import HEADER, FrameSplitter, frame
from uringfile._frames_search import SECTOR, Following, find_following

RECORDS = [b"one", b"", b"three " * 5, b"\0" * 20, b"four"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return KINDS[request.param]


def test_every_truncation(tmp_path: Path, engine: str, kind: dict[str, Any]) -> None:
    path = tmp_path / "log"
    data = b"".join(encode(r, kind) for r in RECORDS)
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + len(encode(record, kind)))

    async def main() -> None:
        for size in range(len(data) + 1):
            path.write_bytes(data[:size])
            end = max(end for end in ends if end <= size)
            found = await recover(path, engine=engine, **kind)
            assert found == Recovery(os.fspath(path), end, size - end)
            assert path.read_bytes() == data[:end]
            again = await recover(path, engine=engine, **kind)
            assert (again.end, again.cut) == (end, 0)

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_every_flipped_byte(tmp_path: Path, engine: str) -> None:
    """The last record is cut; damage in any other is an error, and the file is left alone."""
    path = tmp_path / "log"
    data = b"".join(map(frame, RECORDS))
    starts = [0]
    for record in RECORDS:
        starts.append(starts[-1] + len(frame(record)))

    async def main() -> None:
        for position in range(len(data)):
            for flip in (0x01, 0x80, 0xFF):
                damaged = bytearray(data)
                damaged[position] ^= flip
                path.write_bytes(damaged)
                hit = max(i for i, start in enumerate(starts) if start <= position)
                if hit == len(RECORDS) - 1:
                    found = await recover(path, framed=True, engine=engine)
                    assert (found.end, found.cut) == (starts[hit], len(data) - starts[hit])
                    continue
                with pytest.raises(CorruptLogError, match="an invalid record at") as caught:
                    await recover(path, framed=True, engine=engine)
                assert caught.value.offset == starts[hit]
                assert caught.value.next_offset == starts[hit + 1]
                assert path.read_bytes() == damaged
                found = await recover(path, framed=True, cut_damage=True, engine=engine)
                assert (found.end, found.cut) == (starts[hit], len(data) - starts[hit])
                assert path.read_bytes() == data[: starts[hit]]

    run(main())


def test_it_is_synced_also_when_nothing_is_cut(
    tmp_path: Path, engine: str, kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the cut; and an error of the sync is raised."""
    path = tmp_path / "log"
    sizes: list[int] = []
    fsync = AIOFile.fsync

    async def fail(file: AIOFile) -> None:
        await fsync(file)
        sizes.append(path.stat().st_size)
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(AIOFile, "fsync", fail)
    whole = encode(b"one", kind)

    async def main() -> None:
        for data in (whole, whole + b"x"):
            path.write_bytes(data)
            with pytest.raises(OSError, match="failed"):
                await recover(path, engine=engine, **kind)

    run(main())
    assert sizes == [len(whole)] * 2


def test_what_is_before_the_offset_is_not_looked_at(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "log"

    async def main() -> None:
        path.write_bytes(b"no frame" + frame(b"one") + b"x")
        assert (await recover(path, framed=True, offset=8, engine=engine)).end == 19
        path.write_bytes(b"one\ntwo")
        assert (await recover(path, offset=5, engine=engine)).end == 5
        assert (await recover(path, offset=100, engine=engine)).end == 5
        with pytest.raises(FileNotFoundError):
            await recover(tmp_path / "none", engine=engine)
        assert not (tmp_path / "none").exists()

    run(main())


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"abab", b"aa"])
def test_separators_at_any_distance_from_the_end(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch, separator: bytes
) -> None:
    """The same end as splitting from the start finds, also for one that overlaps itself."""
    monkeypatch.setattr("uringfile._recover._CHUNK", 8)
    path = tmp_path / "log"
    rng = random.Random(3)

    async def main() -> None:
        for _ in range(200):
            data = bytes(rng.choices(b"ab\r\n", k=rng.randrange(60)))
            path.write_bytes(data)
            found = await recover(path, separator=separator, engine=engine)
            assert found.end == len(data) - len(data.split(separator)[-1])

    run(main())


def test_a_long_torn_end_takes_linear_time(
    tmp_path: Path, engine: str, kind: dict[str, Any]
) -> None:
    path = tmp_path / "log"

    async def seconds(torn: bytes) -> float:
        path.write_bytes(encode(b"one", kind) + encode(torn, kind)[:-1])
        start = time.process_time()
        found = await recover(path, engine=engine, **kind)
        assert found.end == len(encode(b"one", kind))
        return time.process_time() - start

    async def main() -> None:
        small = min([await seconds(b"some text " * 100_000) for _ in range(2)])
        assert await seconds(b"some text " * 1_000_000) < 40 * small + 0.3
        assert await seconds(bytes(10_000_000)) < 40 * small + 0.3

    run(main())


def test_a_sector_that_never_reached_the_disk_is_a_torn_end(tmp_path: Path, engine: str) -> None:
    """It reads as zeros, and valid records may stand behind it; so does the rest of the
    sector in which the first record that is not durable begins."""
    path = tmp_path / "log"
    data = b"".join(frame(b"%04d" % i * 10) for i in range(60))  # 48 bytes each

    async def main() -> None:
        for start, end, torn in (
            (SECTOR, 2 * SECTOR, True),
            (SECTOR, 3 * SECTOR, True),
            (48 * 9, SECTOR, True),
            (SECTOR, 2 * SECTOR - 1, False),
            (SECTOR + 1, 2 * SECTOR + 20, False),
            (48 * 9 + 1, SECTOR, False),
        ):
            first, behind = start // 48 * 48, -(-end // 48) * 48
            path.write_bytes(data[:start] + bytes(end - start) + data[end:])
            async with LogReader(path, framed=True, engine=engine) as reader:  # type: ignore[arg-type]
                if torn:
                    assert [record async for record in reader] == [
                        b"%04d" % i * 10 for i in range(first // 48)
                    ]
                    assert reader.torn == Torn(first, len(data) - first)
            if torn:
                found = await recover(path, framed=True, engine=engine)  # type: ignore[arg-type]
                assert found == Recovery(os.fspath(path), first, len(data) - first, behind)
                continue
            for damaged in (
                recover(path, framed=True, engine=engine),  # type: ignore[arg-type]
                LogWriter(path, framed=True, engine=engine).open(),  # type: ignore[arg-type]
            ):
                with pytest.raises(CorruptLogError) as caught:
                    await damaged
                assert (caught.value.offset, caught.value.next_offset) == (first, behind)
                assert path.stat().st_size == len(data)

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_framed_records_in_a_torn_record_look_like_damage(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "log"
    data = frame(b"one") + frame(frame(b"two") + b"x")
    path.write_bytes(data[:-1])

    async def main() -> None:
        with pytest.raises(CorruptLogError) as caught:
            await recover(path, framed=True, engine=engine)
        assert (caught.value.offset, caught.value.next_offset) == (11, 19)
        assert (await recover(path, framed=True, cut_damage=True, engine=engine)).end == 11

    run(main())


# ---- the search --------------------------------------------------------------------------


def search(data: bytes, offset: int, **kwargs: int) -> Following | None:
    return find_following(lambda size, at: data[at : at + size], offset, len(data), **kwargs)


@given(st.lists(st.binary(max_size=30), max_size=5), st.binary(max_size=40))
@settings(deadline=None)
def test_nothing_is_found_in_a_torn_end(records: list[bytes], torn: bytes) -> None:
    whole = b"".join(map(frame, records))
    assert search(whole + frame(torn)[:-1], len(whole)) is None


@pytest.mark.parametrize("filler", ["zeros", "random", "text"])
def test_a_record_anywhere_is_found(filler: str) -> None:
    rng = random.Random(4)
    record = frame(b"here it is")
    for distance in [*range(1, 40), *range(65536 - 40, 65536 + 40, 3), 65536 * 2 + 1, 300_000]:
        damaged = {
            "zeros": bytes(distance),
            "random": rng.randbytes(distance),
            "text": bytes(rng.choices(b"some text\n", k=distance)),
        }[filler]
        for following in (b"", b"x" * 10, bytes(10)):
            found = search(b"ok" + damaged + record + following, 2)
            assert found is not None
            assert found.next_offset == 2 + distance


def test_a_header_that_begins_with_zeros_behind_zeros_is_found() -> None:
    for distance in range(65536 - 10, 65536 + 10):
        found = search(bytes(2 + distance) + frame(b"x" * 256), 2)
        assert found is not None
        assert found.next_offset == 2 + distance


def test_a_long_record_is_found() -> None:
    for size in (256, 65536, 1 << 24, (1 << 24) + 1):
        found = search(b"?" * 70_000 + frame(bytes(size)), 0)
        assert found is not None
        assert found.next_offset == 70_000


def test_a_search_that_takes_too_long_is_given_up() -> None:
    """Then nobody can tell, and it counts as damage."""
    numbers = b"".join(HEADER.pack(i, i) for i in range(1, 3000))
    assert search(numbers, 0) is None
    assert search(numbers, 0, most_work=100_000) == Following(None, False)
    error = CorruptLogError("log", 0, None)
    assert "too long to search" in str(error)


def test_the_splitter_and_the_search_agree_on_what_is_valid() -> None:
    rng = random.Random(5)
    for _ in range(300):
        data = bytearray(b"".join(frame(rng.randbytes(rng.randrange(9))) for _ in range(4)))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        splitter = FrameSplitter()
        splitter.feed(bytes(data))
        found = search(bytes(data), splitter.offset)
        if found is not None:
            assert found.next_offset is not None
            assert FrameSplitter().feed(bytes(data[found.next_offset :]))
