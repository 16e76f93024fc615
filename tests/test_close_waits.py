"""close(2) that waits for a server: nobody asked for it, and the loop does not wait."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import leaves_unclosed, nothing_in_flight, open_fds, run
from faulty_fs import FaultyFS

from uringfile import AIOFile, ClosedFileError
from uringfile._fd import Descriptor, close_unasked
from uringfile._open import close_orphan

SIZE = 4096

# A loop that waits for the server would wait so long.
PATIENCE = 5


@contextmanager
def hanging_close(fs: FaultyFS, path: Path) -> Iterator[None]:
    """What runs within it is done while close(2) of the file hangs."""
    healed = threading.Event()

    def heal() -> None:
        healed.set()
        fs.rule()

    fs.rule({"op": "flush", "path": path, "hang": True})
    timer = threading.Timer(PATIENCE, heal)
    timer.start()
    try:
        yield
        assert not healed.is_set(), "the loop has waited for close(2)"
    finally:
        timer.cancel()
        timer.join()
        fs.rule()


def is_closed(path: Path) -> bool:
    return not any(str(path) in fd for fd in open_fds())


async def test_an_unclosed_file_that_is_collected(faulty: FaultyFS, engine: Any) -> None:
    path = faulty.make("f", bytes(SIZE))
    f = await AIOFile(path, "rb", engine=engine)
    f._inline = False
    await f.read(10)  # so that POSIX AIO has a duplicate
    with hanging_close(faulty, path), leaves_unclosed("unclosed file"):
        del f
    assert is_closed(path)


async def test_the_second_descriptor_of_a_direct_file(faulty: FaultyFS, engine: Any) -> None:
    path = faulty.make("direct f", bytes(SIZE))
    f = await AIOFile(path, "rb+", direct=True, engine=engine)
    await f.write(b"odd", 1)
    with hanging_close(faulty, path), leaves_unclosed("unclosed file"):
        del f
    assert is_closed(path)


async def test_a_read_that_ends_when_its_file_is_closed(faulty: FaultyFS, engine: Any) -> None:
    """Its descriptor, or the duplicate of POSIX AIO, is closed when it is reaped."""
    path = faulty.make("direct f", bytes(SIZE))
    f = await AIOFile(path, "rb", engine=engine)
    faulty.rule({"op": "read", "path": path, "hang": True})
    reading = asyncio.ensure_future(f.read(SIZE))
    await asyncio.sleep(0.05)
    await f.close()
    with pytest.raises(ClosedFileError):
        await reading
    with hanging_close(faulty, path):  # the read goes on
        await nothing_in_flight(engine)
    assert is_closed(path)


async def test_a_file_that_is_detached(faulty: FaultyFS) -> None:
    path = faulty.make("f", bytes(SIZE))
    f = await AIOFile(path, "rb", engine="posix_aio")
    f._inline = False
    await f.read(10)  # so that there is a duplicate
    with hanging_close(faulty, path):
        fd = f.detach()
    os.close(fd)
    assert is_closed(path)


async def test_a_cancelled_open(faulty: FaultyFS) -> None:
    path = faulty.make("f", bytes(SIZE))
    orphan = os.open(path, os.O_RDONLY)
    descriptor = Descriptor(os.open(path, os.O_RDONLY))
    descriptor.holders = 1
    descriptor.close_when_idle()
    with hanging_close(faulty, path):
        close_orphan(orphan)
        descriptor.release()
    assert is_closed(path)


def test_where_no_loop_runs_it_is_closed_at_once(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    close_unasked(fd)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_local_file_that_was_read_is_closed_at_once(data: Path, engine: Any) -> None:
    async def main() -> None:
        f = await AIOFile(data, "rb", engine=engine)
        fd = f.fileno()
        await f.read(1)
        if not f._local:
            await f.close()
            pytest.skip("the file system of the tests is not known to be local")
        with leaves_unclosed("unclosed file"):
            del f
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)

    run(main())
