"""examples/kv.py: what was acknowledged is there, whatever happens in between."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run
from example_programs import EXAMPLES, load, run_command

from uringfile import ClosedFileError, CorruptLogError, LogReader, LogWriter

EXAMPLE = EXAMPLES / "kv.py"
kv = load("kv")


@pytest.fixture
def path(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the store is to be; on each engine."""
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    return tmp_path / "data.kv"


async def content(path: Path) -> dict[bytes, bytes]:
    async with kv.Store(path) as store:
        found = {key: value async for key, value in store.items()}
        assert sorted(store) == sorted(found)
        assert len(store) == len(found)
        return found


def test_put_get_delete(path: Path) -> None:
    async def main() -> None:
        async with kv.Store(path) as store:
            assert await store.get(b"a") is None
            await store.put(b"a", b"1")
            await store.put(b"b", b"")
            await store.put(b"", b"empty key")
            await store.put(b"a", b"new")
            await store.delete(b"c")
            assert await store.get_many([b"a", b"x", b"b", b""]) == [
                b"new",
                None,
                b"",
                b"empty key",
            ]
            await store.delete(b"b")
            assert b"a" in store
            assert b"b" not in store
            with pytest.raises(BlockingIOError):
                await kv.Store(path).open()
        for call in (store.put(b"a", b"b"), store.get(b"a"), store.compact()):
            with pytest.raises(ClosedFileError):
                await call
        assert await content(path) == {b"a": b"new", b"": b"empty key"}

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_random_changes(path: Path) -> None:
    """Also many at a time on few keys, through compactions and reopening."""
    rng = random.Random(1)

    async def main() -> None:
        expected: dict[bytes, bytes] = {}
        for _ in range(6):
            async with kv.Store(path) as store:
                for _ in range(10):
                    calls: list[Awaitable[Any]] = []
                    for _ in range(rng.randrange(20)):
                        key = b"%d" % rng.randrange(8)
                        if rng.random() < 0.3:
                            expected.pop(key, None)
                            calls.append(store.delete(key))
                        else:
                            expected[key] = rng.randbytes(rng.choice([0, 5, 5000]))
                            calls.append(store.put(key, expected[key]))
                    if rng.random() < 0.3:
                        calls.insert(rng.randrange(len(calls) + 1), store.compact())
                    await asyncio.gather(*calls)
                    found = await store.get_many([b"%d" % i for i in range(8)])
                    assert found == [expected.get(b"%d" % i) for i in range(8)]
            assert await content(path) == expected

    run(main())


def test_a_cancelled_change_is_in_the_index_if_it_is_in_the_file(path: Path) -> None:
    async def main() -> None:
        async with kv.Store(path) as store:
            for turns in range(12):
                task = asyncio.create_task(store.put(b"key", b"%d" % turns))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await store.put(b"other", b"")
            last = await store.get(b"key")
        assert last is not None
        assert (await content(path))[b"key"] == last

    run(main())


def test_the_last_change_of_a_key_counts_whichever_is_heard_of_first() -> None:
    changes = [kv.change(kv.PUT, b"k", b"old"), kv.change(kv.DELETE, b"k"), kv.change(1, b"x")]
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0), (2, 1, 0)):
        index = kv.Index()
        for i in order:
            index.apply(changes[i], 100 * (i + 1))
        assert index == {b"x": kv.Place(300, 0)}
        assert (index.live, index.end) == (kv.record_size(b"x", 0), 300)


def test_close_while_changes_wait_for_a_compaction(path: Path) -> None:
    async def main() -> None:
        store = await kv.Store(path).open()
        compaction = asyncio.create_task(store.compact())
        while store._may_write.is_set():
            await asyncio.sleep(0)
        change = asyncio.create_task(store.put(b"a", b"1"))
        await asyncio.sleep(0)
        await store.close()
        await compaction
        done, _ = await asyncio.wait([change], timeout=20)
        assert done
        if change.exception() is None:  # it was before the close
            assert await content(path) == {b"a": b"1"}
        else:
            assert isinstance(change.exception(), ClosedFileError)
            assert await content(path) == {}

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_every_truncation(path: Path) -> None:
    """The state after some change, which is the last one that is whole."""

    async def main() -> None:
        states: list[tuple[int, dict[bytes, bytes]]] = [(0, {})]
        async with kv.Store(path) as store:
            for i in range(6):
                key = b"%d" % (i % 3)
                if i == 4:
                    await store.delete(key)
                else:
                    await store.put(key, b"x" * i)
                state = {key: value async for key, value in store.items()}
                states.append((path.stat().st_size, state))
        data = path.read_bytes()
        for size in range(len(data) + 1):
            path.write_bytes(data[:size])
            expected = [state for end, state in states if end <= size][-1]
            assert await content(path) == expected

    run(main())


def test_damage_is_told_and_can_be_cut(path: Path) -> None:
    async def main() -> None:
        async with kv.Store(path) as store:
            for i in range(3):
                await store.put(b"%d" % i, b"value")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        before = open_fds()
        with pytest.raises(CorruptLogError):
            await kv.Store(path).open()
        assert open_fds() == before

    run(main())
    failed = command(path, "list")
    assert failed.returncode == 2
    assert "an invalid record at offset" in failed.stderr
    assert "'repair' cuts off" in failed.stderr
    assert command(path, "repair").stdout == "19 bytes kept, 38 cut\n"
    assert command(path, "list").stdout == "0\tvalue\n"


# ---- kill -9 -----------------------------------------------------------------------------

WRITE = """
import asyncio, importlib.util, os, sys
spec = importlib.util.spec_from_file_location("kv", sys.argv[1])
kv = importlib.util.module_from_spec(spec)
sys.modules["kv"] = kv
spec.loader.exec_module(kv)

async def count(store, task, start):
    for i in range(start, 10**9):
        await store.put(b"%d" % task, b"%d " % i * 500)
        os.write(1, b"%d %d\\n" % (task, i))

async def compact(store):
    while True:
        await store.compact()
        await asyncio.sleep(0.005)

async def main():
    async with kv.Store(sys.argv[2]) as store:
        tasks = [count(store, task, int(sys.argv[3])) for task in range(4)]
        await asyncio.gather(compact(store), *tasks)

asyncio.run(main())
"""


def test_killed_at_any_moment(path: Path) -> None:
    """In the middle of writes and of compactions: a value is the acknowledged one, or the
    one that was being written."""
    rng = random.Random()
    acknowledged = [-1] * 4
    for _ in range(int(os.environ.get("URINGFILE_KILLS", "6"))):
        start = str(max(acknowledged) + 1)
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(EXAMPLE), str(path), start], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        lines = [child.stdout.readline()]  # it is running
        time.sleep(rng.random() * 0.2)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines()
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        for line in lines:
            task, i = map(int, line.split())
            acknowledged[task] = max(acknowledged[task], i)
        found = run(content(path))
        for task, last in enumerate(acknowledged):
            value = found.get(b"%d" % task, b"")
            numbers = set(map(int, value.split()))
            if not numbers and last < 0:
                continue
            assert len(numbers) == 1
            (number,) = numbers
            assert value == b"%d " % number * 500
            assert number in (last, last + 1) or number == int(start)
            acknowledged[task] = number


# ---- compaction ---------------------------------------------------------------------------


def test_compaction_frees_what_is_no_longer_used(path: Path) -> None:
    async def main() -> None:
        async with kv.Store(path) as store:
            for i in range(50):
                await store.put(b"%d" % (i % 5), b"x" * i)
            await store.delete(b"0")
            assert store.garbage > 0
            size = path.stat().st_size
            garbage = store.garbage
            await store.compact()
            assert path.stat().st_size == size - garbage
            assert store.garbage == 0
            await store.put(b"after", b"it")
            expected = {key: value async for key, value in store.items()}
        assert await content(path) == expected
        assert sorted(os.listdir(path.parent)) == ["data.kv", "data.kv.lock"]

    run(main())


def test_reads_and_changes_go_on_during_compaction(path: Path) -> None:
    async def compact_often(store: Any) -> None:
        for _ in range(20):
            await store.compact()

    async def main() -> None:
        async with kv.Store(path) as store:
            await asyncio.gather(*[store.put(b"%d" % i, b"x" * 2000) for i in range(1000)])
            expected = {b"%d" % i: b"x" * 2000 for i in range(1000)}
            compaction = asyncio.create_task(compact_often(store))
            changes = 0
            while not compaction.done():
                key = b"%d" % (changes * 7 % 1500)
                expected[key] = b"%d" % changes
                await store.put(key, expected[key])
                if changes % 3 == 0:
                    del expected[key]
                    await store.delete(key)
                keys = [b"%d" % i for i in range(changes % 10, 1500, 10)]
                assert await store.get_many(keys) == [expected.get(key) for key in keys]
                changes += 1
            await compaction
            assert changes > 20
            assert {key: value async for key, value in store.items()} == expected
        assert await content(path) == expected

    run(main())


def test_a_change_that_is_heard_of_late_is_not_lost_in_compaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = LogWriter.append

    async def slow(log: LogWriter, record: bytes) -> int:
        end = await append(log, record)
        if record.endswith(b"slow"):
            await asyncio.sleep(0.05)
        return end

    monkeypatch.setattr(LogWriter, "append", slow)

    async def main() -> None:
        async with kv.Store(path) as store:
            task = asyncio.create_task(store.put(b"a", b"slow"))
            await asyncio.sleep(0)
            await store.put(b"b", b"fast")
            assert not task.done()
            await store.compact()
            await task
            assert await store.get_many([b"a", b"b"]) == [b"slow", b"fast"]
        assert await content(path) == {b"a": b"slow", b"b": b"fast"}

    run(main())


CRASH = """
import asyncio, fcntl, importlib.util, inspect, os, sys
import uringfile
spec = importlib.util.spec_from_file_location("kv", sys.argv[1])
kv = importlib.util.module_from_spec(spec)
sys.modules["kv"] = kv
spec.loader.exec_module(kv)

def die_at(owner, name, nth, before):
    function = getattr(owner, name)
    calls = 0
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth and before:
            os._exit(9)
        result = function(*args, **kwargs)
        if calls != nth:
            return result
        return die_after(result) if inspect.iscoroutine(result) else os._exit(9)
    setattr(owner, name, wrapped)

async def die_after(call):
    await call
    os._exit(9)

async def main():
    async with kv.Store(sys.argv[2]) as store:
        for i in range(40):
            await store.put(b"%d" % (i % 20), b"value %d" % i)
        owner, name, nth, before = sys.argv[3].split()
        die_at(eval(owner), name, int(nth), before == "before")
        await store.compact()

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "call",
    [
        "uringfile.LogWriter open 1",
        "uringfile.LogWriter append_nowait 1",
        "uringfile.LogWriter append_nowait 10",
        "uringfile.LogWriter sync 1",
        "uringfile.LogWriter close 1",
        "uringfile.LogWriter close 2",
        "uringfile.os rename 1",
        "uringfile fsync_dir 1",
        "os fsync 1",
        "kv open_log 1",
    ],
)
def test_a_crash_during_compaction(path: Path, call: str, when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(EXAMPLE), str(path), f"{call} {when}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert run(content(path)) == {b"%d" % (i % 20): b"value %d" % i for i in range(20, 40)}
    assert sorted(os.listdir(path.parent)) == ["data.kv", "data.kv.lock"]


def test_an_error_during_compaction_leaves_the_store_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(log: LogWriter) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), log.name)

    async def main() -> None:
        async with kv.Store(path) as store:
            await store.put(b"a", b"1")
            with monkeypatch.context() as patch:
                patch.setattr(LogWriter, "sync", fail)
                with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                    await store.compact()
            assert not os.path.exists(f"{path}.new")
            await store.put(b"a", b"2")
            await store.compact()
            assert await store.get(b"a") == b"2"
            assert store.garbage == 0

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_an_error_after_the_rename_ends_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more may be acknowledged: nobody knows which file a power cut would leave."""

    async def fail(source: str, target: str) -> None:
        os.rename(source, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO), target)

    async def main() -> None:
        store = await kv.Store(path).open()
        await store.put(b"a", b"1")
        monkeypatch.setattr(kv, "replace_durably", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await store.compact()
        for call in (store.put(b"a", b"2"), store.get(b"a")):
            with pytest.raises(ClosedFileError):
                await call
        await store.close()
        assert await content(path) == {b"a": b"1"}

    before = open_fds()
    run(main())
    assert open_fds() == before


def test_compaction_cancelled_at_any_moment(path: Path) -> None:
    async def main() -> None:
        async with kv.Store(path) as store:
            for turns in range(60):
                await store.put(b"%d" % (turns % 3), b"%d" % turns)
                task = asyncio.create_task(store.compact())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert await store.get(b"%d" % (turns % 3)) == b"%d" % turns
            assert sorted(os.listdir(path.parent)) == ["data.kv", "data.kv.lock"]
            expected = {key: value async for key, value in store.items()}
        assert await content(path) == expected

    run(main())


def test_compaction_cancelled_while_its_file_is_opened(path: Path) -> None:
    """The thread that opens it begins only afterwards."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with kv.Store(path) as store:
            executor = ThreadPoolExecutor(1)
            loop.set_default_executor(executor)
            go_on = threading.Event()
            executor.submit(go_on.wait)
            task = asyncio.create_task(store.compact())
            await asyncio.sleep(0.01)
            task.cancel()
            loop.call_later(0.05, go_on.set)
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await loop.run_in_executor(None, int)  # the thread has done what came before
            assert sorted(os.listdir(path.parent)) == ["data.kv", "data.kv.lock"]
            await store.put(b"a", b"1")
            await store.compact()

    run(main())


def test_compaction_does_not_copy_damage(path: Path) -> None:
    """It reads what it copies with its checksum."""

    async def main() -> None:
        async with kv.Store(path) as store:
            for i in range(3):
                await store.put(b"%d" % i, b"value")
            with open(path, "rb+") as file:
                file.seek(25)
                file.write(b"?")
            with pytest.raises(CorruptLogError):
                await store.compact()
            await store.put(b"more", b"")
            async with LogReader(path, framed=True) as log:
                assert await anext(log)

    run(main())


# ---- the command -----------------------------------------------------------------------


def command(path: Path, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_command("kv", path, *args, stdin=stdin)


def test_the_command(path: Path) -> None:
    steps: list[tuple[Callable[[], subprocess.CompletedProcess[str]], int, str]] = [
        (lambda: command(path, "put", "a", "1"), 0, ""),
        (lambda: command(path, "get", "a"), 0, "1\n"),
        (lambda: command(path, "get", "a", "none"), 1, "1\n"),
        (lambda: command(path, "load", stdin="b\t2\nc\t3\t4\nb\tünï\n"), 0, ""),
        (lambda: command(path, "delete", "a"), 0, ""),
        (lambda: command(path, "compact"), 0, f"{15 + 15 + 14} bytes freed\n"),
        (lambda: command(path, "list"), 0, "c\t3\t4\nb\tünï\n"),
        (lambda: command(path / "none", "list"), 2, ""),
    ]
    for step, code, output in steps:
        done = step()
        assert (done.returncode, done.stdout) == (code, output), done.stderr
