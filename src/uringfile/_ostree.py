"""What ``uringfile.os`` does with whole trees of directories: several calls each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, AnyStr

from uringfile._loop import running_driver
from uringfile._open import NO_DESCRIPTOR, in_thread
from uringfile._osfiles import mkdir, rename, rmdir
from uringfile._ospath import exists, isdir
from uringfile._scandir import letting_others_run


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
    return _list_tree(os.fspath(top), topdown, onerror, followlinks)


async def _list_tree(
    top: Any,
    topdown: bool,
    onerror: Callable[[OSError], object] | None,
    followlinks: bool,
) -> AsyncIterator[tuple[Any, list[Any], list[Any]]]:
    """As os.walk, whose remarks on changing the lists hold here, too."""
    # Paths to look at, with whether to leave them out if they are links by then; or, bottom
    # up, what is to be given out when everything below it has been.
    stack: list[Any] = [(top, False)]
    while stack:
        found = stack.pop()
        if len(found) == 3:
            yield found
            continue
        path, not_links = found
        try:
            look = partial(_list_for_walk, path, not_links)
            lists = await in_thread(running_driver(), NO_DESCRIPTOR, look)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            continue
        if lists is None:
            continue
        dirs, files, links = lists
        if topdown:
            yield path, dirs, files
            below = [(os.path.join(path, name), not followlinks) for name in dirs]
        else:
            stack.append((path, dirs, files))
            names = dirs if followlinks else [name for name in dirs if name not in links]
            below = [(os.path.join(path, name), False) for name in names]
        stack += reversed(below)


def _list_for_walk(path: Any, not_a_link: bool) -> tuple[list[Any], list[Any], set[Any]] | None:
    """Directories, other files, and which of the former are links; in a thread."""
    if not_a_link and os.path.islink(path):
        return None
    dirs, files, links = [], [], set()
    with os.scandir(path) as entries:
        for entry in map(letting_others_run, entries):
            if _asks(entry.is_dir):
                dirs.append(entry.name)
                if _asks(entry.is_symlink):
                    links.add(entry.name)
            else:
                files.append(entry.name)
    return dirs, files, links


def _asks(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:
        return False
