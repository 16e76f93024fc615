"""Disks that are full, read-only, or broken: the right error, and what is left in the file."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import check
from faulty_fs import FaultyFS
from rigs import tool

from uringfile import AIOFile, LogWriter, Writer, async_open

SmallMount = Callable[..., Path]


async def refused(call: Awaitable[Any], code: int, name: Path) -> OSError:
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as raised:
        await asyncio.wait_for(call, 20)
    assert raised.value.errno == code
    assert raised.value.filename == str(name)
    return raised.value


# ---- no room ---


async def fill(path: Path, size: int, code: int, engine: Any, direct: bool = False) -> None:
    """What has landed is what ``characters_written`` says, and room helps at once."""
    data = os.urandom(size)
    f = await AIOFile(path, "wb+", engine=engine, direct=direct)
    error = await refused(f.write(data), code, path)
    landed = error.characters_written  # type: ignore[attr-defined]
    assert 0 <= landed < size
    assert os.path.getsize(path) >= landed
    assert (await f.read(landed)) == data[:landed]
    if code == errno.ENOSPC:  # beyond its quota btrfs does not even truncate
        await f.truncate(0)
        assert await f.write(b"ok") == 2
    await f.close()
    path.unlink()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "ext4 with a journal"])
async def test_a_full_disk(small_mount: SmallMount, kind: str, engine: Any) -> None:
    where = small_mount(kind)
    await fill(where / "f", 16 << 20, errno.ENOSPC, engine)
    if kind != "tmpfs":
        await fill(where / "f", 16 << 20, errno.ENOSPC, engine, direct=True)

    path = where / "log"
    f = await AIOFile(path, "wb+", engine=engine)
    writer = Writer(f)
    records = [b"%05d" % i * 2000 for i in range(2000)]
    results = await asyncio.gather(*[writer(r) for r in records], return_exceptions=True)
    landed = [r for r, result in zip(records, results, strict=True) if isinstance(result, int)]
    failed = [result for result in results if not isinstance(result, int)]
    assert landed
    assert {error.errno for error in failed if isinstance(error, OSError)} == {errno.ENOSPC}
    assert (await f.read(len(b"".join(landed)))) == b"".join(landed)
    await f.truncate(0)

    path = where / "buffered"
    stream = await async_open(path, "wb", engine=engine)

    async def overfill() -> None:
        for i in range(3000):
            await stream.write(b"%05d" % i * 2000)
        await stream.flush()

    await refused(overfill(), errno.ENOSPC, path)
    await refused(stream.close(), errno.ENOSPC, path)
    await f.close()
    expected = b"".join(b"%05d" % i * 2000 for i in range(3000))
    assert expected.startswith(path.read_bytes())


async def test_a_quota(small_mount: SmallMount, engine: Any) -> None:
    tool("btrfs")
    where = small_mount("btrfs")
    for command in (
        ["quota", "enable", str(where)],
        ["subvolume", "create", str(where / "s")],
        ["qgroup", "limit", "1M", str(where / "s")],
    ):
        subprocess.run(["btrfs", *command], check=True, capture_output=True)
    await fill(where / "s" / "f", 4 << 20, errno.EDQUOT, engine)


def test_a_limit_on_the_size_of_files(tmp_path: Path, engine: str) -> None:
    code = """
import asyncio, errno, os, resource, sys
from uringfile import AIOFile
LIMIT = 1 << 20
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
async def refused(call):
    try:
        await call
    except OSError as error:
        assert error.errno == errno.EFBIG and error.filename == path, error
        return error
    raise AssertionError("not refused")
async def main():
    for direct in (False, True):
        async with AIOFile(path, "wb+", engine=sys.argv[1], direct=direct) as f:
            data = os.urandom(3 << 20)
            assert (await refused(f.write(data))).characters_written == LIMIT
            assert await f.read() == data[:LIMIT]
            await refused(f.write(b"x", LIMIT))
            await refused(f.truncate(LIMIT + 1))
            await refused(f.allocate(LIMIT + 1))
            assert await f.write(b"y") == 1
path = sys.argv[2]
asyncio.run(main())
"""
    check(code, engine, str(tmp_path / "f"))


# ---- read-only ---


async def test_a_read_only_remount(small_mount: SmallMount, engine: Any) -> None:
    where = small_mount("ext4 with a journal")
    path = where / "f"
    path.write_bytes(b"content")
    async with AIOFile(path, "rb", engine=engine) as reader:
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
        for mode in ("rb+", "ab", "wb"):
            await refused(AIOFile(path, mode, engine=engine).open(), errno.EROFS, path)
        assert await reader.read() == b"content"
        subprocess.run(["mount", "-o", "remount,rw", where], check=True)
    async with AIOFile(path, "rb+", engine=engine) as f:
        assert await f.write(b"C") == 1


async def test_a_journal_that_was_aborted(small_mount: SmallMount, engine: Any) -> None:
    """ext4 gives up under a file that is open for writing."""
    where = small_mount("ext4 with a journal")
    f = await AIOFile(where / "f", "wb+", engine=engine)
    await f.write(b"before")
    await f.fsync()
    subprocess.run(["mount", "-o", "remount,abort", where], check=False, capture_output=True)

    async def go_on() -> None:
        for i in range(100):
            await f.write(b"after", i * 4096)
            await f.fsync()

    await refused_sync(go_on(), where / "f")
    assert await f.read(6) == b"before"
    await f.close()


# ---- broken ---


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT", "ESTALE"])
async def test_errors_of_each_operation(faulty: FaultyFS, name: str, engine: Any) -> None:
    code = getattr(errno, name)
    path = faulty.make("direct f", b"content")

    def fails(operation: str) -> None:
        faulty.rule({"op": operation, "path": path, "errno": name})

    f = await AIOFile(path, "rb+", engine=engine)
    fails("read")
    await refused(f.read(7), code, path)
    await refused(f.read(), code, path)
    await refused(f.readinto(bytearray(7)), code, path)
    await refused(f.read_many([(1, 0), (2, 2)]), code, path)
    fails("write")
    error = await refused(f.write(b"x"), code, path)
    assert error.characters_written == 0  # type: ignore[attr-defined]
    await refused(f.write_many([(b"x", 0), (b"y", 1)]), code, path)
    faulty.rule()
    assert await f.read() == b"content"
    assert await f.write(b"C") == 1
    fails("truncate")
    await refused(f.truncate(1), code, path)
    fails("fsync")
    await refused(f.fsync(), code, path)
    faulty.rule()
    if name == "ESTALE":
        await f.fsync()
    else:
        await refused(f.fdatasync(), code, path)  # the kernel would say success
    fails("flush")
    fd = f.fileno()
    await refused(f.close(), code, path)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    await f.close()
    fails("open")
    g = AIOFile(path, "rb", engine=engine)
    await refused(g.open(), code, path)
    faulty.rule()
    async with g:
        assert await g.read() == b"Content"


async def test_a_write_that_fails_in_its_middle(faulty: FaultyFS, engine: Any) -> None:
    path = faulty.make("direct f", b"")
    stream = await async_open(path, "wb", engine=engine)
    await stream.write(b"a" * 300_000)
    await stream.flush()
    faulty.rule({"op": "write", "path": path, "errno": "EIO"})

    async def go_on() -> None:
        await stream.write(b"b" * 300_000)
        await stream.flush()

    await refused(go_on(), errno.EIO, path)
    await refused(stream.close(), errno.EIO, path)
    faulty.rule()
    assert (faulty.back / path.name).read_bytes() == b"a" * 300_000


@pytest.mark.parametrize("kind", ["ext4", "ext4 with a journal", "xfs"])
async def test_a_lost_write_back(
    faulty: FaultyFS, small_mount: SmallMount, kind: str, engine: Any
) -> None:
    """The disk below a real file system refuses writes: the kernel says so once, then says
    success while the data is gone. The first error sticks."""
    disk = faulty.make("direct disk", b"")
    where = small_mount(kind, image=disk)
    path = where / "f"
    f = await AIOFile(path, "wb+", engine=engine)
    await f.write(b"OLD!" * 4096)
    await f.fsync()
    twin = os.open(path, os.O_RDWR)  # which asks the kernel itself
    stream = await async_open(path.with_name("g"), "wb", engine=engine)
    await stream.write(b"x" * 20_000)
    await stream.flush()
    await f.write(b"NEW!" * 4096)
    faulty.rule({"op": "write", "path": disk, "errno": "EIO"})
    error = await refused_sync(f.fsync(), path)
    with pytest.raises(OSError, match="Errno"):
        await stream.flush(True)
    faulty.rule()
    for sync in (f.fsync, f.fdatasync, f.fsync):
        assert await refused_sync(sync(), path) == error
    with pytest.raises(OSError, match="Errno"):
        await stream.flush(True)
    for file in (f, stream):
        try:
            await file.close()
        except OSError as raised:
            assert raised.errno in (errno.EIO, errno.EROFS)  # noqa: PT017
    os.close(twin)


@pytest.mark.parametrize("kind", ["ext4", "ext4 with a journal", "xfs"])
async def test_a_log_on_a_disk_that_refuses_writes(
    faulty: FaultyFS, small_mount: SmallMount, kind: str, engine: Any
) -> None:
    """Nothing is acknowledged after the first error, though the kernel's next sync succeeds."""
    disk = faulty.make("direct disk", b"")
    path = small_mount(kind, image=disk) / "log"
    log = await LogWriter(path, engine=engine)
    assert await log.append(b"kept\n") == 5
    faulty.rule({"op": "write", "path": disk, "errno": "EIO"})
    appends = await asyncio.wait_for(
        asyncio.gather(*[log.append(b"lost\n") for _ in range(50)], return_exceptions=True), 20
    )
    faulty.rule()
    later = [
        await asyncio.gather(call, return_exceptions=True)
        for call in (log.append(b"late\n"), log.sync(), log.drain(), log.close())
    ]
    errors = [*appends, *(error for (error,) in later)]
    assert {(type(error), error.errno, error.filename) for error in errors} == {
        (OSError, errors[0].errno, str(path))
    }
    assert errors[0].errno in (errno.EIO, errno.EROFS)
    assert log.durable == 5
    assert path.read_bytes() == b"kept\n"


async def refused_sync(sync: Awaitable[None], path: Path) -> int:
    with pytest.raises(OSError, match="Errno") as raised:
        await asyncio.wait_for(sync, 20)
    assert raised.value.errno in (errno.EIO, errno.EROFS)
    assert raised.value.filename == str(path)
    return raised.value.errno
