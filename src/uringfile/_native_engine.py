"""The engines written in C. The only module that imports the cffi library."""

from __future__ import annotations

import errno
import os
import stat
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from uringfile import _engine
from uringfile._engine import EngineInfo
from uringfile._native import ffi, lib

#: Entries of the submission queue. Operations beyond it are flushed in several calls.
ENTRIES = 64

_MOST_LANES = 64

# Completions copied out in one call; more of them wait for the next turn of the loop.
REAP_MAX = 256

#: See ``_choice.INLINE_VARIABLE``.
INLINE_WAYS = ("preadv2", "ring", "off")

_KINDS = {"io_uring": lib.UF_IO_URING, "posix_aio": lib.UF_POSIX_AIO}

# What is worth telling of IORING_FEAT_* and IORING_SETUP_* (bit numbers: kernel ABI).
_FEATURES = {1: "nodrop", 5: "fast_poll", 7: "sqpoll_nonfixed", 9: "native_workers"}
_SETUP_FLAGS = {1: "sqpoll", 7: "submit_all", 8: "coop_taskrun", 9: "taskrun_flag"}

for _number, _name in enumerate(_engine.OPCODE_NAMES):
    if getattr(lib, "UF_" + _name.upper()) != _number:
        raise ImportError("uringfile._native does not match uringfile; reinstall the package")

#: ``read_nowait(fd, addr, length, offset)``: what the page cache can give at once, or
#: ``-EAGAIN``; ``-EOPNOTSUPP`` where the file system cannot tell (preadv2, Linux 4.14).
read_nowait = lib.uf_read_nowait

#: ``read_many_nowait(fd, memory, room, sizes, offsets, n)``: how many were served, from the
#: first on; see csrc/engine_api.h.
read_many_nowait = lib.uf_read_many_nowait

#: ``close_in_thread(fd)``: 0, or a negative errno, and then it is open still.
close_in_thread: Callable[[int], int] = lib.uf_close_in_thread

#: ``closing()``: how many of those calls have not come to their end.
closing: Callable[[], int] = lib.uf_closing

#: inotify(7): ``inotify_open()``, ``inotify_add(fd, path, mask)`` (a path that ends with a
#: zero byte), ``inotify_remove(fd, watch)``; a number or a negative errno.
inotify_open: Callable[[], int] = lib.uf_inotify_open
inotify_add: Callable[[int, bytes, int], int] = lib.uf_inotify_add
inotify_remove: Callable[[int, int], int] = lib.uf_inotify_remove


def as_numbers(numbers: bytes) -> Any:
    """Packed integers of 64 bits as C sees them."""
    return ffi.from_buffer("int64_t[]", numbers)


def pin(buffer: Any, *, writable: bool = False) -> Any:
    """The memory of ``buffer``, exported as long as the result lives; ``len`` is in bytes.

    Raises ``TypeError`` for what is no buffer, ``BufferError`` for one that is not
    C-contiguous, or read-only where ``writable`` is asked for.
    """
    if type(buffer) is memoryview:
        return _pin_shown(buffer, writable)
    return ffi.from_buffer("char[]", buffer, require_writable=writable)


_COUNTS_REFERENCES = sys.implementation.name == "cpython"

# Before 3.12.7 the garbage collector crashes on a cycle (the traceback of an exception
# is enough) with a memoryview and somebody who has it exported: CPython gh-77894.
_MEMORYVIEW_IN_GARBAGE_CRASHES = _COUNTS_REFERENCES and sys.version_info < (3, 12, 7)


def _pin_shown(view: memoryview, writable: bool) -> Any:
    """What the view shows; the view itself its owner may release."""
    own = memoryview(view)
    try:
        pinned = ffi.from_buffer("char[]", own, require_writable=writable)
    except TypeError:  # PyPy knows no address for that of a BytesIO
        if writable:
            raise
        return ffi.from_buffer("char[]", own.tobytes())
    if not _COUNTS_REFERENCES:
        key = id(pinned)  # equal addresses are equal pins
        _own_views[key] = own, weakref.ref(pinned, lambda _: _own_views.pop(key, None))
    if not _MEMORYVIEW_IN_GARBAGE_CRASHES:
        return pinned
    try:
        shown = ffi.from_buffer("char[]", view.obj)
    except (TypeError, BufferError):  # not contiguous itself
        return pinned
    start, size = address(pinned) - address(shown), len(pinned)
    ffi.release(pinned)
    return ffi.from_buffer("char[]", ffi.buffer(inside(shown, start), size))


if _COUNTS_REFERENCES:

    def unpin(*_: Any) -> None:
        """Let the buffers be resized: nobody uses these pins any more, nor will. Here the last
        reference to a pin does that."""

else:
    _own_views: dict[int, tuple[memoryview, Any]] = {}

    def unpin(*pins: Any) -> None:
        """Let the buffers be resized: nobody uses these pins any more, nor will. Otherwise
        that is so when the garbage collector has run."""
        for pinned in pins:
            ffi.release(pinned)
            if kept := _own_views.pop(id(pinned), None):
                kept[0].release()


def inside(pinned: Any, start: int) -> Any:
    """The address of byte ``start``; it keeps the pin."""
    if not start:
        return pinned
    return ffi.gc(pinned + start, lambda _: pinned)  # the closure keeps it


def exporter(pinned: Any) -> Any:
    """A new object that exports pinned memory and keeps it pinned; what is made from it (a
    memoryview, and any view, slice or pin of that) refers to it. It can be weakly referred to."""
    return ffi.buffer(pinned)


def address(pinned: Any) -> int:
    """Where the pinned memory is."""
    return int(ffi.cast("uintptr_t", pinned))


def as_parts(numbers: bytearray, keep: Any) -> Any:
    """Packed ``uf_part`` as C sees them; the result keeps what they point to."""
    parts = ffi.from_buffer(numbers)
    return ffi.gc(ffi.cast("char *", parts), lambda _: (parts, keep))


#: ``copy(destination, source, size)``: pins or buffers.
copy = ffi.memmove


class NativeEngine:
    """An engine of ``csrc``, owned by the thread that made it.

    ``sqpoll_ms`` and ``inline``: see ``_choice``.
    """

    def __init__(
        self, name: str, entries: int = ENTRIES, sqpoll_ms: int = 0, inline: str = INLINE_WAYS[0]
    ) -> None:
        out = ffi.new("uf_engine **")
        step = ffi.new("char **")
        ret = lib.uf_open(_KINDS[name], entries, sqpoll_ms, out, step)
        if ret:
            raise OSError(-ret, f"{ffi.string(step[0]).decode()}: {os.strerror(-ret)}")
        self.name = name
        self._at = out
        self._bind(out[0])
        self.inline = inline != "off"
        self.read_nowait: Callable[[int, Any, int, int], int] = (
            partial(lib.uf_read_on_ring, out) if inline == "ring" else read_nowait
        )
        self.eventfd: int = lib.uf_eventfd(self._handle)
        info = self._info()
        self.opcodes: int = info.opcodes
        self.capacity: int = info.capacity
        self.worker_share: int = info.worker_share
        self._lanes = ffi.new("int[]", _MOST_LANES)
        if name == "io_uring":
            self.forget_fd = _no_lanes  # type: ignore[assignment]
        self._completions = ffi.new("uf_completion[]", REAP_MAX)
        self._pairs = memoryview(ffi.buffer(self._completions)).cast("B").cast("q")

    def _bind(self, handle: Any) -> None:
        """The calls that each operation makes, without a Python frame around them."""
        self._handle = handle
        self.submit: Callable[[int, int, Any, int, int, int], int] = partial(lib.uf_submit, handle)
        self.flush: Callable[[], int] = partial(lib.uf_flush, handle)
        self.cancel: Callable[[int], int] = partial(lib.uf_cancel, handle)

    def reap(self, drain: bool) -> list[int]:
        n = lib.uf_reap(self._handle, self._completions, REAP_MAX, drain)
        return self._pairs[: 2 * n].tolist() if n > 0 else []

    def forget_fd(self, fd: int) -> list[int]:
        n = lib.uf_forget_fd(self._handle, fd, self._lanes, _MOST_LANES)
        return list(self._lanes[0:n]) if n else []

    def shutdown(self) -> None:
        lib.uf_shutdown(self._handle)

    def wait(self, timeout_ms: int) -> int:
        ret: int = lib.uf_wait(self._handle, timeout_ms)
        return ret

    def destroy(self) -> None:
        """Release the engine. Any later call answers -ESHUTDOWN."""
        handle = self._handle
        self._bind(ffi.NULL)
        self._at[0] = ffi.NULL
        lib.uf_destroy(handle)

    def _info(self) -> Any:
        info = ffi.new("uf_info *")
        lib.uf_describe(self._handle, info)
        return info

    def describe(self, reason: str | None) -> EngineInfo:
        info = self._info()
        features = [
            "op:" + name
            for number, name in enumerate(_engine.OPCODE_NAMES)
            if info.opcodes >> number & 1
        ]
        features += [name for bit, name in _FEATURES.items() if info.features >> bit & 1]
        features += [name for bit, name in _SETUP_FLAGS.items() if info.setup_flags >> bit & 1]
        return EngineInfo(self.name, reason, info.entries, info.capacity, tuple(features))


def new_scratch(size: int) -> tuple[Any, Any]:
    """Memory for short reads, and the buffer object whose slices copy out of it."""
    memory = ffi.new("char[]", size)
    return memory, ffi.buffer(memory)


class Identity(NamedTuple):
    """What is known of an open file without waiting for its file system."""

    mode: int
    size: int
    #: Alignment of offsets for O_DIRECT; 0 when the kernel does not tell (Linux 6.1).
    dio_align: int
    #: The mount, a number that is never used again; 0 when unknown (Linux 6.8).
    mount: int
    #: The block device below it; 0 for tmpfs, NFS, FUSE and the like.
    device: int


#: What ``LocalMounts.open_cached`` opens.
REGULAR = Identity(mode=stat.S_IFREG, size=0, dio_align=0, mount=0, device=0)


def identify(fd: int) -> Identity:
    out = ffi.new("uf_identity *")
    ret = lib.uf_identify(fd, out)
    if ret:
        raise OSError(-ret, os.strerror(-ret))
    return Identity(out.mode, out.size, out.dio_align, out.mount, out.device)


def _no_lanes(_: int) -> list[int]:
    """io_uring makes no descriptors of its own from a file's."""
    return []


class LocalMounts:
    """The mounts that are known to be local. A number of a mount is never used again; a
    negative one stands for a block device."""

    _MOST = 64

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}
        self._local = ffi.new("uint64_t[]", self._MOST)
        self._mount = ffi.new("uint64_t *")
        self._n = 0

    def get(self, mount: int) -> bool | None:
        return self._known.get(mount)

    def add(self, mount: int, local: bool) -> None:
        if mount > 0 and mount not in self._known and local and self._n < self._MOST:
            self._local[self._n] = mount
            self._n += 1
        self._known[mount] = local

    def open_cached(self, path: bytes, flags: int) -> int:
        """Open a regular file on a local mount, if its path is cached; else below 0."""
        fd: int = lib.uf_open_cached(path, flags, self._local, self._n)
        return fd

    def open_path_cached(self, path: bytes, flags: int) -> int:
        """Open with O_PATH what a cached path leads to, on a local mount; else -errno, where
        -EXDEV means that nobody knows yet whether its mount is local."""
        fd: int = lib.uf_open_path_cached(path, flags, self._local, self._n, self._mount)
        if fd == -errno.EXDEV and self.get(self._mount[0]) is not None:
            return -errno.EAGAIN
        return fd

    def read_cached_files(self, paths: bytes, n: int, memory: Any, room: int) -> list[int]:
        """See csrc/engine_api.h; the sizes of those that were looked at."""
        sizes = ffi.new("int64_t[]", n)
        seen = lib.uf_read_cached_files(paths, n, memory, room, sizes, self._local, self._n)
        return ffi.unpack(sizes, seen)  # type: ignore[no-any-return]


#: ``copy_data(from, to, length, memory, room)``: see uf_copy in csrc/engine_api.h.
copy_data: Callable[[int, int, int, Any, int], int] = lib.uf_copy


def fd_is_local(fd: int) -> bool:
    """Whether nobody outside this machine answers for the file system; may itself wait."""
    return bool(lib.uf_is_local(fd))
