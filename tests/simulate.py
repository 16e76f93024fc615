"""python -m tests.simulate: the seeded simulation, for as long as you like.

Each seed is a small world that lives for a few thousand steps; the next seed is the next world.
What goes wrong is printed with the command that replays it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from simulation.actor import Actor, Finding
from simulation.files import FileUser
from simulation.logs import LogUser
from simulation.objects import ObjectUser
from simulation.pools import PoolUser, WriterUser
from simulation.world import World

KINDS: dict[str, type[Actor]] = {
    "file": FileUser,
    "log": LogUser,
    "object": ObjectUser,
    "pool": PoolUser,
    "writer": WriterUser,
}

# A world ends after so many steps.
LIFE = 2000

# Seconds spent on looking for a shorter way to the same kind of failure.
_SHRINKING = 20


def world(seed: int, steps: int = LIFE, only: Sequence[str] | None = None) -> World:
    rng = Random(f"kinds {seed}")
    names = only or list(KINDS)
    kinds = [KINDS[rng.choice(names)] for _ in range(rng.choice([1, 1, 2, 3]))]
    return World(seed, steps, kinds)


def simulate(seed: int, steps: int, only: Sequence[str] | None = None) -> tuple[int, World | None]:
    """Worlds from that seed on, for so many steps: how many were taken, and the one that
    failed."""
    done = 0
    while done < steps:
        one = world(seed, min(LIFE, steps - done), only)
        try:
            one.run()
        except Finding:
            return done + one.steps, one
        done += one.steps
        seed += 1
    return done, None


def shortest(failed: World, only: Sequence[str] | None) -> tuple[World, Sequence[str] | None]:
    """A world that fails sooner, with one kind of actor if there is such a one."""
    best, kinds = failed, only
    deadline = time.monotonic() + _SHRINKING
    names = sorted({name for name, kind in KINDS.items() for user in failed.kinds if user is kind})
    seed = failed.seed
    while time.monotonic() < deadline:
        seed += 1
        for name in names:
            one = world(seed, min(LIFE, best.steps), [name])
            try:
                one.run()
            except Finding:
                if one.steps < best.steps:
                    best, kinds = one, [name]
    return best, kinds


def replay_command(failed: World, only: Sequence[str] | None) -> str:
    which = f" --only {','.join(only)}" if only else ""
    return f"python -m tests.simulate --seed {failed.seed} --steps {failed.limit}{which}"


def report(failed: World, only: Sequence[str] | None) -> None:
    for event in list(failed.events)[-100:]:
        print(*event)
    assert failed.failure is not None
    traceback.print_exception(failed.failure)
    print(f"FAILED after {failed.steps} steps: {failed.failure}")
    print("replay:", replay_command(failed, only))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first world; by default, the time")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--only", help=f"kinds of actors, of {','.join(KINDS)}")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter way to fail")
    args = parser.parse_args()
    seed = time.time_ns() % 10**9 if args.seed is None else args.seed
    only = args.only.split(",") if args.only else None
    start = time.perf_counter()
    done, failed = simulate(seed, args.steps, only)
    if failed is not None:
        report(failed, only)
        if args.shrink:
            report(*shortest(failed, only))
        return 1
    rate = done / (time.perf_counter() - start)
    print(f"seeds from {seed} on: {done} steps without a finding, {rate:,.0f} steps/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
