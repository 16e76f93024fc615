"""cffi build script of ``uringfile._native`` (API mode; see setup.py)."""

import os
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

# The limited API, and so one abi3 wheel for every CPython, wherever there is one:
# free-threaded builds have none.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

CFLAGS = ["-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden"]


def builder(root=None, headers=("engine_api.h",), cflags=()):
    """The tests add fault_api.h and -DUF_FAULTS, or the flags of a sanitizer.

    Sources are relative to setup.py: setuptools wants it so, and the sdist is built from it;
    or they are below ``root``.
    """
    csrc = Path(root or "") / "csrc"
    ffi = FFI()
    ffi.cdef("".join((HERE / header).read_text() for header in headers))
    ffi.set_source(
        "uringfile._native",
        '#include "engine.h"',
        sources=[str(csrc / path.name) for path in sorted(HERE.glob("*.c"))],
        depends=[str(csrc / path.name) for path in sorted(HERE.glob("*.h"))],
        include_dirs=[str(csrc) if root else os.path.relpath(HERE)],
        extra_compile_args=[*CFLAGS, *cflags],
        extra_link_args=[flag for flag in cflags if flag.startswith("-fsanitize")],
        libraries=["rt", "pthread"],
        py_limited_api=LIMITED_API,
    )
    return ffi


ffibuilder = builder()
