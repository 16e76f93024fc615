"""What LogWriter has acknowledged survives kill -9, and the end of power.

Longer:  URINGFILE_KILLS=200 URINGFILE_POWER_CUTS=12 pytest tests/test_log_crash.py --timeout 0
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import count, need_direct
from rigs import rig

from uringfile._rotation import rotated_files

KILLS = int(os.environ.get("URINGFILE_KILLS", "5"))
POWER_CUTS = int(os.environ.get("URINGFILE_POWER_CUTS", "1"))

HERE = Path(__file__).parent

# ---- kill -9 ---

# Appends numbered records from many tasks, and tells of each that is acknowledged.
WRITER = """
import asyncio, itertools, os, random, sys
from uringfile import LogWriter

async def write(log, numbers, rng):
    for number in numbers:
        size = rng.choice((0, 10, 100, 3000)) if rng.random() < 0.99 else 40000
        await log.append(b"%08d %s\\n" % (number, b"x" * size))
        os.write(1, b"%d\\n" % number)

async def main(path, engine, sync, first, seed, rotate, direct):
    options = {"rotate_size": 100_000, "compress": seed % 2 == 0} if rotate else {}
    if seed % 3 == 0:
        options["preallocate"] = 1 << 18
    options["direct"] = direct
    rng = random.Random(seed)
    numbers = itertools.count(first)
    for _ in range(60):  # the kernel may still be writing for the one that was killed
        log = LogWriter(path, engine=engine, sync=sync, interval=0.01, torn_line="cut", **options)
        try:
            await log.open()
            break
        except BlockingIOError:
            pass
    async with log:
        os.write(1, b"open\\n")
        await asyncio.gather(*[write(log, numbers, rng) for _ in range(40)])

path, engine, sync, first, seed, rotate, direct = sys.argv[1:]
asyncio.run(main(path, engine, sync, int(first), int(seed), rotate == "True", direct == "True"))
"""


# Acknowledges what is only accepted; the loop is given its turns.
LIAR = """
import asyncio

async def accept(log, record):
    while True:
        try:
            return log.append_nowait(record)
        except BufferError:  # a slow disk
            await log.drain()
""" + WRITER.replace("log.append(", "accept(log, ").replace(
    "os.write(1", "await asyncio.sleep(0); os.write(1", 1
)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize(
    ("sync", "direct"),
    [("always", False), ("interval", False), ("never", False), ("always", True), ("never", True)],
)
def test_kill(tmp_path: Path, engine: str, sync: str, direct: bool, rotate: bool) -> None:
    """Each run goes on with the log that the one before it has left; now and then anew."""
    if direct:
        need_direct(tmp_path)
    rng = random.Random(11)
    told = 0
    for kill in range(max(1, KILLS // 6)):
        if kill % 8 == 0:
            path = tmp_path / f"log{kill}"
            acknowledged: set[int] = set()
            first = 0
        arguments = [str(path), engine, sync, str(first), str(kill), str(rotate), str(direct)]
        acknowledged |= killed(arguments, rng.random() * 0.2)
        told += len(acknowledged)
        records = content(path)
        whole, _, _ = records.rpartition(b"\n")
        numbers = [int(line[:8]) for line in whole.split(b"\n") if line]
        assert numbers == sorted(set(numbers)), "in call order, once"
        assert acknowledged <= set(numbers), sorted(acknowledged - set(numbers))
        lengths = {len(line) - 9 for line in whole.split(b"\n") if line}
        assert lengths <= {0, 10, 100, 3000, 40000}, "whole"
        first = (numbers[-1] + 1 if numbers else 0) + 1000
    assert told


def test_the_kill_catches_a_liar(tmp_path: Path) -> None:
    for kill in range(50):
        path = tmp_path / f"log{kill}"
        told = killed([str(path), "posix_aio", "always", "0", "1", "False", "False"], 0.05, LIAR)
        if told - {int(line[:8]) for line in content(path).split(b"\n")[:-1]}:
            return
    raise AssertionError("no record was lost")


def killed(arguments: list[str], seconds: float, writer: str = WRITER) -> set[int]:
    """Run the writer, end it after so long, and say what it has told."""
    command = [sys.executable, "-c", writer, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        end = time.monotonic() + seconds
        told = b""
        while time.monotonic() < end:
            told += os.read(process.stdout.fileno(), 1 << 16)
        process.kill()
        told += process.stdout.read()
    # A line that is not whole was not told.
    return {int(line) for line in told.rpartition(b"\n")[0].split(b"\n") if line}


def content(path: Path) -> bytes:
    """All records, the oldest first, without the zeros of preallocation."""
    pieces = {}
    for number, name in rotated_files(str(path)):
        data = Path(name).read_bytes()
        if name.endswith(".gz"):
            data = gzip.decompress(data)
        elif os.path.samefile(name, path):
            continue  # killed between the two steps of a rotation
        assert pieces.setdefault(number, data) == data
    return b"".join(pieces[number] for number in sorted(pieces)) + path.read_bytes().rstrip(b"\0")


# ---- power ---

POWER_WRITER = """
import asyncio, os, sys
from uringfile import LogWriter

async def main():
    liar = os.environ["POWER_MODE"] == "liar"
    options = {"preallocate": 1 << 16} if os.environ["POWER_MODE"] == "preallocated" else {}
    if os.environ["POWER_MODE"] == "framed":
        options["framed"] = True
    if os.environ["POWER_MODE"] == "rotated":
        options["rotate_size"] = 10_000
    if os.environ["POWER_MODE"] == "direct":
        options.update(direct=True, preallocate=1 << 16)
    async with LogWriter(
        sys.argv[1] + "/log", sync="never" if liar else "always", torn_line="cut", **options
    ) as log:
        for batch in range(25):
            numbers = range(4 * batch, 4 * batch + 4)
            await asyncio.gather(*[log.append(b"%08d:%s\\n" % (n, b"x" * 990)) for n in numbers])
            print("ACK", numbers[-1], flush=True)
asyncio.run(main())
"""

# Opens the log as a program does that goes on after the crash, and looks at all of it.
POWER_CHECKER = """
import asyncio, os, sys
from uringfile import LogReader, LogWriter
from uringfile._rotation import rotated_files

async def main(path, last):
    framed = os.environ["POWER_MODE"] == "framed"
    preallocate = 1 << 16 if os.environ["POWER_MODE"] == "preallocated" else 0
    direct = os.environ["POWER_MODE"] == "direct"
    async with LogWriter(
        path, torn_line="cut", framed=framed, preallocate=preallocate, direct=direct
    ) as log:
        await log.append(b"new" if framed else b"new\\n")
    lines = []
    for name in [*[name for _, name in rotated_files(path)], path]:
        async with LogReader(name, framed=framed) as reader:
            lines += [record.rstrip(b"\\n") async for record in reader]
            assert reader.torn is None, reader.torn
    assert lines.pop() == b"new"
    assert len(lines) > last, f"{len(lines)} records of {last + 1}"
    for n, line in enumerate(lines[: last + 1]):
        assert line == b"%08d:%s" % (n, b"x" * 990), f"record {n}: {line[:40]!r}"

asyncio.run(main(sys.argv[1] + "/log", int(sys.argv[2])))
"""


def why_no_power_cut(filesystem: str) -> str | None:
    if os.geteuid():
        return "power cuts need root, to mount"
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        return "power cuts need /dev/fuse and loop devices"
    for command in ("fusermount3", f"mkfs.{filesystem}", "losetup"):
        if not shutil.which(command):
            return f"power cuts need {command}"
    if importlib.util.find_spec("mfusepy") is None:
        return "power cuts need the package mfusepy"
    with open("/proc/filesystems") as known:
        if filesystem not in known.read():
            return f"the kernel has no {filesystem}"
    return None


def power_cut(
    tmp_path: Path, filesystem: str, mode: str, engine: str
) -> subprocess.CompletedProcess[str]:
    rig("power cuts", why_no_power_cut(filesystem))
    if mode == "framed":
        pytest.importorskip("google_crc32c")
    (tmp_path / "writer.py").write_text(POWER_WRITER)
    (tmp_path / "checker.py").write_text(POWER_CHECKER)
    return subprocess.run(
        [
            *(sys.executable, str(HERE / "power_cut.py"), filesystem),
            *(str(tmp_path / "writer.py"), str(tmp_path / "checker.py")),
            *("--points", str(POWER_CUTS)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POWER_MODE": mode, "URINGFILE_ENGINE": engine},
    )


@pytest.mark.timeout(max(120, 60 * POWER_CUTS))
@pytest.mark.parametrize(
    ("filesystem", "mode", "name"),
    [
        ("ext4", "plain", "io_uring"),
        ("ext4", "plain", "posix_aio"),
        ("ext4", "preallocated", "io_uring"),
        ("ext4", "framed", "posix_aio"),
        ("ext4", "rotated", "io_uring"),
        ("xfs", "plain", "io_uring"),
        ("btrfs", "plain", "io_uring"),
        ("ext4", "direct", "io_uring"),
        ("ext4", "direct", "posix_aio"),
        ("xfs", "direct", "io_uring"),
        ("btrfs", "direct", "io_uring"),
    ],
)
def test_no_power_cut_loses_what_was_acknowledged(
    tmp_path: Path, filesystem: str, mode: str, name: str
) -> None:
    count(name)
    done = power_cut(tmp_path, filesystem, mode, name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 lost" in done.stdout


@pytest.mark.timeout(120)
def test_the_power_cut_catches_a_liar(tmp_path: Path) -> None:
    """Who acknowledges before the sync is found out."""
    count("posix_aio")
    done = power_cut(tmp_path, "ext4", "liar", "posix_aio")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "acknowledged 0 to" in done.stdout
