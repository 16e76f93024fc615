"""Waiting for what goes on when whoever waits is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import run

from uringfile._background import shield


def ends(end: str) -> tuple[Any, list[Any]]:
    """What somebody who waits is given, and what the loop is told of unseen errors."""
    complaints: list[Any] = []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        future: asyncio.Future[int] = loop.create_future()
        waiting = asyncio.ensure_future(wait(future))
        await asyncio.sleep(0)
        if end.startswith("orphaned"):
            waiting.cancel()
            await asyncio.sleep(0)
            assert not future.cancelled()
        if end.endswith("error"):
            future.set_exception(OSError("x"))
        elif end == "cancelled":
            future.cancel()
        else:
            future.set_result(7)
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        del future
        return result

    async def wait(future: asyncio.Future[int]) -> int:
        return await shield(future)

    return run(main()), complaints


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("result", 7),
        ("error", OSError),
        ("cancelled", asyncio.CancelledError),
        ("orphaned result", asyncio.CancelledError),
        ("orphaned error", asyncio.CancelledError),
    ],
)
def test_a_shielded_future(end: str, expected: Any) -> None:
    got, complaints = ends(end)
    assert got == expected or isinstance(got, expected)
    assert complaints == []


async def test_a_future_that_is_done() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(7)
    order: list[str] = []
    future.add_done_callback(lambda _: order.append("callback"))
    assert await shield(future) == 7
    assert order == ["callback"]
