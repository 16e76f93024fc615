"""uringfile.starlette.FileResponse beside the one of Starlette: same requests, same messages."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import counted_turns, open_fds, run, run_python

pytest.importorskip("starlette")

from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.responses import FileResponse as Original

from uringfile.starlette import FileResponse

Messages = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def on_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_bytes(random.Random(1).randbytes(700_000))
    return path


def a_scope(method: str = "GET", spec_version: str = "2.4", **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"spec_version": spec_version},
        "method": method,
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }


async def never() -> dict[str, Any]:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def messages(response: Any, scope: dict[str, Any]) -> Messages:
    found: Messages = []

    async def send(message: Any) -> None:
        found.append(dict(message))

    await asyncio.wait_for(response(scope, never, send), 20)
    return found


def body(found: Messages) -> bytes:
    return b"".join(message["body"] for message in found[1:])


async def outcome(make: Callable[[], Any], scope: dict[str, Any]) -> Any:
    """Status, headers and body; or what was raised."""
    try:
        found = await messages(make(), scope)
    except Exception as error:
        return type(error), str(error)
    assert [message.get("more_body", False) for message in found[1:]] == [
        *[True] * (len(found) - 2),
        False,
    ]
    headers = [(name, value.decode("latin-1")) for name, value in found[0]["headers"]]
    boundary = re.search("boundary=([0-9a-f]+)", str(headers))
    text = repr((found[0]["type"], found[0]["status"], headers))
    data = body(found)
    if boundary:
        text = text.replace(boundary[1], "BOUNDARY")
        data = data.replace(boundary[1].encode(), b"BOUNDARY")
    return text, data


async def same(path: Path, scope: dict[str, Any], **arguments: Any) -> Any:
    ours = await outcome(lambda: FileResponse(path, **arguments), scope)
    theirs = await outcome(lambda: Original(path, **arguments), scope)
    assert ours == theirs, (scope, arguments)
    return ours


RANGES = [
    "bytes=0-0",
    "bytes=5-9",
    "bytes=699999-",
    "bytes=-1",
    "bytes=-9999999",
    "bytes=0-9999999",
    "bytes=700000-",
    "bytes=9-5",
    "bytes=0-9, 20-29",
    "bytes=20-29,0-9,5-22",
    "bytes=0-99, -100",
    "bytes=",
    "bytes=a-b",
    "bytes=0-9,x",
    "items=0-9",
    "none",
    "bytes = 0-9",
    "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 400, 2)),
]


def test_ranges(file: Path) -> None:
    async def main() -> None:
        for asked in RANGES:
            for method in ("GET", "HEAD"):
                await same(file, a_scope(method, range=asked))
        # Ranges are defined for GET alone (RFC 9110, 14.2); Starlette knows since 1.8.
        found = await messages(FileResponse(file), a_scope("POST", range="bytes=0-0"))
        assert (found[0]["status"], body(found)) == (200, file.read_bytes())

    run(main())


def test_random_ranges(tmp_path: Path) -> None:
    rng = random.Random(2)

    def one(size: int) -> str:
        numbers = sorted(rng.choices(range(size + 3), k=2))
        return rng.choice(["{}-{}", "{}-", "-{}", "{1}-{0}"]).format(*numbers)

    async def main() -> None:
        for size in (0, 1, 10, 200_000, 256 * 1024, 256 * 1024 + 1):
            path = tmp_path / "file"
            path.write_bytes(rng.randbytes(size))
            for _ in range(15):
                asked = ",".join(one(size) for _ in range(rng.randrange(1, 5)))
                await same(path, a_scope(range=f"bytes={asked}"))

    run(main())


def test_if_range(file: Path) -> None:
    async def main() -> None:
        found = await messages(FileResponse(file), a_scope("HEAD"))
        headers = Headers(raw=found[0]["headers"])
        for condition in (
            headers["etag"],
            f"W/{headers['etag']}",
            headers["last-modified"],
            "Sat, 01 Jan 2000 00:00:00 GMT",
            '"other"',
            "",
        ):
            await same(file, a_scope(range="bytes=0-9", if_range=condition))

    run(main())


def test_the_same_headers(file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()

    async def main() -> None:
        for method in ("GET", "HEAD"):
            scope = a_scope(method)
            for arguments in (
                {},
                {"filename": "plain.csv"},
                {"filename": "päß €.bin", "content_disposition_type": "inline"},
                {"media_type": "text/plain"},
                {"status_code": 404},
                {"headers": {"x-own": "1", "etag": '"mine"', "Content-Type": "a/b"}},
                {"stat_result": file.stat()},
            ):
                await same(file, scope, **arguments)
            await same(empty, scope)
        await same(file, a_scope(range="bytes=0-9"), status_code=404)
        await same(file, {**a_scope(), "type": "websocket"})

    run(main())


def test_the_same_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    looping = tmp_path / "loop"
    looping.symlink_to(looping)

    async def main() -> None:
        for name in ("none", "none/none", ".", "fifo", "loop"):
            for method in ("GET", "HEAD"):
                kind, _ = await same(tmp_path / name, a_scope(method))
                assert issubclass(kind, Exception)

    run(main())


def test_a_subclass_of_the_original_with_its_arguments(file: Path) -> None:
    response = FileResponse(str(file), 200, {"x": "1"}, "a/b", None, "name", file.stat(), "inline")
    assert isinstance(response, Original)
    assert response.headers["content-disposition"] == 'inline; filename="name"'


def test_only_a_chunk_is_in_memory(file: Path) -> None:
    class Small(FileResponse):
        chunk_size = 10_000

    async def main() -> None:
        found = await messages(Small(file), a_scope())
        assert body(found) == file.read_bytes()
        assert {len(message["body"]) for message in found[1:]} == {10_000}

    run(main())


def test_others_have_their_turn_between_two_chunks(file: Path) -> None:
    class Small(FileResponse):
        chunk_size = 7000

    async def main() -> None:
        async with counted_turns() as turns:
            await messages(Small(file), a_scope())
        assert turns() >= 99

    run(main())


def test_the_server_sends_the_file_if_it_can(file: Path) -> None:
    async def main() -> None:
        scope = {**a_scope(), "extensions": {"http.response.pathsend": {}}}
        found = await messages(FileResponse(file), scope)
        assert found[1] == {"type": "http.response.pathsend", "path": str(file)}
        scope = {**a_scope(range="bytes=1-5"), "extensions": {"http.response.pathsend": {}}}
        assert body(await messages(FileResponse(file), scope)) == file.read_bytes()[1:6]

    run(main())


def test_the_file_changes_meanwhile(file: Path) -> None:
    """The body has as many bytes as the headers say, or there is an error."""

    async def ask(then: Callable[[], Any]) -> int:
        size = 0

        async def send(message: Any) -> None:
            nonlocal size
            if message["type"] == "http.response.start":
                then()
            size += len(message.get("body", b""))

        await FileResponse(file)(a_scope(), never, send)
        return size

    async def main() -> None:
        def grow() -> None:
            with open(file, "ab") as out:
                out.write(bytes(1_000_000))

        assert await ask(grow) == 700_000

        def replace() -> None:
            os.rename(file, f"{file}.old")
            file.write_bytes(b"new")

        assert await ask(replace) == 1_700_000
        file.write_bytes(bytes(700_000))
        with pytest.raises(RuntimeError, match="shorter than expected"):
            await ask(lambda: os.truncate(file, 300_000))

    before = open_fds()
    run(main())
    assert open_fds() == before


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_client_that_goes_away(file: Path, spec_version: str) -> None:
    """From 2.4 on send() says so, before receive() does. The file is closed."""
    background: list[str] = []

    async def main() -> None:
        gone = asyncio.Event()
        sent = 0

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal sent
            sent += len(message.get("body", b""))
            if sent:
                gone.set()
                if spec_version == "2.4":
                    raise OSError("the client has gone")
                await asyncio.get_running_loop().create_future()

        task = BackgroundTask(background.append, "done")
        response = FileResponse(file, background=task)
        call = asyncio.wait_for(response(a_scope(spec_version=spec_version), receive, send), 20)
        if spec_version == "2.4":
            with pytest.raises(OSError, match="gone"):
                await call
        else:
            await call
        assert sent == 256 * 1024
        assert background == (["done"] if spec_version == "2.3" else [])
        assert not [fd for fd in open_fds() if str(file) in fd]

    run(main())


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_cancelled(file: Path, spec_version: str) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def send(message: Any) -> None:
            if "body" in message:
                begun.set()
                await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(
            FileResponse(file)(a_scope(spec_version=spec_version), never, send)
        )
        await asyncio.wait_for(begun.wait(), 20)
        assert [fd for fd in open_fds() if str(file) in fd]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [fd for fd in open_fds() if str(file) in fd]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_an_error_of_send_is_raised_while_a_client_is_watched(file: Path) -> None:
    async def main() -> None:
        async def send(message: Any) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await FileResponse(file)(a_scope(spec_version="2.0"), never, send)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_without_starlette() -> None:
    code = "import sys; sys.modules['starlette'] = None; import uringfile.starlette"
    done = run_python(code)
    assert "needs Starlette: pip install 'uringfile[starlette]'" in done.stderr
