"""For n = 1, 2, 3 ... until it passes: the n-th time that a point is passed, a fault.

    fault_loop.py ENGINE POINT[,POINT...] [OPERATION...]

Run in a build with the fault hook (native_build.py). Each failure has to be a right result, or
a clean OSError where the fault is one that cannot be made good; nothing may leak; and the same
operation has to work right after it. Prints what went wrong; then, for each operation, how often
the point was struck.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_operations import OPERATIONS
from uringfile._native import lib

import uringfile
from uringfile import EngineUnavailable, _fd, _loop

ALWAYS = 1 << 40


@dataclass(frozen=True)
class Fault:
    point: str
    value: int
    times: int
    #: What may be raised; nothing, where the fault has to be made good.
    errors: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = errno.errorcode.get(-self.value, str(self.value))
        often = "always" if self.times == ALWAYS else f"{self.times} times"
        return f"{self.point} {what} {often}"


def _failing(point: str, *values: int) -> list[Fault]:
    """With such an error, once and for good."""
    return [Fault(point, -value, times, (value,)) for value in values for times in (1, ALWAYS)]


def _passing(point: str, *values: int, times: tuple[int, ...]) -> list[Fault]:
    return [Fault(point, value, n) for value in values for n in times]


def _collect() -> None:
    for _ in range(1 if sys.implementation.name == "cpython" else 4):
        gc.collect()


FAULTS = {
    "memory": [Fault("memory", 1, times, (errno.ENOMEM,)) for times in (1, ALWAYS)],
    "setup": _failing("setup", errno.EPERM, errno.ENOMEM),
    "register": _failing("register", errno.EPERM),
    "mmap": [Fault("mmap", 1, times, (errno.ENOMEM,)) for times in (1, ALWAYS)],
    "eventfd": _failing("eventfd", errno.EMFILE),
    "dup": [
        *_passing("dup", -errno.EMFILE, times=(1, ALWAYS)),
        *_failing("dup", errno.EBADF),
    ],
    "thread": _failing("thread", errno.EAGAIN),
    "aio": [
        *_passing("aio", -errno.EAGAIN, times=(1, 3)),
        *_failing("aio", errno.ENOSYS),
    ],
    "enter": [
        *_passing("enter", -errno.EINTR, -errno.EAGAIN, 1, times=(1,)),
        *_passing("enter", -errno.EBUSY, times=(5,)),
        *_failing("enter", errno.EPERM),
    ],
    "nowait": [
        *_passing("nowait", -errno.EAGAIN, -errno.EOPNOTSUPP, 1, times=(1, ALWAYS)),
    ],
    "shorten": _passing("shorten", 4096, 512, 1, times=(1,)),
    "fail": [
        *_passing("fail", -errno.EINTR, times=(1, 3)),
        *_failing("fail", errno.EIO),
    ],
    "spoil": _failing("spoil", errno.EIO),
    "interrupt": _passing("spoil", -errno.EINTR, times=(1,)),
    "delay": _passing("delay", 3, times=(1, ALWAYS)),
    "reorder": _passing("reorder", 5, times=(1, ALWAYS)),
    "double": _passing("double", 1, 4, times=(1, ALWAYS)),
}

ONLY = {
    **dict.fromkeys(("setup", "register", "mmap", "enter"), "io_uring"),
    **dict.fromkeys(("dup", "thread", "aio"), "posix_aio"),
}

# O_DIRECT takes whole blocks alone: what is cut within one is refused, as the kernel does.
_DIRECT = ("read_direct", "read_many_direct", "write_direct", "readinto", "pool")

# Here an operation that was performed and says EINTR would be performed twice.
_ONCE = ("append", "streams")

POINTS = {
    name[len("UF_FAULT_") :].lower(): getattr(lib, name)
    for name in dir(lib)
    if name.startswith("UF_FAULT_")
}

_descriptors: list[_fd.Descriptor] = []


def _watch_descriptors() -> None:
    real = _fd.Descriptor.__init__

    def watched(self: _fd.Descriptor, fd: int) -> None:
        real(self, fd)
        _descriptors.append(self)

    _fd.Descriptor.__init__ = watched  # type: ignore[method-assign]


def _open_fds() -> dict[int, str]:
    deadline = time.monotonic() + 10
    while lib.uf_closing() and time.monotonic() < deadline:
        time.sleep(0.0005)
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


class Trial:
    """One operation with one fault at one place, and what is wrong about it."""

    def __init__(self, where: Path, engine: Any, name: str, fault: Fault, nth: int) -> None:
        self.where, self.engine, self.name, self.fault, self.nth = where, engine, name, fault, nth
        self.struck = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        _descriptors.clear()
        fds, blocks = _open_fds(), lib.uf_fault_blocks()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(self._unhandled)
            try:
                loop.run_until_complete(self._main())
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                loop.close()
            del loop
            _collect()
        self.wrong += [f"warning: {warning.message}" for warning in warned]
        held = [descriptor.fd for descriptor in _descriptors if descriptor.holders]
        if held:
            self.wrong.append(f"descriptors still held: {held}")
        if more := {fd: name for fd, name in _open_fds().items() if fd not in fds}:
            self.wrong.append(f"open descriptors are left: {more}")
        if lib.uf_fault_blocks() != blocks:
            self.wrong.append(f"{lib.uf_fault_blocks() - blocks} blocks of memory are left")

    def _unhandled(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.wrong.append(f"unhandled: {context['message']} {error!r}")

    async def _main(self) -> None:
        point = POINTS[self.fault.point]
        if self.fault.point != "nowait":  # else what is cached would not come to the engine
            lib.uf_fault_arm(POINTS["nowait"], 1, -errno.EAGAIN, ALWAYS)
        lib.uf_fault_arm(point, self.nth, self.fault.value, self.fault.times)
        await self._perform("with the fault", self.fault.errors)
        self.struck = lib.uf_fault_struck(point)
        lib.uf_fault_disarm()
        await self._perform("after the fault", ())
        await self._settle()

    async def _perform(self, when: str, errors: tuple[int, ...]) -> None:
        with tempfile.TemporaryDirectory(dir=self.where) as directory:
            try:
                await asyncio.wait_for(OPERATIONS[self.name](Path(directory), self.engine), 10)
            except OSError as error:
                self._judge(when, error, errors)
            except Exception:
                self.wrong.append(f"{when}: {traceback.format_exc()}")

    def _judge(self, when: str, error: OSError, errors: tuple[int, ...]) -> None:
        if error.errno not in errors:
            text = "".join(traceback.format_exception(error))
            self.wrong.append(f"{when}: {error!r}\n{text}")
        elif not isinstance(error, EngineUnavailable) and not error.filename:
            self.wrong.append(f"{when}: {error!r} tells no file")

    async def _settle(self) -> None:
        """Nothing stays in flight or queued."""
        deadline = time.monotonic() + 2
        while (now := uringfile.stats(self.engine)).in_flight or now.queued:
            if time.monotonic() > deadline:
                self.wrong.append(f"still in flight: {now}")
                return
            await asyncio.sleep(0)


def trials(where: Path, engine: str, name: str, point: str) -> Iterator[Trial]:
    for fault in FAULTS[point]:
        if point == "shorten" and fault.value < 4096 and name in _DIRECT:
            continue
        if point == "interrupt" and name in _ONCE:
            continue
        nth = 0
        struck = 1
        while struck:
            nth += 1
            trial = Trial(where, engine, name, fault, nth)
            trial.run()
            struck = trial.struck
            yield trial


def _memory() -> str | None:
    """A file system in memory, on which a sync costs nothing, if it takes O_DIRECT (Linux 6.6)."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
        return os.environ.get("URINGFILE_FAULTS_IN", "/dev/shm")
    return os.environ.get("URINGFILE_FAULTS_IN")


def try_all(where: Path, engine: str, name: str, point: str) -> bool:
    """Whether nothing is wrong."""
    struck, good = 0, True
    for trial in trials(where, engine, name, point):
        struck += trial.struck
        for wrong in trial.wrong:
            good = False
            print(f"{name}: {trial.fault}, at pass {trial.nth}: {wrong}", flush=True)
    print(f"{engine} {name} {point}: struck {struck} times", flush=True)
    return good


def main() -> None:
    engine, points, *names = sys.argv[1:]
    _watch_descriptors()
    where = Path(tempfile.mkdtemp(dir=_memory()))
    good = True
    try:
        # What is made once in a process is no leak.
        for name in names or OPERATIONS:
            Trial(where, engine, name, Fault("fail", 0, 0), 0).run()
        _collect()
        if hasattr(gc, "freeze"):  # not on PyPy
            gc.freeze()
        for point in points.split(","):
            for name in names or OPERATIONS:
                good &= try_all(where, engine, name, point)
    finally:
        _loop._recent.clear()
        shutil.rmtree(where)
    sys.exit(not good)


if __name__ == "__main__":
    main()
