"""What one ``logger.info`` costs its caller, by handler, with 1, 4 and 16 threads.

``python -m benchmarks.logging_handlers`` prints a Markdown table. Each measurement is a process
of its own; in each round every handler has its turn, so that what is compared was measured
within seconds. The handler "none" formats the record and writes nothing: that is the logging
module's own share.

Two ways to log: "burst", each thread logs without a pause; "paced", each thread logs a
record, waits a while, logs the next, 2,000 in a second by all of them together.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANDLERS = ("uringfile", "FileHandler", "QueueHandler", "none")
THREADS = (1, 4, 16)
PACED_PER_SECOND = 2000
FORMAT = "%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"


class FormatsOnly(logging.Handler):
    """What the logging module itself costs; nothing is written."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def make_handler(name: str, path: Path) -> tuple[logging.Handler, Callable[[], None]]:
    """The handler, and what has everything written and closed."""
    formatter = logging.Formatter(FORMAT)
    if name == "uringfile":
        from uringfile.logging import FileHandler

        handler: logging.Handler = FileHandler(path)
        handler.setFormatter(formatter)
        return handler, handler.close
    if name == "none":
        handler = FormatsOnly()
        handler.setFormatter(formatter)
        return handler, path.touch
    file = logging.FileHandler(path)
    file.setFormatter(formatter)
    if name == "FileHandler":
        return file, file.close
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, file)
    listener.start()

    def close() -> None:
        listener.stop()
        file.close()

    return logging.handlers.QueueHandler(records), close


def log(logger: logging.Logger, n: int, pause: float, took: list[int]) -> None:
    """Log so many records; ``took`` gets what each call took, in nanoseconds."""
    clock = time.perf_counter_ns
    for i in range(n):
        if pause:
            time.sleep(pause)
        start = clock()
        logger.info("request %d of %s took %.3f ms", i, "/index.html", 1.25)
        took.append(clock() - start)


def measure(
    name: str, threads: int, records: int, paced: bool, directory: Path
) -> dict[str, float]:
    path = directory / "log"
    handler, close = make_handler(name, path)
    logger = logging.getLogger("benchmark")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    pause = threads / PACED_PER_SECOND if paced else 0
    each = records // threads
    log(logger, 100, 0, [])
    took: list[list[int]] = [[] for _ in range(threads)]
    callers = [threading.Thread(target=log, args=(logger, each, pause, mine)) for mine in took]
    cpu, start = time.process_time(), time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    seconds = time.perf_counter() - start
    close()
    cpu = time.process_time() - cpu
    with open(path, "rb") as file:
        lines = sum(1 for _ in file)
    expected = 0 if name == "none" else each * threads + 100
    assert lines == expected, f"{name} has lost records: {lines}"
    path.unlink()
    calls = sorted(nanoseconds for mine in took for nanoseconds in mine)
    # In a burst the threads share the interpreter: the time that all of them take for a record.
    mean = sum(calls) / len(calls) if paced else seconds / len(calls) * 1e9
    return {
        "mean": mean / 1e3,
        "median": calls[len(calls) // 2] / 1e3,
        "p99": calls[len(calls) * 99 // 100] / 1e3,
        "p999": calls[len(calls) * 999 // 1000] / 1e3,
        "cpu": cpu / len(calls) * 1e6,
    }


def measure_elsewhere(arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.logging_handlers", "--one", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def one_round(threads: int, records: int, way: str, directory: Path) -> dict[str, dict[str, float]]:
    def options(name: str) -> list[str]:
        return [name, str(threads), str(records), way, "--dir", str(directory)]

    return {name: measure_elsewhere(options(name)) for name in HANDLERS}


FIGURES = {"mean": "mean us", "median": "median us", "p99": "p99 us", "p999": "p99.9 us"}
RATIOS = ("mean", "median", "cpu")
BASELINES = ("FileHandler", "QueueHandler")


def header() -> str:
    cells = ["handler", *FIGURES.values(), "CPU us"]
    cells += [f"{what} x {baseline}" for baseline in BASELINES for what in RATIOS]
    return f"| {' | '.join(cells)} |\n{'| --- ' * len(cells)}|"


def row(name: str, rounds: list[dict[str, dict[str, float]]]) -> str:
    def figure(what: str) -> str:
        return f"{statistics.median(result[name][what] for result in rounds):.1f}"

    def ratio(what: str, to: str) -> str:
        ratios = [result[name][what] / result[to][what] for result in rounds]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"

    cells = [name, *map(figure, FIGURES), figure("cpu")]
    cells += [ratio(what, baseline) for baseline in BASELINES for what in RATIOS]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logging_handlers")
    parser.add_argument("--dir", type=Path, default=Path(), help="where the log is written")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--records", type=int, default=40_000, help="of a burst, by all threads")
    parser.add_argument("--paced-records", type=int, default=2_000)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--one", nargs=4, metavar=("HANDLER", "THREADS", "RECORDS", "WAY"))
    options = parser.parse_args()
    if options.one:
        name, threads, records, way = options.one
        with tempfile.TemporaryDirectory(dir=options.dir) as directory:
            result = measure(name, int(threads), int(records), way == "paced", Path(directory))
        print(json.dumps(result))
        return
    for way, records in (("burst", options.records), ("paced", options.paced_records)):
        for threads in options.threads:
            rounds = [one_round(threads, records, way, options.dir) for _ in range(options.rounds)]
            print(f"\n{way}, {threads} threads, {records} records, {options.rounds} rounds\n")
            print(header())
            for name in HANDLERS:
                print(row(name, rounds), flush=True)


if __name__ == "__main__":
    main()
