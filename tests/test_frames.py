"""The framed log format: what is a whole record, and where the first that is not one begins."""

from __future__ import annotations

import random
import struct
import time

import pytest
from conftest import check
from hypothesis import given
from hypothesis import strategies as st

from uringfile._frames import HEADER, MAX_RECORD, FrameSplitter, frame

RECORDS = [b"", b"one", b"\0" * 40, b"two\n", bytes(range(256))]


def split(data: bytes, sizes: list[int] | None = None) -> tuple[list[bytes], FrameSplitter]:
    splitter = FrameSplitter()
    records: list[bytes] = []
    start = 0
    for size in sizes or []:
        records += splitter.feed(data[start : start + size])
        start += size
    records += splitter.feed(data[start:])
    return records, splitter


def test_the_bytes_of_a_frame() -> None:
    """The checksum is that of RFC 3720, whose appendix B.4 has the one of 32 zero bytes."""
    framed = frame(b"\0" * 24)
    assert framed[:4] == b"\x18\0\0\0"
    assert framed[8:] == b"\0" * 24
    assert frame(b"123456789")[4:8] == struct.pack("<I", crc32c(b"\x09\0\0\0" + b"123456789"))
    assert crc32c(b"\0" * 32) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, from its polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(0, 30), max_size=30))
def test_any_records_in_any_pieces(records: list[bytes], sizes: list[int]) -> None:
    data = b"".join(map(frame, records))
    found, splitter = split(data, sizes)
    assert found == records
    assert (splitter.offset, splitter.held, splitter.invalid) == (len(data), 0, False)


def test_byte_by_byte() -> None:
    data = b"".join(map(frame, RECORDS))
    assert split(data, [1] * len(data))[0] == RECORDS


def test_every_truncation() -> None:
    data = b"".join(map(frame, RECORDS))
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + HEADER.size + len(record))
    for size in range(len(data) + 1):
        found, splitter = split(data[:size])
        whole = sum(end <= size for end in ends) - 1
        assert found == RECORDS[:whole]
        assert splitter.offset == ends[whole]
        assert splitter.held == size - ends[whole]
        assert not splitter.invalid


def test_every_flipped_bit() -> None:
    """Nothing from the damaged record on; what is before it stays."""
    data = b"".join(map(frame, RECORDS))
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            found, splitter = split(bytes(damaged), [7] * (len(data) // 7))
            assert found == RECORDS[: len(found)]
            start = splitter.offset
            assert start <= position < start + HEADER.size + len(RECORDS[len(found)])
            assert splitter.held == len(data) - start


@pytest.mark.parametrize("zeros", [8, 9, 16, 4096])
def test_zeros_are_no_records(zeros: int) -> None:
    found, splitter = split(frame(b"x") + b"\0" * zeros)
    assert found == [b"x"]
    assert splitter.invalid
    assert splitter.offset == len(frame(b"x"))


def test_a_length_above_the_limit_is_not_waited_for() -> None:
    assert split(HEADER.pack(MAX_RECORD + 1, 0))[1].invalid
    assert not split(HEADER.pack(MAX_RECORD, 0))[1].invalid


def test_an_offset_to_begin_with() -> None:
    splitter = FrameSplitter(1000)
    assert splitter.feed(frame(b"abc") + b"\x03") == [b"abc"]
    assert (splitter.offset, splitter.held) == (1011, 1)


def test_any_buffer_is_a_record_and_nothing_else() -> None:
    for record in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        assert frame(record) == frame(b"abc")
    for wrong in (3, "abc", None):
        with pytest.raises(TypeError):
            frame(wrong)


def test_a_record_of_ten_megabytes_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        data = frame(random.Random(1).randbytes(size))
        start = time.process_time()
        assert len(split(data, [1024] * (len(data) // 1024))[0]) == 1
        return time.process_time() - start

    small = min(seconds(1_000_000) for _ in range(3))
    assert min(seconds(10_000_000) for _ in range(2)) < 40 * small + 0.3


def test_without_the_library_the_message_names_the_extra() -> None:
    code = """
import sys
sys.modules["google_crc32c"] = None
import uringfile
from uringfile._frames import FrameSplitter, frame
for use in (lambda: frame(b"x"), FrameSplitter):
    try:
        use()
    except ImportError as error:
        print(error, error.name)
"""
    message = "framed logs need google-crc32c: pip install 'uringfile[framed]' google_crc32c\n"
    assert check(code) == 2 * message


def test_the_library_is_imported_when_it_is_needed() -> None:
    code = "import sys, uringfile; print('google_crc32c' in sys.modules)"
    assert check(code) == "False\n"
