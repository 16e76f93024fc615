"""Results as Markdown: ``python -m benchmarks.report results.json > benchmarks/REPORT.md``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.contenders import OURS
from benchmarks.results import Results, Series, Spread
from benchmarks.targets import LONGEST_DELAY, TARGETS
from benchmarks.workloads import ALL, Workload

BASELINES = ("sync", "executor", "aiofile", "fio")


def render(results: Results, baselines: Sequence[str] = BASELINES) -> str:
    parts = ["# Benchmark report", _about(results)]
    if table := _targets(results):
        parts += ["## Targets", table]
    for name, workload in ALL.items():
        if name in results.series:
            parts += [f"## {workload.title}", _workload(results, workload, baselines)]
            if results.gaps[name] != "none":
                parts.append(f"Not measured: {results.gaps[name]}.")
    return "\n\n".join(parts) + "\n"


def _about(results: Results) -> str:
    environment = results.environment
    rounds = max(
        len(series.seconds) for found in results.series.values() for series in found.values()
    )
    lines = [
        f"Measured {results.date}, {rounds} alternating rounds. Rates are medians of the rounds;"
        " the spread is half of the way from the slowest to the fastest. A ratio is taken within"
        " each round, and is how many times as fast: its median, and its lowest and highest.",
        "",
        f"- Machine: {environment.get('cpu_model_name', 'unknown processor')},"
        f" {environment.get('cpu_count', '?')} processors",
        f"- System: {environment.get('platform', 'unknown')}",
        f"- Python: {environment.get('python_version', 'unknown')}",
    ]
    versions = {
        name: series.contender
        for found in results.series.values()
        for name, series in found.items()
    }
    lines += [f"- {name}: {version}" for name, version in versions.items()]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Of the columns, so many hold words; the others hold figures."""
    aligned = ["---"] * words + ["---:"] * (len(header) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, aligned, *rows))


def _workload(results: Results, workload: Workload, baselines: Sequence[str]) -> str:
    found = results.series[workload.name]
    shown = [name for name in baselines if name in found]
    figure = f"{workload.unit}/s" if workload.is_rate else "longest delay"
    header = ["contender", figure, "spread", f"CPU us/{workload.unit}"]
    header += [f"x {name}" for name in shown]
    rows = []
    for name, series in found.items():
        spread = series.rate() if workload.is_rate else series.delay()
        value = f"{spread.median:,.0f}" if workload.is_rate else f"{spread.median * 1e3:.2f} ms"
        cpu = f"{series.cpu().median * 1e6:,.2f}"
        row = [_emphasis(name), value, f"±{spread.percent:.0f} %", cpu]
        rows.append(row + [_ratio(series.times(found[baseline])) for baseline in shown])
    return _table(header, rows)


def _emphasis(name: str) -> str:
    return f"**{name}**" if name in OURS else name


def _ratio(ratio: Spread | None) -> str:
    if ratio is None:
        return "-"
    median, low, high = (_short(value) for value in (ratio.median, ratio.low, ratio.high))
    return median if low == high else f"{median} ({low} to {high})"


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        ratio = results.times(target.workload, target.contender, target.baseline)
        if ratio is not None:
            row = [target.workload, target.contender, target.baseline, f"{target.at_least:g}"]
            rows.append([*row, _ratio(ratio), "yes" if ratio.median >= target.at_least else "no"])
    for name in OURS:
        series = results.series.get("ticker-delay", {}).get(name)
        if series is not None:
            rows.append(["ticker-delay", name, "", *_delay(series)])
    header = ["workload", "contender", "against", "target", "measured", "met"]
    return _table(header, rows, words=3) if rows else ""


def _delay(series: Series) -> list[str]:
    longest = series.delay().median
    met = "yes" if longest <= LONGEST_DELAY else "no"
    return [f"at most {LONGEST_DELAY * 1e3:g} ms", f"{longest * 1e3:.2f} ms", met]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", help="what benchmarks.run wrote with --json")
    parser.add_argument("--baselines", nargs="+", default=BASELINES, metavar="CONTENDER")
    args = parser.parse_args()
    print(render(Results.load(args.results), args.baselines), end="")


if __name__ == "__main__":
    main()
