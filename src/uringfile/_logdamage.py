"""Telling the torn end of a framed log from damage within."""

from __future__ import annotations

from uringfile._errors import CorruptLogError, Filename
from uringfile._frames_search import Read, find_following


def check_torn(read: Read, offset: int, end: int, path: Filename) -> int | None:
    """See that what begins with the invalid record at ``offset`` is a torn end. Blocks.

    When power fails, the sectors of a write that is under way reach the disk in any order.
    One that did not reads as zeros, and valid records may stand behind it. They are part
    of the torn end; the offset of the first is returned, ``None`` if there is none. Valid
    records behind anything else raise ``CorruptLogError``: cutting them off could lose what
    was acknowledged.
    """
    following = find_following(read, offset, end)
    if following is None:
        return None
    if not following.unwritten:
        raise CorruptLogError(path, offset, following.next_offset)
    return following.next_offset
