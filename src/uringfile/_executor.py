"""Calls in a thread of the loop's default executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def call_in_thread(
    loop: asyncio.AbstractEventLoop, function: Callable[..., T], *args: Any
) -> asyncio.Future[T]:
    """As ``loop.run_in_executor``, but when this raises, the call is never made.

    Where no thread can be started, ``ThreadPoolExecutor.submit`` raises ``RuntimeError`` and
    leaves the call in its queue, for a thread that is busy now. By the time that makes it, a
    descriptor that it names may be another file's.
    """
    call: concurrent.futures.Future[T] = concurrent.futures.Future()
    try:
        return loop.run_in_executor(None, _make, call, function, args)
    except RuntimeError:
        if call.cancel():
            raise
        return asyncio.wrap_future(call, loop=loop)  # a thread has just taken it


def _make(
    call: concurrent.futures.Future[T], function: Callable[..., T], args: tuple[Any, ...]
) -> Any:
    if not call.set_running_or_notify_cancel():
        return None
    try:
        result = function(*args)
    except BaseException as error:
        call.set_exception(error)
        raise
    else:
        call.set_result(result)
        return result
    finally:
        del call  # the traceback of the exception refers to this frame
