"""Bars with their spread, by matplotlib (``uringfile[plot]``)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from uringfile._bench.results import Spread

COLUMNS = 3
_OURS = "#1f77b4"
_OTHERS = "#b0b0b0"


@dataclass(frozen=True)
class Panel:
    """One workload."""

    title: str
    #: Below the bars.
    unit: str
    #: Contenders, and whether the bar is ours; from the top.
    bars: Sequence[tuple[str, Spread, bool]]


def check(path: Path) -> None:
    """Raises ``ValueError`` when a plot could not be written to that file."""
    try:
        backend = importlib.import_module("matplotlib.backend_bases")
    except ImportError as error:
        raise ValueError(f"matplotlib is needed ({error}): pip install 'uringfile[plot]'") from None
    known = backend.FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"{path.name} must end with one of .{', .'.join(sorted(known))}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path.parent} is not a folder that can be written to")


def draw(panels: Sequence[Panel], path: Path, title: str) -> None:
    """A grid of panels. A bar is the median; the line on it goes from the lowest of the rounds
    to the highest."""
    check(path)
    rows = ceil(len(panels) / COLUMNS)
    bars = max(len(panel.bars) for panel in panels)
    figure = importlib.import_module("matplotlib.figure").Figure(
        figsize=(5 * COLUMNS, rows * (1.1 + 0.26 * bars)), layout="constrained"
    )
    figure.suptitle(title)
    for axes, panel in zip(
        figure.subplots(rows, COLUMNS, squeeze=False).flat, panels, strict=False
    ):
        _draw_panel(axes, panel)
    for axes in figure.axes[len(panels) :]:
        axes.remove()
    figure.savefig(path, dpi=80)


def _draw_panel(axes: Any, panel: Panel) -> None:
    names = [name for name, _, _ in panel.bars]
    spreads = [spread for _, spread, _ in panel.bars]
    medians = [spread.median for spread in spreads]
    errors = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    colours = [_OURS if ours else _OTHERS for _, _, ours in panel.bars]
    drawn = axes.barh(names, medians, xerr=errors, color=colours, capsize=2, ecolor="#404040")
    axes.bar_label(drawn, [_figure(value) for value in medians], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(
        importlib.import_module("matplotlib.ticker").EngFormatter(sep="")
    )
    axes.spines[["top", "right"]].set_visible(False)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
