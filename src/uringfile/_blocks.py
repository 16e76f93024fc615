"""Memory for reads, which the kernel fills before anybody else sees it, and copies of data."""

from __future__ import annotations

import sys
from typing import Any, cast

if sys.implementation.name == "cpython":
    import ctypes

    _new = ctypes.pythonapi.PyBytes_FromStringAndSize
    _new.restype = ctypes.py_object
    _new.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]

    def new_block(size: int) -> bytes | bytearray:
        """A bytes object of unset memory: zeroing 1 MiB costs 6 us, and a copy of it 18."""
        return cast(bytes, _new(None, size))

    def as_bytes(block: bytes | bytearray, size: int) -> bytes:
        """The first ``size`` bytes; the block itself if those are all."""
        return cast(bytes, block[:size])  # a full slice of a bytes object is that object

else:
    import cffi  # built in

    _ffi = cffi.FFI()

    def new_block(size: int) -> bytes | bytearray:
        return bytearray(size)

    def as_bytes(block: bytes | bytearray, size: int) -> bytes:
        """One copy; through a memoryview it is made byte by byte, at 2.4 ms for 1 MiB."""
        return cast(bytes, _ffi.buffer(_ffi.from_buffer(block), size)[:])


def as_copy(data: Any) -> bytes:
    """The bytes of any buffer; ``TypeError`` for what is none.

    A view is released, not dropped: where references are not counted (PyPy), it would keep the
    buffer from being resized until it is collected.
    """
    with memoryview(data) as view:
        return view.tobytes()
