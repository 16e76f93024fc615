"""examples/durable_queue.py: what was put in is given out, whatever is killed in between."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import count, open_fds, run
from example_programs import EXAMPLES, load, run_command
from rigs import rig
from test_log_crash import POWER_CUTS, why_no_power_cut

durable_queue = load("durable_queue")


@pytest.fixture
def path(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    return tmp_path / "spool"


def a_queue(path: Path, segment_size: int = 1000) -> Any:
    return durable_queue.Queue(path, segment_size=segment_size, poll=0.01)


async def rest(queue: Any) -> AsyncIterator[Any]:
    while (item := await queue.get_now()) is not None:
        yield item


def segments(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith("log."))


def test_in_order_and_each_once(path: Path) -> None:
    """Across segments, with items that come while others are taken out."""

    async def main() -> None:
        async with a_queue(path) as queue:
            assert await queue.get_now() is None
            await asyncio.gather(*[queue.put(b"%d" % i * 20) for i in range(500)])
            assert await queue.size() == 500
            taken = []
            for i in range(600):
                item = await queue.get()
                taken.append(item.data)
                await queue.ack(item)
                if i < 100:
                    await queue.put(b"%d" % (500 + i) * 20)
            assert taken == [b"%d" % i * 20 for i in range(600)]
            assert await queue.get_now() is None
            assert await queue.size() == 0
            assert len(segments(path)) == 1  # the newest is kept: the next number comes from it
        async with a_queue(path) as queue:
            assert await queue.get_now() is None
            await queue.put(b"more")
            assert (await queue.get()).data == b"more"

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_what_is_not_acknowledged_comes_again(path: Path) -> None:
    async def main() -> None:
        async with a_queue(path) as queue:
            for i in range(60):
                await queue.put(b"%d" % i * 20)
            items = [await queue.get() for _ in range(40)]
            rng = random.Random(1)
            for item in rng.sample(items[:20], 20) + rng.sample(items[21:], 19):
                await queue.ack(item)
            assert await queue.size() == 40
        async with a_queue(path) as queue:
            assert await queue.size() == 40
            assert [item.data async for item in rest(queue)] == [
                b"%d" % i * 20 for i in range(20, 60)
            ]
            with pytest.raises(KeyError):
                await queue.ack(items[0])

    run(main())


def test_many_who_put_and_get(path: Path) -> None:
    async def main() -> None:
        taken: list[bytes] = []
        async with a_queue(path) as queue:

            async def get() -> None:
                while len(taken) < 400:
                    item = await queue.get()
                    taken.append(item.data)
                    await asyncio.sleep(0)
                    await queue.ack(item)

            async def put(task: int) -> None:
                for i in range(100):
                    await queue.put(b"%d %d" % (task, i))

            getters = [asyncio.create_task(get()) for _ in range(3)]
            await asyncio.gather(*map(put, range(4)))
            await asyncio.wait(getters, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            for task in getters:
                task.cancel()
            await asyncio.gather(*getters, return_exceptions=True)
        assert len(taken) == 400
        for task in range(4):
            mine = [int(data.split()[1]) for data in taken if data.startswith(b"%d " % task)]
            assert mine == list(range(100))

    run(main())


def test_cancelled_calls_take_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do they leave anything open."""
    exists = durable_queue.uringfile.os.path.exists

    async def exists_after_a_turn(path: str) -> bool:
        await asyncio.sleep(0)  # as on a tmpfs, which does not remember what is missing
        return bool(await exists(path))

    monkeypatch.setattr(durable_queue.uringfile.os.path, "exists", exists_after_a_turn)
    open_file = durable_queue.AIOFile.open

    async def open_after_a_turn(file: durable_queue.AIOFile) -> int | None:
        await asyncio.sleep(0)  # as in a turn that has had its share
        return await open_file(file)

    monkeypatch.setattr(durable_queue.AIOFile, "open", open_after_a_turn)

    async def main() -> None:
        async with a_queue(path) as queue:
            for i in range(60):
                await queue.put(b"%d" % i * 20)
            taken = []
            for turns in range(200):
                task = asyncio.create_task(queue.get_now())
                for _ in range(turns % 12):
                    await asyncio.sleep(0)
                task.cancel()
                (item,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(item, durable_queue.Item):
                    taken.append(item.data)
                    task = asyncio.create_task(queue.ack(item))
                    for _ in range(turns % 5):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                task = asyncio.create_task(queue.size())
                for _ in range(turns % 7):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            taken += [item.data async for item in rest(queue)]
            assert taken == [b"%d" % i * 20 for i in range(60)]

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_one_who_puts_and_one_who_gets(path: Path) -> None:
    async def main() -> None:
        async with a_queue(path) as first, a_queue(path) as second:
            await first.put(b"1")
            item = await second.get()
            assert item.data == b"1"
            with pytest.raises(BlockingIOError):
                await second.put(b"2")
            with pytest.raises(BlockingIOError):
                await first.get()
            # The other queue notices what is put in.
            waiting = asyncio.create_task(second.get())
            await asyncio.sleep(0)
            await first.put(b"2")
            assert (await asyncio.wait_for(waiting, 20)).data == b"2"

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_a_rotation_that_was_killed_is_taken_back(path: Path) -> None:
    """Between its two steps: the segment has a number, and is still written."""

    async def main() -> None:
        async with a_queue(path, 1 << 20) as queue:
            await queue.put(b"1")
        os.link(path / "log", path / "log.000001")
        async with a_queue(path) as getter:
            assert (await getter.get()).data == b"1"
            assert await getter.get_now() is None
            async with a_queue(path, 1 << 20) as queue:
                await queue.put(b"2")
            assert segments(path) == []
            assert (await getter.get()).data == b"2"

    run(main())


def test_without_its_cursor_everything_comes_again(path: Path) -> None:
    async def main() -> None:
        async with a_queue(path) as queue:
            for i in range(100):
                await queue.put(b"%d" % i * 20)
                await queue.ack(await queue.get())
        left = len(segments(path))
        data = bytearray((path / "cursor").read_bytes())
        data[3] ^= 1
        (path / "cursor").write_bytes(data)
        async with a_queue(path) as queue:
            items = [item.data async for item in rest(queue)]
            assert items[-1] == b"99" * 20
            assert left == 1
            assert 20 <= len(items) < 60

    run(main())


def test_a_log_that_is_shorter_than_the_cursor_says(path: Path) -> None:
    """No crash does that; items that are put in now would be missed."""

    async def main() -> None:
        async with a_queue(path) as queue:
            await queue.put(b"item")
            await queue.ack(await queue.get())
        os.truncate(path / "log", 0)
        async with a_queue(path) as queue:
            with pytest.raises(OSError, match="ends before the cursor"):
                await queue.get()

    before = open_fds()
    run(main())
    assert open_fds() == before


# ---- kill -9 -----------------------------------------------------------------------------

PUT = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from durable_queue import Queue

async def put(queue, task, start):
    for i in range(start, 10**9):
        await queue.put(b"%d %d " % (task, i) * 20)
        os.write(1, b"%d %d\\n" % (task, i))

async def main():
    async with Queue(sys.argv[2], segment_size=20_000) as queue:
        await asyncio.gather(*[put(queue, task, int(sys.argv[3])) for task in range(4)])

asyncio.run(main())
"""

GET = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from durable_queue import Queue

async def main():
    async with Queue(sys.argv[2], poll=0.005) as queue:
        os.write(1, b"begun\\n")
        while True:
            item = await queue.get()
            os.write(1, b"got %s\\n" % item.data)
            await queue.ack(item)
            os.write(1, b"ack\\n")

asyncio.run(main())
"""


def start(code: str, *args: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, str(EXAMPLES), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def kill(child: subprocess.Popen[bytes], lines: list[bytes]) -> list[bytes]:
    """And what it has printed."""
    assert child.stdout is not None
    child.send_signal(signal.SIGKILL)
    found = [*lines, *child.stdout.read().splitlines(keepends=True)]
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    return [line.rstrip(b"\n") for line in found if line.endswith(b"\n")]


def test_killed_at_any_moment(path: Path) -> None:
    """Both sides, again and again: what was acknowledged to who put it in is given out, in
    order; what was acknowledged by who got it does not come again."""
    rng = random.Random()
    put_in: list[tuple[int, int]] = []
    given_out: list[tuple[int, int]] = []
    unacknowledged: set[tuple[int, int]] = set()
    begin = 0
    for _ in range(int(os.environ.get("URINGFILE_KILLS", "2"))):
        putter, getter = start(PUT, path, begin), start(GET, path)
        assert putter.stdout is not None
        assert getter.stdout is not None
        firsts = [putter.stdout.readline()], [getter.stdout.readline()]  # they are running
        time.sleep(rng.random() * 0.25)
        printed = kill(putter, firsts[0])
        put_in += [(int(line.split()[0]), int(line.split()[1])) for line in printed]
        # What was under way may be in the queue, too: its numbers are left out.
        begin = max(i for _, i in put_in) + 2
        again = True
        for line in kill(getter, firsts[1]):
            word, *rest_of_line = line.split(b" ", 1)
            if word == b"got":
                item = parse(rest_of_line[0])
                if again and item in unacknowledged:
                    given_out.remove(item)
                again = False
                given_out.append(item)
                unacknowledged = {item}
            elif word == b"ack":
                unacknowledged = set()

    async def main() -> None:
        async with a_queue(path) as queue:
            items = [parse(item.data) async for item in rest(queue)]
            if items and items[0] in unacknowledged:
                given_out.pop()
            given_out.extend(items)

    run(main())
    assert len(set(given_out)) == len(given_out)
    assert set(put_in) <= set(given_out)
    for task in range(4):
        mine = [i for owner, i in given_out if owner == task]
        assert mine == sorted(mine)


def parse(data: bytes) -> tuple[int, int]:
    task, number = data.split()[:2]
    assert data == b"%s %s " % (task, number) * 20
    return int(task), int(number)


# ---- power ---------------------------------------------------------------------------------

# Puts, and takes out what is some items old, so that segments come and go.
POWER_WRITER = f"""
import asyncio, sys
sys.path.insert(0, {str(EXAMPLES)!r})
from durable_queue import Queue

async def main():
    async with Queue(sys.argv[1] + "/queue", segment_size=6000) as queue:
        for n in range(0, 120, 2):
            await asyncio.gather(*[queue.put(b"%08d:%s" % (i, b"x" * 600)) for i in (n, n + 1)])
            print("ACK", n + 1, flush=True)
            if n >= 6:
                for item in [await queue.get(), await queue.get()]:
                    await queue.ack(item)

asyncio.run(main())
"""

POWER_CHECKER = f"""
import asyncio, sys
sys.path.insert(0, {str(EXAMPLES)!r})
from durable_queue import Queue

async def main(path, last):
    async with Queue(path, segment_size=6000) as queue:
        await queue.put(b"new")
        found = []
        while (item := await queue.get_now()) is not None:
            found.append(item.data)
    assert found.pop() == b"new"
    numbers = [int(data[:8]) for data in found]
    assert numbers == list(range(last + 1))[numbers[0] if numbers else 0:] + [
        n for n in numbers if n > last
    ], (numbers, last)
    assert numbers or last < 0

asyncio.run(main(sys.argv[1] + "/queue", int(sys.argv[2])))
"""


@pytest.mark.timeout(max(120, 60 * POWER_CUTS))
def test_no_power_cut_loses_an_item(tmp_path: Path) -> None:
    """Nor does the cursor go beyond what is left of the log, so that new items are missed."""
    count("io_uring")
    rig("power cuts", why_no_power_cut("ext4"))
    (tmp_path / "writer.py").write_text(POWER_WRITER)
    (tmp_path / "checker.py").write_text(POWER_CHECKER)
    power_cut = Path(__file__).parent / "power_cut.py"
    files = (tmp_path / "writer.py", tmp_path / "checker.py")
    done = subprocess.run(
        [sys.executable, power_cut, "ext4", *files, "--points", str(POWER_CUTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 lost" in done.stdout


# ---- the command -----------------------------------------------------------------------


def test_the_command(path: Path) -> None:
    done = run_command("durable_queue", path, "--segment-size", 100, "put", stdin="one\ntwo\nünf")
    assert done.returncode == 0, done.stderr
    assert run_command("durable_queue", path, "get", "-n", 2).stdout == "one\ntwo\n"
    assert run_command("durable_queue", path, "size").stdout == "1\n"
    assert run_command("durable_queue", path, "get", "-n", 0).stdout == "ünf\n"
    done = run_command("durable_queue", path / "cursor" / "none", "put", "x")
    assert done.returncode == 2
    assert "Not a directory" in done.stderr
