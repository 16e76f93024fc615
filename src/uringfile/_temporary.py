"""Temporary files as they are opened: without a name, or with one that is removed again."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import weakref
from typing import Any

from uringfile import _kernel
from uringfile._driver import Driver
from uringfile._open import NO_DESCRIPTOR, close_orphan, in_thread, off_the_loop, open_path
from uringfile._opener import OpenerFile

# Only its owner may open it, as with mkstemp.
_PERMISSIONS = 0o600
_FLAGS = os.O_RDWR | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Names are tried until one is free.
_MOST_NAMES = 100


class Place:
    """Where a temporary file goes, and what its name begins and ends with."""

    def __init__(self, suffix: Any, prefix: Any, dir: Any) -> None:
        self._dir = None if dir is None else os.fspath(dir)
        given = [part for part in (suffix, prefix, self._dir) if part is not None]
        self._bytes = any(isinstance(part, bytes) for part in given)
        for part in given:
            if not isinstance(part, bytes if self._bytes else str):
                raise TypeError("suffix, prefix and dir must be all str, or all bytes")
        empty: Any = b"" if self._bytes else ""
        default = tempfile.gettempprefixb() if self._bytes else tempfile.gettempprefix()
        self.suffix = empty if suffix is None else suffix
        self.prefix = default if prefix is None else prefix

    async def directory(self, driver: Driver) -> Any:
        """The folder, that of the ``tempfile`` module by default."""
        if self._dir is not None:
            return self._dir
        default: Any = tempfile.gettempdirb if self._bytes else tempfile.gettempdir
        if tempfile.tempdir is not None:
            return default()
        return await in_thread(driver, NO_DESCRIPTOR, default)  # it tries folders

    def new_name(self, directory: Any) -> Any:
        """A path that most likely is free."""
        middle: Any = secrets.token_hex(6)
        if self._bytes:
            middle = middle.encode()
        return os.path.join(os.path.abspath(directory), self.prefix + middle + self.suffix)


class UnnamedFile(OpenerFile):
    """A file without a name (O_TMPFILE). The kernel removes it with its last descriptor."""

    place: Place

    async def _open_path(self, driver: Driver) -> int:
        directory = await self.place.directory(driver)
        appends = os.O_APPEND if self.mode.appending else 0
        try:
            fd = await open_path(
                driver, directory, _FLAGS | appends | _kernel.O_TMPFILE, _PERMISSIONS
            )
        except OSError:
            # The file system has no such files; or there is another error, which comes again.
            fd = await in_thread(
                driver,
                NO_DESCRIPTOR,
                _make_and_unlink,
                self.place,
                directory,
                appends,
                on_orphan=close_orphan,
            )
        self._name = fd
        return fd


def _make_and_unlink(place: Place, directory: Any, flags: int) -> int:
    for _ in range(_MOST_NAMES):
        path = place.new_name(directory)
        try:
            fd = os.open(path, _FLAGS | flags | os.O_CREAT, _PERMISSIONS)
        except FileExistsError:
            continue
        try:
            os.unlink(path)
        except BaseException:
            os.close(fd)
            raise
        return fd
    raise FileExistsError(f"no free name for a temporary file in {directory!r}")


class NamedFile(OpenerFile):
    """A file with a name of its own, which is removed by ``remove``; and if that never
    happens, when this object is collected or the interpreter exits."""

    place: Place
    #: Whether it is removed at all, and whether by ``close``.
    delete = True
    delete_on_close = True
    _finalizer: weakref.finalize[[str, int], NamedFile] | None = None

    async def _open_path(self, driver: Driver) -> int:
        directory = await self.place.directory(driver)
        flags = _FLAGS | os.O_CREAT | (os.O_APPEND if self.mode.appending else 0)
        for _ in range(_MOST_NAMES):
            path = self.place.new_name(directory)

            def discard(result: int, path: Any = path) -> None:
                if result >= 0:
                    close_orphan(result)
                    off_the_loop(_unlink, path, os.getpid())

            try:
                fd = await open_path(driver, path, flags, _PERMISSIONS, discard)
            except FileExistsError:
                continue
            self._name = path
            self._finalizer = weakref.finalize(self, _unlink, path, os.getpid())
            return fd
        raise FileExistsError(f"no free name for a temporary file in {directory!r}")

    async def _open_and_look(self, driver: Driver) -> None:
        try:
            await super()._open_and_look(driver)
        except BaseException:
            if self._finalizer is not None:
                off_the_loop(self._finalizer)
            raise
        if not self.delete and self._finalizer is not None:
            self._finalizer.detach()

    def close_at_once(self) -> bool:
        return False

    async def remove(self) -> None:
        """Remove the name, once. Raises ``FileNotFoundError`` if it is gone already.

        Cancelled, it is removed all the same.
        """
        finalizer = self._finalizer
        if finalizer is not None and finalizer.alive:
            assert self._driver is not None
            await in_thread(self._driver, NO_DESCRIPTOR, _remove, finalizer, self._name)


def _remove(finalizer: weakref.finalize[[str, int], NamedFile], path: Any) -> None:
    if finalizer.detach():
        os.unlink(path)


def _unlink(path: Any, process: int) -> None:
    """In a forked child the file is the parent's."""
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            os.unlink(path)
