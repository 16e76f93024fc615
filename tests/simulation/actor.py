"""Who uses the library, and one call of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulation.world import World


class Finding(Exception):
    """The library has broken one of its promises."""


class Call:
    """One call of the library, in a task of its own."""

    __slots__ = ("actor", "begun", "cancelled", "name", "task")

    def __init__(self, actor: Actor, name: str) -> None:
        self.actor = actor
        self.name = name
        self.begun = self.cancelled = False
        self.task: asyncio.Task[None] | None = None


class Actor:
    """Uses one object of the library, and knows what must come of it."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rng = world.rng
        self.number = number
        self.calls: list[Call] = []

    def act(self) -> None:
        """One random thing."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Close what is open; all calls have ended or will."""

    def check(self) -> None:
        """What must hold at any time."""

    def check_at_end(self) -> None:
        """What must hold when all is closed."""

    def forget(self) -> None:
        """Let go of what the simulation of this world refers to."""

    def spawn(self, name: str, call: Coroutine[Any, Any, None]) -> Call:
        one = Call(self, name)
        self.calls.append(one)
        one.task = self.world.loop.create_task(self.world.guard(one, call))
        self.world.note("call", self.number, name)
        return one

    def cancel_one(self) -> None:
        if self.calls and (call := self.rng.choice(self.calls)).begun:
            call.cancelled = True
            assert call.task is not None
            call.task.cancel()
            self.world.note("cancel", self.number, call.name)
