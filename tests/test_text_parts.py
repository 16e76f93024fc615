"""The parts of text files that know neither files nor loops: lines, cookies, windows."""

from __future__ import annotations

import codecs
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringfile._cookie import Cookie
from uringfile._decoding import Decoding, new_decoder
from uringfile._newlines import check_newline, line_end, split_lines
from uringfile._window import Window

PYPY = sys.implementation.name == "pypy"

# The decoders of PyPy do not tell in which state they are.
STATEFUL = [] if PYPY else ["iso2022_jp_2004"]

texts = st.text("ab\r\n\x0b\x0c\x1c\x85\u2028", max_size=30)


@given(texts)
def test_split_lines_splits_at_newlines_alone(text: str) -> None:
    lines = io.StringIO(text, newline="\n").readlines()
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]
    assert split_lines(text) == lines


@given(texts, st.sampled_from(["", "\n", "\r", "\r\n"]))
def test_line_end_finds_what_python_finds(text: str, newline: str) -> None:
    # StringIO would translate what it is given, so the lines come from a file of bytes.
    raw = io.BytesIO(text.encode())
    theirs = io.TextIOWrapper(raw, "utf-8", newline=newline).readlines()
    ours = []
    start = 0
    while (end := line_end(text, start, newline)) >= 0:
        ours.append(text[start:end])
        start = end
    if start < len(text):
        ours.append(text[start:])
    assert ours == theirs


@pytest.mark.parametrize("newline", ["x", "\n\r", b"\n", 1])
def test_unknown_newlines(newline: object) -> None:
    with pytest.raises((ValueError, TypeError)) as theirs:
        io.TextIOWrapper(io.BytesIO(), newline=newline)  # type: ignore[arg-type]
    with pytest.raises(theirs.type):
        check_newline(newline)  # type: ignore[arg-type]


words = st.integers(0, 2**32 - 1)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**80), words, words, st.booleans())
def test_cookies_come_back(start: int, flags: int, feed: int, skip: int, eof: bool) -> None:
    cookie = Cookie(start, flags, feed, skip, eof)
    assert Cookie.unpack(cookie.pack()) == cookie


@pytest.mark.skipif(PYPY, reason="io of PyPy aborts the process at UTF-7 in pieces")
def test_cookies_have_the_layout_of_python() -> None:
    theirs = io.TextIOWrapper(io.BytesIO(b"a+MEIwQjBC-"), "utf-7")
    theirs.read(2)
    cookie = Cookie.unpack(theirs.tell())
    assert cookie == Cookie(1, 0, feed=10, skip=1)
    assert theirs.seek(cookie.pack()) == cookie.pack()
    assert Cookie.unpack(7) == Cookie(7)
    with pytest.raises(OverflowError):
        Cookie.unpack(1 << 63)


@given(
    st.text("aé漢\r\n\U0001f40d", max_size=30),
    st.sampled_from(["utf-8", "utf-16", "utf-7", *STATEFUL, "gb18030"]),
    st.sampled_from([None, "", "\n"]),
    st.integers(1, 9),
)
def test_every_position_can_be_found_again(
    text: str, encoding: str, newline: str | None, chunk_size: int
) -> None:
    data = text.encode(encoding, "ignore")
    decoding = Decoding(new_decoder(encoding, "strict", newline), locating=True)
    decoding.start_at(0, 0)
    position = 0
    rest_at: dict[int, str] = {}
    seen = ""
    while decoding.feed(chunk := data[position : position + chunk_size]):
        position += len(chunk)
        while True:
            rest_at[decoding.locate(position)] = seen
            if not (character := decoding.take(1)):
                break
            seen += character
    for number, before in rest_at.items():
        cookie = Cookie.unpack(number)
        again = Decoding(new_decoder(encoding, "strict", newline), locating=True)
        again.start_at(cookie.start, cookie.flags)
        after = cookie.start
        if cookie.skip:
            again.replay(cookie, data[after : after + cookie.feed])
            after += cookie.feed
        rest = again.take(-1)
        if not cookie.eof:
            rest += again.decoder.decode(data[after:], True)
        assert before + rest == seen


def test_decoding_that_fails_changes_nothing() -> None:
    decoding = Decoding(new_decoder("utf-8", "strict", None), locating=True)
    decoding.feed(b"ab\xe3")
    assert decoding.take(1) == "a"
    with pytest.raises(UnicodeDecodeError):
        decoding.feed(b"xx")
    assert (decoding.text, decoding.used) == ("ab", 1)
    assert decoding.feed("あ".encode()[1:])
    assert decoding.take(9) == "あ"
    decoding.snapshot = (0, b"")
    decoding.used = 5
    with pytest.raises(OSError, match="reconstruct"):
        decoding.locate(3)
    with pytest.raises(OSError, match="restore"):
        decoding.replay(Cookie(0, skip=9), b"abc")


def test_decoders_of_all_newlines() -> None:
    assert isinstance(new_decoder("utf-8", "strict", None), io.IncrementalNewlineDecoder)
    assert isinstance(new_decoder("utf-8", "strict", ""), io.IncrementalNewlineDecoder)
    assert isinstance(new_decoder("utf-8", "strict", "\r"), codecs.IncrementalDecoder)


@pytest.mark.skipif(PYPY, reason="read1() of PyPy's BufferedReader gives what is buffered alone")
def test_a_window_is_what_a_buffered_reader_has_left() -> None:
    data = bytes(range(100))
    for size in (1, 3, 8, 16):
        for first in range(40):
            reader = io.BufferedReader(io.BytesIO(data), size)  # type: ignore[arg-type]
            window = Window(size)
            assert window.limit(0, 30) == 30
            reader.read(first)
            window.read(0, first, len(data))
            assert window.limit(first, 30) == len(reader.read1(30))
            window.clear()
            reader.seek(0)


def test_a_position_after_a_seek_into_a_shorter_chunk() -> None:
    """The ratio is that of the chunk before the seek, and would lead beyond the new one."""
    decoding = Decoding(new_decoder("utf-8", "strict", None), locating=True)
    decoding.feed(b"\r\\")
    decoding.take(1)
    cookie = Cookie.unpack(decoding.locate(2))
    decoding.start_at(cookie.start, cookie.flags)
    decoding.replay(cookie, b"\\")
    assert decoding.take(1) == "\\"
    assert decoding.locate(2) == 2


@pytest.mark.parametrize("newline", [None, "", "\n"])
def test_utf_7_in_pieces(newline: str | None) -> None:
    text = "a\u3042\u3044\u3046b\n\U0001f600c+-\u3042"
    data = text.encode("utf-7")
    for i in range(len(data)):
        for j in range(i, len(data)):
            decoder = new_decoder("utf-7", "strict", newline)
            parts = [decoder.decode(data[:i]), decoder.decode(data[i:j])]
            state = decoder.getstate()
            parts.append(decoder.decode(data[j:], True))
            assert "".join(parts) == text
            assert sum(map(len, parts)) == len(text)
            decoder.setstate(state)
            assert decoder.decode(data[j:], True) == parts[-1]
