"""From the running event loop to its driver.

The loop is not patched and the driver is not kept here: the loop owns its driver through
the reader on the eventfd, so that a loop that is closed or collected frees it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref

from uringfile._choice import open_engine
from uringfile._driver import Driver, runs_here
from uringfile._engine import EngineInfo
from uringfile._stats import Stats
from uringfile._watch import PendingOperation

_Drivers = dict[str | None, weakref.ref[Driver]]
_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Drivers] = (
    weakref.WeakKeyDictionary()
)
# Each thread's driver of last time, by thread and engine name: mostly it is wanted again.
_recent: dict[tuple[int, str | None], weakref.ref[Driver]] = {}
# Threads, each with its loop, come and go at the same time. Reentrant, because a finalizer
# may run at any allocation.
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def running_driver(engine: str | None = None) -> Driver:
    """The driver of the running loop for the engine of that name; made on first use.

    Raises ``RuntimeError`` outside of a running loop, ``EngineUnavailable`` and
    ``ValueError`` as ``open_engine`` does.
    """
    recent = _recent.get((threading.get_ident(), engine))
    driver = recent() if recent is not None else None
    if driver is not None and runs_here(driver) and driver.alive:
        return driver
    loop = asyncio.get_running_loop()
    with _lock:
        drivers = _by_loop.get(loop)
        driver = _alive(drivers, engine) if drivers is not None else None
        if driver is None:
            driver = _make_driver(loop, engine)
        for key in [key for key, ref in _recent.items() if ref() is None]:
            del _recent[key]
        _recent[threading.get_ident(), engine] = weakref.ref(driver)
        return driver


def _alive(drivers: _Drivers, engine: str | None) -> Driver | None:
    ref = drivers.get(engine)
    driver = ref() if ref is not None else None
    return driver if driver is not None and driver.alive else None


def _make_driver(loop: asyncio.AbstractEventLoop, engine: str | None) -> Driver:
    _free_closed_loops()
    opened, reason = open_engine(engine)
    drivers = _by_loop.setdefault(loop, {})
    # The default and the same engine by name share one ring.
    driver = _alive(drivers, opened.name)
    if driver is not None:
        opened.destroy()
    else:
        driver = Driver(loop, opened, reason)
    drivers[opened.name] = drivers[engine] = weakref.ref(driver)
    return driver


def _free_closed_loops() -> None:
    """For loops whose driver something else keeps alive (a file that was never closed)."""
    for loop, drivers in list(_by_loop.items()):
        if loop.is_closed():
            for ref in drivers.values():
                driver = ref()
                if driver is not None:
                    driver.close()
            del _by_loop[loop]


def engine_info() -> EngineInfo:
    """Which engine serves, and why.

    Inside a running loop that loop's engine; elsewhere one is opened, asked and closed.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        engine, reason = open_engine(None)
        try:
            return engine.describe(reason)
        finally:
            engine.destroy()
    return running_driver().info()


def stats(engine: str | None = None) -> Stats:
    """The counters of the running loop's engine (that of the name, if one is given)."""
    return running_driver(engine).stats()


def pending_operations(engine: str | None = None) -> list[PendingOperation]:
    """The operations of the running loop that have not completed, the oldest first.

    In debug mode (``URINGFILE_DEBUG=1``, or that of asyncio) they tell since when, and where
    they were started; and those that are older than ``URINGFILE_SLOW_MS`` (5000) are logged
    as warnings of the logger "uringfile".
    """
    return running_driver(engine).pending()
