"""FileResponse of Starlette and of aiohttp, beside ours: ``python -m benchmarks.serve``.

Each server is a process of its own on 127.0.0.1; the clients are in this one, many at a time, and
in each round every server has its turn. ``small``: files of 4 KiB, 64 of them, by 32 clients;
``large``: one of 64 MiB, by 8 clients; both from the page cache. ``cold``: as large, but the files
are dropped from the page cache before each request, and beside them one client asks for an answer
that needs no file, again and again: how long it waits tells how long the loop was held up. (Also
by others who want the processor: that figure needs an idle machine.)

Rate, processor time of the server for a request, and the longest wait but for one of a hundred
("cold" alone). Ratios are ours to the framework's own; medians of the rounds, and the least and the
greatest. The clients share the machine, and may be what limits the rate. Needs ``pip install
'uringfile[bench]'``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVERS = ("starlette", "aiohttp", "aiohttp-uvloop")
KINDS = ("theirs", "ours")
SMALL, LARGE = 4096, 64 << 20


@dataclass
class Workload:
    files: int
    size: int
    clients: int
    cold: bool = False


WORKLOADS = {
    "small": Workload(64, SMALL, 32),
    "large": Workload(1, LARGE, 8),
    "cold": Workload(8, LARGE, 4, cold=True),
}


# ---- the servers -----------------------------------------------------------------------


def serve(name: str, kind: str, directory: str) -> None:
    """Print the port, and answer /NAME with the file, and /ping."""
    framework, _, loop = name.partition("-")
    if loop == "uvloop":
        import uvloop

        uvloop.run(_serve(framework, kind, directory))
    else:
        asyncio.run(_serve(framework, kind, directory))


async def _serve(framework: str, kind: str, directory: str) -> None:
    if framework == "starlette":
        await _serve_starlette(kind, directory)
        return
    from aiohttp import web

    import uringfile.aiohttp

    response = uringfile.aiohttp.FileResponse if kind == "ours" else web.FileResponse

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/ping":
            return web.Response(text="pong")
        return response(directory + request.path)

    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def _serve_starlette(kind: str, directory: str) -> None:
    import uvicorn
    from starlette import responses

    import uringfile.starlette

    response = uringfile.starlette.FileResponse if kind == "ours" else responses.FileResponse

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        answer: Any = (
            responses.PlainTextResponse("pong") if path == "/ping" else response(directory + path)
        )
        await answer(scope, receive, send)

    config = uvicorn.Config(app, port=0, lifespan="off", log_level="error", loop="asyncio")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await task


# ---- the clients -----------------------------------------------------------------------


class Client(asyncio.BufferedProtocol):
    """A connection that asks, again and again, until it is told to stop."""

    def __init__(self, paths: list[Path], cold: bool, at: int) -> None:
        self.paths = paths
        self.cold = cold
        self.at = at
        self.took: list[float] = []
        self.received = 0
        self.failed: str | None = None
        self._buffer = bytearray(1 << 18)
        self._head = b""
        self._left = -1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        path = self.paths[self.at % len(self.paths)]
        self.at += 1
        if self.cold and path.name != "ping":
            _drop(path)
        self._head, self._left = b"", -1
        self._asked = time.perf_counter()
        self.transport.write(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % path.name.encode())

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left < 0:
            self._head += self._buffer[:nbytes]
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.failed = head.decode()
                self.transport.close()
                return
            (size,) = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            self._left = size - len(rest)
            self.received += len(rest)
        else:
            self._left -= nbytes
            self.received += nbytes
        if not self._left:
            self.took.append(time.perf_counter() - self._asked)
            self._ask()


def _drop(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@dataclass
class Result:
    rates: list[float] = field(default_factory=list)  # requests in a second
    cpu: list[float] = field(default_factory=list)  # seconds of the server for each
    waits: list[float] = field(default_factory=list)  # for /ping, in seconds


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(
    port: int, pid: int, workload: Workload, directory: Path, seconds: float, result: Result
) -> None:
    loop = asyncio.get_running_loop()
    paths = sorted(directory.glob(f"{workload.size}-*"))[: workload.files]
    clients = [Client(paths, workload.cold, i) for i in range(workload.clients)]
    if workload.cold:
        clients.append(Client([Path("ping")], True, 0))
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    await asyncio.sleep(seconds / 4)  # warm
    for client in clients:
        client.took.clear()
        client.received = 0
    started, cpu = time.perf_counter(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    while not any(client.took for client in clients):  # a machine that is very busy
        await asyncio.sleep(seconds)
    elapsed, cpu = time.perf_counter() - started, cpu_seconds(pid) - cpu
    for client in clients:
        client.transport.abort()
        if client.failed:
            raise RuntimeError(client.failed)
    if workload.cold:
        waits = sorted(clients.pop().took)
        result.waits.append(waits[int(len(waits) * 0.99)])
    # Those that have not come whole count for what has come of them.
    requests = sum(client.received for client in clients) / workload.size
    result.rates.append(requests / elapsed)
    result.cpu.append(cpu / requests)


# ---- the rounds ------------------------------------------------------------------------


def run(args: argparse.Namespace, directory: Path) -> None:
    for workload in WORKLOADS.values():
        for i in range(workload.files):
            (directory / f"{workload.size}-{i}").write_bytes(os.urandom(workload.size))
    os.sync()
    for name in args.workloads:
        results: dict[tuple[str, str], Result] = {}
        for _ in range(args.rounds):
            for server in args.servers:
                for kind in KINDS:
                    result = results.setdefault((server, kind), Result())
                    measure(server, kind, WORKLOADS[name], directory, args.seconds, result)
        show(name, results)


def measure(
    server: str, kind: str, workload: Workload, directory: Path, seconds: float, result: Result
) -> None:
    command = [sys.executable, "-m", "benchmarks.serve", "--serve", server, kind, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        try:
            asyncio.run(ask(port, child.pid, workload, directory, seconds, result))
        finally:
            child.kill()


def show(name: str, results: dict[tuple[str, str], Result]) -> None:
    print(f"\n{name}\n\n| server | requests/s: theirs, ours | ratio | CPU | ratio | ping | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for server in dict.fromkeys(server for server, _ in results):
        cells = [server]
        for values, unit, scale in (("rates", "", 1), ("cpu", " ms", 1e3), ("waits", " ms", 1e3)):
            both = [getattr(results[server, kind], values) for kind in KINDS]
            if not all(both):
                cells += ["", ""]
                continue
            theirs, ours = map(statistics.median, both)
            ratios = [b / a for a, b in zip(*both, strict=False)]
            cells.append(f"{theirs * scale:.3g}, {ours * scale:.3g}{unit}")
            cells.append(f"{ours / theirs:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=[*WORKLOADS])
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=[*SERVERS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--dir", default=".", help="where the files are made")
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        run(args, Path(directory))


if __name__ == "__main__":
    main()
