"""A file system whose every answer takes a while: ``slow_fuse.py BACK MOUNT SECONDS AT_ONCE``.

It passes what it is asked on to the directory BACK. While there is a file AT_ONCE it does not
take its time. Needs FUSE, and the package mfusepy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_AT_ONCE = "at_once"


@contextlib.contextmanager
def answering_at_once(work: Path) -> Iterator[None]:
    """For what is only to be prepared."""
    (work / _AT_ONCE).touch()
    yield
    (work / _AT_ONCE).unlink()


@contextlib.contextmanager
def mounted(work: Path, seconds: float) -> Iterator[Path]:
    """The mount point, over ``work / "back"``; a named skip where there is no FUSE."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not shutil.which("fusermount3"):
        pytest.skip("a slow file system needs root, /dev/fuse and fusermount3")
    pytest.importorskip("mfusepy", exc_type=ImportError)
    back, mount = work / "back", work / "mount"
    back.mkdir(exist_ok=True)
    mount.mkdir()
    at_once = str(work / _AT_ONCE)
    command = [sys.executable, __file__, str(back), str(mount), str(seconds), at_once]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            end = time.monotonic() + 20
            while not os.path.ismount(mount):
                if server.poll() is not None or time.monotonic() > end:
                    pytest.skip(f"FUSE does not start here: {server.poll()}")
                time.sleep(0.02)
            yield mount
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=False)
            server.kill()
            server.communicate()


def serve(back: str, mount: str, seconds: float, at_once: str) -> None:
    import mfusepy as fuse

    def slowly(function: Any) -> Any:
        def answer(_: Any, *args: Any) -> Any:
            if not os.path.exists(at_once):
                time.sleep(seconds)
            try:
                return function(*args)
            except OSError as error:
                raise fuse.FuseOSError(error.errno or errno.EIO) from None

        return answer

    def at(path: str) -> str:
        return back + path

    def status(path: str, fh: Any = None) -> dict[str, Any]:
        found = os.lstat(at(path))
        keys = ["st_mode", "st_nlink", "st_size", "st_uid", "st_gid"]
        times = ["st_atime", "st_mtime", "st_ctime"]
        found_times = {key: getattr(found, key + "_ns") for key in times}
        return {key: getattr(found, key) for key in keys} | found_times

    def made(path: str, mode: int, info: Any = None) -> int:
        return _open(path, os.O_RDWR | os.O_CREAT, mode)

    def _open(path: str, flags: Any, mode: int = 0o777) -> int:
        return os.open(at(path), flags if isinstance(flags, int) else os.O_RDWR, mode)

    def cut(path: str, length: int, fh: Any = None) -> int:
        os.truncate(at(path), length)
        return 0

    def capacity(path: str) -> dict[str, int]:
        found = os.statvfs(at(path))
        return {key: getattr(found, key) for key in dir(found) if key.startswith("f_")}

    class Slow(fuse.Operations):  # type: ignore[misc]
        use_ns = True

        getattr = slowly(status)
        readdir = slowly(lambda path, fh: [".", "..", *os.listdir(at(path))])
        readlink = slowly(lambda path: os.readlink(at(path)))
        access = slowly(lambda path, mode: 0)
        unlink = slowly(lambda path: os.unlink(at(path)))
        rmdir = slowly(lambda path: os.rmdir(at(path)))
        mkdir = slowly(lambda path, mode: os.mkdir(at(path), mode))
        symlink = slowly(lambda target, source: os.symlink(source, at(target)))
        link = slowly(lambda target, source: os.link(at(source), at(target)))
        rename = slowly(lambda old, new, *flags: os.rename(at(old), at(new)))
        chmod = slowly(lambda path, mode, fh=None: os.chmod(at(path), mode))
        utimens = slowly(lambda path, times=None, fh=None: os.utime(at(path)))
        open = slowly(lambda path, info: _open(path, os.O_RDWR))
        create = slowly(made)
        read = slowly(lambda path, size, offset, fh: os.pread(int(fh), size, offset))
        write = slowly(lambda path, data, offset, fh: os.pwrite(int(fh), data, offset))
        truncate = slowly(cut)
        flush = slowly(lambda path, fh: 0)
        fsync = slowly(lambda path, datasync, fh: 0)
        fsyncdir = slowly(lambda path, datasync, fh: 0)
        release = slowly(lambda path, fh: os.close(int(fh)) or 0)
        statfs = slowly(capacity)

    try:  # by default it answers ten at a time
        fuse.FUSE(Slow(), mount, foreground=True, nothreads=False, max_threads=64)
    except RuntimeError:  # libfuse before 3.12
        fuse.FUSE(Slow(), mount, foreground=True, nothreads=False)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
