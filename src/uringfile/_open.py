"""From a path to an open descriptor and back, without holding up the loop."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any

from uringfile._background import shield
from uringfile._driver import Driver, raise_for
from uringfile._engine import ASYNC, CLOSE, OPENAT
from uringfile._errors import Filename
from uringfile._executor import call_in_thread
from uringfile._fd import Descriptor, NoDescriptor, close_unasked
from uringfile._native_engine import Identity, LocalMounts, fd_is_local, pin
from uringfile._uninterrupted import run_uninterrupted

#: For operations and calls that need none.
NO_DESCRIPTOR = NoDescriptor()

#: For all loops: what has been found out once holds for the process.
MOUNTS = LocalMounts()

_CHANGES = os.O_CREAT | os.O_TRUNC | os.O_EXCL


def open_cached(driver: Driver, path: str | bytes, flags: int) -> int:
    """open(2) where it waits for nothing: a local regular file whose path is cached. Below 0
    when it would."""
    if flags & _CHANGES or driver.budget <= 0:
        return -1
    name = os.fsencode(path)
    if b"\0" in name:
        return -1
    driver.budget -= 2
    return MOUNTS.open_cached(name + b"\0", flags)


def close_orphan(result: int) -> None:
    """Close a descriptor that came too late."""
    if result >= 0:
        close_unasked(result)


def off_the_loop(function: Callable[..., object], *args: Any) -> None:
    """What has to be put away for a caller that is gone: while the loop runs not on its
    thread, because over a network unlink(2) waits for the server."""
    try:
        loop = asyncio.get_running_loop()
        call_in_thread(loop, function, *args)
    except RuntimeError:  # no loop, or its executor has ended
        function(*args)


async def open_path(
    driver: Driver,
    path: str | bytes,
    flags: int,
    permissions: int,
    on_orphan: Callable[[int], None] = close_orphan,
) -> int:
    """open(2). Cancelled, it leaves no descriptor behind, though it may leave a new file:
    ``on_orphan`` is called with a descriptor that comes too late, or a negative number."""
    if not driver.serves(OPENAT):
        fd: int = await in_thread(
            driver, NO_DESCRIPTOR, os.open, path, flags, permissions, on_orphan=on_orphan
        )
        return fd
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    # To a worker at once: an attempt on this thread would open a FIFO with O_NONBLOCK.
    opcode, memory = OPENAT | ASYNC, pin(name + b"\0")
    ret = await run_uninterrupted(
        driver, opcode, NO_DESCRIPTOR, memory, permissions, flags, on_orphan
    )
    return raise_for(ret, path)


async def close_descriptor(driver: Driver, descriptor: Descriptor, filename: Filename) -> None:
    """close(2) of a descriptor that nothing holds, on this thread or where it may wait.

    It is closed even if this is cancelled.
    """
    fds = [*driver.engine.forget_fd(descriptor.fd), descriptor.fd]
    if descriptor.at_once:
        _close(fds, filename)
    elif driver.serves(CLOSE) and len(fds) == 1:
        # By a worker: what the last close of a file does, its caller's thread does.
        _, future = driver.start(CLOSE | ASYNC, descriptor)
        _raise_unless_closed(await shield(future), filename)
    else:
        try:
            await in_thread(driver, NO_DESCRIPTOR, _close, fds, filename)
        except RuntimeError:  # the executor has been shut down, or has no thread left
            _close(fds, filename)


def close_at_once(driver: Driver, descriptor: Descriptor, filename: Filename) -> None:
    """close(2) of a descriptor that nothing holds, where it waits for nothing."""
    _close([*driver.engine.forget_fd(descriptor.fd), descriptor.fd], filename)


async def release_descriptor(driver: Driver, descriptor: Descriptor, filename: Filename) -> None:
    """Let go of a descriptor that is somebody else's to close."""
    if lanes := driver.engine.forget_fd(descriptor.fd):
        await in_thread(driver, NO_DESCRIPTOR, _close, lanes, filename)


def _close(fds: list[int], filename: Filename) -> None:
    """Close all, then raise the first error: the kernel tells it but once, to whichever."""
    failure = 0
    for fd in fds:
        try:
            os.close(fd)
        except OSError as error:
            if failure in (0, errno.EINTR):
                failure = error.errno or 0
    _raise_unless_closed(-failure, filename)


def _raise_unless_closed(result: int, filename: Filename) -> None:
    """Interrupted, it is closed all the same, and nothing has failed (close(2), PEP 475)."""
    if result != -errno.EINTR:
        raise_for(result, filename)


async def is_local(driver: Driver, descriptor: Descriptor, identity: Identity) -> bool:
    """Whether nobody outside this machine answers for the file.

    Found out once for each mount. Before Linux 6.8 mounts have no number of their own; then
    once for each block device, and for each file that has none below it (tmpfs, btrfs, NFS).
    """
    where = identity.mount or -identity.device
    local = MOUNTS.get(where) if where else None
    if local is None:
        local = bool(await in_thread(driver, descriptor, fd_is_local, descriptor.fd))
        if where:
            MOUNTS.add(where, local)
    return local


async def in_thread(
    driver: Driver,
    holds: Descriptor,
    function: Callable[..., Any],
    *args: Any,
    on_orphan: Callable[[Any], None] | None = None,
) -> Any:
    """A call that the engine does not take, on the loop's default executor.

    The descriptor is held until the thread is done, whatever becomes of the caller;
    ``on_orphan`` gets the result when the caller is gone.
    """
    driver.in_threads += 1
    future = call_in_thread(driver.loop, function, *args)
    holds.holders += 1
    orphaned = False

    def drop_result() -> None:
        # The exception is asked for in any case: asyncio logs those that nobody has seen.
        failed = future.cancelled() or future.exception() is not None
        if on_orphan is not None and not failed:
            on_orphan(future.result())

    def finish(_: asyncio.Future[Any]) -> None:
        holds.release()
        if orphaned:
            drop_result()

    future.add_done_callback(finish)
    awaited = shield(future)
    try:
        return await awaited
    except BaseException:  # also a coroutine that is closed instead of cancelled
        if awaited.done() and not awaited.cancelled():
            awaited.exception()
        if future.done():
            drop_result()
        else:
            orphaned = True
        raise
