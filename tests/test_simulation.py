"""The seeded simulation, for some seconds, and that it would find what it looks for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from conftest import check
from simulate import LIFE, replay_command, simulate, world
from simulation.kernel import SimulatedEngine

from uringfile import BufferPool, Writer, _driver, _file, _inodefile
from uringfile._closing import Closing
from uringfile._commit import GroupCommit
from uringfile._driver import Driver
from uringfile._fd import Descriptor
from uringfile._gather import GatheredWrites
from uringfile._logfile import Shape
from uringfile._writeback import WriteBack

STEPS = int(os.environ.get("URINGFILE_SIMULATION_STEPS", "15000"))


@pytest.mark.parametrize("seed", [1, 20_000, 300_000, None])
def test_no_promise_is_broken(seed: int | None) -> None:
    if seed is None:
        seed = random.SystemRandom().randrange(10**9)
    _, failed = simulate(seed, STEPS)
    assert failed is None, f"{failed.failure}; replay: {replay_command(failed, None)}"


HASHES = """
import sys
sys.path.insert(0, sys.argv[1])
from simulate import world
for seed in range(5):
    one = world(seed)
    one.run()
    print(one.hash, one.steps)
"""


def test_a_seed_replays_exactly() -> None:
    tests = os.path.dirname(__file__)
    here = []
    for seed in range(5):
        one = world(seed)
        one.run()
        here.append(f"{one.hash} {one.steps}\n")
    assert len(set(here)) == 5
    for hash_seed in ("1", "2"):
        assert check(HASHES, tests, PYTHONHASHSEED=hash_seed) == "".join(here)


# ---- what it would find ---


def forget_memory(patch: pytest.MonkeyPatch) -> None:
    """The in-flight table no longer keeps the buffer."""
    offer = Driver._offer

    def forgetful(self: Driver, operation: Any) -> bool:
        accepted = offer(self, operation)
        operation.request = (*operation.request[:2], None, *operation.request[3:])
        return accepted

    patch.setattr(Driver, "_offer", forgetful)


def keep_no_pin(patch: pytest.MonkeyPatch) -> None:
    """An address within a buffer does not keep that exported."""
    patch.setattr(_file, "inside", lambda pinned, start: pinned + start)


def close_at_once(patch: pytest.MonkeyPatch) -> None:
    """close() waits for nobody who holds the descriptor."""

    async def do_not_wait(self: Closing) -> bool:
        return True

    patch.setattr(Closing, "_wait_until_idle", do_not_wait)


def let_go_when_cancelled(patch: pytest.MonkeyPatch) -> None:
    """A cancelled operation gives the descriptor back before the kernel has."""

    def cancel(self: Driver, operation: Any) -> None:
        real(self, operation)
        if operation.token in self._in_flight and operation.holds.fd >= 0:
            operation.holds.release()
            operation.holds = Descriptor(-1)
            operation.holds.holders = 1

    real = Driver.cancel
    patch.setattr(Driver, "cancel", cancel)


def forget_sync_errors(patch: pytest.MonkeyPatch) -> None:
    """A failed fsync is told once, and the next one succeeds."""
    patch.setattr(_inodefile, "_LASTING_SYNC_ERRORS", ())


def complete_twice(patch: pytest.MonkeyPatch) -> None:
    """The engine gives a completion twice."""
    reap = SimulatedEngine.reap
    patch.setattr(SimulatedEngine, "reap", lambda self, drain: 2 * reap(self, drain))


def trust_gathered_writes(patch: pytest.MonkeyPatch) -> None:
    """What of a gathered write did not land is not written again."""

    def done(self: GatheredWrites, batch: Any, parts: Any, future: Any) -> None:
        for writes in parts:
            for _, data, waiter in writes:
                if not waiter.done():
                    waiter.set_result(len(data))
        self.came()

    patch.setattr(GatheredWrites, "_done", done)


def lose_a_flush(patch: pytest.MonkeyPatch) -> None:
    """A flush that is refused is not tried again."""
    patch.setattr(_driver, "_TRANSIENT", ())


def log_after_an_error(patch: pytest.MonkeyPatch) -> None:
    """The error that ended a log is forgotten when all were told."""
    end_all = GroupCommit._end_all

    async def forget(self: GroupCommit, cause: BaseException) -> None:
        await end_all(self, cause)
        self._driver.loop.call_later(1e-4, setattr, self, "_error", None)

    patch.setattr(GroupCommit, "_end_all", forget)


def acknowledge_too_early(patch: pytest.MonkeyPatch) -> None:
    """A log acknowledges a batch when its write begins."""
    write = GroupCommit._write

    async def too_early(self: GroupCommit, batch: Any, begun: Any) -> None:
        batch.settle()
        await write(self, batch, begun)

    patch.setattr(GroupCommit, "_write", too_early)


def write_without_dsync(patch: pytest.MonkeyPatch) -> None:
    """A log acknowledges what is not on the disk yet."""
    patch.setattr(Shape, "flags", os.O_RDWR | os.O_CLOEXEC)


def write_the_last_first(patch: pytest.MonkeyPatch) -> None:
    """A Writer takes its records in another order than they came."""
    patch.setattr(Writer, "_take_batch", lambda self: [self._records.pop()])


def hand_out_too_early(patch: pytest.MonkeyPatch) -> None:
    """A pool's buffer is free when it is given back, whoever may touch it still."""
    hand_out, release = BufferPool._hand_out, BufferPool.release
    slots = {}

    def remember(self: BufferPool, slot: int) -> memoryview:
        view = hand_out(self, slot)
        slots[id(view.obj)] = slot
        return view

    def put_back(self: BufferPool, buffer: memoryview) -> None:
        self._put_back(slots[id(buffer.obj)])
        release(self, buffer)

    patch.setattr(BufferPool, "_hand_out", remember)
    patch.setattr(BufferPool, "release", put_back)


def lose_what_failed(patch: pytest.MonkeyPatch) -> None:
    """A file object does not write again what could not be written."""

    async def write_queue(self: WriteBack) -> None:
        await real(self)
        self._queue.clear()
        self.size = 0

    real = WriteBack._write_queue
    patch.setattr(WriteBack, "_write_queue", write_queue)


@pytest.mark.parametrize(
    ("mutation", "found"),
    [
        (write_the_last_first, "a gap|out of order"),
        (hand_out_too_early, "the same buffer|handed out|never came back|block .* is wrong"),
        (lose_what_failed, "instead of|does not hold|another size"),
        (log_after_an_error, "acknowledged after an error|after OSError"),
        (acknowledge_too_early, "is not there|not durable"),
        (write_without_dsync, "not durable"),
        (forget_memory, "memory of .* was released"),
        (keep_no_pin, "can be resized|a buffer is handed out"),
        (close_at_once, "was closed|is another file|has not waited"),
        (let_go_when_cancelled, "was closed|is another file|has not waited"),
        (forget_sync_errors, "succeeds after one failed"),
        (complete_twice, "came twice"),
        (trust_gathered_writes, "byte .* of a read|the size is|bytes at"),
        (lose_a_flush, "nothing is left that could happen|it does not end"),
    ],
)
def test_that_it_would_notice(
    mutation: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    _, failed = simulate(0, 50 * LIFE)
    assert failed is not None, "not noticed"
    with pytest.raises(type(failed.failure), match=found):
        raise failed.failure  # type: ignore[misc]
