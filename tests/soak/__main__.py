"""python -m tests.soak: mixed load for minutes or hours; see tests/README.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import MISSING

from soak.files import Blocks, Lines, Pool
from soak.load import Pace, Soak
from soak.logs import Log
from soak.pipes import Pipe
from soak.watch import Held
from uringfile import _loop, pending_operations, stats

# The limit of file sizes while that fault is on; logs that do not rotate grow beyond it.
_FILE_LIMIT = 300_000

# A loop that stands still for longer than this fails the soak: beyond the longest time that the
# main thread, which does next to nothing, did not get the processor.
MOST_DELAY = 1.0

# A worker that ends no round in so many seconds is stuck; the time is added in which the main
# thread did not get the processor.
MOST_SILENCE = 60.0


class Faults:
    """Switched on and off for all loops."""

    def __init__(self, soaks: list[Soak], small: Path | None, rng: Random) -> None:
        self._soaks = soaks
        self._small = small
        self._rng = rng
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.ballast = small / "ballast" if small is not None else None

    def change(self) -> None:
        """To what chance says, for the next seconds."""
        fault = self._rng.choice(["none", "none", "size", "full"])
        self.off()
        if fault == "size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, self._hard))
        elif fault == "full" and self.ballast is not None:
            with contextlib.suppress(OSError), open(self.ballast, "wb", 0) as file:
                while True:
                    file.write(bytes(1 << 16))
        if fault != "none":
            for soak in self._soaks:
                soak.faulty_until = time.monotonic() + 60
                soak.count(f"switched on: {fault}")

    def off(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._soft, self._hard))
        if self.ballast is not None:
            self.ballast.unlink(missing_ok=True)
        for soak in self._soaks:
            soak.faulty_until = min(soak.faulty_until, time.monotonic() + 1)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A tmpfs of 2 MiB, if we may mount one."""
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


async def all_loads(soak: Soak, small: Path | None) -> dict[str, int]:
    soak.loop = asyncio.get_running_loop()
    loads: list[Any] = [
        Blocks(soak, "blocks"),
        Blocks(soak, "direct", direct=True),
        Lines(soak),
        Pool(soak),
        Pipe(soak),
        Log(soak, soak.folder / "large", "always", 1 << 30),
        Log(soak, soak.folder / "interval", "interval", 20_000),
        Log(soak, (small or soak.folder) / "small", "always", 100_000),
    ]
    tasks = [asyncio.ensure_future(load.run()) for load in [*loads]]
    tasks.append(asyncio.ensure_future(soak.watch_delay()))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
    counters: Any = stats(soak.engine)
    return {name: getattr(counters, name) for name in counters.__dataclass_fields__}


class Thread(threading.Thread):
    """A loop of its own."""

    def __init__(self, soak: Soak, small: Path | None) -> None:
        super().__init__(name=soak.engine, daemon=True)
        self.soak = soak
        self.small = small
        self.failure: str | None = None
        self.stats: dict[str, int] = {}

    def pending(self) -> str:
        """What its engine has not done."""
        loop = self.soak.loop
        assert loop is not None

        async def ask() -> str:
            return f"{stats(self.soak.engine)}\n{pending_operations(self.soak.engine)}"

        try:
            return asyncio.run_coroutine_threadsafe(ask(), loop).result(5)
        except Exception as error:
            return repr(error)

    def run(self) -> None:
        try:
            self.stats = asyncio.run(all_loads(self.soak, self.small))
        except BaseException:
            self.failure = traceback.format_exc()


def watch(threads: list[Thread], faults: Faults, pace: Pace, seconds: float) -> dict[str, Any]:
    """Until the time is over, or something is wrong: the report."""
    start = time.monotonic()
    warm_up = min(60.0, seconds / 4)
    usual = highest = Held.now()
    soaks = [thread.soak for thread in threads]
    failure: str | None = None
    minute, next_fault = 0, start + 1.0
    cpu = time.process_time()
    noise = 0.0
    while failure is None and time.monotonic() - start < seconds:
        pause = min(0.25, seconds / 20)
        woken = time.monotonic() + pause
        time.sleep(pause)
        noise = max(noise, time.monotonic() - woken)
        pace.adjust()
        now = time.monotonic()
        if now > next_fault:
            faults.change()
            next_fault = now + min(5.0, seconds / 10)
        held = Held.now()
        highest = highest.most(held)
        if now - start < warm_up:
            usual = usual.most(held)
        elif grown := held.beyond(usual):
            failure = "grown: " + grown
        for thread in threads:
            if stuck := thread.soak.stuck(MOST_SILENCE + noise):
                failure = f"{thread.name}: {stuck}\n{thread.pending()}"
            if thread.failure or not thread.is_alive():
                failure = f"{thread.name}: {thread.failure or 'ended early'}"
            elif thread.soak.worst_delay > MOST_DELAY + noise:
                failure = f"{thread.name}: the loop stood still for {thread.soak.worst_delay:.2f} s"
        if (now - start) // 60 > minute:
            minute = int((now - start) // 60)
            share = (time.process_time() - cpu) / (now - start)
            print(line(minute, soaks, held, share, noise), flush=True)
    faults.off()
    for thread in threads:
        thread.soak.ending = True
    pace.seconds = 0.0
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            failure = failure or f"{thread.name} does not end: {thread.soak.stuck(-1)}"
        elif thread.failure:
            failure = failure or f"{thread.name}: {thread.failure}"
    return {
        "failure": failure,
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "at_the_beginning": vars(usual),
        "highest": vars(highest),
        "worst_delay": {soak.engine: round(soak.worst_delay, 4) for soak in soaks},
        "worst_delay_of_the_machine": round(noise, 4),
        "counts": {soak.engine: dict(sorted(soak.counts.items())) for soak in soaks},
        "stats": {thread.name: thread.stats for thread in threads},
    }


def line(minute: int, soaks: list[Soak], held: Held, share: float, noise: float) -> str:
    total: Counter[str] = sum((soak.counts for soak in soaks), Counter())
    checked = sum(n for what, n in total.items() if "verified" in what or "read" in what)
    faults = sum(n for what, n in total.items() if what.startswith("fault "))
    delay = max(soak.worst_delay for soak in soaks)
    return (
        f"minute {minute}: {checked:,} verified, {total['records acknowledged']:,} acknowledged, "
        f"{total['cancelled'] + total['timeouts']:,} cancelled or timed out, {faults:,} faults, "
        f"{held}, worst delay {delay * 1000:.0f} ms (the machine's {noise * 1000:.0f}), "
        f"{share:.0%} of a core"
    )


def soak(minutes: float, seed: int, share: float, engines: list[str]) -> dict[str, Any]:
    warnings.simplefilter("ignore", ResourceWarning)
    before = Held.now()
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    pace = Pace(share)
    try:
        with small_disk(folder) as small:
            soaks = [Soak(engine, folder, seed, pace) for engine in engines]
            threads = [Thread(one, small) for one in soaks]
            faults = Faults(soaks, small, Random(seed))
            for thread in threads:
                thread.start()
            report = watch(threads, faults, pace, minutes * 60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    time.sleep(1.5)  # glibc's idle workers end after a second
    gc.collect()
    if sys.implementation.name == "pypy":
        _loop._free_closed_loops()  # as whoever opens the next engine does
    after = Held.now()
    report["before"], report["after"] = vars(before), vars(after)
    if after.fds > before.fds and not report["failure"]:
        report["failure"] = f"{after.fds - before.fds} descriptors are left"
    report["small_disk"] = small is not None
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--share", type=float, default=1.0, help="of a core, at most about")
    parser.add_argument("--report", type=Path, help="where the report goes, as JSON")
    parser.add_argument("--engine", action="append", help="io_uring, posix_aio; default both")
    args = parser.parse_args()
    seed = time.time_ns() % 10**9 if args.seed is None else args.seed
    engines = args.engine or [name for name, reason in MISSING.items() if reason is None]
    print(f"soak: seed {seed}, {', '.join(engines)}", flush=True)
    report = {"seed": seed, **soak(args.minutes, seed, args.share, engines)}
    text = json.dumps(report, indent=1)
    print(text)
    if args.report:
        args.report.write_text(text + "\n")
    print("FAILED" if report["failure"] else "passed")
    return 1 if report["failure"] else 0


if __name__ == "__main__":
    sys.exit(main())
