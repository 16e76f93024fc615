"""examples/static_server.py: run as a command, asked over HTTP."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from example_programs import command, run_command

pytest.importorskip("aiohttp")

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def root(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be served, with things in it and around it."""
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "page.html").write_text("<p>page")
    (root / "big").write_bytes(os.urandom(1_000_000))
    (root / "sub" / "index.html").write_text("index")
    (root / "sub" / "deep" / "a & <b>.txt").write_text("deep")
    (root / ".secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    (tmp_path / "root-too").write_text("outside")
    (root / "inside").symlink_to("sub/deep")
    (root / "out").symlink_to("../outside")
    (root / "out-too").symlink_to("../root-too")
    (root / "sub" / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


@contextmanager
def serving(root: Path, *options: str) -> Iterator[Ask]:
    """The server as a command; what it prints says where it is."""
    child = subprocess.Popen(
        command("static_server", root, "--port", "0", *options), stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    host, port = line.strip().rstrip("/").rpartition("http://")[2].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=fields)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    try:
        yield ask
    finally:
        connection.close()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        child.stdout.close()


def test_files(root: Path) -> None:
    big = (root / "big").read_bytes()
    with serving(root, "--max-age", "60") as ask:
        status, headers, data = ask("/page.html")
        assert (status, data) == (200, b"<p>page")
        assert headers["Content-Type"] == "text/html"
        assert headers["Cache-Control"] == "max-age=60"
        assert ask("/page.html", If_None_Match=headers["Etag"])[0] == 304
        assert ask("/page.html", If_Modified_Since=headers["Last-Modified"])[0] == 304
        assert ask("/big")[2] == big
        status, headers, data = ask("/big", "HEAD")
        assert (status, headers["Content-Length"], data) == (200, "1000000", b"")
        status, headers, data = ask("/big", Range="bytes=999990-")
        assert (status, data) == (206, big[-10:])
        assert headers["Content-Range"] == "bytes 999990-999999/1000000"
        assert ask("/big", Range="bytes=1000000-")[0] == 416
        assert ask("/sub/")[2] == b"index"
        status, headers, _ = ask("/sub")
        assert (status, headers["Location"]) == (308, "sub/")
        assert ask("/sub/deep/a%20%26%20%3Cb%3E.txt")[2] == b"deep"
        assert ask("/page.html", "POST")[0] == 405
        (root / "page.html").write_text("new")
        assert ask("/page.html")[2] == b"new"


def test_nothing_else(root: Path) -> None:
    with serving(root) as ask:
        for path, expected in {
            "/none": 404,
            "/": 404,
            "/sub/deep/": 404,
            "/page.html/": 404,
            "/page.html/none": 404,
            "/.secret": 404,
            "/../outside/file": 404,
            "/sub/../../outside/file": 404,
            "/%2e%2e/outside/file": 404,
            "/..%2foutside%2ffile": 404,
            "/sub/%2e%2e/%2e%2e/root-too": 404,
            "//etc/passwd": 404,
            "/%2fetc/passwd": 404,
            "/page.html%00": 404,
            "/" + "x" * 300: 404,
            "/out/file": 403,
            "/out-too": 403,
            "/sub/up/out/file": 403,
            "/loop": 404,
            "/fifo": 403,
        }.items():
            status, _, data = ask(path)
            assert status == expected, path
            assert b"outside" not in data
        assert ask("/inside/a%20%26%20%3Cb%3E.txt")[2] == b"deep"
        assert ask("/sub/up/page.html")[2] == b"<p>page"
    with serving(root, "--follow-symlinks", "--listing") as ask:
        assert ask("/out/file")[2] == b"outside"
        assert ask("/loop")[0] == 404
        status, _, data = ask("/sub/deep/")
        assert status == 200
        assert b'<a href="a%20%26%20%3Cb%3E.txt">a &amp; &lt;b&gt;.txt</a>' in data
        listing = ask("/")[2].decode()
        assert 'href="sub/"' in listing
        assert ".secret" not in listing


@pytest.mark.usefixtures("engine")
def test_the_command(tmp_path: Path) -> None:
    done = run_command("static_server", tmp_path / "none")
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr


def test_memory_is_bounded(root: Path) -> None:
    """A client that reads slowly holds a piece, not the file."""
    with open(root / "huge", "wb") as file:
        file.truncate(300 << 20)
    child = subprocess.Popen(
        command("static_server", root, "--port", "0"), stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    host, port = child.stdout.readline().strip().rstrip("/").rpartition("http://")[2].split(":")
    connections = []
    try:
        before = peak(child.pid)
        for _ in range(4):
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request("GET", "/huge")
            connections.append(connection)
            assert connection.getresponse().read(1 << 20) == bytes(1 << 20)
        assert peak(child.pid) - before < 40 << 20
    finally:
        for connection in connections:
            connection.close()
        child.terminate()
        child.wait(30)
        child.stdout.close()


def peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10
