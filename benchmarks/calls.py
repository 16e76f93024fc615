"""How many system calls a command makes: by perf where that may count them, else by strace.

perf counts at the kernel's tracepoint raw_syscalls:sys_enter (it needs root, or
kernel.perf_event_paranoid of -1) and slows nothing; strace stops each call, so that what
polls for a time polls less often. Both follow threads and children.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

#: Makes so many system calls, or None where the tool cannot tell.
Counter = Callable[[Sequence[str]], int | None]


def _perf(command: Sequence[str]) -> int | None:
    event = "raw_syscalls:sys_enter"
    found = _under(["perf", "stat", "-x,", "-e", event], command)
    match = re.search(rf"^(\d+),[^,]*,{event}", found, re.M)
    return int(match[1]) if match else None


def _strace(command: Sequence[str]) -> int | None:
    found = _under(["strace", "-f", "-c", "-U", "calls,name"], command)
    match = re.search(r"^\s*(\d+) total$", found, re.M)
    return int(match[1]) if match else None


def _under(tool: list[str], command: Sequence[str]) -> str:
    """What the tool writes about the command; nothing when it cannot do it."""
    with tempfile.NamedTemporaryFile("r") as file:
        try:
            done = subprocess.run(
                [*tool, "-o", file.name, "--", *command],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=300,
                check=False,
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return ""
        return file.read() if done.returncode == 0 else ""


def find_counter() -> tuple[str, Counter | None]:
    """The first tool that counts here, by name."""
    for name, counter in (("perf", _perf), ("strace", _strace)):
        if counter(["true"]):
            return name, counter
    return "not measured: neither perf nor strace counts system calls here", None
