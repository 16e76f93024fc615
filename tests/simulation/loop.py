"""An event loop without a clock, a kernel or threads: a simulation stands for all three."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from uringfile._executor import _make


class Turns(Protocol):
    """What a loop asks of its simulation."""

    now: float

    def turn(self, timeout: float | None) -> set[int]:
        """Once for each turn of the loop, which would sleep so long: the readable descriptors."""
        ...


class Job:
    """A call that the default executor would run in a thread."""

    def __init__(self, function: Callable[..., Any], args: Any, future: asyncio.Future[Any]):
        self.function = function
        self.args = args
        self.future = future
        self.outcome: tuple[Any, Exception | None] | None = None

    def run(self, refuse: Callable[[Callable[..., Any]], Exception | None]) -> None:
        if (refusal := refuse(self.function)) is not None:
            self.outcome = None, refusal
            return
        if self.future.cancelled():  # as a thread pool does with what has not started
            self.outcome = None, None
            return
        try:
            self.outcome = self.function(*self.args), None
        except Exception as error:
            self.outcome = None, error

    def deliver(self) -> None:
        assert self.outcome is not None
        result, error = self.outcome
        if self.future.cancelled():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Selector(selectors.BaseSelector):
    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self._keys.pop(fd)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._turns.turn(timeout)
        return [(self._keys[fd], selectors.EVENT_READ) for fd in ready if fd in self._keys]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._keys.clear()


class SimulatedLoop(asyncio.SelectorEventLoop):
    """``instead``: functions that threads do not call, and what they call instead."""

    def __init__(self, turns: Turns, instead: Mapping[Any, Any]) -> None:
        super().__init__(_Selector(turns))
        self._turns = turns
        self._instead = instead
        self.jobs: list[Job] = []
        self.executor_is_shut = False

    def time(self) -> float:
        return self._turns.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        assert executor is None
        if self.executor_is_shut:
            raise RuntimeError("Executor shutdown has been called")
        if func is _make:  # which guards against what does not happen here
            _, func, args = args
        future: asyncio.Future[Any] = self.create_future()
        self.jobs.append(Job(self._instead.get(func, func), args, future))
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self.executor_is_shut = True
        while self.jobs:
            await asyncio.sleep(0.01)


class Clock:
    """Stands for the module ``time`` in the modules of the library."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def perf_counter(self) -> float:
        return self._turns.now

    monotonic = perf_counter

    def sleep(self, seconds: float) -> None:
        self._turns.now += seconds
