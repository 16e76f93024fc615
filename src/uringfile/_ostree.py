"""What ``uringfile.os`` does with whole trees of directories: several calls each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, AnyStr, overload

from uringfile._osfiles import mkdir, rename, rmdir
from uringfile._ospath import exists, isdir
from uringfile._scandir import ScandirIterator, list_tree


async def makedirs(name: Any, mode: int = 0o777, exist_ok: bool = False) -> None:
    """Make a directory and those above it that are missing.

    ``mode`` is that of the last one. With ``exist_ok`` it may be there already. Cancelled, the
    first of them have been made.
    """
    head, tail = os.path.split(name)
    if not tail:
        head, tail = os.path.split(head)
    if head and tail and not await exists(head):
        with contextlib.suppress(FileExistsError):  # somebody else has made it meanwhile
            await makedirs(head, exist_ok=exist_ok)
        if tail in (".", b"."):  # xxx/newdir/. exists if xxx/newdir does
            return
    try:
        await mkdir(name, mode)
    except OSError:
        # Not EEXIST alone: the kernel may tell something else first.
        if not exist_ok or not await isdir(name):
            raise


async def removedirs(name: Any) -> None:
    """Remove an empty directory, and then each one above it that is empty, too."""
    await rmdir(name)
    head, tail = os.path.split(name)
    if not tail:
        head, tail = os.path.split(head)
    while head and tail:
        try:
            await rmdir(head)
        except OSError:
            break
        head, tail = os.path.split(head)


async def renames(old: Any, new: Any) -> None:
    """``rename``, with directories made for the new name, and removed that the old one
    leaves empty."""
    head, tail = os.path.split(new)
    if head and tail and not await exists(head):
        await makedirs(head)
    await rename(old, new)
    head, tail = os.path.split(old)
    if head and tail:
        with contextlib.suppress(OSError):
            await removedirs(head)


@overload
def scandir(path: int | None = None) -> ScandirIterator[str]: ...
@overload
def scandir(path: AnyStr | os.PathLike[AnyStr]) -> ScandirIterator[AnyStr]: ...
def scandir(path: Any = None) -> ScandirIterator[Any]:
    """The entries of a directory, read in threads, some thousand at a time.

    ``async for``, ``async with`` or ``await`` (which opens); not a coroutine itself.
    """
    if path is None:
        path = "."
    return ScandirIterator(path if isinstance(path, int) else os.fspath(path))


def walk(
    top: AnyStr | os.PathLike[AnyStr],
    topdown: bool = True,
    onerror: Callable[[OSError], object] | None = None,
    followlinks: bool = False,
) -> AsyncIterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
    """``(path, directories, files)`` of each directory of a tree; one call of a thread each.

    As ``os.walk``: top down the list of directories may be changed in place, and says what
    is visited.
    """
    return list_tree(os.fspath(top), topdown, onerror, followlinks)
