"""What the process holds, and for how much of that the soak fails."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass
class Held:
    fds: int
    threads: int
    rss: int

    @classmethod
    def now(cls) -> Held:
        with open("/proc/self/statm") as file:
            rss = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        fds = len(os.listdir("/proc/self/fd")) - 1
        return cls(fds, len(os.listdir("/proc/self/task")), rss)

    def most(self, other: Held) -> Held:
        return Held(
            max(self.fds, other.fds), max(self.threads, other.threads), max(self.rss, other.rss)
        )

    def beyond(self, usual: Held) -> str | None:
        """What has grown beyond what was usual at the beginning."""
        if self.fds > usual.fds + 100:
            return f"{self.fds} descriptors, {usual.fds} at the beginning"
        if self.threads > usual.threads + 150:  # POSIX AIO has up to 128 for what hangs
            return f"{self.threads} threads, {usual.threads} at the beginning"
        if self.rss > 1.3 * usual.rss + (48 << 20):
            return f"{self.rss >> 20} MiB of memory, {usual.rss >> 20} at the beginning"
        return None

    def __str__(self) -> str:
        return f"{self.fds} fds, {self.threads} threads, {self.rss / 2**20:.1f} MiB"
