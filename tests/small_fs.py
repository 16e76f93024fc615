"""Small file systems, to fill and to break; they need root, to mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

IMAGES = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-O", "^has_journal"], 2 << 20),
    "ext4 with a journal": (["mkfs.ext4", "-q", "-F"], 8 << 20),
    "xfs": (["mkfs.xfs", "-q", "-f"], 300 << 20),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 128 << 20),
}


def why_missing(kind: str) -> str | None:
    if os.geteuid():
        return "a small file system needs root, to mount"
    if kind in IMAGES and not shutil.which(IMAGES[kind][0][0]):
        return f"{IMAGES[kind][0][0]} is not installed"
    return None


def run(*command: str | Path) -> None:
    """Raises ``OSError`` with what the command says when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(kind: str, folder: Path, image: Path | None = None) -> Iterator[Path]:
    """A new one, in a file or, for ``tmpfs``, of 256 KiB. Raises ``OSError`` where it cannot be
    mounted."""
    where = folder / "small"
    where.mkdir()
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", where)
    else:
        make, size = IMAGES[kind]
        image = image or folder / "image"
        with open(image, "wb") as file:
            file.truncate(size)
        run(*make, image)
        run("mount", "-o", "loop", image, where)
    try:
        yield where
    finally:
        if subprocess.run(["umount", where], capture_output=True).returncode:
            run("umount", "-l", where)
