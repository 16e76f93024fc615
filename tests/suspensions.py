"""Cancel a coroutine at its k-th suspension, for k = 1, 2, ... until there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conftest import COUNTS_REFERENCES

from uringfile import pending_operations
from uringfile._native_engine import closing

#: When the task is cancelled: while what it waits for is pending; or in the very turn in
#: which that was done, so that its result reaches nobody.
MOMENTS = ("pending", "done")


async def cancelled_at_each(
    work: Callable[[], Coroutine[Any, Any, Any]], *, at_once: bool = False, limit: int = 200
) -> AsyncIterator[bool]:
    """Yields after each cancellation whether the task ended by it; when what went on in the
    background is done, or ``at_once``.

    The work may take the cancellation or finish in spite of it, but raise nothing else.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    for moment in MOMENTS:
        k = 1
        while (cancelled := await _cancelled_at(work, k, moment)) is not None:
            if not at_once:
                await settled()
            yield cancelled
            k += 1
            assert k < limit, "the work does not end"
        assert k > 1, "the work never waits"


async def _cancelled_at(
    work: Callable[[], Coroutine[Any, Any, Any]], k: int, moment: str
) -> bool | None:
    """Whether the task ended by it; ``None`` if there was no k-th suspension."""
    state = {"left": k}
    task = asyncio.ensure_future(_drive(work(), state, moment))
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled() if state["left"] <= 0 else None


@types.coroutine
def _drive(
    work: Coroutine[Any, Any, Any], state: dict[str, int], moment: str
) -> Generator[Any, Any, Any]:
    """Runs the coroutine in this task, and cancels that at the suspension whose turn it is."""
    task = asyncio.current_task()
    assert task is not None
    thrown: BaseException | None = None
    while True:
        try:
            awaited = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            return end.value
        state["left"] -= 1
        if state["left"] == 0:
            if moment == "done" and awaited is not None:
                # Called before the task's own callback, which is added after this.
                awaited.add_done_callback(lambda _: task.cancel())
            else:
                asyncio.get_running_loop().call_soon(task.cancel)
        thrown = None
        try:
            yield awaited
        except BaseException as error:
            thrown = error


async def settled() -> None:
    """Until threads and the kernel have done what the cancelled work has left to them."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5
    me = asyncio.current_task()
    quiet = 0
    while quiet < 5:  # what is done may have a next step
        await loop.run_in_executor(None, int)  # by the only thread: it has done what came before
        await asyncio.sleep(0)
        busy = pending_operations() or asyncio.all_tasks() - {me} or closing()
        quiet = 0 if busy else quiet + 1
        assert loop.time() < deadline, "something goes on for ever"


def descriptors() -> set[str]:
    """The open ones. Without a collection: what is cancelled has closed them by itself, and that
    is what would take most of the time. (What PyPy may collect at any time, the engines of other
    tests, does not count there.)"""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if COUNTS_REFERENCES or not target.startswith("anon_inode:"):
                found.add(f"{fd}: {target}")
    return found
