"""examples/checksum.py beside sha256sum: the same output and exit status for the same files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run
from example_programs import EXAMPLES, load, run_command

checksum = load("checksum")


def why_no_sha256sum() -> str | None:
    if shutil.which("sha256sum") is None:
        return "needs sha256sum"
    # Busybox and others say some things in other words.
    version = subprocess.run(
        ["sha256sum", "--version"], capture_output=True, text=True, check=False
    ).stdout
    return None if "GNU coreutils" in version else "needs the sha256sum of GNU coreutils"


needs_sha256sum = pytest.mark.skipif(
    why_no_sha256sum() is not None, reason=why_no_sha256sum() or ""
)


@pytest.fixture
def files(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names in tmp_path, some of which have to be escaped, or cannot be read."""
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    contents = {
        "empty": b"",
        "small": b"small\n",
        "a piece": bytes(1 << 20),
        "a piece and a byte": bytes((1 << 20) + 1),
        "large": os.urandom(5_000_000),
        "back\\slash": b"1",
        "new\nline": b"2",
        "*star": b"3",
        "umläut": b"4",
        "-": b"5",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    for i in range(40):
        (tmp_path / f"many-{i}").write_bytes(b"%d" % i * 1000)
        contents[f"many-{i}"] = b""
    (tmp_path / "directory").mkdir()
    return ["./-" if name == "-" else name for name in contents]


Beside = Callable[..., tuple[int, str, str]]


@pytest.fixture
def beside(
    tmp_path: Path,
    files: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Beside:
    """What both say: status, standard output, standard error without the program's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["checksum.py"])

    def compare(*args: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        status = run(checksum.command(checksum.parse([*args])))
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = capfdbinary.readouterr()
        theirs = subprocess.run(["sha256sum", *args], capture_output=True, check=False)
        found = (status, out, err.replace(b"checksum.py: ", b""))
        expected = theirs.stderr.replace(b"sha256sum: ", b"")
        assert found == (theirs.returncode, theirs.stdout, expected)
        return status, out.decode(), found[2].decode()

    return compare


@needs_sha256sum
def test_the_same_lines(tmp_path: Path, files: list[str], beside: Beside) -> None:
    status, out, err = beside(*files)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == len(files)
    status, _, err = beside("small", "none", "directory", "empty")
    assert status == 1
    assert err == "none: No such file or directory\ndirectory: Is a directory\n"
    piped = b"from a pipe" * 100_000
    done = run_command("checksum", "empty", "-", stdin=piped, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        f"{hashlib.sha256(b'').hexdigest()}  empty",
        f"{hashlib.sha256(piped).hexdigest()}  -",
    ]


@needs_sha256sum
def test_the_same_check(tmp_path: Path, files: list[str], beside: Beside) -> None:
    files.remove("back\\slash")  # in verdicts coreutils 9.7 escapes it, as we do; 9.1 does not
    _, out, _ = beside(*files)
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(out)
    status, out, err = beside("--check", "SHA256SUMS")
    assert (status, err) == (0, "")
    assert out.count(": OK\n") == len(files)
    (tmp_path / "small").write_bytes(b"changed")
    (tmp_path / "new\nline").write_bytes(b"changed")
    (tmp_path / "large").unlink()
    with sums.open("a") as file:
        file.write("no checksum\n")
    status, out, err = beside("--check", "SHA256SUMS")
    assert status == 1
    assert "small: FAILED\n" in out
    assert "large: FAILED open or read\n" in out
    for options in (("--quiet",), ("--status",), ("--quiet", "--ignore-missing")):
        assert beside("--check", *options, "SHA256SUMS")[0] == 1
    (tmp_path / "nothing").write_text("no checksum\n")
    (tmp_path / "missing").write_text(f"{'0' * 64}  none\n")
    status, _, err = beside("--check", "nothing", "absent")
    assert status == 1
    assert "no properly formatted" in err
    assert "no file was verified" in beside("--check", "--ignore-missing", "missing")[2]


def test_other_algorithms_and_names_from_a_list(tmp_path: Path, files: list[str]) -> None:
    names = "\0".join(files[:5])
    done = run_command(
        "checksum", "-a", "md5", "-j", 2, "--files0-from", "-", stdin=names, cwd=tmp_path
    )
    assert done.stdout == "".join(
        f"{hashlib.md5((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in files[:5]
    )
    (tmp_path / "sums").write_text(done.stdout)
    done = run_command("checksum", "-a", "md5", "-c", stdin=done.stdout, cwd=tmp_path)
    assert done.stdout == "".join(f"{name}: OK\n" for name in files[:5])


@pytest.mark.usefixtures("files")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of large files two pieces of each are in memory."""
    names = []
    for i in range(4):
        names.append(f"sparse-{i}")
        with open(tmp_path / names[-1], "wb") as file:
            file.truncate(50 << 20)
    code = "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    found = []
    for files in ([], names):
        done = subprocess.run(
            [sys.executable, "-c", code, str(EXAMPLES / "checksum.py"), "empty", *files],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        found.append(int(done.stdout.split()[-1]))
    assert found[1] - found[0] < 30_000
