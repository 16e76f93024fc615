"""Aligned memory for O_DIRECT that is used again and again.

Who may still touch a buffer? Not its last holder's word decides, but Python's reference counts:
each time it is handed out, a new object exports its memory, and every view, slice, array and
every operation in flight refers to that object. When it is gone, nothing can touch the memory any
more, and only then is the buffer free. So an operation that was cancelled, and that the kernel
has not let go of, keeps its buffer out of the pool until it is reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import mmap
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from uringfile._native_engine import address, exporter, pin

# Of x86-64, and of arm64 with pages of 4 KiB.
_HUGE_PAGE = 2 << 20

# What is worth a huge page.
_LARGE = 1 << 20

# MADV_WIPEONFORK (Linux 4.14), which the mmap module lacks; the same number everywhere but on
# PA-RISC.
_WIPEONFORK = 18

# Without a GIL the last reference that another thread drops counts when the thread that made the
# object runs Python code again, which a loop that sleeps does not: so somebody who waits has it
# wake up now and then.
# Where references are not counted (PyPy), nothing is dropped before the garbage collector runs, and
# who waits has it run: at once, and then less and less often.
_COUNTS_REFERENCES = sys.implementation.name == "cpython"
_DROPS_COME_LATE = not getattr(sys, "_is_gil_enabled", lambda: True)() or not _COUNTS_REFERENCES
_DROPS_SECONDS = 0.02
_COLLECT_SECONDS = 1.0


class BufferPool:
    """``count`` buffers of ``size`` bytes, each at the start of a page.

    With a file opened with ``direct=True``, ``readinto`` and ``write`` of such a buffer, or of
    a slice of it that starts at a page, go to and from the disk without a copy where offset
    and size are multiples of the page size, too. After a fork the child finds zeros in it.

    From 1 MiB on in all, the memory is asked for in huge pages (madvise(2); it is then rounded
    up to 2 MiB), so that a request is one piece of memory for the disk. That is what pays:
    O_DIRECT reads of 64 KiB, 16 in flight, are 1.9 times as fast as ``readinto`` a bytearray,
    reads of 1 MiB, 8 in flight, 2.7 times, for an eighth of the processor time; 4 KiB are not
    faster (a virtual disk; ``python -m benchmarks.pool``). Reads that the page cache serves
    have nothing of it.

    The memory is not registered with the ring (IORING_REGISTER_BUFFERS), nor is any file: on
    huge pages neither made reads faster beyond the noise. At 4 KiB registered buffers save some
    0.5 us of processor time of about 9 (``python -m benchmarks.registered``).

    Not safe for use from several threads; it may serve one event loop after another. On PyPy a
    buffer is free when the garbage collector has run; an ``acquire`` that finds none has it run,
    which holds up the loop.

    Raises ``ValueError`` unless both numbers are above 0, and ``OSError`` (ENOMEM).
    """

    def __init__(self, size: int, count: int) -> None:
        if size <= 0 or count <= 0:
            raise ValueError("size and count must be above 0")
        self._size = size
        self._count = count
        stride = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = _map(stride * count)
        # Pins: they keep the mapping.
        self._slots = [pin(memory[i * stride : i * stride + size]) for i in range(count)]
        self._free = deque(range(count))
        self._taken: dict[int, weakref.ref[Any]] = {}
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._collected = 0.0

    @property
    def size(self) -> int:
        """Bytes of a buffer."""
        return self._size

    @property
    def count(self) -> int:
        """How many buffers there are."""
        return self._count

    @property
    def free(self) -> int:
        """How many can be handed out at once."""
        return len(self._free)

    async def acquire(self) -> memoryview:
        """A buffer; waits for one, in the order of the calls. What is in it is undefined.

        Give it back with ``release``; or drop it, and all that refers to it.
        """
        if self._free and not self._waiting:
            return self._hand_out(self._free.popleft())
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._serve()  # past those who were cancelled
        if _DROPS_COME_LATE:
            self._serve_again(future)
        try:
            return self._hand_out(await future)
        except BaseException:  # also a coroutine that is closed instead of cancelled
            if future.done() and not future.cancelled():
                self._put_back(future.result())
            raise

    def release(self, buffer: memoryview) -> None:
        """Give it back; any later use of ``buffer`` raises ``ValueError``.

        It is handed out again when nothing refers to its memory: not before the last operation
        in flight, also a cancelled one, has been reaped, and the last slice, array and
        traceback is gone.
        Raises ``ValueError`` for what is no buffer of this pool, or was given back.
        """
        if id(buffer.obj) not in self._taken or buffer.nbytes != self._size:
            raise ValueError("not a buffer of this pool")
        with contextlib.suppress(BufferError):  # an array refers to it
            buffer.release()

    @contextlib.asynccontextmanager
    async def buffer(self) -> AsyncIterator[memoryview]:
        """``async with pool.buffer() as buffer``: acquired, and released at the end."""
        buffer = await self.acquire()
        try:
            yield buffer
        finally:
            self.release(buffer)

    def _hand_out(self, slot: int) -> memoryview:
        lease = exporter(self._slots[slot])
        key = id(lease)

        def gone(_: object) -> None:  # in whatever thread dropped the last reference
            del self._taken[key]
            self._put_back(slot)

        self._taken[key] = weakref.ref(lease, gone)
        return memoryview(lease)

    def _put_back(self, slot: int) -> None:
        self._free.append(slot)
        while True:
            try:
                loop = self._waiting[0].get_loop()
            except IndexError:  # nobody, or, as another thread sees it, nobody any more
                return
            try:
                loop.call_soon_threadsafe(self._serve)
                return
            except RuntimeError:  # closed, and so is who waited
                self._waiting.popleft()

    def _serve_again(self, future: asyncio.Future[int], pause: float = _DROPS_SECONDS) -> None:
        if not _COUNTS_REFERENCES:
            if self._collected <= time.monotonic() - pause:  # once for all that wait
                gc.collect()
                self._collected = time.monotonic()
            pause = min(2 * pause, _COLLECT_SECONDS)
        self._serve()
        if not future.done():
            future.get_loop().call_later(pause, self._serve_again, future, pause)

    def _serve(self) -> None:
        while self._waiting and self._free:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(self._free.popleft())


def _map(size: int) -> memoryview:
    """Anonymous memory, at the start of a page; or whole huge pages, if it is large."""
    huge = size >= _LARGE
    if huge:
        size = -(-size // _HUGE_PAGE) * _HUGE_PAGE
    memory = mmap.mmap(-1, size + huge * _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A forked child finds zeros. If it shared the pages, a parent that writes to one would get a
    # copy, while the disk goes on with the original.
    memory.madvise(_WIPEONFORK)
    if not huge:
        return memoryview(memory)
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -address(pin(memory)) % _HUGE_PAGE
    return memoryview(memory)[start : start + size]
