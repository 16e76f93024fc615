"""What a workload is, and the loops that several of them share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from uringfile._bench.contenders import Contender
from uringfile._bench.cost import Cost, cost_of, cost_of_call

#: Performs so many loops of the workload, and says what they cost.
Run = Callable[[int], Awaitable[Cost]]


class Workload(ABC):
    name: str
    #: One line for the report.
    title: str
    #: What one operation is.
    unit: str
    #: How many operations one loop is.
    per_loop: int = 1
    #: Who takes part.
    contenders: tuple[str, ...]
    #: Whether a value is the time of one operation, and loops are added until there are
    #: enough of them for a measurement. Otherwise a value is a delay, and one loop is enough.
    is_rate: bool = True
    #: Whether how long it takes tells anything; if not, only its cost does.
    is_timed: bool = True
    #: Whether it does nothing but read the file ``read.bin``.
    only_reads: bool = False
    #: Whether others in the same process would be counted, too.
    needs_own_process: bool = False

    @abstractmethod
    def prepare(self, directory: Path, size: int) -> None:
        """Make the files, of about ``size`` bytes, if they are not there.

        A ``read.bin`` that is there is left as it is.
        """

    @abstractmethod
    def job(self, contender: Contender, directory: Path) -> AbstractAsyncContextManager[Run]:
        """The workload with everything open, to be run again and again.

        Raises ``Gap`` when the contender cannot do it.
        """


def awaiting(function: Callable[..., Awaitable[object]], *args: object) -> Run:
    """``await function(*args, loops)``."""

    async def run(loops: int) -> Cost:
        return await cost_of(function(*args, loops))

    return run


def calling(function: Callable[..., object], *args: object) -> Run:
    """``function(*args, loops)``, for the synchronous floor."""

    async def run(loops: int) -> Cost:
        return cost_of_call(function, *args, loops)

    return run


async def together(works: list[Coroutine[Any, Any, None]]) -> None:
    """One task for each."""
    await asyncio.gather(*works)
