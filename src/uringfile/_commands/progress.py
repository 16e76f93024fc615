"""How far a copy is: a bar on the terminal, by tqdm where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from uringfile._bench.progress import bar_class


@contextmanager
def progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """For ``copyfile``'s ``progress=``. What is done at once shows none."""
    bar: Any = None

    def report(copied: int, size: int) -> None:
        nonlocal bar
        if bar is None and copied < size and (tqdm := bar_class()) is not None:
            bar = tqdm(
                desc=name,
                initial=copied,
                total=size,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                leave=False,
            )
        if bar is not None:
            bar.total = size
            bar.update(copied - bar.n)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()
