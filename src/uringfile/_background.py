"""Work that goes on to its end, whoever is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# How long a caller that is cancelled waits for what must be undone, in seconds.
PATIENCE = 1.0


def shield(future: asyncio.Future[T]) -> asyncio.Future[T]:
    """As ``asyncio.shield``: whoever awaits it may be cancelled, the future goes on. Should it
    then fail, nobody is told: that of Python 3.14 logs such an error. It suspends in any case,
    so that what was to be done first when the future is done has been done."""
    waiter: asyncio.Future[T] = future.get_loop().create_future()

    def tell(future: asyncio.Future[T]) -> None:
        error = None if future.cancelled() else future.exception()
        if waiter.done():
            return
        if future.cancelled():
            waiter.cancel()
        elif error is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(future.result())

    future.add_done_callback(tell)
    return waiter


class Done:
    """Stands for work that there was none of."""


NOTHING_TO_DO = Done()


class Background(Generic[T]):
    """Runs a coroutine from the loop's callbacks; the first step at once.

    It is not a task, because the end of ``asyncio.run`` cancels all tasks: of an append
    that is cancelled nobody can tell whether it landed. What it awaits must be futures
    that nobody else cancels.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._work = work
        self._result: asyncio.Future[T] = loop.create_future()
        self._step()

    def _step(self, _: object = None) -> None:
        try:
            awaited = self._work.send(None)
        except StopIteration as end:
            self._result.set_result(end.value)
        except BaseException as error:
            self._result.set_exception(error)
            self._result.exception()  # also an error that nobody waits for has been seen
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        else:
            if awaited is None:
                self._loop.call_soon(self._step)
            else:
                awaited.add_done_callback(self._step)

    @property
    def done(self) -> bool:
        return self._result.done()

    async def wait(self) -> T:
        """Its result. A caller that is cancelled is released at once, and the work goes on."""
        return await (self._result if self.done else shield(self._result))


async def settle(work: Coroutine[Any, Any, Any]) -> None:
    """Run to its end what must be finished or undone, though the caller be cancelled, or has been;
    after a second it goes on without him. Its errors are lost."""
    loop = asyncio.get_running_loop()
    background = Background(loop, work)
    end = loop.time() + PATIENCE
    while not background.done and (left := end - loop.time()) > 0:
        try:
            await asyncio.wait_for(background.wait(), left)
        except asyncio.CancelledError:
            continue  # what brought us here is raised by the caller
        except Exception:
            pass  # its own, or that of the timeout
