"""Calls in threads when no thread can be started: made once, or never."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import nothing_is_closing, open_fds

from uringfile import AIOFile, copyfile
from uringfile import os as uringfile_os
from uringfile._engine import READ, WRITE
from uringfile._executor import call_in_thread
from uringfile._open import close_orphan


class NoThreadLeft:
    """The loop's executor has one thread, which is busy, and cannot start another. What it is
    given then stands in its queue, although ``submit`` raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._idle = threading.Event()
        self.executor = ThreadPoolExecutor(2)
        asyncio.get_running_loop().set_default_executor(self.executor)

    def begin(self) -> None:
        busy = threading.Event()
        idle: Any = self.executor._idle_semaphore
        if self.executor._threads:  # whose last call is done, but which may not say so yet
            assert idle.acquire(timeout=20)
            idle.release()

        def work() -> None:
            busy.set()
            self._idle.wait(20)

        self.executor.submit(work)
        assert busy.wait(20)
        self._monkeypatch.setattr(threading.Thread, "start", self._refuse)

    def _refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    async def end(self) -> None:
        """Everything that stands in the queue has been looked at."""
        self._monkeypatch.undo()
        self._idle.set()
        await asyncio.get_running_loop().run_in_executor(None, int)


@pytest.fixture
async def no_thread_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    no_thread = NoThreadLeft(monkeypatch)
    yield no_thread
    await no_thread.end()


async def opened(path: Path, engine: Any, mode: str = "rb+") -> AIOFile:
    """A file for which threads do what they do under POSIX AIO."""
    f = await AIOFile(path, mode, engine=engine)
    assert f._driver is not None
    f._driver.engine.opcodes &= 1 << READ | 1 << WRITE
    return f


async def test_a_number_is_closed_once(
    tmp_path: Path, no_thread_left: NoThreadLeft, engine: Any
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    f = await opened(tmp_path / "f", engine)
    number = f.fileno()
    no_thread_left.begin()
    await f.close()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() == number
        await no_thread_left.end()
        other.write(b"safe")
    assert (tmp_path / "other").read_bytes() == b"safe"


async def test_an_orphan_needs_no_executor(tmp_path: Path, no_thread_left: NoThreadLeft) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    no_thread_left.begin()
    close_orphan(number)
    nothing_is_closing()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() == number
        await no_thread_left.end()
        os.fstat(number)


async def test_what_was_refused_is_not_done_later(
    tmp_path: Path, no_thread_left: NoThreadLeft, engine: Any
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"precious")
    f = await opened(tmp_path / "f", engine)
    number = f.fileno()
    no_thread_left.begin()
    with pytest.raises(RuntimeError, match="thread"):
        await f.truncate(0)
    await f.close()
    with open(tmp_path / "other", "rb+") as other:
        assert other.fileno() == number
        await no_thread_left.end()
    assert (tmp_path / "other").read_bytes() == b"precious"
    assert (tmp_path / "f").read_bytes() == b"x"


async def test_a_copy_that_was_refused(tmp_path: Path, no_thread_left: NoThreadLeft) -> None:
    (tmp_path / "f").write_bytes(b"x")
    no_thread_left.begin()
    with pytest.raises(RuntimeError, match="thread"):
        await copyfile(tmp_path / "f", tmp_path / "copy")
    await no_thread_left.end()
    assert not (tmp_path / "copy").exists()


async def test_duplicates_of_a_refused_call_are_closed(
    tmp_path: Path, no_thread_left: NoThreadLeft
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    await uringfile_os.listdir(directory)
    before = open_fds()
    no_thread_left.begin()
    for call in (uringfile_os.listdir(directory), uringfile_os.access(".", 0, dir_fd=directory)):
        with pytest.raises(RuntimeError, match="thread"):
            await call
    assert open_fds() == before
    await no_thread_left.end()
    assert open_fds() == before
    os.close(directory)


async def test_a_thread_that_has_begun_when_the_refusal_comes() -> None:
    """It has taken the call out of the queue in the very moment."""

    class Late(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            super().submit(*args, **kwargs).exception()
            raise RuntimeError("can't start new thread")

    loop = asyncio.get_running_loop()
    loop.set_default_executor(Late(1))
    assert await call_in_thread(loop, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await call_in_thread(loop, divmod, 7, 0)
