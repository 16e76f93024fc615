"""What work that never has to wait may take of one turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque

# What inline completions may cost in one turn of the loop before they yield, in units of
# about 2 us: one for an operation, and one for each further 16 KiB that is copied (0.5 to 4 us,
# the latter into memory that has never been touched).
TURN_BUDGET = 256
COPY_SHIFT = 14


class Turns:
    """Whoever works inline takes its cost from ``budget``, and yields when nothing is left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.budget = TURN_BUDGET
        self._yielding: deque[asyncio.Future[None]] = deque()
        self._let_go = 1
        self._refilling = False

    async def yield_turn(self) -> None:
        """Let the rest of the loop run. The first goes on in the next turn; who comes while
        that is to come goes on in the order of coming, in some later turn, and then with at
        least one operation."""
        if self._refilling:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._yielding.append(waiter)
            await waiter
        else:
            self.loop.call_soon(self._refill)
            self._refilling = True
            await asyncio.sleep(0)  # resumed behind _refill

    def _refill(self) -> None:
        """A new turn: one may go on, or twice as many as last time if they left a rest."""
        self._refilling = False
        self._let_go = 1 if self.budget <= 0 else 2 * self._let_go
        self.budget = TURN_BUDGET
        for _ in range(min(self._let_go, len(self._yielding))):
            waiter = self._yielding.popleft()
            if not waiter.done():
                waiter.set_result(None)
        if self._yielding:
            self.loop.call_soon(self._refill)
            self._refilling = True
