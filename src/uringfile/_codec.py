"""Codecs: strings to bytes and back, at an offset of a file.

Codecs with a byte order mark write it once, in front of the first character of the file,
and not in front of each piece.
"""

from __future__ import annotations

import codecs
import functools
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NATIVE = "le" if sys.byteorder == "little" else "be"

# Codecs that put a mark in front: what they write and read behind offset 0.
_WITHOUT_MARK = {
    "utf-16": f"utf-16-{_NATIVE}",
    "utf-32": f"utf-32-{_NATIVE}",
    "utf-8-sig": "utf-8",
}


@functools.cache
def check_codec(encoding: str, errors: str) -> str:
    """The canonical name of the codec. Raises ``LookupError`` for names that nobody knows."""
    codecs.lookup_error(errors)
    return codecs.lookup(encoding).name


def new_incremental_decoder(encoding: str, errors: str) -> codecs.IncrementalDecoder:
    """A decoder for text that comes in pieces. Raises ``LookupError`` as ``check_codec`` does."""
    codec = codecs.lookup(encoding)
    if codec.name == "utf-7" and sys.implementation.name == "pypy":
        return _Utf7Decoder(errors)
    return codec.incrementaldecoder(errors)


class _Utf7Decoder(codecs.BufferedIncrementalDecoder):
    """Where a piece ends within a Base64 run, PyPy gives a string that claims characters which
    it does not have, and aborts the process in whatever looks at them. What it has is right."""

    def _buffer_decode(self, input: ReadableBuffer, errors: str, final: bool) -> tuple[str, int]:
        text, used = codecs.utf_7_decode(input, errors, final)
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass"), used


def codec_at(codec: str, offset: int) -> str:
    """The codec (canonical name) to use at ``offset``: without a mark behind the start."""
    return _WITHOUT_MARK.get(codec, codec) if offset else codec
