"""Following a path: which files come to stand there, and when to look again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections import deque

from uringfile._engine import EngineName
from uringfile._file import AIOFile
from uringfile._inotify import FILE_EVENTS, MODIFY, NAME_EVENTS, Inotify, open_inotify
from uringfile._loop import running_driver
from uringfile._open import NO_DESCRIPTOR, in_thread

FileId = tuple[int, int]


class Follow:
    """The files that stand at a path, one after another, each opened when it is first seen.

    Told of changes by inotify(7) where the files are local, and by looking every
    ``interval`` seconds in any case: inotify knows nothing of other machines, of the target
    of a dangling link, of directories above, and may be used up.
    """

    def __init__(self, path: str | bytes, interval: float, engine: EngineName | None) -> None:
        self.path = path
        self._interval = interval
        self._engine = engine
        #: Files that have taken the path, and have not been taken from here.
        self.successors: deque[AIOFile] = deque()
        self._newest: FileId | None = None
        self._inotify: Inotify | None = open_inotify()
        self._watches: dict[AIOFile, int] = {}
        self._directory_watch = -1
        self._next_look = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    # ---- looking ------------------------------------------------------------------

    def due(self) -> bool:
        """Whether another file may have taken the path. Forgets what inotify has told."""
        names = False
        if self._inotify is not None:
            events = self._inotify.events()
            names = any(mask != MODIFY and self._concerns(name) for _, mask, name in events)
        if names:
            self._next_look = 0.0
        return asyncio.get_running_loop().time() >= self._next_look

    def _concerns(self, name: bytes) -> bool:
        return not name or name == os.path.basename(os.fsencode(self.path))

    async def look(self) -> None:
        """Open what stands at the path, if that is not the newest file already.

        That nothing is there is no error; anything else raises ``OSError``, or
        ``ValueError`` for what is no regular file, and is looked at again in time.
        """
        self._next_look = asyncio.get_running_loop().time() + self._interval
        found = await self._status()
        if found is None or (found.st_dev, found.st_ino) == self._newest:
            return
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{self.path!r} is not a regular file")
        file = AIOFile(self.path, "rb", engine=self._engine)
        try:
            with contextlib.suppress(FileNotFoundError):  # it has gone again
                await file.open()
                await self._adopt(file)
        finally:
            if file not in self._watches:
                await file.close()

    async def _status(self) -> os.stat_result | None:
        """A look at the path, which may wait for its file system."""
        holds = NO_DESCRIPTOR if self._inotify is None else self._inotify.descriptor
        found: os.stat_result | None = await in_thread(
            running_driver(self._engine), holds, self._stat
        )
        return found

    def _stat(self) -> os.stat_result | None:
        # Watch first, then look: whoever comes in between is announced.
        self._watch_directory()
        try:
            return os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def _adopt(self, file: AIOFile) -> None:
        status = await file.stat()
        identity = (status.st_dev, status.st_ino)
        if self.closed or identity == self._newest:
            return
        self._newest = identity
        self._watches[file] = self._watch_file(file)
        self.successors.append(file)

    # ---- watching -----------------------------------------------------------------

    def _watch_directory(self) -> None:
        """Again for each look: the directory may have been replaced."""
        inotify = self._inotify
        if inotify is None:
            return
        directory = os.path.dirname(os.fsencode(self.path)) or b"."
        try:
            watch = inotify.add(directory, NAME_EVENTS)
        except OSError:  # not there, not readable, no watch left
            watch = -1
        if self._directory_watch not in (-1, watch):
            inotify.remove(self._directory_watch)
        self._directory_watch = watch

    def _watch_file(self, file: AIOFile) -> int:
        if self._inotify is None or not file._local:
            return -1
        try:
            return self._inotify.add_descriptor(file.fileno(), FILE_EVENTS)
        except OSError:  # no watch left, no /proc
            return -1

    # ---- taking -------------------------------------------------------------------

    def take(self) -> AIOFile:
        """The next file."""
        return self.successors.popleft()

    async def leave(self, file: AIOFile) -> None:
        """Close a file that was taken."""
        watch = self._watches.pop(file, -1)
        if watch >= 0 and self._inotify is not None:
            self._inotify.remove(watch)
        await file.close()

    async def is_superseded(self) -> bool:
        """Whether the writer is done with the file that was taken last.

        It is when its successor has data: a rotation may create that long before the
        writer opens it.
        """
        if len(self.successors) != 1:
            return bool(self.successors)
        return (await self.successors[0].stat()).st_size > 0

    # ---- waiting ------------------------------------------------------------------

    async def wait(self) -> bool:
        """Wait until something has happened since the last ``due()``: True. False when only
        the time for a look has come, or for ``close()``."""
        loop = asyncio.get_running_loop()
        if self.closed:
            return False
        self._waiter = waiter = loop.create_future()
        happened = False

        def wake(by_event: bool) -> None:
            nonlocal happened
            happened = happened or by_event
            if not waiter.done():
                waiter.set_result(None)

        timer = loop.call_later(max(0.0, self._next_look - loop.time()), wake, False)
        inotify = self._inotify
        if inotify is not None:
            loop.add_reader(inotify.fileno(), wake, True)
        try:
            await waiter
        finally:
            self._waiter = None
            timer.cancel()
            if inotify is not None and not self.closed:
                loop.remove_reader(inotify.fileno())
        return happened

    async def close(self) -> None:
        """Close all files; who waits is woken."""
        if self.closed:
            return
        self.closed = True
        waiter, inotify = self._waiter, self._inotify
        if inotify is not None:
            if waiter is not None:
                asyncio.get_running_loop().remove_reader(inotify.fileno())
            inotify.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        files, self._watches = list(self._watches), {}
        results = await asyncio.gather(*[f.close() for f in files], return_exceptions=True)
        for result in results:
            if result is not None:
                raise result
