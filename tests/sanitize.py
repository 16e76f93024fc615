"""The C code under memory checkers.

    python -m tests.sanitize [asan|lsan|tsan|valgrind|fuzz ...] [--inputs N] [--minutes M]

asan      AddressSanitizer, UBSan and LeakSanitizer: N inputs of tests/fuzz_engine.c; then the
          engines' contract and batches from Python, with the fault hook
lsan      LeakSanitizer under Python: what a loop of faults leaves behind, of our library
tsan      ThreadSanitizer: N inputs, with AIO functions that it can see into; then threads with a
          loop each, under a Python that was configured --disable-gil --with-thread-sanitizer
valgrind  N / 4 inputs; then the engines' contract from Python
fuzz      libFuzzer with AddressSanitizer and UBSan, for M minutes, from --corpus

No checker sees what the kernel writes: for that there are the canaries of test_lifetime.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from native_build import ROOT, build, environment

TESTS = ROOT / "tests"
ASAN = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
COMMON = ["-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-Wno-tsan"]
LINK = ["-lrt", "-lpthread"]


class Missing(Exception):
    """A tool that a checker needs is not here."""


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not installed")


def _runtime(name: str) -> str:
    """Where gcc has that library, for LD_PRELOAD."""
    need("gcc")
    done = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    path = done.stdout.strip()
    if not os.path.isabs(path):
        raise Missing(f"{name} is not installed")
    return path


def _compile(where: Path, *flags: str, cc: str = "gcc", sources: Sequence[Path] = ()) -> Path:
    need(cc)
    program = where / "fuzz_engine"
    sources = [*sorted((ROOT / "csrc").glob("*.c")), TESTS / "fuzz_engine.c", *sources]
    defines = [f"-I{ROOT / 'csrc'}", "-DUF_FAULTS"]
    subprocess.run([cc, *COMMON, *defines, *flags, *sources, "-o", program, *LINK], check=True)
    return program


def _run(args: Sequence[str | Path], **env: str) -> str:
    """What it printed; raises ``CalledProcessError`` with all of that."""
    done = subprocess.run(
        args, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if "LeakSanitizer has encountered a fatal error" in done.stdout:
        raise Missing("LeakSanitizer may not use ptrace(2) here")
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, [*map(str, args)], done.stdout)
    return done.stdout


def _pytest(*args: str) -> list[str]:
    files = [str(TESTS / name) for name in ("test_contract.py", "test_batch.py")]
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, *args]


def asan_c(where: Path, inputs: int) -> None:
    program = _compile(where, "-DSEEDS", *ASAN)
    _run([program, "0", str(inputs)], ASAN_OPTIONS="detect_leaks=1")


def _asan_python(where: Path, **env: str) -> dict[str, str]:
    preload = f"{_runtime('libasan.so')} {_runtime('libubsan.so')}"
    path = build(where, [*ASAN, *COMMON[1:4]])
    return environment(path, LD_PRELOAD=preload, PYTHONMALLOC="malloc", **env)


def asan_python(where: Path) -> None:
    env = _asan_python(where, ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="print_stacktrace=1")
    _run(_pytest(), **env)


def lsan(where: Path) -> None:
    """CPython has leaks of its own at its end: those count whose stack is in our library."""
    env = _asan_python(where, ASAN_OPTIONS="detect_leaks=1:exitcode=0")
    for engine in ("io_uring", "posix_aio"):
        out = _run([sys.executable, str(TESTS / "fault_loop.py"), engine, "memory", "write"], **env)
        ours = [block for block in out.split("\n\n") if "leak of" in block and "csrc" in block]
        if "SUMMARY: AddressSanitizer" not in out or ours:
            raise subprocess.CalledProcessError(1, ["lsan", engine], "\n\n".join(ours) or out)


def tsan(where: Path, inputs: int) -> None:
    need("setarch")
    if subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode:
        raise Missing("personality(2) is forbidden here, which setarch -R needs")
    sources = [TESTS / "aio_threads.c"]
    program = _compile(where, "-DSEEDS", "-fsanitize=thread", sources=sources)
    # Without randomization: older runtimes cannot do with the addresses of newer kernels.
    _run(["setarch", "-R", program, "0", str(inputs)], TSAN_OPTIONS="halt_on_error=1")


def tsan_python(where: Path) -> None:
    """CPython reports races of its own: those count that have a stack in our library."""
    if "--with-thread-sanitizer" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        raise Missing("this Python is not configured --with-thread-sanitizer")
    cc = sysconfig.get_config_var("CC").split()[0]  # whose runtime the interpreter has in it
    need("setarch", cc)
    # Not instrumented: what it starts, such as a symbolizer, has no runtime. That of Python sees
    # its threads, its locks and its reads all the same.
    aio = where / "aio_threads.so"
    subprocess.run([cc, "-shared", "-fPIC", "-g", TESTS / "aio_threads.c", "-o", aio], check=True)
    test = [str(TESTS / "test_threads.py"), "--capture=no", "--timeout=0", "-p", "no:cacheprovider"]
    command = ["setarch", "-R", sys.executable, "-m", "pytest", *test]
    path = build(where, ["-fsanitize=thread", *COMMON[1:4]])
    out = _run(command, **environment(path, LD_PRELOAD=str(aio), TSAN_OPTIONS="exitcode=0"))
    ours = [report for report in out.split("=" * 18) if "(_native." in report]
    if ours:
        raise subprocess.CalledProcessError(1, command, "\n".join(ours))


_VALGRIND = ["valgrind", "-q", "--error-exitcode=9", "--fair-sched=yes"]


def valgrind_c(where: Path, inputs: int) -> None:
    need("valgrind")
    program = _compile(where, "-DSEEDS")
    leaks = ["--leak-check=full", "--errors-for-leak-kinds=definite"]
    _run([*_VALGRIND, *leaks, program, "0", str(inputs)])


def valgrind_python(where: Path) -> None:
    """CPython's own string functions read beyond what they need: those errors count whose
    stack is in our sources."""
    need("valgrind")
    env = environment(build(where, COMMON[1:4]), PYTHONMALLOC="malloc")
    # Deadlines and canaries of a test are not meant for a machine that is so slow.
    few = "test_2 or test_4 or test_6 or batch_completes"
    command = ["valgrind", "-q", "--fair-sched=yes", *_pytest("-k", few, "--timeout", "0")]
    out = _run(command, **env)
    if ours := _in_our_sources(out):
        raise subprocess.CalledProcessError(1, command, ours)


def _in_our_sources(out: str) -> str:
    names = [f"({path.name}:" for path in (ROOT / "csrc").glob("*.c")]
    errors = re.split(r"(?m)^==\d+== $", out)
    return "\n".join(error for error in errors if any(name in error for name in names))


def fuzz(where: Path, minutes: float, corpus: Path) -> None:
    flags = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
    program = _compile(where, *flags, cc="clang")
    corpus.mkdir(exist_ok=True)
    limits = [f"-max_total_time={int(60 * minutes)}", "-max_len=3000", "-len_control=20"]
    print(_run([program, *limits, f"-artifact_prefix={corpus.parent}/", corpus])[-300:])


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("modes", nargs="*", default=["asan", "lsan", "tsan", "valgrind", "fuzz"])
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "uf-corpus")
    args = parser.parse_args()
    steps: dict[str, list[Callable[[Path], None]]] = {
        "asan": [lambda d: asan_c(d, args.inputs), asan_python],
        "lsan": [lsan],
        "tsan": [lambda d: tsan(d, args.inputs), tsan_python],
        "valgrind": [lambda d: valgrind_c(d, args.inputs // 4), valgrind_python],
        "fuzz": [lambda d: fuzz(d, args.minutes, args.corpus)],
    }
    failed = False
    for mode in args.modes:
        for number, step in enumerate(steps[mode]):
            with tempfile.TemporaryDirectory() as directory:
                try:
                    step(Path(directory))
                    result = "nothing found"
                except Missing as missing:
                    result = f"not run: {missing}"
                except subprocess.CalledProcessError as error:
                    failed = True
                    result = f"FOUND\n{error.output}"
            print(f"{mode} {number}: {result}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
