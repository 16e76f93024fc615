"""uringfile.aiohttp.FileResponse beside the one of aiohttp: same requests, same answers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from conftest import open_fds, run, run_python

pytest.importorskip("aiohttp")

from aiohttp import ClientPayloadError, ClientSession, web

from uringfile.aiohttp import FileResponse

KINDS: dict[str, Any] = {"ours": FileResponse, "theirs": web.FileResponse}


@pytest.fixture(autouse=True)
def on_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_bytes(random.Random(1).randbytes(700_000))
    return path


@asynccontextmanager
async def serving(
    directory: Path, make: Callable[[Any, Path], web.StreamResponse] = lambda kind, path: kind(path)
) -> AsyncIterator[tuple[ClientSession, str]]:
    """A client, and where /ours/NAME and /theirs/NAME are to be had."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return make(KINDS[request.match_info["kind"]], directory / request.match_info["name"])

    app = web.Application()
    app.router.add_route("*", "/{kind}/{name:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(auto_decompress=False) as client:
            yield client, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def same(
    client: ClientSession, url: str, name: str = "data.txt", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    found = []
    fields = {key.replace("_", "-"): value for key, value in headers.items()}
    fields.setdefault("accept-encoding", "identity")
    for kind in KINDS:
        async with client.request(method, f"{url}/{kind}/{name}", headers=fields) as answer:
            shown = sorted((k, v) for k, v in answer.headers.items() if k != "Date")
            found.append((answer.status, shown, await answer.read()))
    assert found[0] == found[1], (method, name, headers)
    status, shown, data = found[0]
    return status, dict(shown), data


def test_ranges(file: Path) -> None:
    async def main() -> None:
        async with serving(file.parent) as (client, url):
            (file.parent / "empty").touch()
            for asked in (
                *("bytes=0-0", "bytes=5-9", "bytes=699999-", "bytes=-1", "bytes=-9999999"),
                *("bytes=0-9999999", "bytes=700000-", "bytes=9-5", "bytes=0-9,20-29", "bytes=-0"),
                *("bytes=", "items=0-9", "none"),
            ):
                for method in ("GET", "HEAD"):
                    await same(client, url, method=method, range=asked)
                await same(client, url, "empty", range=asked)

    run(main())


def test_conditions(file: Path) -> None:
    async def main() -> None:
        async with serving(file.parent) as (client, url):
            _, headers, _ = await same(client, url)
            etag, mtime = headers["Etag"], file.stat().st_mtime
            seen = set()
            dates = [formatdate(mtime + more, usegmt=True) for more in (-10, 0, 10)]
            etags = [etag, "*", '"other"', f'"other", {etag}', f"W/{etag}"]
            for name, values in {
                "if_match": etags,
                "if_none_match": etags,
                "if_modified_since": [*dates, "no date"],
                "if_unmodified_since": [*dates, "no date"],
                "if_range": dates,
            }.items():
                for value in values:
                    for more in ({}, {"range": "bytes=5-9"}, {"if_modified_since": dates[2]}):
                        status, *_ = await same(client, url, **{**more, name: value})
                        seen.add(status)
            assert seen == {200, 206, 304, 412}

    run(main())


def test_the_same_headers_and_statuses(file: Path) -> None:
    directory = file.parent
    os.mkfifo(directory / "fifo")
    (directory / "loop").symlink_to("loop")
    (directory / "empty").touch()
    for name in ("page.html", "page.html.gz", "page.html.br", "other.js", "other.js.gz"):
        (directory / name).write_bytes(name.encode() * 100)
    (directory / "page.css").write_bytes(b"css")
    (directory / "page.css.gz").mkdir()

    async def main() -> None:
        async with serving(directory) as (client, url):
            for method in ("GET", "HEAD", "POST"):
                for name in ("data.txt", "empty", "none", "data.txt/none", ".", "fifo", "loop"):
                    await same(client, url, name, method)
            for name in ("page.html", "other.js", "page.css", "data.txt"):
                for accepted in ("gzip", "br, gzip", "*"):
                    await same(client, url, name, accept_encoding=accepted)
                    await same(client, url, name, accept_encoding=accepted, range="bytes=3-5")

        def with_arguments(kind: Any, path: Path) -> web.StreamResponse:
            headers = {"Content-Type": "a/b", "X-Own": "1", "Content-Length": "3"}
            response: web.StreamResponse = kind(path, 1000, 203, "Reason", headers)
            response.set_cookie("a", "b")
            return response

        async with serving(directory, with_arguments) as (client, url):
            status, headers, data = await same(client, url)
            assert (status, headers["X-Own"], len(data)) == (203, "1", 700_000)
            await same(client, url, if_none_match="*")

        def compressed(kind: Any, path: Path) -> web.StreamResponse:
            response: web.StreamResponse = kind(path)
            response.enable_compression()
            return response

        async with serving(directory, compressed) as (client, url):
            async with client.get(
                f"{url}/ours/page.css", headers={"accept-encoding": "deflate"}
            ) as a:
                assert a.headers["Content-Encoding"] == "deflate"
            await same(client, url, "page.html", accept_encoding="gzip")

    run(main())


def test_not_permitted(file: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("for the superuser nothing is forbidden")
    file.chmod(0)

    async def main() -> None:
        async with serving(file.parent) as (client, url):
            assert (await same(client, url))[0] == 403

    run(main())


def test_several_requests_of_one_connection(file: Path) -> None:
    async def main() -> None:
        async with serving(file.parent) as (_, url):
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            ask = b"GET /ours/data.txt HTTP/1.1\r\nHost: x\r\n%s\r\n"
            writer.write(ask % b"Range: bytes=0-9\r\n" + ask % b"If-None-Match: *\r\n" + ask % b"")
            writer.write(ask % b"Connection: close\r\n")
            data = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            await writer.wait_closed()
            assert data.count(b"HTTP/1.1 200 OK\r\n") == 2
            assert data.endswith(file.read_bytes())
            assert data.count(file.read_bytes()) == 2

    run(main())


def test_prepared_by_the_handler(file: Path) -> None:
    async def main() -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            response = FileResponse(file)
            await response.prepare(request)
            return response

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession() as client:
            port = runner.addresses[0][1]
            for _ in range(2):
                async with client.get(f"http://127.0.0.1:{port}/") as answer:
                    assert await answer.read() == file.read_bytes()
        await runner.cleanup()

    run(main())


class Changing(FileResponse):
    """Something happens to the file when the headers have been made."""

    then: Callable[[Path], None]

    async def _begin(self, request: web.BaseRequest, code: int | None = None) -> Any:
        writer = await super()._begin(request, code)
        type(self).then(self._place)
        return writer


def test_the_file_grows_meanwhile(file: Path) -> None:
    expected = file.read_bytes()

    def grow(path: Path) -> None:
        with open(path, "ab") as out:
            out.write(bytes(100_000))

    class Growing(Changing):
        then = staticmethod(grow)

    async def main() -> None:
        async with (
            serving(file.parent, lambda kind, path: Growing(path)) as (client, url),
            client.get(f"{url}/ours/data.txt") as answer,
        ):
            assert await answer.read() == expected

    run(main())


def test_the_file_becomes_shorter_meanwhile(file: Path) -> None:
    class Shrinking(Changing):
        then = staticmethod(lambda path: os.truncate(path, 300_000))

    async def main() -> None:
        async with serving(file.parent, lambda kind, path: Shrinking(path)) as (client, url):
            with pytest.raises(ClientPayloadError):
                async with client.get(f"{url}/ours/data.txt") as answer:
                    await answer.read()
            assert not [fd for fd in open_fds() if str(file) in fd]

    run(main())


def test_a_client_that_goes_away(file: Path) -> None:
    file.write_bytes(bytes(50_000_000))

    async def main() -> None:
        async with serving(file.parent) as (_, url):
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ours/data.txt HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(1000)
            assert [fd for fd in open_fds() if str(file) in fd]
            writer.transport.abort()
            for _ in range(200):
                if not [fd for fd in open_fds() if str(file) in fd]:
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the file is still open")

    run(main())


def test_a_subclass_of_the_original(file: Path) -> None:
    assert isinstance(FileResponse(file), web.FileResponse)


def test_without_aiohttp() -> None:
    done = run_python("import sys; sys.modules['aiohttp'] = None; import uringfile.aiohttp")
    assert "needs aiohttp: pip install 'uringfile[aiohttp]'" in done.stderr
