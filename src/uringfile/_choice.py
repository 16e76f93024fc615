"""Which engine serves: by trying the real thing, and remembering why it was refused."""

from __future__ import annotations

import errno
import os
from typing import Any

from uringfile import _kernel
from uringfile._engine import ENGINE_NAMES, Engine
from uringfile._environment import choice, number
from uringfile._errors import EngineUnavailable
from uringfile._native_engine import INLINE_WAYS, NativeEngine

VARIABLE = "URINGFILE_ENGINE"

#: Milliseconds that a thread of the kernel looks for new operations before it sleeps, so that
#: submitting takes no system call (IORING_SETUP_SQPOLL, Linux 5.11); 0 or unset: no such thread.
#: It takes a core while it looks, for each event loop.
SQPOLL_VARIABLE = "URINGFILE_SQPOLL_MS"

#: How reads ask the page cache before they are submitted: ``preadv2`` (the default), ``ring``
#: (``uf_read_on_ring`` in csrc/engine_api.h; with POSIX AIO it means preadv2), or ``off``.
#: Lone cached reads of 4 KiB: ring 0.76 of preadv2's rate, off 0.16
#: (docs/guide/debugging.md).
INLINE_VARIABLE = "URINGFILE_INLINE"


def open_engine(wanted: str | None) -> tuple[Engine, str | None]:
    """An engine, and why it is not io_uring (``None`` when it is, or was asked for).

    ``wanted`` names one, else the variable ``URINGFILE_ENGINE`` does; otherwise io_uring
    is tried, and POSIX AIO on any refusal. Raises ``ValueError`` for an unknown name or a
    bad ``URINGFILE_SQPOLL_MS`` or ``URINGFILE_INLINE``, and
    ``EngineUnavailable`` for an engine that was named and cannot start, or when none can.
    """
    options: Any = {
        "sqpoll_ms": number(SQPOLL_VARIABLE, "milliseconds", 0),
        "inline": choice(INLINE_VARIABLE, INLINE_WAYS),
    }
    name = wanted or os.environ.get(VARIABLE) or None
    if name is not None:
        if name not in ENGINE_NAMES:
            raise ValueError(f"unknown engine {name!r}: {' or '.join(ENGINE_NAMES)}")
        try:
            return NativeEngine(name, **options), None
        except OSError as refusal:
            text = f"{name} cannot start: {_explain(name, refusal)}"
            raise EngineUnavailable(refusal.errno, text) from refusal
    try:
        return NativeEngine("io_uring", **options), None
    except OSError as refusal:
        reason = _explain("io_uring", refusal)
    try:
        return NativeEngine("posix_aio", **options), reason
    except OSError as refusal:
        text = f"posix_aio cannot start: {_explain('posix_aio', refusal)}"
        text += f"; nor can io_uring: {reason}"
        raise EngineUnavailable(refusal.errno, text) from refusal


def _explain(name: str, refusal: OSError) -> str:
    cause, remedy = _likely_cause(name, refusal.errno)
    return f"{refusal.strerror}; likely cause: {cause}; remedy: {remedy}"


def _likely_cause(name: str, code: int | None) -> tuple[str, str]:
    """The cause and its remedy, from the errno and from what the kernel tells of itself."""
    if code in (errno.EMFILE, errno.ENFILE):
        return "the limit of open files", "raise it (ulimit -n)"
    if code == errno.EAGAIN:
        return "the limit of threads", "raise it (ulimit -u)"
    if name == "io_uring" and code == errno.ENOMEM:
        return (
            f"the limit of locked memory ({_kernel.memlock()} bytes)",
            "raise it (ulimit -l; docker and podman: --ulimit memlock=-1)",
        )
    if code == errno.ENOMEM:
        return "the limit of memory", "raise it (ulimit -v)"
    if name == "io_uring" and code in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return _who_forbids(code)
    if name == "io_uring" and code in (errno.EINVAL, errno.EOPNOTSUPP):
        return f"an old kernel ({_kernel.release()})", "Linux 5.6 or newer"
    return "unknown", "none known; `python -m uringfile doctor` shows what to report"


def _who_forbids(code: int) -> tuple[str, str]:
    disabled = _kernel.io_uring_disabled()
    filtered = _kernel.seccomp() == "filter"
    if disabled and code != errno.ENOSYS:
        also = ", and a seccomp filter is in force" if filtered else ""
        group = " or, for its members, kernel.io_uring_group" if disabled == 1 else ""
        return (
            f"kernel.io_uring_disabled is {disabled}{also}",
            f"sysctl kernel.io_uring_disabled=0 on the host{group}",
        )
    if filtered:
        return (
            "a seccomp filter, such as that of a container",
            "run the container with --security-opt seccomp=FILE, where FILE is what "
            "`python -m uringfile seccomp-profile` prints",
        )
    if code == errno.ENOSYS:
        return (
            f"a kernel or sandbox without io_uring ({_kernel.release()})",
            "Linux 5.6 or newer, built with CONFIG_IO_URING",
        )
    return "a security module (SELinux, AppArmor) or a sandbox", "allow io_uring in its policy"
