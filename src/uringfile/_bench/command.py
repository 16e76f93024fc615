"""``python -m uringfile bench``: this machine's disk, by uringfile, a thread pool, plain calls."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

from uringfile._bench import plot, table
from uringfile._bench.contenders import EXECUTOR, SYNC, load
from uringfile._bench.files import LARGEST, MIB
from uringfile._bench.progress import bar
from uringfile._bench.rounds import Measured, measure
from uringfile._bench.workloads import ALL, Workload
from uringfile._choice import VARIABLE
from uringfile._engine import ENGINE_NAMES, EngineInfo
from uringfile._errors import EngineUnavailable
from uringfile._loop import engine_info

# Beside the file that is read: one to write, a quarter of its size, one of 32 MiB, lines,
# small files.
_OTHER_FILES = 56 * MIB

WORKLOADS = {name: workload for name, workload in ALL.items() if not workload.needs_own_process}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure this machine's disk: uringfile, a thread pool and plain blocking calls, by turns."
        " The files are made in a new folder, which is deleted afterwards."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a few seconds, small files, rough figures")
    add("--dir", type=Path, metavar="DIR", help="where to make the files: the disk to measure")
    add("--file", type=Path, help="read this file, and nothing is written (its first GiB)")
    add("--workloads", nargs="+", metavar="PATTERN", help="names or patterns; --list tells them")
    add("--list", action="store_true", help="the names of the workloads")
    add("--engine", choices=ENGINE_NAMES, help="this one, not the first that starts")
    add("--rounds", type=_count, metavar="N", help="default 5, quick 3")
    add("--seconds", type=_seconds, metavar="S", help="of one measurement; default 0.5, quick 0.02")
    add("--size", type=_count, metavar="MIB", help="of the file; default 256, quick 16, or less")
    add("--json", action="store_true", help="figures for programs")
    add("--plot", type=Path, metavar="FILE.png", help="bars with their spread, by matplotlib")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def main(args: argparse.Namespace) -> int:
    if args.list:
        print("\n".join(f"{name:<24}{workload.title}" for name, workload in WORKLOADS.items()))
        return 0
    try:
        workloads = _chosen(args.workloads, reading_only=args.file is not None)
        if args.plot is not None:
            _try("--plot", lambda: plot.check(args.plot))
        if args.engine:
            os.environ[VARIABLE] = args.engine
        info = engine_info()
        with _terminable(), _files(args) as directory:
            measured = _measure(args, workloads, directory, info)
    except (EngineUnavailable, ValueError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted; the files are deleted", file=sys.stderr)
        return 130
    return _report(args, measured, info)


def _refuse(text: str) -> NoReturn:
    print(f"python -m uringfile bench: error: {text}", file=sys.stderr)
    raise SystemExit(2)


def _try(option: str, check: Callable[[], Any]) -> None:
    """An error tells of which option it is."""
    try:
        check()
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}: {error}") from None


def _chosen(patterns: list[str] | None, *, reading_only: bool) -> list[Workload]:
    known = {
        name: workload
        for name, workload in WORKLOADS.items()
        if workload.only_reads or not reading_only
    }
    for pattern in patterns or ():
        if not any(fnmatch(name, pattern) for name in known):
            raise ValueError(f"no workload is named {pattern}; there are: {', '.join(known)}")
    return [
        workload
        for name, workload in known.items()
        if patterns is None or any(fnmatch(name, pattern) for pattern in patterns)
    ]


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: its files are deleted."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _files(args: argparse.Namespace) -> Iterator[Path]:
    """A new folder in which the workloads make their files; it is deleted at the end, and a
    second Ctrl-C does not prevent that."""
    if args.dir is not None and not args.dir.is_dir():
        raise ValueError(f"--dir: {args.dir} is not a folder")
    try:
        directory = Path(tempfile.mkdtemp(prefix="uringfile-bench-", dir=args.dir))
    except OSError as error:
        raise ValueError(f"--dir: {error}") from None
    try:
        if args.file is not None:
            (directory / "read.bin").symlink_to(_readable(args.file))
        yield directory
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        shutil.rmtree(directory)
        signal.signal(signal.SIGINT, before)


def _readable(path: Path) -> Path:
    def check() -> None:
        with open(path, "rb") as file:
            if not path.is_file():
                raise ValueError(f"{path} is not a regular file")
            if os.fstat(file.fileno()).st_size < MIB:
                raise ValueError(f"{path} is smaller than 1 MiB")

    _try("--file", check)
    return path.resolve()


def _size(args: argparse.Namespace, directory: Path) -> int:
    """Of the file that is read, in bytes: as asked for, or what there is room for."""
    free = shutil.disk_usage(directory).free
    room = (free - _OTHER_FILES) * 4 // 5
    if args.size is not None:
        size: int = args.size * MIB
        if size > LARGEST:
            raise ValueError(f"--size: {LARGEST // MIB} is the most")
        if size > room:
            raise ValueError(f"--size: {directory.parent} has {free // MIB} MiB free")
        return size
    size = (16 if args.quick else 256) * MIB
    return max(MIB, min(size, free // 4 // MIB * MIB))


def _measure(
    args: argparse.Namespace, workloads: list[Workload], directory: Path, info: EngineInfo
) -> list[Measured]:
    rounds = args.rounds or (3 if args.quick else 5)
    seconds = args.seconds or (0.02 if args.quick else 0.5)
    size = _size(args, directory)
    contenders = [load(name) for name in (f"uringfile-{info.engine}", EXECUTOR, SYNC)]
    taking_part = [[c for c in contenders if c.name in w.contenders] for w in workloads]
    measured = []
    with bar(sum(map(len, taking_part)) * (rounds + 1)) as shown:
        for workload, some in zip(workloads, taking_part, strict=True):
            shown.name(workload.name)
            try:
                workload.prepare(directory, size)
            except OSError as error:
                _make_room(directory)
                shown.step(len(some) * (rounds + 1))
                measured.append(Measured(workload, {}, {"its files": str(error)}))
                continue
            found = measure(workload, some, directory, rounds, seconds, shown.step)
            measured.append(_run(found))
    return measured


def _run(measurement: Coroutine[Any, Any, Measured]) -> Measured:
    """asyncio.run(), which SIGINT and SIGTERM end by cancelling, not in the middle of a task."""
    interrupted = False
    before: dict[int, Any] = {}

    async def main() -> Measured:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(measurement)

        def interrupt(*_: object) -> None:
            nonlocal interrupted
            interrupted = True
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, interrupt)
        return await task

    try:
        found = asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
    return found


def _make_room(directory: Path) -> None:
    """Files that did not fit go, so that the next workload may have the space."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _report(args: argparse.Namespace, measured: list[Measured], info: EngineInfo) -> int:
    ours = f"uringfile-{info.engine}"
    if not any(ours in one.series for one in measured):
        _refuse("; ".join(["nothing could be measured", *table.gaps(measured)]))
    meaning = table.meaning(measured, ours, info)
    if args.json:
        report = {
            "engine": asdict(info),
            "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "results": table.as_json(measured, ours),
            "not_measured": table.gaps(measured),
            "meaning": meaning,
        }
        print(json.dumps(report, indent=2))
    else:
        print(table.table(measured, ours), *table.gaps(measured), "", meaning, sep="\n")
    if args.plot is not None:
        plot.draw(table.panels(measured, ours), args.plot, f"uringfile ({info.engine})")
    return 0
