"""File objects of async_open when writing fails, calls are cancelled, and tasks compete."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import nothing_in_flight

from uringfile import async_open

BLOCK = b"0123456789abcdef" * (200 * 64)  # more than is collected before it is written


class Held:
    """Makes one method of a file wait, or fail, and then do what it does."""

    def __init__(self, file: Any, name: str) -> None:
        self.real = getattr(file, name)
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self.failed = asyncio.Event()
        self.error: OSError | None = None
        self.calls = 0
        setattr(file, name, self)

    async def __call__(self, *args: Any) -> Any:
        self.calls += 1
        self.entered.set()
        await self.go.wait()
        if self.error is not None:
            error, self.error = self.error, None
            done = error.characters_written = min(1000, len(args[0]))
            await self.real(args[0][:done], *args[1:])
            self.failed.set()
            raise error
        return await self.real(*args)


# ---- errors -------------------------------------------------------------------------


async def test_an_error_in_the_background_is_raised_twice(engine: Any) -> None:
    """By the next call, and by close."""
    file = await async_open("/dev/full", "wb", engine=engine)
    await file.write(BLOCK)
    await asyncio.sleep(0.05)
    with pytest.raises(OSError, match="No space") as caught:
        await file.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    await file.write(b"y")
    with pytest.raises(OSError, match="No space"):
        await file.close()
    assert file.closed
    await file.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.write(b"x"),
        lambda file: file.flush(),
        lambda file: file.read(10),
        lambda file: file.readline(),
        lambda file: file.truncate(),
        lambda file: file.close(),
    ],
)
async def test_any_next_call_raises_it(
    tmp_path: Path, call: Callable[[Any], Any], engine: Any
) -> None:
    file = await async_open(tmp_path / "file", "wb+", engine=engine)
    held = Held(file.file, "write_bytes")
    held.error = OSError(errno.EIO, "made to fail")
    await file.write(BLOCK)
    held.go.set()
    await held.failed.wait()
    with pytest.raises(OSError, match="made to fail"):
        await call(file)
    if not file.closed:
        with pytest.raises(OSError, match="made to fail"):
            await file.close()
    # All of it was kept, and tried again.
    assert (tmp_path / "file").read_bytes() == BLOCK


async def test_nothing_lands_behind_a_gap(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    file = await async_open(path, "wb", engine=engine)
    held = Held(file.file, "write_bytes")
    held.error = OSError(errno.ENOSPC, "made to fail")
    await file.write(BLOCK)
    await file.write(b"later")
    held.go.set()
    await held.failed.wait()
    assert path.read_bytes() == BLOCK[:1000]
    with pytest.raises(OSError, match="made to fail"):
        await file.write(b"not accepted")
    await file.write(b", and more")
    await file.flush()
    assert path.read_bytes() == BLOCK + b"later, and more"
    await file.close()  # the flush has made it good


async def test_an_appended_block_goes_on_where_it_failed(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"start:")
    file = await async_open(path, "a", engine=engine)
    held = Held(file.file, "write_bytes")
    held.error = OSError(errno.ENOSPC, "made to fail")
    held.go.set()
    await file.write("x" * 5000)
    with pytest.raises(OSError, match="made to fail"):
        await file.flush()
    with pytest.raises(OSError, match="made to fail"):
        await file.close()
    assert path.read_text() == "start:" + "x" * 5000


async def test_an_unbuffered_write_that_fails_is_not_kept(tmp_path: Path, engine: Any) -> None:
    async with async_open(tmp_path / "file", "wb", buffering=0, engine=engine) as file:
        held = Held(file.file, "write_bytes")
        held.error = OSError(errno.ENOSPC, "made to fail")
        held.go.set()
        with pytest.raises(OSError, match="made to fail"):
            await file.write(b"x" * 3000)
        assert file.tell() == 1000
        await file.write(b"y")
    assert (tmp_path / "file").read_bytes() == b"x" * 1000 + b"y"


async def test_the_file_is_closed_although_writing_fails(engine: Any) -> None:
    file = await async_open("/dev/full", "w", engine=engine)
    fd = file.fileno()
    await file.write("text")
    with pytest.raises(OSError, match="No space"):
        await file.close()
    assert file.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# ---- cancellation ---------------------------------------------------------------------


async def cancelled_while(held: Held, call: Any) -> None:
    task = asyncio.create_task(call)
    await held.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.entered.clear()


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.read(100),
        lambda file: file.read(200_000),
        lambda file: file.read(),
        lambda file: file.readline(),
        lambda file: file.readlines(),
        lambda file: file.peek(),
    ],
)
async def test_a_cancelled_read_stays_where_it_was(
    tmp_path: Path, call: Callable[[Any], Any], engine: Any
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"begin " + b"x" * 300_000 + b"\nend")
    async with async_open(path, "rb", engine=engine) as file:
        assert await file.read(6) == b"begin "
        file.seek(6)
        file._end_of_block()
        held = Held(file.file, "read_bytes")
        await cancelled_while(held, call(file))
        assert file.tell() == 6
        held.go.set()
        assert await file.readline() == b"x" * 300_000 + b"\n"
        assert await file.read() == b"end"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso2022_jp", "utf-7"])
@pytest.mark.parametrize("call_name", ["readline", "read much", "read all"])
async def test_cancelled_text_stays_where_it_was(
    tmp_path: Path, encoding: str, call_name: str, engine: Any
) -> None:
    """The call has decoded several chunks when it is cancelled."""
    call: Callable[[Any], Any] = {
        "readline": lambda file: file.readline(),
        "read much": lambda file: file.read(78_000),
        "read all": lambda file: file.read(),
    }[call_name]
    path = tmp_path / "file"
    content = "begin\n" + "\u3042x" * 40_000 + "\nend"
    path.write_text(content, encoding=encoding)
    async with async_open(path, encoding=encoding, buffering=1000, engine=engine) as file:
        assert await file.readline() == "begin\n"
        assert await file.read(3) == "\u3042x\u3042"
        position = file.tell()
        real = file.file.read_bytes
        for calls_before in (0, 1, 8):
            if calls_before and call_name != "readline":
                continue  # they read it all in one go
            left = calls_before
            stuck = asyncio.Event()

            async def sometimes(size: int, offset: int, stuck: asyncio.Event = stuck) -> bytes:
                nonlocal left
                left -= 1
                if left < 0:
                    stuck.set()
                    await asyncio.Event().wait()
                return await real(size, offset)

            file.file.read_bytes = sometimes  # type: ignore[method-assign]
            task = asyncio.create_task(call(file))
            await stuck.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert file.tell() == position
        file.file.read_bytes = real  # type: ignore[method-assign]
        assert await file.read() == content[9:]


@pytest.mark.parametrize("mode", ["wb", "w"])
async def test_a_cancelled_write_was_not_accepted(tmp_path: Path, mode: str, engine: Any) -> None:
    path = tmp_path / "file"
    kind: Any = bytes if mode == "wb" else bytes.decode
    file: Any
    async with async_open(path, mode, engine=engine) as file:
        held = Held(file.file, "write_bytes")
        await file.write(kind(BLOCK))
        await file.write(kind(b"small"))
        task = asyncio.create_task(file.write(kind(b"?" * len(BLOCK))))
        await asyncio.sleep(0.01)
        assert not task.done()  # it waits for room
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert file.tell() == len(BLOCK) + 5
        await asyncio.sleep(0.01)
        held.go.set()
        await file.write(kind(b"after"))
    assert path.read_bytes() == BLOCK + b"smallafter"


async def test_a_cancelled_flush_writes_all_the_same(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    async with async_open(path, "ab", engine=engine) as file:
        held = Held(file.file, "write_bytes")
        await file.write(b"one")
        await cancelled_while(held, file.flush())
        await file.write(b"two")
        held.go.set()
        await file.flush()
        assert held.calls == 2
        assert path.read_bytes() == b"onetwo"


async def test_a_cancelled_close_goes_on(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    file = await async_open(path, "ab", engine=engine)
    fd = file.fileno()
    held = Held(file.file, "write_bytes")
    await file.write(b"all of it")
    await cancelled_while(held, file.close())
    assert file.closed
    held.go.set()
    await file.close()
    assert path.read_bytes() == b"all of it"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_end_of_the_loop_cancels_no_write(tmp_path: Path, engine: Any) -> None:
    """asyncio.run cancels all tasks; a task that closes its file then loses nothing."""
    path = tmp_path / "file"

    async def write_for_ever(started: asyncio.Event) -> None:
        async with async_open(path, "ab", engine=engine) as file:
            for n in range(100_000):
                await file.write(b"%09d\n" % n)
            started.set()
            await asyncio.Event().wait()

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(write_for_ever(started))
        await started.wait()
        assert not task.done()

    asyncio.run(main())
    assert path.read_bytes() == b"".join(b"%09d\n" % n for n in range(100_000))


# ---- several tasks ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_each_line_goes_to_one_task(tmp_path: Path, mode: str, engine: Any) -> None:
    path = tmp_path / "file"
    expected = [f"{n} " + "x" * (n % 500) + "\n" for n in range(3000)]
    path.write_text("".join(expected))
    seen: list[str] = []
    file: Any

    async def read_some() -> None:
        while line := await file.readline():
            seen.append(line if isinstance(line, str) else line.decode())
            await asyncio.sleep(0)

    async with async_open(path, mode, buffering=100, engine=engine) as file:
        real = file.file.read_bytes

        async def slow(size: int, offset: int) -> bytes:
            await asyncio.sleep(0)
            return await real(size, offset)

        file.file.read_bytes = slow
        await asyncio.gather(*(read_some() for _ in range(5)))
    assert sorted(seen, key=lambda line: int(line.split()[0])) == expected


@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_seek_while_a_read_waits(tmp_path: Path, mode: str, engine: Any) -> None:
    """The read is performed after the seek, whole."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 1000 + b"\n" + b"b" * 1000 + b"\n")
    file: Any
    async with async_open(path, mode, engine=engine) as file:
        held = Held(file.file, "read_bytes")
        task = asyncio.create_task(file.readline())
        await held.entered.wait()
        file.seek(1001)
        held.go.set()
        line = await task
        assert line in (b"b" * 1000 + b"\n", "b" * 1000 + "\n")
        assert file.tell() == 2002


async def test_close_while_a_read_waits(pipe: tuple[int, int], engine: Any) -> None:
    file = await async_open(pipe[0], "rb", closefd=False, engine=engine)
    task = asyncio.create_task(file.readline())
    await asyncio.sleep(0.01)
    await file.close()
    with pytest.raises(ValueError, match="closed"):
        await task
    os.write(pipe[1], b"x")
    await nothing_in_flight(engine)


async def test_parallel_writes_stay_whole(tmp_path: Path, engine: Any) -> None:
    path = tmp_path / "file"
    async with async_open(path, "wb", buffering=100, engine=engine) as file:

        async def write(n: int) -> None:
            for _ in range(50):
                await file.write(b"%d" % n * 60 + b"\n")

        await asyncio.gather(*(write(n) for n in range(10)))
    lines = path.read_bytes().splitlines()
    assert len(lines) == 500
    assert all(line in [b"%d" % n * 60 for n in range(10)] for line in lines)
