"""Which engine serves: by trying the real thing, and remembering why it was refused."""

from __future__ import annotations

import errno
import os
import resource

from uringfile._engine import ENGINE_NAMES, Engine
from uringfile._errors import EngineUnavailable
from uringfile._native_engine import NativeEngine

VARIABLE = "URINGFILE_ENGINE"


def open_engine(wanted: str | None) -> tuple[Engine, str | None]:
    """An engine, and why it is not io_uring (``None`` when it is, or was asked for).

    ``wanted`` names one, else the variable ``URINGFILE_ENGINE`` does; otherwise io_uring
    is tried, and POSIX AIO on any refusal. Raises ``ValueError`` for an unknown name and
    ``EngineUnavailable`` for an engine that was named and cannot start.
    """
    name = wanted or os.environ.get(VARIABLE) or None
    if name is not None:
        if name not in ENGINE_NAMES:
            raise ValueError(f"unknown engine {name!r}: {' or '.join(ENGINE_NAMES)}")
        try:
            return NativeEngine(name), None
        except OSError as refusal:
            raise _unavailable(name, refusal) from refusal
    try:
        return NativeEngine("io_uring"), None
    except OSError as refusal:
        first = refusal
    reason = f"{first.strerror} ({_likely_cause(first)})"
    try:
        return NativeEngine("posix_aio"), reason
    except OSError as refusal:
        raise _unavailable("posix_aio", refusal) from first


def _unavailable(name: str, refusal: OSError) -> EngineUnavailable:
    cause = _likely_cause(refusal) if name == "io_uring" else "descriptors, threads or memory"
    return EngineUnavailable(
        refusal.errno, f"{name} cannot start: {refusal.strerror}; likely cause: {cause}"
    )


def _likely_cause(refusal: OSError) -> str:
    """The cause and its remedy, from the errno and from what the kernel tells of itself."""
    code = refusal.errno
    disabled = _read_word("/proc/sys/kernel/io_uring_disabled")
    if code in (errno.EPERM, errno.EACCES) and disabled not in (None, "0"):
        return f"kernel.io_uring_disabled is {disabled}; remedy: sysctl kernel.io_uring_disabled=0"
    if code in (errno.EPERM, errno.EACCES, errno.ENOSYS) and _filtered():
        return (
            "the seccomp filter of a container; remedy: run it with the profile that "
            "`python -m uringfile seccomp-profile` prints"
        )
    if code in (errno.EPERM, errno.EACCES):
        return "a security module (SELinux, AppArmor) or a seccomp filter forbids io_uring"
    if code == errno.ENOSYS:
        return f"a kernel without io_uring ({os.uname().release}); remedy: Linux 5.6 or newer"
    if code in (errno.EINVAL, errno.EOPNOTSUPP):
        return f"an old kernel ({os.uname().release}); remedy: Linux 5.6 or newer"
    if code == errno.ENOMEM:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        return f"the locked-memory limit ({limit} bytes); remedy: raise it (ulimit -l)"
    if code in (errno.EMFILE, errno.ENFILE):
        return "the limit of open files; remedy: raise it (ulimit -n)"
    return "unknown"


def _read_word(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _filtered() -> bool:
    """Whether a seccomp filter is in force for this process (proc(5))."""
    try:
        with open("/proc/self/status") as file:
            return any(line.startswith("Seccomp:") and line.split()[1] == "2" for line in file)
    except OSError:
        return False
