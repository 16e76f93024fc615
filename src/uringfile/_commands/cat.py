"""``python -m uringfile cat``: files, one after the other, to standard output."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from uringfile._commands.process import STDIN, Output, complain, open_input, reason, run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write files to standard output, one after the other. A file that cannot be read is told "
        "of on standard error, and the next one is begun; the exit status is 1 then."
    )
    parser.add_argument(
        "files",
        nargs="*",
        default=[STDIN],
        metavar="FILE",
        help="- is standard input, and the default",
    )


def main(args: argparse.Namespace) -> int:
    return run("cat", cat(args.files))


async def cat(paths: Sequence[str]) -> int:
    status = 0
    async with Output() as output:
        for path in paths:
            try:
                async with open_input(path) as file:
                    if await output.is_at_end_of(file):
                        complain("cat", f"{path}: input file is output file")
                        status = 1
                    else:
                        await output.copy_from(file)
            except OSError as error:
                complain("cat", f"{path}: {reason(error)}")
                status = 1
    return status
