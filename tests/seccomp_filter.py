"""Run a command under what a container's seccomp profile says about io_uring.

    python seccomp_filter.py PROFILE.json COMMAND ...

Needs neither a container engine nor root. Only the rules on the io_uring system calls are
put in force; all other calls are allowed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

# The same on every architecture but alpha, since all calls from Linux 5.1 on are.
NUMBERS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}

# linux/seccomp.h, linux/bpf_common.h, linux/prctl.h
RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_ALLOW = 0x7FFF0000
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
OFFSET_OF_NR = 0
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


class Instruction(ctypes.Structure):
    """struct sock_filter"""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction)))


def verdict(profile: dict[str, Any], name: str) -> int:
    """What a filter made of the profile returns for the system call."""
    action, code = profile["defaultAction"], profile.get("defaultErrnoRet")
    for rule in profile["syscalls"]:
        if name in rule["names"]:
            assert not any(map(rule.get, ("args", "includes", "excludes"))), "unconditional only"
            action, code = rule["action"], rule.get("errnoRet")
    if action == "SCMP_ACT_ERRNO":
        return RET_ERRNO | (errno.EPERM if code is None else int(code))
    return {"SCMP_ACT_ALLOW": RET_ALLOW, "SCMP_ACT_KILL_PROCESS": RET_KILL_PROCESS}[action]


def install(profile: dict[str, Any]) -> None:
    """Put it in force for this process and its children, for good."""
    code = [Instruction(LOAD_WORD, 0, 0, OFFSET_OF_NR)]
    for name, number in NUMBERS.items():
        code.append(Instruction(JUMP_EQUAL, 0, 1, number))
        code.append(Instruction(RETURN, 0, 0, verdict(profile, name)))
    put_in_force(*code, Instruction(RETURN, 0, 0, RET_ALLOW))


def put_in_force(*code: Instruction) -> None:
    program = Program(len(code), (Instruction * len(code))(*code))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = (*arguments, 0, 0, 0, 0)[:4]
    if libc.prctl(option, *map(ctypes.c_ulong, padded)):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # who is killed leaves nothing behind
    install(json.loads(Path(sys.argv[1]).read_text()))
    os.execvp(sys.argv[2], sys.argv[2:])
