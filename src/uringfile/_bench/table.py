"""What ``python -m uringfile bench`` prints, and what it writes for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from uringfile._bench.contenders import EXECUTOR, SYNC
from uringfile._bench.plot import Panel
from uringfile._bench.results import Series, Spread, short
from uringfile._bench.rounds import Measured
from uringfile._engine import EngineInfo

NAMES = {SYNC: "plain calls", EXECUTOR: "thread pool"}


def table(measured: Sequence[Measured], ours: str) -> str:
    """A line for each workload: the rate, its spread, its cost, and how many times as fast as
    each of the others."""
    shown = [name for name in NAMES if any(name in m.series for m in measured)]
    header = ["", "uringfile", "spread", "CPU us each", *(f"x {NAMES[name]}" for name in shown)]
    rows = [header]
    for one in measured:
        if ours not in one.series:
            continue
        series = one.series[ours]
        row = [one.workload.name, _value(one, series), f"±{_spread(one, series).percent:.0f} %"]
        row.append(f"{series.cpu().median * 1e6:,.2f}")
        row += [_ratio(series, one.series.get(name)) for name in shown]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _spread(one: Measured, series: Series) -> Spread:
    return series.rate() if one.workload.is_rate else series.delay()


def _value(one: Measured, series: Series) -> str:
    value = _spread(one, series).median
    return (
        f"{value:,.0f} {one.workload.unit}/s" if one.workload.is_rate else f"{value * 1e3:.1f} ms"
    )


def _ratio(series: Series, other: Series | None) -> str:
    ratio = series.times(other) if other is not None else None
    return short(ratio.median) if ratio is not None else "-"


def gaps(measured: Sequence[Measured]) -> list[str]:
    """What was not measured, a line for each."""
    return [
        f"{one.workload.name}: not measured: {NAMES.get(name, name)}: {why}"
        for one in measured
        for name, why in one.gaps.items()
    ]


def meaning(measured: Sequence[Measured], ours: str, info: EngineInfo) -> str:
    """In words."""
    sentences = [f"uringfile runs on {_engine(info)}."]
    if pool := _ratios(measured, ours, EXECUTOR):
        faster = sum(ratio > 1 for ratio in pool)
        sentences.append(
            f"It is faster than a thread pool in {faster} of {len(pool)} workloads, at the median"
            f" {short(median(pool))} times as fast."
        )
    if floor := _ratios(measured, ours, SYNC):
        sentences.append(
            f"Against plain calls, which hold up the event loop, it has {short(min(floor))} to"
            f" {short(max(floor))} times their speed, at the median {short(median(floor))}."
        )
    for one in measured:
        if not one.workload.is_rate and {ours, EXECUTOR} <= one.series.keys():
            mine, theirs = (one.series[name].delay().median * 1e3 for name in (ours, EXECUTOR))
            sentences.append(
                f"Under load a 1 ms timer of the loop was late by at most {mine:.1f} ms, with the"
                f" thread pool by {theirs:.1f} ms."
            )
    return " ".join(sentences)


def _engine(info: EngineInfo) -> str:
    if info.engine == "io_uring":
        return "io_uring"
    return "POSIX AIO" + (
        f" here, as io_uring does not serve: {info.reason}" if info.reason else ""
    )


def _ratios(measured: Sequence[Measured], ours: str, other: str) -> list[float]:
    """Of the workloads that are rates."""
    found = [
        one.series[ours].times(one.series[other])
        for one in measured
        if one.workload.is_rate and {ours, other} <= one.series.keys()
    ]
    return [ratio.median for ratio in found if ratio is not None]


def as_json(measured: Sequence[Measured], ours: str) -> list[dict[str, Any]]:
    """A record for each workload and contender."""
    return [
        {
            "workload": one.workload.name,
            "title": one.workload.title,
            "contender": "uringfile" if name == ours else name,
            ("rate" if one.workload.is_rate else "delay_seconds"): asdict(_spread(one, series)),
            "operation": one.workload.unit,
            "cpu_seconds_per_operation": asdict(series.cpu()),
            "times_as_fast": _times(one, series, name),
        }
        for one in measured
        for name, series in one.series.items()
    ]


def _times(one: Measured, series: Series, name: str) -> dict[str, Any]:
    ratios = {
        other: series.times(one.series[other])
        for other in NAMES
        if other in one.series and other != name
    }
    return {other: asdict(ratio) for other, ratio in ratios.items() if ratio is not None}


def panels(measured: Sequence[Measured], ours: str) -> list[Panel]:
    return [
        Panel(
            one.workload.title,
            f"{one.workload.unit}/s" if one.workload.is_rate else "seconds (less is better)",
            [
                (NAMES.get(name, "uringfile"), _spread(one, series), name == ours)
                for name, series in one.series.items()
            ],
        )
        for one in measured
        if one.series
    ]
