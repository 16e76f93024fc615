"""``python -m uringfile doctor``, and what each refusal of the kernel leads to."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import count
from rigs import rig

import uringfile
from uringfile import _choice, _doctor, _kernel

FILTER = str(Path(__file__).with_name("seccomp_filter.py"))
DISABLED = Path("/proc/sys/kernel/io_uring_disabled")

# What a program does with the default engine, and with io_uring by name.
USES = """
import asyncio, json, sys
import uringfile

async def use(engine):
    async with uringfile.AIOFile(sys.argv[1], "wb+", engine=engine) as file:
        assert await file.write(b"data" * 1024, 4096) == 4096
        await file.fsync()
        assert await file.read(8, 8188) == b"data"
        info = uringfile.engine_info() if engine is None else None
        return info and [info.engine, info.reason]

def outcome(engine):
    try:
        return asyncio.run(use(engine))
    except uringfile.EngineUnavailable as error:
        return ["EngineUnavailable", str(error), error.errno]

json.dump([outcome(None), outcome("io_uring")], sys.stdout)
"""


def run(
    *argv: str, prefix: list[str] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "URINGFILE_ENGINE"}
    return subprocess.run(
        [*(prefix or []), sys.executable, "-W", "error", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environment},
    )


def doctor(
    *argv: str, prefix: list[str] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run("-m", "uringfile", "doctor", *argv, prefix=prefix, **environment)


def uses(path: Path, prefix: list[str]) -> tuple[list[Any], list[Any]]:
    """What the default engine and a forced io_uring make of the kernel that prefix makes."""
    done = run("-c", USES, str(path), prefix=prefix)
    assert done.returncode == 0, done.stderr
    default, forced = json.loads(done.stdout)
    return default, forced


# ---- the command ----------------------------------------------------------------------


def test_json_of_io_uring() -> None:
    count("io_uring")
    done = doctor("--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["engine"] == "io_uring"
    assert report["reason"] is None
    assert report["forced"] is None
    assert report["entries"] > 0
    assert report["capacity"] > 0
    assert {"read", "write", "fsync", "fdatasync"} <= set(report["operations"])
    assert report["kernel"] == os.uname().release
    assert report["uringfile"] == uringfile.__version__
    assert report["io_uring_disabled"] == _kernel.io_uring_disabled()
    assert report["memlock"] == _kernel.memlock()
    assert report["seccomp"] == _kernel.seccomp()


def test_text_of_io_uring() -> None:
    count("io_uring")
    done = doctor(URINGFILE_ENGINE="io_uring")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts["engine"] == "io_uring"
    assert "why" not in facts
    assert facts["URINGFILE_ENGINE"] == "io_uring"
    assert facts["kernel"] == os.uname().release
    assert {"operations", "queue", "seccomp", "RLIMIT_MEMLOCK", "kernel.io_uring_disabled"} <= set(
        facts
    )


def test_posix_aio_by_name() -> None:
    count("posix_aio")
    done = doctor("--json", URINGFILE_ENGINE="posix_aio")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["engine"] == report["forced"] == "posix_aio"
    assert report["reason"] == "URINGFILE_ENGINE asks for it"
    done = doctor(URINGFILE_ENGINE="posix_aio")
    assert done.returncode == 1
    assert re.search(r"^engine +posix_aio$", done.stdout, re.MULTILINE)


def test_unknown_engine_by_name() -> None:
    done = doctor(URINGFILE_ENGINE="windows")
    assert done.returncode == 2
    assert "unknown engine 'windows': io_uring or posix_aio" in done.stdout
    assert not done.stderr


def test_unlimited_and_unknown_facts_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernel, "memlock", lambda: None)
    monkeypatch.setattr(_kernel, "io_uring_disabled", lambda: None)
    monkeypatch.setattr(_kernel, "seccomp", lambda: None)
    text = "\n".join(_doctor.lines(_doctor.examine()))
    assert re.search(r"^RLIMIT_MEMLOCK +unlimited$", text, re.MULTILINE)
    assert re.search(r"^kernel.io_uring_disabled +no such switch$", text, re.MULTILINE)
    assert re.search(r"^seccomp +unknown$", text, re.MULTILINE)


def test_seccomp_profile_is_printed_whole() -> None:
    done = run("-m", "uringfile", "seccomp-profile")
    assert done.returncode == 0
    assert done.stdout == Path(_doctor.__file__).with_name("seccomp.json").read_text()


def test_command_is_required() -> None:
    done = run("-m", "uringfile")
    assert done.returncode == 2
    assert "doctor" in run("-m", "uringfile", "--help").stdout
    assert "--json" in run("-m", "uringfile", "doctor", "--help").stdout


# ---- refusals of the kernel, by strace ------------------------------------------------


@pytest.fixture
def strace() -> Callable[..., list[str]]:
    """The command that makes system calls fail, in a form such as ``"eventfd2:error=EMFILE"``."""
    if shutil.which("strace") is None:
        rig("strace", "strace is not installed")

    def prefix(*faults: str) -> list[str]:
        options = [option for fault in faults for option in ("-e", f"inject={fault}")]
        calls = ",".join(fault.partition(":")[0] for fault in faults)
        quiet = ["-f", "-qq", "-e", "signal=none", "-o", "/dev/null"]
        return ["strace", *quiet, "-e", f"trace={calls}", *options]

    rig("strace", why_no_strace(*prefix("eventfd2:error=EMFILE"), "true"))
    return prefix


@cache
def why_no_strace(*command: str) -> str | None:
    works = subprocess.run(command, capture_output=True, text=True)
    return f"strace does not work here: {works.stderr.strip()}" if works.returncode else None


# Whoever already forbids io_uring where the tests run is named as well.
FORBIDDEN = "security module|seccomp filter|kernel.io_uring_disabled"
REFUSALS = [
    ("io_uring_setup", "EPERM", FORBIDDEN),
    ("io_uring_setup", "ENOSYS", "kernel or sandbox without io_uring|seccomp filter"),
    ("io_uring_setup", "ENOMEM", "locked memory"),
    ("io_uring_setup", "EMFILE", "open files"),
    ("io_uring_setup", "EINVAL", "old kernel"),
    ("io_uring_register", "EPERM", FORBIDDEN),
    ("io_uring_register", "EINVAL", "old kernel"),
    ("io_uring_register", "ENOMEM", "locked memory"),
    ("io_uring_enter", "EPERM", FORBIDDEN),
    ("io_uring_enter", "ENOSYS", "kernel or sandbox without io_uring|seccomp filter"),
    ("io_uring_enter", "EINVAL", "old kernel"),
    ("io_uring_enter", "EIO", "unknown"),
]


@pytest.mark.parametrize(("call", "error", "cause"), REFUSALS)
def test_refusal_is_survived_and_told(
    tmp_path: Path, strace: Callable[..., list[str]], call: str, error: str, cause: str
) -> None:
    count("posix_aio")
    if call != "io_uring_setup":
        count("io_uring")
    default, forced = uses(tmp_path / "file", strace(f"{call}:error={error}"))
    engine, reason = default
    assert engine == "posix_aio"
    assert_tells(reason, call, error, cause)
    outcome, text, code = forced
    assert outcome == "EngineUnavailable"
    assert code == getattr(errno, error)
    assert "io_uring cannot start: " in text
    assert_tells(text, call, error, cause)


def assert_tells(text: str, call: str, error: str, cause: str) -> None:
    assert call in text
    assert os.strerror(getattr(errno, error)) in text
    assert re.search(f"likely cause: .*({cause}).*; remedy: .", text)


def test_doctor_of_a_refusal(strace: Callable[..., list[str]]) -> None:
    count("posix_aio")
    done = doctor(prefix=strace("io_uring_setup:error=ENOSYS"))
    assert done.returncode == 1, done.stderr
    assert re.search(r"^engine +posix_aio$", done.stdout, re.MULTILINE)
    assert re.search(r"^why +io_uring_setup: .*; remedy: ", done.stdout, re.MULTILINE)
    done = doctor(prefix=strace("io_uring_setup:error=ENOSYS"), URINGFILE_ENGINE="io_uring")
    assert done.returncode == 2, done.stderr
    assert re.search(r"^engine +none$", done.stdout, re.MULTILINE)
    assert re.search(r"^why +io_uring cannot start: ", done.stdout, re.MULTILINE)


def test_ring_shrinks_where_little_memory_can_be_locked(strace: Callable[..., list[str]]) -> None:
    count("io_uring")
    done = doctor("--json", prefix=strace("io_uring_setup:error=ENOMEM:when=1..2"))
    report = json.loads(done.stdout)
    assert report["engine"] == "io_uring"
    assert 0 < report["entries"] < json.loads(doctor("--json").stdout)["entries"]


def test_eventfd_refused_once(tmp_path: Path, strace: Callable[..., list[str]]) -> None:
    count("posix_aio")
    default, _ = uses(tmp_path / "file", strace("eventfd2:error=EMFILE:when=1"))
    assert default[0] == "posix_aio"
    assert_tells(default[1], "eventfd", "EMFILE", "open files")


def test_eventfd_refused_for_good(tmp_path: Path, strace: Callable[..., list[str]]) -> None:
    default, forced = uses(tmp_path / "file", strace("eventfd2:error=EMFILE"))
    for outcome, text, code in (default, forced):
        assert outcome == "EngineUnavailable"
        assert code == errno.EMFILE
        assert_tells(text, "eventfd", "EMFILE", "open files")
    assert "posix_aio cannot start: " in default[1]
    assert "nor can io_uring: " in default[1]
    done = doctor("--json", prefix=strace("eventfd2:error=EMFILE"))
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert report["engine"] is report["entries"] is report["capacity"] is None
    assert report["operations"] == report["features"] == []
    assert_tells(report["reason"], "eventfd", "EMFILE", "open files")


# ---- refusals by a seccomp filter -----------------------------------------------------


def filtered(path: Path, calls: list[str], action: str, code: int | None = None) -> list[str]:
    rule = {"names": calls, "action": action, "errnoRet": code}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    return [sys.executable, FILTER, str(path)]


@pytest.mark.parametrize("error", ["EPERM", "EACCES", "ENOSYS"])
@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_register", "io_uring_enter"])
def test_filter_of_one_call(tmp_path: Path, call: str, error: str) -> None:
    count("posix_aio")
    if call != "io_uring_setup":
        count("io_uring")
    code = getattr(errno, error)
    prefix = filtered(tmp_path / "profile", [call], "SCMP_ACT_ERRNO", code)
    default, forced = uses(tmp_path / "file", prefix)
    assert default[0] == "posix_aio"
    assert_tells(default[1], call, error, FORBIDDEN)
    assert forced[0] == "EngineUnavailable"
    assert forced[2] == code
    assert_tells(forced[1], call, error, FORBIDDEN)


def test_posix_aio_by_name_leaves_io_uring_alone(tmp_path: Path) -> None:
    """For sandboxes that kill instead of refusing."""
    count("posix_aio")
    calls = ["io_uring_setup", "io_uring_register", "io_uring_enter"]
    prefix = filtered(tmp_path / "profile", calls, "SCMP_ACT_KILL_PROCESS")
    done = doctor(prefix=prefix, URINGFILE_ENGINE="posix_aio")
    assert done.returncode == 1, done.stderr
    assert doctor(prefix=prefix).returncode == -signal.SIGSYS


# ---- refusals by the limits of the system ---------------------------------------------


@pytest.fixture
def unprivileged() -> list[str]:
    """The command that takes away the capabilities which override the limits."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    return ["setpriv", "--bounding-set=-sys_admin,-ipc_lock"]


@pytest.fixture
def disabled_for_the_unprivileged() -> Iterator[None]:
    """``kernel.io_uring_disabled=1`` for the time of the test; for root nothing changes."""
    try:
        switch = DISABLED.open("r+")
    except OSError as error:
        pytest.skip(f"needs root, and {DISABLED} (Linux 6.6) writable: {error.strerror}")
    with switch:
        fcntl.flock(switch, fcntl.LOCK_EX)  # another run of this test must not restore our 1
        before = DISABLED.read_text()
        if before.strip() != "0":
            pytest.skip(f"kernel.io_uring_disabled is {before.strip()} already")
        try:
            DISABLED.write_text("1")
            yield
        finally:
            DISABLED.write_text(before)


@pytest.mark.usefixtures("disabled_for_the_unprivileged")
def test_sysctl(tmp_path: Path, unprivileged: list[str]) -> None:
    count("posix_aio")
    count("io_uring")
    default, forced = uses(tmp_path / "file", unprivileged)
    assert default[0] == "posix_aio"
    assert_tells(default[1], "io_uring_setup", "EPERM", "kernel.io_uring_disabled is 1")
    assert forced[0] == "EngineUnavailable"
    assert_tells(forced[1], "io_uring_setup", "EPERM", "kernel.io_uring_disabled is 1")
    assert "sysctl kernel.io_uring_disabled=0" in forced[1]


def test_no_locked_memory(tmp_path: Path, unprivileged: list[str]) -> None:
    count("posix_aio")
    count("io_uring")
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit")
    default, forced = uses(tmp_path / "file", [*unprivileged, "prlimit", "--memlock=0:0"])
    if default[0] == "io_uring":
        pytest.skip("this kernel does not count rings as locked memory")
    assert default[0] == "posix_aio"
    assert_tells(default[1], "io_uring_setup", "ENOMEM", r"locked memory \(0 bytes\)")
    assert forced[0] == "EngineUnavailable"
    assert "--ulimit memlock=-1" in forced[1]


# ---- the likely cause -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "disabled", "seccomp", "cause"),
    [
        (errno.EPERM, 2, "none", "kernel.io_uring_disabled is 2"),
        (errno.EPERM, 2, "filter", "kernel.io_uring_disabled is 2, and a seccomp filter"),
        (errno.EPERM, 1, None, "kernel.io_uring_disabled is 1"),
        (errno.EPERM, 0, "filter", "a seccomp filter"),
        (errno.EPERM, None, "none", "a security module"),
        (errno.ENOSYS, 2, "filter", "a seccomp filter"),
        (errno.ENOSYS, None, None, "a kernel or sandbox without io_uring"),
        (errno.EOPNOTSUPP, 0, "none", "an old kernel"),
        (errno.ENFILE, 0, "none", "the limit of open files"),
    ],
)
def test_likely_cause(
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    disabled: int | None,
    seccomp: str | None,
    cause: str,
) -> None:
    monkeypatch.setattr(_kernel, "io_uring_disabled", lambda: disabled)
    monkeypatch.setattr(_kernel, "seccomp", lambda: seccomp)
    found, remedy = _choice._likely_cause("io_uring", code)
    assert found.startswith(cause)
    assert remedy
