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

ffibuilder = FFI()
ffibuilder.cdef((HERE / "engine_api.h").read_text())
ffibuilder.set_source(
    "uringfile._native",
    '#include "engine.h"',
    # Relative to setup.py: setuptools wants it so, and the sdist is built from it.
    sources=[f"csrc/{path.name}" for path in sorted(HERE.glob("*.c"))],
    depends=[f"csrc/{path.name}" for path in sorted(HERE.glob("*.h"))],
    include_dirs=[os.path.relpath(HERE)],
    extra_compile_args=CFLAGS,
    libraries=["rt", "pthread"],
    py_limited_api=LIMITED_API,
)
