"""System calls that name files: from the kernel's cache, by the engine, or on the executor.

Which of the three: what only asks about a cached name is answered at once; the operations
that the engine has go to it, each by itself; the rest are calls in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from uringfile import _kernel
from uringfile._driver import Driver
from uringfile._engine import KIND, STATX, STATX_PATH
from uringfile._errors import os_error_of
from uringfile._fd import Descriptor
from uringfile._loop import running_driver
from uringfile._native_engine import fd_is_local, identify, pin
from uringfile._open import MOUNTS, NO_DESCRIPTOR, in_thread
from uringfile._paths import FileDescriptorOrPath, StrOrBytesPath
from uringfile._statx import STATX_SIZE, to_stat_result
from uringfile._uninterrupted import run_uninterrupted

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100

# What a stat of a cached name takes from the turn's budget.
_STAT_COST = 2


class Duplicates(Descriptor):
    """Duplicates of descriptors that are the caller's to close, as soon as it is released, while
    the kernel has yet to look at their numbers. ``fd`` is the operation's own: the first."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: list[int | None]) -> None:
        super().__init__(_AT_FDCWD if numbers[0] is None else numbers[0])
        self._numbers = [*numbers]

    def _close(self) -> None:
        while self._numbers:  # once
            number = self._numbers.pop()
            if number is not None and number >= 0:
                with contextlib.suppress(OSError):
                    os.close(number)


def lease(*fds: int | None) -> tuple[Descriptor, list[int | None]]:
    """Duplicates of those that are not ``None``, and their numbers. To be let go of with
    ``close_when_idle``.

    A number that is no descriptor becomes -1, and so the kernel's to refuse: with an absolute
    path it ignores it.
    """
    numbers: list[int | None] = []
    try:
        for fd in fds:
            numbers.append(None if fd is None else _duplicate(fd))
    except BaseException:
        Duplicates([None, *numbers]).close_when_idle()
        raise
    nothing = all(number is None for number in numbers)
    return (NO_DESCRIPTOR if nothing else Duplicates(numbers)), numbers


def _duplicate(fd: int) -> int:
    if fd == _AT_FDCWD:  # no descriptor, but a directory to the kernel
        return fd
    try:
        return os.dup(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return -1


def c_integer(value: Any, bits: int = 32) -> int:
    """What the kernel is to be given, as an ``int`` that fits. Raises ``TypeError`` and
    ``OverflowError``, where an operation that has begun would never end."""
    number = operator.index(value)
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise OverflowError(f"{number} does not fit into a C integer of {bits} bits")
    return number


def encoded(path: StrOrBytesPath) -> bytes:
    """As the kernel wants it. Raises ``TypeError`` and ``ValueError``."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return name + b"\0"


async def perform(
    opcode: int,
    held: Descriptor,
    memory: bytes,
    length: int,
    offset: int,
    names: tuple[Any, ...],
    call: Callable[[], Any],
    on_orphan: Callable[[int], None] | None = None,
) -> Any:
    """The operation, or ``call()`` in a thread where the engine has none such; lets go of what
    is held. Raises the ``OSError`` with the names."""
    driver = running_driver()
    try:
        if not driver.serves(opcode & KIND):
            return await in_thread(driver, held, call, on_orphan=on_orphan)
        ret = await run_uninterrupted(driver, opcode, held, pin(memory), length, offset, on_orphan)
    finally:
        held.close_when_idle()
    if ret < 0:
        raise os_error_of(ret, *names)
    return ret


async def on_path(
    opcode: int,
    function: Callable[..., Any],
    path: StrOrBytesPath,
    *args: Any,
    dir_fd: int | None = None,
    length: int = 0,
    offset: int = 0,
    on_orphan: Callable[[int], None] | None = None,
) -> Any:
    """The operation on one path, or ``function(path, *args, dir_fd=...)`` in a thread."""
    name = os.fspath(path)
    memory = encoded(name)
    held, (number,) = lease(dir_fd)
    call = partial(function, name, *args, dir_fd=number)
    return await perform(opcode, held, memory, length, offset, (name,), call, on_orphan)


async def on_two_paths(
    opcode: int,
    function: Callable[..., Any],
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    src_dir_fd: int | None,
    dst_dir_fd: int | None,
    flags: int = 0,
    **options: Any,
) -> None:
    """The operation on two paths, or ``function(src, dst, src_dir_fd=..., ...)`` in a thread."""
    names = os.fspath(src), os.fspath(dst)
    first, second = encoded(names[0]), encoded(names[1])
    held, (at, second_at) = lease(src_dir_fd, dst_dir_fd)
    call = partial(function, *names, src_dir_fd=at, dst_dir_fd=second_at, **options)
    offset = flags << 32 | (_AT_FDCWD if second_at is None else second_at) & 0xFFFFFFFF
    await perform(opcode, held, first + second, len(first), offset, names, call)


async def on_duplicates(function: Callable[..., Any], fds: list[int], *args: Any) -> Any:
    """``function(*fds, *args)`` in a thread, which works on duplicates of the descriptors."""
    driver = running_driver()
    held, numbers = lease(*fds)
    return await _call_and_close(driver, partial(function, *numbers, *args), held)


async def _call_and_close(driver: Driver, call: Callable[[], Any], held: Descriptor) -> Any:
    try:
        return await in_thread(driver, NO_DESCRIPTOR, _make_and_close, call, held)
    except RuntimeError:  # no thread: the call is never made
        held.close_when_idle()
        raise


def _make_and_close(call: Callable[[], Any], held: Descriptor) -> Any:
    """Not on the loop's thread: over a network close(2) waits for the server."""
    try:
        return call()
    finally:
        held.close_when_idle()


async def on_executor(
    function: Callable[..., Any], path: FileDescriptorOrPath | None, *args: Any, **options: Any
) -> Any:
    """``function(path, *args, **options)`` in a thread. A path, and ``dir_fd``, may be a
    descriptor; the thread works on a duplicate of it."""
    driver = running_driver()
    number = path if isinstance(path, int) else None
    held, numbers = lease(number, options.get("dir_fd"))
    if numbers[1] is not None:
        options["dir_fd"] = numbers[1]
    if number is not None:
        # -1 means the current directory to some functions of os, and nothing to others.
        path = -2 if numbers[0] == -1 else numbers[0]
    call = partial(function, path, *args, **options)
    try:
        return await _call_and_close(driver, call, held)
    except OSError as error:
        if number is not None and isinstance(error.filename, int):
            error.filename = number
        raise


# ---- stat --------------------------------------------------------------------------


async def stat_path(
    path: StrOrBytesPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """stat(2), lstat(2) or fstatat(2)."""
    driver = running_driver()
    name = os.fspath(path)
    memory = encoded(name)
    if dir_fd is None:
        if driver.budget <= 0:
            await driver.yield_turn()
        driver.budget -= _STAT_COST
        fd = MOUNTS.open_path_cached(memory, 0 if follow_symlinks else os.O_NOFOLLOW)
        if fd >= 0:
            driver.inline += 1
            try:
                return os.fstat(fd)
            finally:
                os.close(fd)
        if fd == -errno.EXDEV:
            return await _stat_and_learn(driver, name, follow_symlinks)
        if fd != -errno.EAGAIN:
            raise os_error_of(fd, name)
    if driver.serves(STATX_PATH):
        return await _statx(driver, name, memory, dir_fd, follow_symlinks)
    result: os.stat_result = await on_executor(
        os.stat, name, dir_fd=dir_fd, follow_symlinks=follow_symlinks
    )
    return result


async def _statx(
    driver: Driver, name: str | bytes, memory: bytes, dir_fd: int | None, follow_symlinks: bool
) -> os.stat_result:
    held, _ = lease(dir_fd)
    out = bytearray(STATX_SIZE) + memory
    try:
        flags = 0 if follow_symlinks else _AT_SYMLINK_NOFOLLOW
        ret = await run_uninterrupted(driver, STATX_PATH, held, pin(out), 0, flags)
    finally:
        held.close_when_idle()
    if ret < 0:
        raise os_error_of(ret, name)
    return to_stat_result(out)


async def _stat_and_learn(
    driver: Driver, name: str | bytes, follow_symlinks: bool
) -> os.stat_result:
    """In a thread, which also finds out, once for each mount, whether it is local."""
    mount, local, result = await in_thread(driver, NO_DESCRIPTOR, _look, name, follow_symlinks)
    MOUNTS.add(mount, local)
    return result  # type: ignore[no-any-return]


def _look(name: str | bytes, follow_symlinks: bool) -> tuple[int, bool, os.stat_result]:
    fd = os.open(name, _kernel.O_PATH | (0 if follow_symlinks else os.O_NOFOLLOW))
    try:
        return identify(fd).mount, fd_is_local(fd), os.fstat(fd)
    finally:
        os.close(fd)


async def stat_descriptor(fd: int) -> os.stat_result:
    """fstat(2)."""
    driver = running_driver()
    try:
        mount = identify(fd).mount
    except OSError as error:
        raise os_error_of(-(error.errno or errno.EBADF), fd) from None
    if mount and MOUNTS.get(mount):
        return os.fstat(fd)
    if not driver.serves(STATX):
        result: os.stat_result = await on_executor(os.stat, fd)
        return result
    out = bytearray(STATX_SIZE)
    # Not a duplicate: should the number change hands, nobody waits for the answer any more.
    ret = await run_uninterrupted(driver, STATX, Descriptor(fd), pin(out))
    if ret < 0:
        raise os_error_of(ret, fd)
    return to_stat_result(out)


async def stat_any(
    path: FileDescriptorOrPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """os.stat."""
    if not isinstance(path, int):
        return await stat_path(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    if dir_fd is not None:
        raise ValueError("stat: can't specify dir_fd without matching path")
    if not follow_symlinks:
        raise ValueError("stat: cannot use fd and follow_symlinks together")
    return await stat_descriptor(path)
