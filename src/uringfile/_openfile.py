"""The open file below AIOFile: its descriptor, its driver, how both come and go."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
import warnings
from collections.abc import Generator
from typing import Any, TypeVar

from uringfile._background import shield
from uringfile._closing import Closing
from uringfile._codec import check_codec
from uringfile._direct import DirectIO
from uringfile._driver import Driver, runs_here
from uringfile._engine import ASYNC, EngineName
from uringfile._errors import ClosedFileError, os_error
from uringfile._fd import Descriptor, refuse_copy
from uringfile._gather import GatheredWrites
from uringfile._loop import running_driver
from uringfile._mode import PERMISSIONS, parse_mode
from uringfile._native_engine import REGULAR, Identity, identify
from uringfile._open import close_at_once, is_local, open_cached, open_path
from uringfile._paths import FileDescriptorOrPath
from uringfile._streamio import StreamIO

MAX_OFFSET = 2**63 - 1

_F = TypeVar("_F", bound="OpenFile")


class OpenFile:
    """A file that is opened and closed; what is done with it in between is AIOFile's."""

    __reduce_ex__ = refuse_copy

    def __init__(
        self,
        path: FileDescriptorOrPath,
        mode: str = "r",
        encoding: str = "utf-8",
        *,
        errors: str = "strict",
        direct: bool = False,
        engine: EngineName | None = None,
    ) -> None:
        #: The mode: equal to what was given, with properties such as ``readable``.
        self.mode = parse_mode(mode)
        #: The codec of text, as it was given.
        self.encoding = encoding
        #: What happens to what the codec does not know, as with ``open``.
        self.errors = errors
        self._codec = check_codec(encoding, errors)
        self._path: str | bytes | int = path if isinstance(path, int) else os.fspath(path)
        self._engine = engine
        self._direct = direct
        self._binary = self.mode.binary
        self._owner = True
        self._closed = False
        self._opening: asyncio.Lock | None = None
        self._closing: Closing | None = None
        # The open file objects on this file. The garbage collector finalizes a cycle in any
        # order: the last of them lets go of the descriptor, because they may have to write.
        self._file_objects = 0
        self._left_to_file_objects = False
        self._descriptor: Descriptor | None = None
        self._driver: Driver | None = None
        # Whether a read may be tried on the page cache first: a regular file, open for
        # reading, on a file system that can tell.
        self._inline = False
        self._stream_io: StreamIO | None = None
        self._local = False
        #: Whether its position is known to be 0: a regular file, opened by its path.
        self.at_start = False
        self._worker = 0
        self._sync_error: int | None = None
        self._direct_io: DirectIO | None = None
        self._gathered: GatheredWrites | None = None

    @classmethod
    def from_fp(
        cls: type[_F],
        fp: Any,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        engine: EngineName | None = None,
    ) -> _F:
        """The file that ``fp``, an open file object, has open; ``fp`` stays its owner.

        What ``fp`` holds in its buffer is flushed first.
        """
        if fp.writable():
            fp.flush()
        self = cls(
            fp.fileno(),
            fp.mode,
            encoding or getattr(fp, "encoding", None) or "utf-8",
            errors=errors or getattr(fp, "errors", None) or "strict",
            engine=engine,
        )
        self._owner = False
        name = getattr(fp, "name", None)
        self._name = name if isinstance(name, str | bytes) else fp.fileno()
        return self

    # ---- what is known of the file ----------------------------------------------

    _name: str | bytes | int | None = None

    @property
    def name(self) -> str | bytes | int:
        """The path or the descriptor that the file was opened by."""
        return self._path if self._name is None else self._name

    @property
    def closed(self) -> bool:
        """Whether the file is not open: closed, or not opened yet."""
        return self._descriptor is None

    def fileno(self) -> int:
        """The descriptor. Raises ``ClosedFileError`` when the file is not open."""
        return self._open_descriptor().fd

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.name!r} mode={str(self.mode)!r} {state}>"

    def _open_descriptor(self) -> Descriptor:
        descriptor = self._descriptor
        if descriptor is None:
            state = "closed" if self._closed else "not open"
            raise ClosedFileError(f"I/O operation on a file that is {state}: {self.name!r}")
        return descriptor

    def _driver_here(self) -> Driver:
        """The driver of the file, which must be that of the running loop."""
        driver = self._driver
        assert driver is not None
        if not runs_here(driver):
            raise RuntimeError(f"{self.name!r} belongs to a different event loop")
        if not driver.alive:
            raise RuntimeError(f"{self.name!r} belongs to the process that forked this one")
        return driver

    def _charge(self, cost: int) -> None:
        """Take from what the loop's turn may cost, for work on data that came inline."""
        if self._driver is not None:
            self._driver.budget -= cost

    # ---- open and close -----------------------------------------------------------

    async def open(self) -> int | None:
        """Open the file: its descriptor, or ``None`` when it is open already.

        Of parallel calls one opens. Raises what ``open`` raises, and ``ClosedFileError``
        after ``close``. A cancelled or failed open leaves no descriptor behind and can be
        tried again. (A mode that creates or empties the file may have done so when cancelled,
        or may do so a moment later.)
        """
        if self._opening is None:
            if self.open_at_once():
                return self.fileno()
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._closed:
                raise ClosedFileError(f"{self.name!r} was closed; make a new object to open it")
            if self._descriptor is not None:
                return None
            driver = running_driver(self._engine)
            if driver.budget <= 0:
                await driver.yield_turn()
                if self.open_at_once():
                    return self.fileno()
            await self._open_and_look(driver)
            return self.fileno()

    def _flags(self) -> int:
        return self.mode.flags | (os.O_DIRECT if self._direct else 0)

    def open_at_once(self) -> bool:
        """Open without suspending, if the kernel has to wait for nothing."""
        if self._closed or self._descriptor is not None or isinstance(self._path, int):
            return False
        driver = running_driver(self._engine)
        fd = open_cached(driver, self._path, self._flags())
        if fd < 0:
            return False
        identity = identify(fd) if self._direct else REGULAR
        self._adopt(driver, Descriptor(fd), identity, local=True)
        return True

    async def _open_and_look(self, driver: Driver) -> None:
        if isinstance(self._path, int):
            descriptor = Descriptor(self._path)
        else:
            descriptor = Descriptor(await self._open_path(driver))
        try:
            identity = self._identify(descriptor.fd)
            local = await is_local(driver, descriptor, identity)
        except BaseException:
            if not isinstance(self._path, int):
                descriptor.close_when_idle()
            raise
        self._adopt(driver, descriptor, identity, local=local)

    async def _open_path(self, driver: Driver) -> int:
        assert not isinstance(self._path, int)
        return await open_path(driver, self._path, self._flags(), PERMISSIONS)

    def _identify(self, fd: int) -> Identity:
        try:
            identity = identify(fd)
        except OSError as error:
            raise os_error(-(error.errno or errno.EBADF), self.name) from None
        if stat.S_ISDIR(identity.mode):
            raise os_error(-errno.EISDIR, self.name)
        return identity

    def _adopt(
        self, driver: Driver, descriptor: Descriptor, identity: Identity, *, local: bool
    ) -> None:
        # The number may have belonged to another file that its owner closed by itself.
        driver.forget(descriptor.fd)
        # It may wait for a file that was written: ext4 writes back at close what replaces an
        # older content; so it may where others answer.
        descriptor.at_once = local and not self.mode.writable
        regular = stat.S_ISREG(identity.mode)
        if not (regular or stat.S_ISBLK(identity.mode)):
            self._stream_io = StreamIO(driver, descriptor, self.name)
        elif self._direct:
            self._direct_io = DirectIO(driver, descriptor, self, identity.dio_align, local)
        elif local and self.mode.writable and not self.mode.appending:
            self._gathered = GatheredWrites(driver, descriptor)
        self._inline = regular and self.mode.readable and not self._direct and driver.engine.inline
        self._local = local
        self.at_start = regular and not isinstance(self._path, int)
        # On FUSE and the like even a submission can wait for the server.
        self._worker = 0 if local or self._stream_io is not None else ASYNC
        self._driver = driver
        self._descriptor = descriptor

    async def close(self) -> None:
        """Close the file; a second call does nothing.

        Pending reads end with ``ClosedFileError``; pending writes and syncs are waited
        for (on a stream they are cancelled, too). Nothing is synced: call ``fsync`` for
        that. The descriptor is released in any case, and what close(2) reports (EIO,
        ENOSPC, EDQUOT) is raised. Cancelled, the release goes on in the background; so it
        does after 0.2 s if only reads are left that nobody waits for and that do not stop.
        """
        if self._closing is not None:
            await asyncio.wait([self._closing.task])
            return
        descriptor = self._descriptor
        if descriptor is None:
            return
        driver = self._driver_here()
        if self.close_at_once():
            return
        self._end(descriptor)
        driver.cancel_holders(descriptor, writes=self._stream_io is not None, filename=self.name)
        self._closing = Closing(driver, descriptor, self._direct_io, self.name, owner=self._owner)
        await shield(self._closing.task)

    def _end(self, descriptor: Descriptor) -> None:
        """From here on no call finds the file open."""
        self._closed = True
        self._descriptor = None
        self._inline = False
        descriptor.closing = True

    def detach(self) -> int:
        """Let go of the descriptor without closing it: it is the caller's from now on.

        Raises ``BlockingIOError`` while an operation holds it.
        """
        descriptor = self._open_descriptor()
        driver = self._driver_here()
        if descriptor.holders or self._direct_io is not None:
            raise BlockingIOError(errno.EAGAIN, "an operation is under way", self.name)
        driver.forget(descriptor.fd)
        self._end(descriptor)
        return descriptor.fd

    def close_at_once(self) -> bool:
        """Close without suspending, if the file is open and close(2) waits for nothing."""
        descriptor = self._descriptor
        if (
            descriptor is None
            or not self._owner
            or self._direct_io is not None
            or descriptor.holders
            or not descriptor.at_once
        ):
            return False
        driver = self._driver_here()
        self._end(descriptor)
        close_at_once(driver, descriptor, self.name)
        return True

    def __await__(self: _F) -> Generator[Any, None, _F]:
        yield from self.open().__await__()
        return self

    async def __aenter__(self: _F) -> _F:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is None:
            return
        if self._file_objects:
            self._left_to_file_objects = True
        else:
            self._abandon(descriptor)

    def _release_from_file_object(self) -> None:
        """A file object on this file is closed, or finalized."""
        self._file_objects -= 1
        if self._left_to_file_objects and not self._file_objects and self._descriptor is not None:
            self._abandon(self._descriptor)

    def _abandon(self, descriptor: Descriptor) -> None:
        if self._direct_io is not None:
            self._direct_io.drop()
        if not self._owner:
            return
        assert self._driver is not None
        self._driver.drop(descriptor)
        warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=3, source=self)

    # ---- checks ---------------------------------------------------------------------

    def _check(self, offset: int, *, readable: bool = False, writable: bool = False) -> Descriptor:
        """The descriptor, when the file is open here, in such a mode, and offset is one."""
        descriptor = self._open_descriptor()
        if readable and not self.mode.readable:
            raise io.UnsupportedOperation("not readable")
        if writable and not self.mode.writable:
            raise io.UnsupportedOperation("not writable")
        if not 0 <= offset <= MAX_OFFSET:
            raise bad_offset(offset)
        self._driver_here()
        return descriptor

    def _still(self, descriptor: Descriptor) -> None:
        """Raise if the file was closed while the caller was suspended."""
        if self._descriptor is not descriptor:
            self._open_descriptor()


def bad_offset(offset: int) -> ValueError:
    return ValueError(f"offset must be from 0 to 2**63-1, not {offset}")
