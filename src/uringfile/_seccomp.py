"""``python -m uringfile seccomp-profile``: the profile that lets a container use io_uring."""

from __future__ import annotations

import argparse
from importlib.resources import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a seccomp profile for docker and podman: their default one, which also "
        "allows io_uring. Save it to FILE and run: docker run --security-opt seccomp=FILE ..."
    )


def main(args: argparse.Namespace) -> int:
    print(files("uringfile").joinpath("seccomp.json").read_text(encoding="utf-8"), end="")
    return 0
