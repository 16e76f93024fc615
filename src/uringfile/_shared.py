"""An open file that several file objects may use."""

from __future__ import annotations

from uringfile._file import AIOFile


class Shared:
    """An open file and the number of file objects that have it open."""

    def __init__(self, file: AIOFile) -> None:
        self.file = file
        self.users = 0

    def release_at_once(self) -> bool:
        """Release without suspending, if that takes nothing that waits."""
        if self.users == 1 and not self.file.close_at_once():
            return False
        self.users -= 1
        return True

    async def release(self) -> None:
        self.users -= 1
        if not self.users:
            await self.file.close()
