"""Telling the torn end of a framed log from damage within."""

from __future__ import annotations

import os
from functools import partial

from uringfile._errors import CorruptLogError
from uringfile._file import AIOFile
from uringfile._frames_search import Damage, find_damage
from uringfile._open import in_thread


async def raise_for_damage(file: AIOFile, offset: int, end: int) -> None:
    """Raise ``CorruptLogError`` if behind the invalid record at ``offset`` of an open file
    with ``end`` bytes there are valid ones. Searches in a thread."""
    descriptor = file._check(offset, readable=True)
    damage: Damage | None = await in_thread(
        file._driver_here(), descriptor, find_damage, partial(os.pread, descriptor.fd), offset, end
    )
    if damage is not None:
        raise CorruptLogError(file.name, offset, damage.next_offset, damage.unwritten)
