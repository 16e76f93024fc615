"""``python -m uringfile cp``: copies of files."""

from __future__ import annotations

import argparse
import errno
import os as names
import stat
from collections.abc import Sequence

from uringfile import copyfile, os
from uringfile._commands.process import complain, reason, run
from uringfile._commands.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copy a file to another one, or files into a folder. A new file has the permissions of the "
        "one that it is a copy of, less the umask; one that is overwritten keeps its own. On a "
        "terminal a bar tells how far a large copy is (needs uringfile[progress]). The exit "
        "status is 1 when something could not be copied; a copy that is interrupted is removed."
    )
    parser.add_argument("sources", nargs="+", metavar="SRC", help="a file")
    parser.add_argument("target", metavar="DST", help="a file, or a folder that there is")


def main(args: argparse.Namespace) -> int:
    return run("cp", cp(args.sources, args.target))


async def cp(sources: Sequence[str], target: str) -> int:
    into = await os.path.isdir(target)
    if len(sources) > 1 and not into:
        complain("cp", f"target {target!r} is not a directory")
        return 1
    status = 0
    made: set[str] = set()
    for source in sources:
        name = names.path.basename(source.rstrip("/"))
        path = names.path.join(target, name) if into else target
        try:
            if path in made:
                raise FileExistsError(errno.EEXIST, f"{path} is a copy of another", source)
            await copy(source, path)
            made.add(path)
        except OSError as error:
            complain("cp", told(error, source))
            status = 1
    return status


async def copy(source: str, target: str) -> None:
    mode = (await os.stat(source)).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", source)
    is_new = not await os.path.exists(target)
    # From the beginning nobody may read the copy who may not read the file itself.
    umask = names.umask(0o777)
    names.umask(umask | ~mode & 0o777)
    try:
        with progress(names.path.basename(source)) as report:
            await copyfile(source, target, progress=report)
    finally:
        names.umask(umask)
    if is_new and mode & 0o111 & ~umask:
        await os.chmod(target, mode & 0o777 & ~umask)


def told(error: OSError, source: str) -> str:
    if error.errno is None or error.filename is None:  # shutil.SameFileError tells all by itself
        return str(error)
    name = error.filename2 or error.filename
    return f"{name}: {reason(error)}" if name == source else f"{source} to {name}: {reason(error)}"
