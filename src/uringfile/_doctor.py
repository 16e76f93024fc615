"""``python -m uringfile doctor``: which engine serves here, and why."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass

from uringfile import __version__, _kernel
from uringfile._choice import VARIABLE
from uringfile._errors import EngineUnavailable
from uringfile._loop import engine_info


@dataclass(frozen=True)
class Report:
    """What ``doctor --json`` prints. ``None`` where there is nothing to tell."""

    uringfile: str
    #: ``"io_uring"``, ``"posix_aio"``, or ``None`` when no engine can start.
    engine: str | None
    #: Why it is not io_uring, with the remedy; or why nothing can start.
    reason: str | None
    entries: int | None
    capacity: int | None
    operations: list[str]
    features: list[str]
    kernel: str
    io_uring_disabled: int | None
    #: ``RLIMIT_MEMLOCK`` in bytes, ``None`` when unlimited.
    memlock: int | None
    seccomp: str | None
    #: The variable ``URINGFILE_ENGINE``.
    forced: str | None


def examine() -> Report:
    """Open an engine as a program would, and close it again."""
    forced = os.environ.get(VARIABLE) or None
    info, reason = None, None
    try:
        info = engine_info()
        reason = info.reason
    except EngineUnavailable as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    if info is not None and info.engine != "io_uring" and forced:
        reason = f"{VARIABLE} asks for it"
    features = info.features if info is not None else ()
    return Report(
        uringfile=__version__,
        engine=info.engine if info is not None else None,
        reason=reason,
        entries=info.entries if info is not None else None,
        capacity=info.capacity if info is not None else None,
        operations=[name[3:] for name in features if name.startswith("op:")],
        features=[name for name in features if not name.startswith("op:")],
        kernel=_kernel.release(),
        io_uring_disabled=_kernel.io_uring_disabled(),
        memlock=_kernel.memlock(),
        seccomp=_kernel.seccomp(),
        forced=forced,
    )


def lines(report: Report) -> list[str]:
    """The report for human readers, a fact a line."""
    facts: dict[str, object] = {"engine": report.engine or "none"}
    if report.reason is not None:
        facts["why"] = report.reason
    if report.engine is not None:
        facts["queue"] = f"{report.entries} entries, {report.capacity} operations in flight"
        facts["operations"] = " ".join(report.operations)
        facts["features"] = " ".join(report.features) or "none"
    facts["kernel"] = report.kernel
    facts["kernel.io_uring_disabled"] = (
        "no such switch" if report.io_uring_disabled is None else report.io_uring_disabled
    )
    facts["RLIMIT_MEMLOCK"] = "unlimited" if report.memlock is None else f"{report.memlock} bytes"
    facts["seccomp"] = report.seccomp or "unknown"
    if report.forced is not None:
        facts[VARIABLE] = report.forced
    facts["uringfile"] = report.uringfile
    width = max(map(len, facts)) + 2
    return [f"{name:<{width}}{value}" for name, value in facts.items()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tell which engine serves here, and why. Exit status: 0 when it is io_uring, "
        "1 when it is the fallback, 2 when none can start."
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def main(args: argparse.Namespace) -> int:
    report = examine()
    print(json.dumps(asdict(report), indent=2) if args.json else "\n".join(lines(report)))
    if report.engine is None:
        return 2
    return 0 if report.engine == "io_uring" else 1
