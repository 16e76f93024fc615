"""The test-suites of others, run against ours: of aiofiles and aiofile, of programs that use
aiofiles, and of Starlette as far as they are about files.

    python -m tests.peers                      all of them
    python -m tests.peers aiofiles aiocsv      these
    python -m tests.peers --engine posix_aio aiofiles

Each is downloaded from the package index as its sdist, and its tests run in a temporary folder
by an environment of their own, in which ``import aiofiles`` (or ``import aiofile``) gives this
package, and ``starlette.responses`` has its ``FileResponse``. Tests that are about the innards of
the thread pool, or of another library, are left out: each with its reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import uringfile

#: Of the checkout, or installed.
PACKAGE = Path(uringfile.__file__).parent

#: The exit status when the package index does not answer.
UNREACHABLE = 77

# Some listen at ports that stand in their text; a second run of them at the same time cannot.
_TRIES = 5

AS_AIOFILES = "import uringfile.aiofiles\nuringfile.aiofiles.install()\n"

AS_AIOFILE = """
import sys
import types

import uringfile

# The names are all in uringfile itself; those of caio are for tests that are left out.
sys.modules["aiofile"] = uringfile
sys.modules["aiofile.utils"] = uringfile
sys.modules["aiofile.aio"] = types.SimpleNamespace(
    AIOFile=uringfile.AIOFile, DEFAULT_CONTEXT_STORE=None, create_context=None
)
sys.modules["caio"] = types.ModuleType("caio")
"""

# Theirs goes through the engines of caio.
CONFTEST_OF_AIOFILE = """
import pytest

import aiofile


@pytest.fixture
def aio_file_maker():
    return aiofile.AIOFile


@pytest.fixture(name="async_open")
def async_open_maker():
    return aiofile.async_open
"""

# The tables that the tests of aiocsv read are not in its sdist.
TABLES_OF_AIOCSV = """
import csv
import sys

sys.path.insert(0, "tests")
import test_dialects
import test_dict
import test_newlines
import test_simple


def write(test, header, rows, **options):
    with open(test.FILENAME, "w", newline="") as file:
        csv.writer(file, **options).writerows([*header, *rows])


write(test_simple, [], test_simple.VALUES)
write(test_dialects, [], test_dialects.VALUES, dialect=test_dialects.DIALECT)
write(test_dict, [test_dict.HEADER], [row.values() for row in test_dict.VALUES],
      **test_dict.DIALECT_PARAMS)
write(test_newlines, [test_newlines.HEADER], test_newlines.READ_VALUES,
      **test_newlines.DIALECT_PARAMS)
"""

AS_STARLETTES = """
import starlette.responses

import uringfile.starlette

starlette.responses.FileResponse = uringfile.starlette.FileResponse
"""

_ROOT = "for the superuser nothing is forbidden, with aiofiles neither"
_LOCALHOST = "the name localhost is not known here"
_FORBIDDEN = "test_staticfiles_with_invalid_dir_permissions_returns_401"
_ANYIO = "looks at the files that anyio.open_file has opened; test_starlette.py has the like"
_CAIO = "replaces a class of caio, which there is none of"
_SERVERS = [f"tests/test_simple.py::test_serve_small_bin_file{which}" for which in ("", "_sync")]


def _knows_localhost() -> bool:
    """Not without /etc/hosts, as in a new chroot."""
    try:
        return bool(socket.getaddrinfo("localhost", None))
    except socket.gaierror:
        return False


@dataclass
class Peer:
    """A package whose tests are run."""

    version: str
    #: What its tests need besides pytest and pytest-asyncio; nothing that needs aiofiles.
    needs: tuple[str, ...] = ()
    #: Whether the package itself is installed, as it uses aiofiles.
    client: bool = True
    shim: str = AS_AIOFILES
    conftest: str | None = None
    #: A program that makes what the sdist lacks.
    prepare: str | None = None
    #: Tests that are not run, and why.
    not_applicable: dict[str, str] = field(default_factory=dict)
    #: More arguments of pytest.
    options: tuple[str, ...] = ()
    #: Which of its tests.
    tests: tuple[str, ...] = ("tests",)


PEERS = {
    "aiofiles": Peer(
        "25.1.0",
        client=False,
        not_applicable={
            **({"tests/test_os.py::test_access": _ROOT} if os.geteuid() == 0 else {}),
            **({} if _knows_localhost() else dict.fromkeys(_SERVERS, _LOCALHOST)),
        },
    ),
    "aiofile": Peer(
        "3.12.3",
        client=False,
        shim=AS_AIOFILE,
        conftest=CONFTEST_OF_AIOFILE,
        options=("-o", "asyncio_mode=auto"),
        not_applicable={
            f"tests/test_aio.py::{name}": _CAIO
            for name in (
                "test_default_context_closed_with_event_loop",
                "test_partial_writes",
                "test_write_returned_negative",
                "test_write_returned_zero",
            )
        },
    ),
    "aiocsv": Peer("1.4.1", needs=("typing_extensions",), prepare=TABLES_OF_AIOCSV),
    "aiopathlib": Peer("0.7.0"),
    "aiotinydb": Peer("2.0.0", needs=("tinydb",)),
    "starlette": Peer(
        "1.10.0",
        needs=("anyio", "httpx2", "python-multipart", "typing_extensions"),
        shim=AS_STARLETTES,
        # anyio has been imported when pytest would rewrite it.
        options=("-k", "not trio", "--assert=plain", "-p", "no:asyncio"),
        tests=("tests/test_responses.py", "tests/test_staticfiles.py"),
        not_applicable={
            **{
                f"tests/test_responses.py::test_file_response_{name}": _ANYIO
                for name in (
                    "stops_on_disconnect",
                    "closes_on_cancellation",
                    "closes_on_send_error",
                )
            },
            **({f"tests/test_staticfiles.py::{_FORBIDDEN}": _ROOT} if os.geteuid() == 0 else {}),
        },
    ),
}


class Unreachable(Exception):
    """The package index does not answer."""


def run_peer(name: str, engines: list[str], folder: Path) -> bool:
    """Whether all of its tests passed that apply."""
    peer = PEERS[name]
    python = make_environment(name, peer, folder)
    unpack(name, peer, python, folder)
    print(f"{name} {peer.version}")
    for test, reason in peer.not_applicable.items():
        print(f"  not applicable: {test}: {reason}")
    results = [
        run_tests(peer, python, engine, folder) for engine in engines if starts(python, engine)
    ]
    return bool(results) and all(results)


def starts(python: Path, engine: str) -> bool:
    code = f"from uringfile._native_engine import NativeEngine; NativeEngine({engine!r}).destroy()"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  {engine}: does not start here: {done.stderr.strip().splitlines()[-1]}")
    return done.returncode == 0


def make_environment(name: str, peer: Peer, folder: Path) -> Path:
    """An interpreter that has what the tests need, and ours as aiofiles."""
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    needs = ["pytest", "pytest-asyncio", "cffi"]
    pip("--python", str(python), "install", *needs, *peer.needs)
    (site,) = environment.glob("lib/python*/site-packages")
    if (site / "aiofiles").exists():  # who needs it must not get it
        pip("--python", str(python), "uninstall", "--yes", "aiofiles")
    if peer.client:
        pip("--python", str(python), "install", "--no-deps", f"{name}=={peer.version}")
    (site / PACKAGE.name).symlink_to(PACKAGE)
    # Not sitecustomize: Debian's Python has one of its own, which comes first.
    (site / "peer_shim.py").write_text(peer.shim)
    (site / "peer_shim.pth").write_text("import peer_shim\n")
    return python


def unpack(name: str, peer: Peer, python: Path, folder: Path) -> None:
    """Its sdist, without the package itself, which has been installed."""
    pip(
        "download",
        "--no-deps",
        "--no-binary",
        name,
        "-d",
        str(folder),
        f"{name}=={peer.version}",
    )
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(
            folder / "sdist", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    (source,) = (folder / "sdist").iterdir()
    run = source.rename(folder / "run")
    for package in (run / "src", run / name):
        shutil.rmtree(package, ignore_errors=True)
    if peer.conftest is not None:
        (run / "tests" / "conftest.py").write_text(peer.conftest)
    if peer.prepare is not None:
        subprocess.run([python, "-c", peer.prepare], cwd=run, check=True)


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unreachable(done.stderr.strip() or f"pip ended with {done.returncode}")


def run_tests(peer: Peer, python: Path, engine: str, folder: Path) -> bool:
    report = folder / f"{engine}.xml"
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--junitxml={report}", *peer.options]
    for test in peer.not_applicable:
        command.append(f"--deselect={test}" if "::" in test else f"--ignore={test}")
    for _ in range(_TRIES):
        done = subprocess.run(
            [*command, *peer.tests],
            cwd=folder / "run",
            env={**os.environ, "URINGFILE_ENGINE": engine, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if "address already in use" not in done.stdout:
            break
        time.sleep(1)
    if not report.exists():
        print(done.stdout, done.stderr, sep="\n")
        return False
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    print(
        f"  {engine}: {passed} passed, {failed} failed, {count['skipped']} skipped by themselves, "
        f"{len(peer.not_applicable)} not applicable",
        flush=True,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
    return done.returncode == 0 and passed > 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--engine", choices=("io_uring", "posix_aio"), help="by default both")
    options = parser.parse_args(arguments)
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"{name} is none of {', '.join(PEERS)}")
    engines = [options.engine] if options.engine else ["io_uring", "posix_aio"]
    good = True
    for name in options.peers or PEERS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                good &= run_peer(name, engines, Path(folder))
            except Unreachable as error:
                print(f"{name}: the package index does not answer: {error}", file=sys.stderr)
                return UNREACHABLE
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
