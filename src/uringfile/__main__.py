"""``python -m uringfile COMMAND``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# Each command is a module with add_arguments(parser) and main(args) -> exit status. Only
# the module of the command that was asked for is imported.
COMMANDS = {
    "doctor": ("uringfile._doctor", "which engine serves here, and why"),
    "bench": ("uringfile._bench.command", "this machine's disk, by uringfile and by a thread pool"),
    "cat": ("uringfile._commands.cat", "files to standard output"),
    "cp": ("uringfile._commands.cp", "copies of files"),
    "tail": ("uringfile._commands.tail", "the last lines of files, and what is added to them"),
    "seccomp-profile": ("uringfile._seccomp", "a seccomp profile for docker and podman"),
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m uringfile")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    try:
        for name, (module, summary) in COMMANDS.items():
            command = commands.add_parser(name, help=summary)
            if name in argv[:1]:
                importlib.import_module(module).add_arguments(command)
        args = parser.parse_args(argv)
        status: int = importlib.import_module(COMMANDS[args.command][0]).main(args)
        return status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
