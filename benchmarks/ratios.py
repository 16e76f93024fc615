"""Rates of contenders that take turns, and what is promised of their ratios.

For benchmarks with contenders of their own; those of the workloads are ``run`` and ``targets``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from uringfile._bench.results import Spread

#: By contender, in the order of the rounds.
Rates = dict[str, list[float]]


class Missing(Exception):
    """A contender that does not run here."""


@dataclass(frozen=True)
class Pair:
    """A contender beside another: how many times as fast it is."""

    name: str
    baseline: str
    #: What is promised, if anything is.
    at_least: float | None = None


def take_turns(contenders: Mapping[str, Callable[[], float]], rounds: int, warm_ups: int) -> Rates:
    """In each round every contender runs once, and answers its rate. Those of the first rounds,
    which warm up, do not count; one that is missing is told of, and left out."""
    rates: Rates = defaultdict(list)
    missing: set[str] = set()
    for number in range(rounds + warm_ups):
        for name, run in contenders.items():
            if name in missing:
                continue
            print(f"\r\033[Kround {number + 1}: {name}", end="", file=sys.stderr, flush=True)
            try:
                rate = run()
            except Missing as reason:
                print(f"\r\033[K{name}: {reason}", file=sys.stderr)
                missing.add(name)
                continue
            if number >= warm_ups:
                rates[name].append(rate)
    print("\r\033[K", end="", file=sys.stderr)
    return rates


def show_ratios(rates: Rates, pairs: Sequence[Pair]) -> bool:
    """Print a table of the pairs that were measured; whether what is promised of them holds."""
    print("\n| | beside | ratio | target | |\n| --- | --- | --- | ---: | --- |")
    met = True
    for pair in pairs:
        if pair.name not in rates or pair.baseline not in rates:
            continue
        both = zip(rates[pair.name], rates[pair.baseline], strict=True)
        ratio = Spread.of([rate / baseline for rate, baseline in both])
        target = verdict = ""
        if pair.at_least is not None:
            target = f"{pair.at_least:g}"
            verdict = "met" if ratio.median >= pair.at_least else "MISSED"
        met &= verdict != "MISSED"
        spread = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        print(f"| {pair.name} | {pair.baseline} | {spread} | {target} | {verdict} |")
    return met


@asynccontextmanager
async def ticking(delays: list[float]) -> AsyncIterator[None]:
    """Beside what is done within, a task sleeps for a millisecond, again and again; the list gets
    its longest delay, in seconds."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - start - 0.001)

    task = asyncio.ensure_future(tick())
    try:
        yield
    finally:
        task.cancel()
        delays.append(longest)
