"""atomic_write: a file that is replaced whole and durably, or not at all. And fsync_dir."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from uringfile import _osfiles, _ospath
from uringfile._async_open import async_open
from uringfile._background import Background, settle
from uringfile._binary import BinaryFileWrapper
from uringfile._driver import raise_for
from uringfile._engine import FSYNC, OPENAT, EngineName
from uringfile._errors import os_error
from uringfile._fd import Descriptor
from uringfile._file import AIOFile
from uringfile._loop import running_driver
from uringfile._mode import parse_mode
from uringfile._open import NO_DESCRIPTOR, in_thread
from uringfile._paths import StrOrBytesPath
from uringfile._textfile import TextFileWrapper
from uringfile._uninterrupted import run_uninterrupted

if TYPE_CHECKING:
    from typing import Literal

F = TypeVar("F", BinaryFileWrapper, TextFileWrapper)
T = TypeVar("T")

# What of a name stands in that of its temporary file: no name has more than 255 bytes.
_KEPT_NAME = 200

_MODES = ("w", "wt", "wb", "w+", "w+t", "wt+", "w+b", "wb+")


async def fsync_dir(path: StrOrBytesPath) -> None:
    """fsync(2) of a directory: the names in it, new, changed or removed, are on the disk.

    Where the file system has no such thing (EINVAL), nothing is done.
    """
    driver = running_driver()
    name = os.fspath(path)
    if not driver.serves(OPENAT):
        await in_thread(driver, NO_DESCRIPTOR, _sync_directory, name)
        return
    fd = await _osfiles.open(name, os.O_RDONLY | os.O_DIRECTORY)
    descriptor = Descriptor(fd, at_once=True)  # nothing is to be written back
    try:
        ret = await run_uninterrupted(driver, FSYNC, descriptor)
    finally:
        descriptor.close_when_idle()
    if ret != -errno.EINVAL:
        raise_for(ret, name)


def _sync_directory(path: str | bytes) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise os_error(-(error.errno or errno.EIO), path) from None
    finally:
        os.close(fd)


@overload
def atomic_write(
    path: StrOrBytesPath,
    mode: Literal["w", "wt", "w+", "w+t", "wt+"] = "w",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    sync: bool = True,
    engine: EngineName | None = None,
) -> AtomicWrite[TextFileWrapper]: ...
@overload
def atomic_write(
    path: StrOrBytesPath,
    mode: Literal["wb", "w+b", "wb+"],
    *,
    sync: bool = True,
    engine: EngineName | None = None,
) -> AtomicWrite[BinaryFileWrapper]: ...
def atomic_write(
    path: StrOrBytesPath,
    mode: str = "w",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    sync: bool = True,
    engine: EngineName | None = None,
) -> AtomicWrite[Any]:
    """Replace a file by what is written in the block: ``async with atomic_write(path) as f``.

    ``f`` is a file object as ``async_open`` gives, of a temporary file in the same directory, whose
    name begins with a dot and ends with ``.tmp``. At the end of the block it is synced, renamed
    to ``path``, and the directory synced; ``sync=False`` leaves out both. Others see the old
    contents or the new ones, never something in between, and so it is after a power cut.

    Permissions are those of the file that is replaced, and its owner as far as this process may
    set it; those of a new file are as with ``open``. Its other names (hard links) keep the old
    contents; ACLs and extended attributes are not carried over. A symbolic link is followed.

    When the block raises, or anything here does, or is cancelled, ``path`` is as it was and the
    temporary file is removed, unless the rename was under way: then the file is replaced,
    though perhaps not durably. A caller that is cancelled waits for the removal, at most a
    second. What is killed leaves its temporary file.

    Raises what ``open``, ``write``, fsync(2) and rename(2) raise, and ``OSError`` with EISDIR or
    EINVAL for what is no regular file.
    """
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}")
    options = {"encoding": encoding, "errors": errors, "newline": newline}
    if parse_mode(mode).binary:
        options = {name: value for name, value in options.items() if value is not None}
    return AtomicWrite(path, mode, options, sync, engine)


class AtomicWrite(Generic[F]):
    """What ``atomic_write`` gives; to be used once."""

    def __init__(
        self,
        path: StrOrBytesPath,
        mode: str,
        options: dict[str, Any],
        sync: bool,
        engine: EngineName | None,
    ) -> None:
        self._path: Any = os.fspath(path)
        self._mode = mode
        self._options = options
        self._sync = sync
        self._engine = engine
        self._file: F | None = None
        self._temporary: Any = None
        self._old: os.stat_result | None = None
        self._begun = False
        self._abandoned = False

    async def __aenter__(self) -> F:
        if self._begun:
            raise RuntimeError("atomic_write() is to be used once")
        self._begun = True
        return await self._or_discard(self._create())

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._or_discard(self._commit())
        elif issubclass(kind, GeneratorExit):  # nobody may wait any more
            Background(asyncio.get_running_loop(), self._discard(None))
        else:
            await settle(self._discard(None))

    async def _or_discard(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result; when it fails or is cancelled, nothing is left of it."""
        background = Background(asyncio.get_running_loop(), work)
        try:
            return await background.wait()
        except GeneratorExit:
            Background(asyncio.get_running_loop(), self._discard(background))
            raise
        except BaseException:
            await settle(self._discard(background))
            raise

    async def _create(self) -> F:
        if await _ospath.islink(self._path):
            self._path = await _ospath.realpath(self._path)
        permissions = 0o666
        with contextlib.suppress(FileNotFoundError):
            self._old = await _osfiles.stat(self._path)
            _check_regular(self._old, self._path)
            permissions = stat.S_IMODE(self._old.st_mode) & 0o777
        fd = await self._create_temporary(permissions)
        try:
            file: Any = async_open(fd, self._mode, engine=self._engine, **self._options)
            file.file._name = self._temporary
            await file
        except BaseException:
            os.close(fd)
            raise
        self._file = file
        return file  # type: ignore[no-any-return]

    async def _create_temporary(self, permissions: int) -> int:
        head, tail = os.path.split(self._path)
        if not tail:
            raise os_error(-errno.EISDIR, self._path)
        while True:
            kept = os.fsencode(tail)[:_KEPT_NAME]
            name: Any = b".%s.%s.tmp" % (kept, secrets.token_hex(6).encode())
            if isinstance(self._path, str):
                name = os.fsdecode(name)
            path = os.path.join(head, name)
            with contextlib.suppress(FileExistsError):
                fd = await _osfiles.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, permissions)
                self._temporary = path
                return fd

    async def _commit(self) -> None:
        file = self._file
        assert file is not None
        if file.closed:
            async with AIOFile(self._temporary, "rb+", engine=self._engine) as again:
                await self._finish(again)
        else:
            await file.flush()
            await self._finish(file.file)
            await file.close()
        if self._abandoned:
            return
        await _osfiles.rename(self._temporary, self._path)
        self._temporary = None
        if self._sync:
            here = b"." if isinstance(self._path, bytes) else "."
            await fsync_dir(os.path.dirname(self._path) or here)

    async def _finish(self, file: AIOFile) -> None:
        fd = file.fileno()
        if self._old is not None and _differ(await _osfiles.stat(fd), self._old):
            await in_thread(running_driver(), NO_DESCRIPTOR, _take_over, fd, self._old)
        if self._sync:
            await file.fsync()

    async def _discard(self, work: Background[Any] | None) -> None:
        self._abandoned = True
        if work is not None:
            with contextlib.suppress(BaseException):
                await work.wait()
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):
                await self._file.close()
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                await _osfiles.unlink(self._temporary)


def _check_regular(status: os.stat_result, path: Any) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise os_error(-errno.EISDIR, path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _differ(new: os.stat_result, old: os.stat_result) -> bool:
    return (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid)


def _take_over(fd: int, old: os.stat_result) -> None:
    """The owner, then the permissions, because chown(2) clears the set-user-ID bit."""
    with contextlib.suppress(PermissionError):
        os.fchown(fd, -1, old.st_gid)
    with contextlib.suppress(PermissionError):
        os.fchown(fd, old.st_uid, -1)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
