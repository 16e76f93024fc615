"""Work that must be finished or undone although its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from uringfile._background import Background

# How long a caller that is cancelled waits for it, in seconds; then it goes on without him.
PATIENCE = 1.0


async def settle(work: Coroutine[Any, Any, Any]) -> None:
    """Run it to its end, though the caller be cancelled once more; its errors are lost."""
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
