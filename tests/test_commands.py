"""``python -m uringfile cat``, ``cp`` and ``tail`` as their users run them."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from conftest import COUNTS_REFERENCES

from uringfile import AIOFile
from uringfile.__main__ import main
from uringfile._commands import process, tail
from uringfile._commands.progress import progress

COMMAND = (sys.executable, "-W", "error::ResourceWarning", "-m", "uringfile")


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


class Ran:
    """A command in this process: what it printed, and its exit status."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str | Path, status: int = 0) -> tuple[bytes, str]:
        assert main([*map(str, arguments)]) == status
        out, error = self._capture.readouterr()
        return out, error.decode()


@pytest.fixture
def ran(capfdbinary: pytest.CaptureFixture[bytes]) -> Ran:
    return Ran(capfdbinary)


def shell(line: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """``uringfile`` stands for the command in it."""
    line = f'uringfile() {{ "$PYTHON" -W error::ResourceWarning -m uringfile "$@"; }}\n{line}'
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
        **options,
    )


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def interrupted(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C ends it at once, quietly."""
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, b"")


# ---- cat ---------------------------------------------------------------------------


def test_cat(tmp_path: Path, ran: Ran) -> None:
    large, small, empty = tmp_path / "large", tmp_path / "small", tmp_path / "empty"
    large.write_bytes(random.Random(1).randbytes(3 * process.CHUNK + 77))
    small.write_bytes(b"a\0b\r\n\xff")
    empty.touch()
    expected = small.read_bytes() + large.read_bytes() + small.read_bytes()
    assert ran("cat", small, empty, large, small) == (expected, "")
    out, _ = ran("cat", "/proc/version")
    assert out == Path("/proc/version").read_bytes()


def test_cat_goes_on_after_errors(tmp_path: Path, ran: Ran) -> None:
    (tmp_path / "a").write_bytes(b"a")
    missing = tmp_path / os.fsdecode(b"mis\xffsing")
    out, error = ran("cat", tmp_path / "a", missing, tmp_path, tmp_path / "a", status=1)
    assert out == b"aa"
    first, second = error.splitlines()
    assert re.fullmatch(rf"cat: {tmp_path}/mis\W+\w*sing: No such file or directory", first)
    assert second == f"cat: {tmp_path}: Is a directory"


def test_cat_of_standard_input(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    with (tmp_path / "a").open("rb", buffering=0) as file:
        file.seek(7)
        done = shell(
            "uringfile cat; echo; echo piped | uringfile cat a - a", stdin=file, cwd=tmp_path
        )
        assert (done.stdout, done.stderr) == (b"789\n0123456789piped\n0123456789", b"")
        assert file.tell() == 10
    done = shell("uringfile cat <&- - a", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"0123456789")
    assert done.stderr == b"cat: -: Bad file descriptor\n"


def test_cat_into_files(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some data\n")
    done = shell("{ echo one; uringfile cat in in; echo two; } >out", cwd=tmp_path)
    assert done.stderr == b""
    assert (tmp_path / "out").read_bytes() == b"one\nsome data\nsome data\ntwo\n"
    done = shell(
        "uringfile cat in >>out; uringfile cat in out >>out; uringfile cat out 1<>out", cwd=tmp_path
    )
    assert done.stderr == b"cat: out: input file is output file\n"
    assert (
        tmp_path / "out"
    ).read_bytes() == b"one\nsome data\nsome data\ntwo\n" + b"some data\n" * 2


def test_cat_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some data\n")
    full = f"cat: write error: {os.strerror(errno.ENOSPC)}\n".encode()
    done = shell("uringfile cat in in >/dev/full", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, full)
    done = shell("uringfile cat in >&-", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, b"cat: write error: Bad file descriptor\n")


def test_cat_for_a_reader_that_has_had_enough() -> None:
    process = start("cat", "/dev/zero")
    out: IO[bytes] = process.stdout  # type: ignore[assignment]
    assert out.read(10) == bytes(10)
    out.close()
    assert process.wait(30) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""  # type: ignore[union-attr]
    process.stderr.close()  # type: ignore[union-attr]


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) or not COUNTS_REFERENCES,
    reason="without a GIL Python itself takes more than the limit, and so does PyPy",
)
def test_cat_takes_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(96 << 20)
    done = shell("ulimit -d 65536; uringfile cat large | wc -c", cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == (b"%d" % (96 << 20), b"")


def test_cat_is_interrupted() -> None:
    reading = start("cat", "-", stdin=subprocess.PIPE)
    reading.stdin.write(b"first")  # type: ignore[union-attr]
    reading.stdin.flush()  # type: ignore[union-attr]
    assert reading.stdout.read(5) == b"first"  # type: ignore[union-attr]
    interrupted(reading)
    writing = start("cat", "/dev/zero")
    writing.stdout.read(1)  # type: ignore[union-attr]
    time.sleep(0.05)  # now the pipe is full
    interrupted(writing)


# ---- cp ----------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o755, 0o444, 0o4711, 0o666])
def test_cp_keeps_permissions(mode: int, tmp_path: Path, ran: Ran) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"some data")
    source.chmod(mode)
    assert ran("cp", source, target) == (b"", "")
    assert target.read_bytes() == b"some data"
    assert stat.S_IMODE(target.stat().st_mode) == mode & 0o755
    target.chmod(0o640)
    source.write_bytes(b"other")
    ran("cp", source, target)
    assert target.read_bytes() == b"other"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.umask(0o022) == 0o022


def test_cp_into_a_folder(tmp_path: Path, ran: Ran) -> None:
    folder = tmp_path / "folder"
    (tmp_path / "other").mkdir()
    folder.mkdir()
    for name in ("a", "b", "other/a"):
        (tmp_path / name).write_text(name)
    out, error = ran(
        "cp",
        *(tmp_path / name for name in ("a", "missing", "other", "other/a", "b")),
        folder,
        status=1,
    )
    assert out == b""
    assert error.splitlines() == [
        f"cp: {tmp_path}/missing: No such file or directory",
        f"cp: {tmp_path}/other: it is a directory",
        f"cp: {tmp_path}/other/a: {folder}/a is a copy of another",
    ]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "a", "b": "b"}


def test_cp_refuses(tmp_path: Path, ran: Ran) -> None:
    (tmp_path / "a").write_bytes(b"a")
    os.link(tmp_path / "a", tmp_path / "b")
    for arguments, complaint in [
        (["a", "b"], "'a' and 'b' are the same file"),
        (["a", "a"], "'a' and 'a' are the same file"),
        (["a", "b", "c"], "target 'c' is not a directory"),
        (["a", "missing/c"], "a to missing/c: No such file or directory"),
    ]:
        paths = [tmp_path / name for name in arguments]
        _, error = ran("cp", *paths, status=1)
        assert error.replace(f"{tmp_path}/", "") == f"cp: {complaint}\n"
    assert (tmp_path / "a").read_bytes() == b"a"


def test_cp_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    copying = start("cp", "/dev/zero", tmp_path / "copy")
    end = time.monotonic() + 30
    while not ((tmp_path / "copy").exists() and (tmp_path / "copy").stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.002)
    interrupted(copying)
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed (pip install .[progress])")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("large") as report:
        report(8 << 20, 32 << 20)
        report(32 << 20, 32 << 20)
    shown = terminal.getvalue()
    assert "large:" in shown
    assert "8.00M/32.0M" in shown
    terminal.truncate(0)
    with progress("small") as report:
        report(10, 10)
    assert terminal.getvalue() == ""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress("large") as report:
        report(8 << 20, 32 << 20)
    assert terminal.getvalue() == ""


# ---- tail --------------------------------------------------------------------------


def test_tail_finds_the_last_lines(
    tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_BLOCK", 5)
    chance = random.Random(7)
    for _ in range(20):
        data = bytes(chance.choice(b"\nab\n\0") for _ in range(chance.randrange(30)))
        (tmp_path / "file").write_bytes(data)
        for lines in (0, 1, 2, 5, 100):
            expected = io.BytesIO(data).readlines()[-lines:] if lines else []
            out, _ = ran("tail", "-n", str(lines), tmp_path / "file")
            assert out == b"".join(expected), (data, lines)


def test_tail_reads_the_end_alone(
    tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    amount = 0
    real = AIOFile.read_bytes

    def counted(self: AIOFile, size: int = -1, offset: int = 0) -> Any:
        nonlocal amount
        amount += size
        return real(self, size, offset)

    monkeypatch.setattr(AIOFile, "read_bytes", counted)
    with (tmp_path / "large").open("wb") as file:
        file.seek(1 << 40)
        file.write(b"".join(b"\n%d" % i for i in range(1000)))
    out, _ = ran("tail", "-n3", tmp_path / "large")
    assert out == b"997\n998\n999"
    assert amount < 2 << 20


def test_tail_of_several_files(tmp_path: Path, ran: Ran) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"1\n2\n{name}\n")
    a, b = tmp_path / "a", tmp_path / "b"
    out, error = ran("tail", "-n1", a, tmp_path / "missing", tmp_path, b, status=1)
    assert out.decode() == f"==> {a} <==\na\n\n==> {b} <==\nb\n"
    assert error.splitlines() == [
        f"tail: {tmp_path}/missing: No such file or directory",
        f"tail: {tmp_path}: Is a directory",
    ]
    out, _ = ran("tail", "-n1", "/proc/self/maps")
    assert out.count(b"\n") == 1


def test_tail_of_standard_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1\n2\n3\n")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        file.seek(4)
        done = shell("seq 20 | uringfile tail -n 2; uringfile tail", stdin=file, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (b"19\n20\n3\n", b"")


@pytest.mark.parametrize("lines", ["-1", "x", "²"])
def test_tail_of_no_number(lines: str, ran: Ran, capfdbinary: Any) -> None:
    with pytest.raises(SystemExit):
        ran("tail", f"-n={lines}")
    assert b"must be a number of lines" in capfdbinary.readouterr().err


def test_tail_follows(tmp_path: Path) -> None:
    log, other, late = tmp_path / "log", tmp_path / "other", tmp_path / "late"
    log.write_text("1\n2\n3")
    other.write_text("x\ny\n")
    tailing = start("tail", "-n", "2", "-F", log, other, late)
    out: IO[bytes] = tailing.stdout  # type: ignore[assignment]

    def expect(text: str) -> None:
        assert out.read(len(text)).decode() == text

    try:
        expect(f"==> {log} <==\n2\n\n==> {other} <==\nx\ny\n")
        with log.open("a") as file:
            file.write("3\n4\n")
        expect(f"\n==> {log} <==\n33\n4\n")
        late.write_text("here\n")
        expect(f"\n==> {late} <==\nhere\n")
        log.rename(tmp_path / "log.1")
        log.write_text("new\n")  # rotated
        expect(f"\n==> {log} <==\nnew\n")
        with other.open("a") as file:
            file.write("z\n")
        expect(f"\n==> {other} <==\nz\n")
        tailing.send_signal(signal.SIGINT)
        rest, error = tailing.communicate(timeout=30)
        assert (tailing.returncode, rest) == (130, b"")
        assert error.decode() == f"tail: {late}: No such file or directory\n"
    finally:
        tailing.kill()


def test_tail_has_nothing_to_follow(tmp_path: Path, ran: Ran) -> None:
    out, error = ran("tail", "-f", tmp_path / "missing", tmp_path, status=1)
    assert out == b""
    assert error.splitlines() == [
        f"tail: {tmp_path}/missing: No such file or directory",
        f"tail: {tmp_path}: Is a directory",
    ]


# ---- all of them -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["cat", "cp", "tail"])
def test_help(command: str, ran: Ran, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit) as end:
        ran(command, "--help")
    assert end.value.code == 0
    text = capfdbinary.readouterr().out.decode()
    assert text.startswith(f"usage: python -m uringfile {command} ")
    assert "exit status" in " ".join(text.split())
