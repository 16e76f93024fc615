"""Takes fixes out, one at a time, and expects the tests that guard them to fail.

python -m tests.mutations [PART OF A NAME ...]

Each mutation is an edit of the source, made in a copy of the tree. A test that passes all the
same proves nothing, and is printed. Those that need a rig (tests/README.md) want root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_COPIED = ("src", "csrc", "tests", "pyproject.toml", "setup.py")

# A test that hangs has failed.
_PATIENCE = 20


@dataclass(frozen=True)
class Mutation:
    #: What is no longer so.
    name: str
    file: str
    old: str
    new: str
    #: They must fail.
    tests: Sequence[str]
    #: Other edits (file, old, new), where it takes more than one.
    more: Sequence[tuple[str, str, str]] = ()

    def edits(self) -> list[tuple[str, str, str]]:
        return [(self.file, self.old, self.new), *self.more]


MUTATIONS = [
    # ---- memory ----
    Mutation(
        "the in-flight table keeps the buffer",
        "src/uringfile/_driver.py",
        "            self._submitted += 1\n",
        "            self._submitted += 1\n"
        "            operation.request = (operation.opcode, *(None,) * 5)\n",
        [
            "test_lifetime.py::test_cancelled_reads_keep_their_memory",
            "test_lifetime.py::test_cancelled_batches_and_buffers_keep_their_memory",
            "test_driver.py::test_cancel_releases_the_caller_and_keeps_the_buffer",
        ],
    ),
    Mutation(
        "a buffer in flight is exported, not copied",
        "src/uringfile/_native_engine.py",
        '    return ffi.from_buffer("char[]", buffer, require_writable=writable)\n',
        '    return ffi.from_buffer("char[]", bytearray(buffer), require_writable=writable)\n',
        ["test_scenarios_files.py::test_a_buffer_in_flight_cannot_be_resized"],
    ),
    Mutation(
        "an address within pinned memory keeps the pin",
        "src/uringfile/_native_engine.py",
        "    return ffi.gc(pinned + start, lambda _: pinned)",
        "    return pinned + start",
        ["test_lifetime.py::test_a_pinned_memoryview_keeps_what_it_shows"],
    ),
    Mutation(
        "no memoryview stands in a cycle with who has it exported (before Python 3.12.7)",
        "src/uringfile/_native_engine.py",
        "_MEMORYVIEW_IN_GARBAGE_CRASHES = _COUNTS_REFERENCES and sys.version_info < (3, 12, 7)",
        "_MEMORYVIEW_IN_GARBAGE_CRASHES = False",
        ["test_lifetime.py::test_a_pinned_memoryview_in_garbage"],
    ),
    # ---- descriptors ----
    Mutation(
        "close() waits for those who hold the descriptor",
        "src/uringfile/_closing.py",
        "        while descriptor.holders:\n",
        "        while False:\n",
        [
            "test_scenarios_hung.py::test_writes_and_syncs_that_hang",
            "test_closing.py::test_a_direct_write_of_many_pieces_is_waited_for",
            "test_driver.py::test_close_ends_pending_reads_and_waits_for_writes",
        ],
    ),
    Mutation(
        "a number is given back when nothing holds it",
        "src/uringfile/_openfile.py",
        "            or descriptor.holders\n",
        "",
        [
            "test_lifetime.py::test_never_another_files_data",
            "test_scenarios_process.py::test_a_number_that_is_another_files_at_once",
        ],
    ),
    Mutation(
        "the loop does not wait for a close(2) that nobody asked for",
        "src/uringfile/_fd.py",
        "    if not at_once and _in_event_loop() and not close_in_thread(fd):\n",
        "    if False:\n",
        [
            "test_close_waits.py::test_an_unclosed_file_that_is_collected",
            "test_close_waits.py::test_a_file_that_is_detached",
            "test_close_waits.py::test_a_cancelled_open",
        ],
    ),
    Mutation(
        "nor for that of a duplicate",
        "csrc/lanes.c",
        "(may_wait || uf_close_in_thread(fd))",
        "(1 || may_wait)",
        ["test_close_waits.py::test_a_read_that_ends_when_its_file_is_closed"],
    ),
    Mutation(
        "a descriptor that comes too late is closed",
        "src/uringfile/_open.py",
        "driver, opcode, NO_DESCRIPTOR, memory, permissions, flags, on_orphan",
        "driver, opcode, NO_DESCRIPTOR, memory, permissions, flags, None",
        ["test_lifetime.py::test_cancelled_opens_leak_nothing"],
    ),
    Mutation(
        "so is one that a thread has opened for a coroutine that was closed",
        "src/uringfile/_open.py",
        "    except BaseException:  # also a coroutine that is closed instead of cancelled\n",
        "    except asyncio.CancelledError:\n",
        ["test_closing.py::test_a_coroutine_that_is_closed_leaves_no_descriptor"],
    ),
    Mutation(
        "who is out of descriptors goes on with those there are",
        "csrc/lanes.c",
        "\tif (ret == -EMFILE || ret == -ENFILE) {",
        "\tif (0) {",
        ["test_lifetime.py::test_out_of_descriptors"],
    ),
    Mutation(
        "an engine that cannot start leaves nothing",
        "csrc/engine.c",
        "\tif (ret) {\n\t\tclose(engine->eventfd);\n",
        "\tif (ret) {\n",
        ["test_scenarios_process.py::test_whoever_comes_last_gets_no_descriptor"],
    ),
    # ---- cancelling ----
    Mutation(
        "who is cancelled does not wait for the kernel",
        "src/uringfile/_driver.py",
        "            self.abandon(operation, future)\n            raise\n",
        "            self.abandon(operation, future)\n"
        "            while operation.token in self._in_flight:\n"
        "                await asyncio.sleep(0.01)\n"
        "            raise\n",
        [
            "test_driver.py::test_cancel_releases_the_caller_and_keeps_the_buffer",
            "test_scenarios_hung.py::test_a_timeout_holds_up_nobody",
            "test_scenarios_hung.py::test_a_storm_of_cancellations",
        ],
    ),
    Mutation(
        "what waits for room is cancelled, too",
        "src/uringfile/_driver.py",
        "        if self._queue.pop(token, None) is not None or self._held.remove(operation):\n",
        "        if self._queue.pop(token, None) is not None:\n",
        [
            "test_held.py::test_a_cancellation_lets_in_the_others",
            "test_held.py::test_closing_ends_what_is_held_back",
        ],
    ),
    Mutation(
        "a coroutine that is closed cancels its operation",
        "src/uringfile/_driver.py",
        "        except BaseException:  # also a coroutine that is closed instead of cancelled\n",
        "        except asyncio.CancelledError:\n",
        ["test_closing.py::test_a_coroutine_that_is_closed_abandons_its_operation"],
    ),
    Mutation(
        "a cancellation that the engine has no room for is asked for again",
        "src/uringfile/_driver.py",
        "            self._refused_cancels.append(operation)\n",
        "            pass\n",
        ["test_closing.py::test_a_refused_cancellation_is_asked_for_again"],
    ),
    # ---- close ----
    Mutation(
        "close() tells those who read",
        "src/uringfile/_openfile.py",
        "        driver.cancel_holders(descriptor, writes=self._stream_io is not None,"
        " filename=self.name)\n",
        "",
        [
            "test_lifetime.py::test_close_releases_a_pending_reader",
            "test_closing.py::test_a_read_does_not_go_on_after_close",
            "test_scenarios_hung.py::test_close_of_a_file_that_hangs",
        ],
        [
            (
                "src/uringfile/_driver.py",
                "        if descriptor.closing and opcode & KIND == READ:\n",
                "        if False:\n",
            )
        ],
    ),
    Mutation(
        "close() does not wait for reads that nobody waits for",
        "src/uringfile/_closing.py",
        "                if self._driver.holds_only_lost_reads(descriptor):\n",
        "                if False:\n",
        [
            "test_lifetime.py::test_timeout",
            "test_closing.py::test_close_does_not_wait_for_reads_that_hang",
            "test_scenarios_hung.py::test_close_of_a_file_that_hangs",
        ],
        [
            (
                "src/uringfile/_driver.py",
                "        elif ret == -errno.EALREADY:\n",
                "        elif False:\n",
            )
        ],
    ),
    Mutation(
        "a close whose task is cancelled before its first step closes",
        "src/uringfile/_closing.py",
        "        elif not self._begun:",
        "        elif False:",
        ["test_closing.py::test_the_loop_ends_when_a_close_has_just_begun"],
    ),
    Mutation(
        "close() is heard of by those who wait for their turn at a stream",
        "src/uringfile/_streamio.py",
        "        if self._descriptor.closing:\n",
        "        if False:\n",
        ["test_closing.py::test_streams_tell_those_who_wait_for_their_turn"],
    ),
    Mutation(
        "a file is closed also where no thread starts any more",
        "src/uringfile/_open.py",
        "        except RuntimeError:",
        "        except ZeroDivisionError:",
        ["test_closing.py::test_an_executor_that_is_shut_down"],
    ),
    Mutation(
        "close() closes the second descriptor of O_DIRECT",
        "src/uringfile/_closing.py",
        "                await self._direct_io.close()\n",
        "                pass\n",
        ["test_closing.py::test_a_direct_write_that_needs_the_second_descriptor"],
    ),
    Mutation(
        "so does the end of a file that was never closed",
        "src/uringfile/_openfile.py",
        "(self, descriptor: Descriptor) -> None:\n        if self._direct_io is not None:\n",
        "(self, descriptor: Descriptor) -> None:\n        if False:\n",
        ["test_closing.py::test_the_second_descriptor_of_an_unclosed_file"],
    ),
    Mutation(
        "a close that is cancelled goes on",
        "src/uringfile/_openfile.py",
        "shield(self._closing.task)",
        "self._closing.task",
        ["test_lifetime.py::test_cancelling_at_every_await"],
        [
            (
                "src/uringfile/_closing.py",
                " failed\n            self._drop()\n",
                "\n            pass\n",
            ),
            (
                "src/uringfile/_closing.py",
                "        elif not self._begun:",
                "        elif False:",
            ),
        ],
    ),
    # ---- files that hang ----
    Mutation(
        "one file has its share of the engine, and no more",
        "src/uringfile/_held.py",
        "        if descriptor.admitted and descriptor.admitted >= min(",
        "        if False and descriptor.admitted >= min(",
        [
            "test_held.py::test_one_that_hangs_takes_half_the_next_a_quarter",
            "test_scenarios_hung.py::test_several_hung_files",
        ],
    ),
    Mutation(
        "one file has its share of the kernel's workers, and no more",
        "src/uringfile/_held.py",
        "        most = self._worker_share if opcode & ASYNC else self._capacity // 2\n",
        "        most = self._capacity // 2\n",
        ["test_scenarios_hung.py::test_hung_reads_take_few_workers"],
    ),
    Mutation(
        "POSIX AIO has threads for those that hang and for others",
        "csrc/engine_posix_aio.c",
        "#define WORKERS 128\n",
        "#define WORKERS 1\n",
        [
            "test_lifetime.py::test_other_files_go_on",
            "test_scenarios_hung.py::test_other_files_go_on",
        ],
    ),
    Mutation(
        "an idle engine of POSIX AIO takes no thread",
        "csrc/posix_notifier.c",
        " == ETIMEDOUT)\n\t\tdisarm_wake(engine);\n",
        " == ETIMEDOUT)\n\t\t;\n",
        ["test_closing.py::test_idle_engines_leave_the_workers_to_others"],
    ),
    # ---- the end of a loop, and of the process ----
    Mutation(
        "nobody is woken when the loop is closed",
        "src/uringfile/_ending.py",
        "    operation.holds.forget_waiters()\n",
        "",
        ["test_driver.py::test_nobody_is_woken_when_the_loop_is_closed"],
    ),
    Mutation(
        "the end of a loop waits for some time only",
        "src/uringfile/_ending.py",
        "            if not in_flight or left <= 0:\n",
        "            if not in_flight:\n",
        [
            "test_lifetime.py::test_a_hung_read_at_the_end",
            "test_lifetime.py::test_interrupted_by_sigint",
            "test_scenarios_hung.py::test_the_end_of_the_loop",
        ],
    ),
    Mutation(
        "the end of a loop destroys its engine",
        "src/uringfile/_ending.py",
        "        leak_all(in_flight)\n        engine.destroy()\n",
        "        leak_all(in_flight)\n",
        [
            "test_lifetime.py::test_a_hundred_loops_leave_nothing",
            "test_lifetime.py::test_loops_that_are_never_closed",
            "test_lifetime.py::test_uvloop",
            "test_closing.py::test_a_loop_that_is_dropped_with_a_read_pending",
        ],
    ),
    Mutation(
        "nothing but its loop keeps a driver",
        "src/uringfile/_ending.py",
        "drivers: weakref.WeakSet[Driver] = weakref.WeakSet()\n",
        "drivers: set[Driver] = set()\n",
        [
            "test_lifetime.py::test_loops_that_are_never_closed",
            "test_closing.py::test_a_loop_that_is_dropped_with_a_read_pending",
        ],
    ),
    Mutation(
        "the loop is not patched",
        "src/uringfile/_loop.py",
        "        driver = Driver(loop, opened, reason)\n",
        "        driver = Driver(loop, opened, reason)\n"
        "        loop.__dict__['_uringfile_driver'] = driver\n",
        ["test_lifetime.py::test_drivers_are_found_without_patching_the_loop"],
    ),
    Mutation(
        "each loop has a driver of its own",
        "src/uringfile/_loop.py",
        "        drivers = _by_loop.get(loop)\n",
        "        drivers = next(iter(_by_loop.values()), None)\n",
        ["test_lifetime.py::test_sixteen_loops_in_sixteen_threads"],
    ),
    Mutation(
        "a file of another loop is refused",
        "src/uringfile/_openfile.py",
        "        if not runs_here(driver):\n",
        "        if False:\n",
        [
            "test_lifetime.py::test_a_file_that_outlives_its_loop",
            "test_scenarios_process.py::test_a_foreign_loop_is_refused_before_anything_starts",
        ],
    ),
    Mutation(
        "interpreter exit ends the engines",
        "src/uringfile/_ending.py",
        "@atexit.register\ndef _end_all",
        "def _end_all",
        ["test_closing.py::test_interpreter_exit_ends_the_engines"],
    ),
    # ---- fork ----
    Mutation(
        "a child drops its parent's drivers",
        "src/uringfile/_ending.py",
        "os.register_at_fork(after_in_child=_forget_all)\n",
        "",
        ["test_lifetime.py::test_a_child_cannot_use_its_parents_file"],
    ),
    Mutation(
        "a driver that has ended is not ended once more in a child",
        "src/uringfile/_driver.py",
        "        if self._finalizer.detach():\n            self.engine.destroy()\n",
        "        self._finalizer.detach()\n        self.engine.destroy()\n",
        ["test_lifetime.py::test_fork_after_a_loop_has_ended"],
    ),
    Mutation(
        "the engines of a child know that it is one",
        "csrc/engine.c",
        "\tuf_forks++;\n",
        "",
        [
            "test_contract.py::test_8_a_forked_child_cannot_touch_the_ring",
            "test_lifetime.py::test_fork_in_use",
            "test_scenarios_process.py::test_fork_with_reads_that_hang_on_both_sides",
        ],
    ),
    Mutation(
        "a child has no pages of its parent's ring",
        "csrc/ring.c",
        "\tif (uf_fault(UF_FAULT_MMAP) || madvise(p, size, MADV_DONTFORK)) {\n",
        "\tif (uf_fault(UF_FAULT_MMAP)) {\n",
        ["test_contract.py::test_8_a_forked_child_cannot_touch_the_ring"],
    ),
    # ---- fairness ----
    Mutation(
        "what is cached yields the loop",
        "src/uringfile/_turns.py",
        "TURN_BUDGET = 256\n",
        "TURN_BUDGET = 1 << 60\n",
        [
            "test_lifetime.py::test_a_cached_reader_lets_others_run",
            "test_closing.py::test_readers_of_cached_data_share_the_loop",
        ],
    ),
    Mutation(
        "a loop stays awake for a moment only",
        "src/uringfile/_poll.py",
        "        elif time.perf_counter() < self._until:\n",
        "        elif True:\n",
        ["test_lifetime.py::test_an_idle_process_costs_nothing"],
    ),
    # ---- what the kernel refuses, or has lost ----
    Mutation(
        "what a ring takes no more fails",
        "csrc/engine_uring.c",
        "\t\treturn passing(ret) ? ret : uring_fail_staged(base, ret);\n",
        "\t\treturn ret;\n",
        ["test_scenarios_process.py::test_refused_at_a_later_ring"],
    ),
    Mutation(
        "a ring that is interrupted for ever gives the loop back",
        "csrc/ring.c",
        "\t\tif (ret == -EINTR && --tries)\n",
        "\t\tif (ret == -EINTR)\n",
        ["test_faults.py::test_a_kernel_that_takes_nothing_does_not_hold_the_loop"],
    ),
    Mutation(
        "so does one whose thread is not woken",
        "csrc/ring.c",
        "\t\tif (!tries--)\n\t\t\treturn -EAGAIN;\n",
        "",
        ["test_faults.py::test_a_kernel_thread_that_is_not_woken_does_not_hold_the_loop"],
    ),
    Mutation(
        "a failed sync fails for ever",
        "src/uringfile/_inodefile.py",
        "        if -ret in _LASTING_SYNC_ERRORS and self._sync_error is None:\n",
        "        if False:\n",
        [
            "test_driver.py::test_failed_fsync_sticks",
            "test_scenarios_disk.py::test_a_lost_write_back",
        ],
    ),
]


def stale(mutation: Mutation) -> list[str]:
    """What it takes out and is not there: the source has changed."""
    return [
        f"{file} does not hold once: {old!r}"
        for file, old, _ in mutation.edits()
        if (ROOT / file).read_text().count(old) != 1
    ]


def apply(mutation: Mutation, tree: Path) -> None:
    """In that tree."""
    for file, old, new in mutation.edits():
        path = tree / file
        path.write_text(path.read_text().replace(old, new))


def copy_of_the_tree(where: Path) -> Path:
    tree = where / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


def survives(tree: Path, test: str) -> str | None:
    """Why the test is no proof, or ``None`` when it fails, crashes or hangs."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    with subprocess.Popen(
        [*command, f"--timeout={_PATIENCE}", f"tests/{test}"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=3 * _PATIENCE)
        except subprocess.TimeoutExpired:  # what ends a test may hang, too
            os.killpg(process.pid, signal.SIGKILL)
            return None
    if process.returncode == 1 or process.returncode < 0:
        return None
    if process.returncode:
        return f"did not run: {output[-2000:]}"
    return "is skipped" if " passed" not in output else "passes"


def run(mutation: Mutation) -> list[str]:
    """What is wrong with the mutation, or with its tests."""
    if missing := stale(mutation):
        return [f"{mutation.name}: {line}" for line in missing]
    with tempfile.TemporaryDirectory(prefix="mutation") as where:
        tree = copy_of_the_tree(Path(where))
        apply(mutation, tree)
        if mutation.file.startswith("csrc/"):
            command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            subprocess.run(command, cwd=tree, check=True, capture_output=True)
        wrong = []
        for test in mutation.tests:
            start = time.monotonic()
            why = survives(tree, test)
            took = f"{time.monotonic() - start:.1f} s"
            print(f"    {test} {why or 'fails'}  ({took})", flush=True)
            if why is not None:
                wrong.append(f"{mutation.name}: {test} {why}")
        return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("part", nargs="*", help="of the names of those to make; default all")
    parts = parser.parse_args().part
    chosen = [one for one in MUTATIONS if not parts or any(part in one.name for part in parts)]
    wrong = []
    for mutation in chosen:
        print(f"no longer: {mutation.name}", flush=True)
        wrong += run(mutation)
    tests = {test for mutation in chosen for test in mutation.tests}
    print(f"{len(chosen)} mutations, {len(tests)} tests")
    for line in wrong:
        print("NOT NOTICED:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
