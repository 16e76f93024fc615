"""A file system whose operations hang, fail or take their time, as its rules say (FUSE).

    python faulty_fs.py DIRECTORY MOUNTPOINT RULES.json

shows the directory, with faults. ``mounted()`` does that in a process of its own. A rule names
an operation (read, write, fsync, open, flush, truncate) and a file, and has one of
``hang``, ``errno`` and ``delay`` (seconds). Files whose names begin with "direct" do
without the page cache. What hangs goes on when the rules change.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THREADS = 256


def why_missing() -> str | None:
    """Why there is none here; whether it can be mounted shows when it is."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    if not shutil.which("fusermount3"):
        return "fusermount3 is not installed"
    if importlib.util.find_spec("mfusepy") is None:
        return "the package mfusepy is not installed"
    return None


class FaultyFS:
    """A mounted one, seen from the test: ``back`` is the directory behind ``mount``."""

    def __init__(self, folder: Path) -> None:
        self.back, self.mount = folder / "back", folder / "mount"
        self._rules = folder / "rules.json"
        self._made = 0
        self.back.mkdir(parents=True)
        self.mount.mkdir()
        self.rule()

    def rule(self, *rules: dict[str, Any]) -> None:
        """These rules from now on, and no others. Files may be given by their paths."""
        for rule in rules:
            rule["path"] = Path(rule["path"]).name
        new = self._rules.with_suffix(".new")
        new.write_text(json.dumps(rules))
        new.rename(self._rules)

    def make(self, name: str, content: bytes) -> Path:
        """A file; the name gets a number, since the kernel remembers those of other tests."""
        self._made += 1
        name = f"{name} {self._made}"
        (self.back / name).write_bytes(content)
        return self.mount / name

    def command(self) -> list[str]:
        return [sys.executable, __file__, str(self.back), str(self.mount), str(self._rules)]


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[FaultyFS]:
    """Raises ``OSError`` where it cannot be mounted."""
    fs = FaultyFS(folder)
    with subprocess.Popen(fs.command(), stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        deadline = time.monotonic() + 20
        while not os.path.ismount(fs.mount):
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise OSError(f"FUSE does not mount: {server.stderr.read().decode()[-300:]}")
            time.sleep(0.01)
        try:
            yield fs
        finally:
            fs.rule()  # whoever hangs goes on, or nobody could end
            for _ in range(50):
                done = subprocess.run(["fusermount3", "-u", fs.mount], stderr=subprocess.DEVNULL)
                if not done.returncode:
                    break
                time.sleep(0.1)
            else:
                subprocess.run(["fusermount3", "-uz", fs.mount], check=False)
                server.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(5)
            server.kill()  # another mount namespace has it still
            server.stderr.close()


# ---- the server ---------------------------------------------------------------------


def main(back: str, mount: str, rules_path: str) -> None:
    import mfusepy

    lock = threading.Lock()
    stamp: Any = None
    rules: list[dict[str, Any]] = []

    def current() -> list[dict[str, Any]]:
        nonlocal stamp, rules
        with lock:
            now = os.stat(rules_path)
            if (now.st_ino, now.st_mtime_ns) != stamp:
                with open(rules_path) as file:
                    rules = json.load(file)
                stamp = now.st_ino, now.st_mtime_ns
            return rules

    def fault(operation: str, path: str) -> None:
        in_force = current()
        for rule in in_force:
            if (rule["op"], rule["path"]) != (operation, path[1:]):
                continue
            time.sleep(rule.get("delay", 0))
            while rule.get("hang") and current() is in_force:
                time.sleep(0.01)
            if "errno" in rule:
                raise mfusepy.FuseOSError(getattr(errno, rule["errno"]))

    class Server(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
            st = os.lstat(back + path)
            names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
            times = {f"st_{which}": getattr(st, f"st_{which}_ns") for which in ("atime", "mtime")}
            return {name: getattr(st, name) for name in names} | times

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", *os.listdir(back + path)]

        def unlink(self, path: str) -> None:
            os.unlink(back + path)

        def truncate(self, path: str, length: int, fh: Any = None) -> None:
            fault("truncate", path)
            os.truncate(back + path, length)

        def open(self, path: str, fi: Any) -> int:
            fault("open", path)
            fi.fh = os.open(back + path, os.O_RDWR)
            fi.direct_io = path.startswith("/direct")
            return 0

        def create(self, path: str, mode: int, fi: Any) -> int:
            os.close(os.open(back + path, os.O_RDWR | os.O_CREAT, mode))
            return self.open(path, fi)

        def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:
            fault("read", path)
            return os.pread(fi.fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fi: Any) -> int:
            fault("write", path)
            return os.pwrite(fi.fh, data, offset)

        def fsync(self, path: str, datasync: int, fi: Any) -> int:
            fault("fsync", path)
            os.fsync(fi.fh)
            return 0

        def flush(self, path: str, fi: Any) -> int:
            fault("flush", path)
            return 0

        def release(self, path: str, fi: Any) -> int:
            os.close(fi.fh)
            return 0

    mfusepy.FUSE(
        Server(),
        mount,
        foreground=True,
        raw_fi=True,
        nothreads=False,
        max_threads=THREADS,
        fsname="uringfile-tests",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
