"""Cancelling a call at each of its suspensions, one after the other."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class _Cancelled:
    """Runs a coroutine, and cancels its task at the n-th suspension: at once, or (``late``)
    when what it waits for has come, but before it goes on."""

    def __init__(self, work: Coroutine[Any, Any, Any], n: int, late: bool) -> None:
        self._work = work
        self._n = n
        self._late = late
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        send: Callable[[Any], Any] = self._work.send
        value: Any = None
        while True:
            try:
                future = send(value)
            except StopIteration as end:
                return end.value
            self.suspensions += 1
            if self.suspensions == self._n:
                if self._late and future is not None:
                    future.add_done_callback(lambda _: task.cancel())
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            send = self._work.send
            try:
                value = yield future
            except BaseException as error:
                send, value = self._work.throw, error


async def cancel_everywhere(
    make: Callable[[], Coroutine[Any, Any, Any]],
    check: Callable[[bool], Any],
    most: int = 200,
) -> int:
    """Run ``make()`` and cancel it at its first suspension, again and at its second, and so
    on until it ends by itself: how many suspensions it has.

    ``check`` is called after each, with whether it was cancelled, and may be a coroutine
    function. An error that is no cancellation is raised.
    """
    for late in (False, True):
        for n in range(1, most):
            work = _Cancelled(make(), n, late)

            async def run(work: _Cancelled = work) -> Any:
                return await work

            task = asyncio.ensure_future(run())
            await asyncio.wait([task])
            cancelled = task.cancelled()
            if not cancelled:
                task.result()
            del task
            gc.collect()
            outcome = check(cancelled)
            if outcome is not None:
                await outcome
            if work.suspensions < n:
                break
        else:
            raise AssertionError(f"more than {most} suspensions")
    return work.suspensions


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for what goes on in the background."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "it never became true"
        await asyncio.sleep(0.002)
