"""A disk with a volatile cache, and what is on it when the power fails. Needs root and FUSE.

    python tests/power_cut.py FILESYSTEM WRITER CHECKER [--points N] [--seed N]

A FUSE file system with one file, the image of a disk, keeps a journal of all writes and flushes
(the loop device turns a flush into an fsync of the image). A file system is mounted from it,
``WRITER DIRECTORY`` runs there and prints ``ACK n`` whenever records 0 to n are said to be
durable. Then the power fails, at the moment of acknowledgements and in between: what was
written before the last flush is there; of what was written after it nothing, some writes, or
some sectors. That image is mounted, and ``CHECKER DIRECTORY n`` must find all that was
acknowledged by then. Exits with 1 if it once does not, with 2 if something else went wrong.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import mfusepy as fuse

SECTOR = 512

MIB = {"ext4": 32, "xfs": 300, "btrfs": 128}

MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


class Disk(fuse.Operations):  # type: ignore[misc]
    """``/disk``; the journal holds (offset, data), and None for a flush."""

    use_ns = True

    def __init__(self, image: bytes) -> None:
        self.data = bytearray(image)
        self.journal: list[tuple[int, bytes] | None] = []
        self._mutex = threading.Lock()

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": 0o40755, "st_nlink": 2}
        if path == "/disk":
            return {"st_mode": 0o100600, "st_nlink": 1, "st_size": len(self.data)}
        raise fuse.FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: Any) -> list[str]:
        return [".", "..", "disk"]

    def open(self, path: str, info: Any) -> int:
        info.direct_io = True  # no page cache in between: the order is the disk's
        return 0

    def read(self, path: str, size: int, offset: int, info: Any) -> bytes:
        return bytes(self.data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, info: Any) -> int:
        with self._mutex:
            self.journal.append((offset, bytes(data)))
            self.data[offset : offset + len(data)] = data
        return len(data)

    def fsync(self, path: str, datasync: int, info: Any) -> int:
        with self._mutex:
            self.journal.append(None)
        return 0

    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        return 0

    def flush(self, path: str, info: Any) -> int:
        return 0

    def release(self, path: str, info: Any) -> int:
        return 0

    def fallocate(self, *_: Any) -> None:
        raise fuse.FuseOSError(errno.EOPNOTSUPP)


class Run(threading.Thread):
    """Mounts the disk, and lets the writer write until it ends."""

    def __init__(self, disk: Disk, filesystem: str, writer: list[str], work: Path) -> None:
        super().__init__()
        self.disk = disk
        self.filesystem = filesystem
        self.writer = writer
        self.fuse, self.mount = work / "fuse", work / "mount"
        self.fuse.mkdir()
        self.mount.mkdir()
        #: Position in the journal, and what was acknowledged there.
        self.acknowledged: list[tuple[int, int]] = []
        self.end = 0
        self.failure: str | None = None

    def run(self) -> None:
        try:
            while not (self.fuse / "disk").exists():
                time.sleep(0.02)
            self._mount_and_write()
        except subprocess.CalledProcessError as error:
            self.failure = f"{error.cmd}: {error.stderr}"
        finally:
            time.sleep(0.2)
            subprocess.run(["fusermount3", "-u", "-z", str(self.fuse)], check=False)

    def _mount_and_write(self) -> None:
        loop = call("losetup", "--find", "--show", str(self.fuse / "disk"))
        try:
            call("mount", "-t", self.filesystem, loop, str(self.mount))
        finally:
            call("losetup", "-d", loop)  # it goes when its last user goes
        try:
            self._write()
        finally:
            unmount(self.mount)

    def _write(self) -> None:
        command = [*self.writer, str(self.mount)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("ACK "):
                    with self.disk._mutex:
                        at = len(self.disk.journal)
                    self.acknowledged.append((at, int(line.split()[1])))
        self.end = len(self.disk.journal)
        if process.returncode or not self.acknowledged:
            self.failure = f"the writer failed: {process.returncode}"


def call(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def unmount(directory: Path) -> None:
    for _ in range(50):
        done = subprocess.run(["umount", str(directory)], check=False, capture_output=True)
        if not done.returncode:
            return
        time.sleep(0.1)  # somebody looks at the new disk (udev)
    raise RuntimeError(f"{directory} cannot be unmounted: {done.stderr!r}")


def cut(base: bytes, journal: list[Any], at: int, how: str, rng: random.Random) -> bytearray:
    """What the disk holds when the power fails there."""
    image = bytearray(base)
    flushed = max((i for i in range(at) if journal[i] is None), default=-1)
    for i, entry in enumerate(journal[:at]):
        if entry is None:
            continue
        offset, data = entry
        if i > flushed and how == "torn":
            for start in range(0, len(data), SECTOR):
                if rng.random() < 0.5:
                    sector = data[start : start + SECTOR]
                    image[offset + start : offset + start + len(sector)] = sector
        elif i < flushed or (how == "random" and rng.random() < 0.5):
            image[offset : offset + len(data)] = data
    return image


_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


def check(image: bytes, run: Run, checker: list[str], expected: int, work: Path) -> str | None:
    """What the checker finds wrong after the power is back."""
    # A file of its own for each: mount takes a loop device that is still there for that file,
    # and it may have the blocks of the one before in its cache.
    fd, path = tempfile.mkstemp(dir=work, prefix="cut.")
    with open(fd, "wb") as file:
        for start in range(0, len(image), _PIECE):
            piece = image[start : start + _PIECE]
            if piece != _ZEROS:  # most of it is a hole
                file.seek(start)
                file.write(piece)
        file.truncate(len(image))
    try:
        call("mount", "-t", run.filesystem, "-o", "loop", path, str(run.mount))
    except subprocess.CalledProcessError as error:
        return f"cannot be mounted: {error.stderr}"
    try:
        done = subprocess.run(
            [*checker, str(run.mount), str(expected)], capture_output=True, text=True, check=False
        )
    finally:
        unmount(run.mount)
        os.unlink(path)
    return done.stdout + done.stderr if done.returncode else None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("filesystem", choices=MKFS)
    parser.add_argument("writer", type=Path)
    parser.add_argument("checker", type=Path)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="power-cut."))
    try:
        return cuts(args, work)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{error}: {getattr(error, 'stderr', '')}")
        return 2
    finally:
        shutil.rmtree(work, ignore_errors=True)


def cuts(args: argparse.Namespace, work: Path) -> int:
    rng = random.Random(args.seed)
    path = work / "base.img"
    with open(path, "wb") as file:
        file.truncate(MIB[args.filesystem] << 20)
    call(*MKFS[args.filesystem], str(path))
    base = path.read_bytes()
    disk = Disk(base)
    writer, checker = ([sys.executable, str(p.resolve())] for p in (args.writer, args.checker))
    run = Run(disk, args.filesystem, writer, work)
    run.start()
    # Until it is unmounted. libfuse goes to the directory / meanwhile.
    fuse.FUSE(disk, str(run.fuse), foreground=True, raw_fi=True, nothreads=True, fsname="disk")
    run.join()
    if run.failure is not None:
        print(run.failure)
        return 2
    moments = [at for at, _ in run.acknowledged]
    points = rng.sample(moments, min(args.points, len(moments)))
    points += [rng.randrange(moments[0], run.end + 1) for _ in range(args.points // 2)]
    lost = 0
    for at in sorted(points):
        expected = max(n for moment, n in run.acknowledged if moment <= at)
        for how in ("none", "random", "torn"):
            wrong = check(cut(base, disk.journal, at, how, rng), run, checker, expected, work)
            if wrong is not None:
                lost += 1
                print(f"cut at {at} ({how}), acknowledged 0 to {expected}: {wrong.strip()[-200:]}")
    print(f"{args.filesystem}: {3 * len(points)} power cuts, {lost} lost acknowledged records")
    return 1 if lost else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
