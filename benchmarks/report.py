"""Results as Markdown, with plots: ``python -m benchmarks.report results.json --to benchmarks``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.results import Results
from benchmarks.targets import CPU_TARGETS, IDLE_CPU, LONGEST_DELAY, TARGETS
from uringfile._bench.contenders import OURS
from uringfile._bench.plot import Panel, draw
from uringfile._bench.results import Series, Spread, short
from uringfile._bench.workloads import ALL, Workload

BASELINES = ("sync", "executor", "aiofiles", "aiofile", "fio")

#: Plots, and the workloads on them.
PLOTS = {
    "reads": ("read-*", "in-flight-*"),
    "writes": ("write-*", "file-write-*"),
    "files": ("lines-*", "file-lines-*", "small-files", "ticker-delay"),
}


def write(results: Results, folder: Path, sections: Sequence[str] = ()) -> None:
    """REPORT.md, and its plots in a folder beside it."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    shown = []
    for name, patterns in PLOTS.items():
        panels = list(_panels(results, patterns))
        if panels:
            draw(panels, plots / f"{name}.png", f"{name.capitalize()}, {results.date}")
            shown.append(f"![{name}](plots/{name}.png)")
    (folder / "REPORT.md").write_text(render(results, plots=shown, sections=sections))


def _panels(results: Results, patterns: Sequence[str]) -> Iterator[Panel]:
    for name, workload in ALL.items():
        if name in results.series and any(fnmatch(name, pattern) for pattern in patterns):
            unit = f"{workload.unit}/s" if workload.is_rate else "seconds (less is better)"
            bars = [
                (contender, _spread(workload, series), contender in OURS)
                for contender, series in results.series[name].items()
            ]
            yield Panel(workload.title, unit, bars)


def render(
    results: Results,
    baselines: Sequence[str] = BASELINES,
    plots: Sequence[str] = (),
    sections: Sequence[str] = (),
) -> str:
    parts = ["# Benchmark report", _about(results)]
    if rows := [*_ratios(results), *_cpu(results), *_delays(results), *_idle(results)]:
        header = ["workload", "contender", "against", "target", "measured", ""]
        met = sum(row[-1] == "met" for row in rows)
        parts += ["## Targets", f"{met} of {len(rows)} are met.", _table(header, rows, words=3)]
    if plots:
        parts += ["## Plots", *plots]
    for name, workload in ALL.items():
        if name in results.series:
            parts += [f"## {workload.title}", _workload(results, workload, baselines)]
            if results.gaps[name] != "none":
                parts.append(f"Not measured: {results.gaps[name]}.")
    return "\n\n".join([*parts, *sections]) + "\n"


def _about(results: Results) -> str:
    environment = results.environment
    rounds = max(
        len(series.seconds) for found in results.series.values() for series in found.values()
    )
    lines = [
        f"Measured {results.date}, {rounds} alternating rounds. Rates are medians of the rounds;"
        " the spread is half of the way from the slowest to the fastest. A ratio is taken within"
        " each round, and is how many times as fast: its median, and its lowest and highest."
        " CPU is that of the process with its kernel threads.",
        "",
        f"- Machine: {environment.get('cpu_model_name', 'unknown processor')},"
        f" {environment.get('cpu_count', '?')} processors",
        f"- System: {environment.get('platform', 'unknown')}",
        f"- Python: {environment.get('python_version', 'unknown')}",
        f"- System calls: {results.counter}",
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
    if not workload.is_timed:
        rows = [[_name(name), f"{s.cpu().median * 1e6:,.2f}"] for name, s in found.items()]
        return _table(["contender", f"CPU us/{workload.unit}"], rows)
    shown = [name for name in baselines if name in found]
    with_peak = any(series.peak() for series in found.values())
    figure = f"{workload.unit}/s" if workload.is_rate else "longest delay"
    header = ["contender", figure, "spread", f"CPU us/{workload.unit}"]
    header += [f"system calls/{workload.unit}"] if workload.is_rate else []
    header += ["memory"] if with_peak else []
    header += [f"x {name}" for name in shown]
    rows = []
    for name, series in found.items():
        spread = _spread(workload, series)
        value = f"{spread.median:,.0f}" if workload.is_rate else f"{spread.median * 1e3:.2f} ms"
        row = [_name(name), value, f"±{spread.percent:.0f} %"]
        row += [f"{series.cpu().median * 1e6:,.2f}"]
        row += [_calls(series)] if workload.is_rate else []
        row += [_memory(series)] if with_peak else []
        rows.append(row + [_ratio(series.times(found[baseline])) for baseline in shown])
    return _table(header, rows)


def _name(contender: str) -> str:
    return f"**{contender}**" if contender in OURS else contender


def _spread(workload: Workload, series: Series) -> Spread:
    return series.rate() if workload.is_rate else series.delay()


def _calls(series: Series) -> str:
    return "not measured" if series.syscalls is None else f"{series.syscalls:.3g}"


def _memory(series: Series) -> str:
    peak = series.peak()
    return f"{peak.median / (1 << 20):.1f} MiB" if peak is not None else "not measured"


def _ratio(ratio: Spread | None) -> str:
    if ratio is None:
        return "-"
    median, low, high = (short(value) for value in (ratio.median, ratio.low, ratio.high))
    return median if low == high else f"{median} ({low} to {high})"


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _ratios(results: Results) -> Iterator[list[str]]:
    for target in TARGETS:
        series = results.series.get(target.workload, {})
        if {target.contender, target.baseline} <= series.keys():
            ratio = series[target.contender].times(series[target.baseline])
            if ratio is not None:
                row = [target.workload, target.contender, target.baseline]
                row += [f"{target.at_least:g} x", _ratio(ratio)]
                yield [*row, _met(ratio.median >= target.at_least)]


def _cpu(results: Results) -> Iterator[list[str]]:
    for target in CPU_TARGETS:
        series = results.series.get(target.workload, {})
        if {target.contender, target.baseline} <= series.keys():
            ratio = series[target.contender].times_cpu(series[target.baseline])
            if ratio is not None:
                row = [target.workload, target.contender, target.baseline]
                row += [f"CPU below {target.at_most:g} x", _ratio(ratio)]
                yield [*row, _met(ratio.median < target.at_most)]


def _delays(results: Results) -> Iterator[list[str]]:
    for name, series in results.series.get("ticker-delay", {}).items():
        if name in OURS:
            longest = series.delay().median
            row = ["ticker-delay", name, "", f"at most {LONGEST_DELAY * 1e3:g} ms"]
            yield [*row, f"{longest * 1e3:.2f} ms", _met(longest <= LONGEST_DELAY)]


def _idle(results: Results) -> Iterator[list[str]]:
    for name, series in results.series.get("idle", {}).items():
        if name in OURS:
            cpu = series.cpu().median
            row = ["idle", name, "", f"CPU below {IDLE_CPU * 1e3:g} ms/s"]
            yield [*row, f"{cpu * 1e3:.2f} ms/s", _met(cpu < IDLE_CPU)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", help="what benchmarks.run wrote with --json")
    parser.add_argument("--baselines", nargs="+", default=BASELINES, metavar="CONTENDER")
    parser.add_argument("--to", type=Path, metavar="DIR", help="for REPORT.md and its plots")
    args = parser.parse_args()
    results = Results.load(args.results)
    if args.to is not None:
        write(results, args.to)
    else:
        print(render(results, args.baselines), end="")


if __name__ == "__main__":
    main()
