"""A bar on the terminal, by tqdm where that is installed (``uringfile[progress]``)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Of so many steps; nothing where there is no terminal or no tqdm."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def name(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(text)

    def step(self, steps: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(steps)


def bar_class() -> Any:
    """``tqdm``, or ``None`` where there is no terminal or no tqdm."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        return importlib.import_module("tqdm").tqdm
    except ImportError:
        return None


@contextmanager
def bar(steps: int) -> Iterator[Bar]:
    tqdm = bar_class()
    if tqdm is None:
        yield Bar(None)
        return
    layout = "{desc:<34.34} {bar} {n_fmt}/{total_fmt} [{elapsed}]"
    with tqdm(total=steps, leave=False, file=sys.stderr, bar_format=layout) as one:
        yield Bar(one)
