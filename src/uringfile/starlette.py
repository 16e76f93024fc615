"""``FileResponse`` for Starlette, and for what is built on it (FastAPI), read by the kernel.

``from uringfile.starlette import FileResponse`` in the place of ``starlette.responses``: the same
arguments, headers, ranges and errors; it is a subclass of the other. Needs ``pip install
'uringfile[starlette]'``, and an ASGI server that runs on asyncio or uvloop.

Starlette's makes calls in a thread: for the stat, the open, each 64 KiB and the close. Here what
the kernel has cached needs none: a file of 4 KiB or of 64 MiB takes a fifth of the processor time.
``python -m benchmarks.serve`` measures both.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from uringfile import _osfiles
from uringfile._file import AIOFile

try:
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.responses import FileResponse as _FileResponse
    from starlette.responses import MalformedRangeHeader, PlainTextResponse, RangeNotSatisfiable
except ImportError as error:
    raise ImportError(
        f"uringfile.starlette needs Starlette: pip install 'uringfile[starlette]' ({error})"
    ) from error

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

__all__ = ["FileResponse"]

# A part of a body: bytes, or the range of the file that has them.
_Part = bytes | tuple[int, int]

# From this version of ASGI on send() raises OSError when the client has gone.
_SEND_RAISES = (2, 4)


class FileResponse(_FileResponse):
    """``starlette.responses.FileResponse``, whose file io_uring or POSIX AIO read.

    At most ``chunk_size`` bytes of the file are in memory, beside what the server buffers. The
    body ends where the headers say, also when the file grows meanwhile. The file is closed when
    the client has gone, and when the call is cancelled.

    Raises ``RuntimeError``, as Starlette's does, when there is no such file, when it is not a
    regular one, and when it becomes shorter while it is sent; ``OSError`` when it cannot be
    opened, before anything is sent.
    """

    #: How many bytes of the file are read at a time.
    chunk_size = 256 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            send = _as_denial(send)
        status = self.stat_result or await self._stat()
        try:
            if _asks_for_headers(scope) or _is_sent_by_server(scope):
                await self._respond(scope, receive, send, status, None)
            else:
                async with AIOFile(self.path, "rb") as file:
                    # Another file may have taken the path.
                    status = self.stat_result or await file.stat()
                    await self._respond(scope, receive, send, status, file)
        except MalformedRangeHeader as error:
            refusal = PlainTextResponse(error.content, status_code=400)
        except RangeNotSatisfiable as error:
            content_range = {"content-range": f"bytes */{error.max_size}"}
            refusal = PlainTextResponse(status_code=416, headers=content_range)
        else:
            if self.background is not None:
                await self.background()
            return
        await refusal(scope, receive, send)

    async def _stat(self) -> os.stat_result:
        try:
            status = await _osfiles.stat(self.path)
        except FileNotFoundError:
            raise RuntimeError(f"File at path {self.path} does not exist.") from None
        if not stat.S_ISREG(status.st_mode):
            raise RuntimeError(f"File at path {self.path} is not a file.")
        return status

    async def _respond(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        status: os.stat_result,
        file: AIOFile | None,
    ) -> None:
        self.set_stat_headers(status)
        start, parts = self._message(self._ranges(scope, status.st_size), status.st_size)
        if file is None:
            await send(start)
            if _is_sent_by_server(scope):
                await send({"type": "http.response.pathsend", "path": str(self.path)})
            else:
                await send(_body(b"", True))
        elif self._is_one_chunk(parts) or scope["type"] == "websocket" or _send_raises(scope):
            await self._send(send, file, start, parts)
        else:
            await _until_disconnected(receive, self._send(send, file, start, parts))

    def _ranges(self, scope: Scope, size: int) -> list[tuple[int, int]]:
        """What is asked for of the file, begin and end; nothing means all of it."""
        headers = Headers(scope=scope)
        asked, condition = headers.get("range"), headers.get("if-range")
        if (
            asked is None
            or self.status_code != 200
            or (scope["type"] == "http" and scope["method"].upper() not in ("GET", "HEAD"))
            or (condition is not None and not self._should_use_range(condition))
        ):
            return []
        return self._parse_range_header(asked, size)

    def _message(self, ranges: list[tuple[int, int]], size: int) -> tuple[Message, list[_Part]]:
        """The message that begins the response, and its body."""
        headers = MutableHeaders(raw=list(self.raw_headers))
        parts: list[_Part] = [*ranges] or [(0, size)]
        if len(ranges) == 1:
            ((begin, end),) = ranges
            headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
            headers["content-length"] = str(end - begin)
        elif ranges:
            boundary = secrets.token_hex(13)
            length, part_header = self.generate_multipart(
                ranges, boundary, size, self.headers["content-type"]
            )
            headers["content-type"] = f"multipart/byteranges; boundary={boundary}"
            headers["content-length"] = str(length)
            parts = []
            for begin, end in ranges:
                parts += part_header(begin, end), (begin, end), b"\r\n"
            parts.append(f"--{boundary}--".encode("latin-1"))
        code = 206 if ranges else self.status_code
        return {"type": "http.response.start", "status": code, "headers": headers.raw}, parts

    def _is_one_chunk(self, parts: list[_Part]) -> bool:
        return len(parts) == 1 and parts[0][1] - parts[0][0] <= self.chunk_size

    async def _send(self, send: Send, file: AIOFile, start: Message, parts: list[_Part]) -> None:
        await send(start)
        for part in parts:
            is_last = part is parts[-1]
            if isinstance(part, bytes):
                await send(_body(part, is_last))
                continue
            position, end = part
            while True:
                chunk = await file.read_bytes(min(self.chunk_size, end - position), position)
                position += len(chunk)
                if not chunk and position < end:
                    raise RuntimeError(f"File at path {self.path} is shorter than expected.")
                await send(_body(chunk, is_last and position == end))
                if position == end:
                    break
                # Neither a cached read nor a send need suspend: others have their turn.
                await asyncio.sleep(0)


def _body(data: bytes, is_last: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": not is_last}


def _asks_for_headers(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and scope["method"].upper() == "HEAD")


def _is_sent_by_server(scope: Scope) -> bool:
    """Whether the server takes the path and sends the file, as some do for whole ones."""
    return (
        scope["type"] == "http"
        and "http.response.pathsend" in scope.get("extensions", {})
        and "range" not in Headers(scope=scope)
    )


def _send_raises(scope: Scope) -> bool:
    version = scope.get("asgi", {}).get("spec_version", "2.0")
    numbers: tuple[int, ...] = tuple(map(int, version.split(".")))
    return numbers >= _SEND_RAISES


def _as_denial(send: Send) -> Send:
    """For the answer to a WebSocket handshake that is denied."""

    async def send_denial(message: Message) -> None:
        if message["type"].startswith("http."):
            message = {**message, "type": "websocket." + message["type"]}
        await send(message)

    return send_denial


async def _until_disconnected(receive: Receive, sending: Coroutine[Any, Any, None]) -> None:
    """Do the sending; when the client has gone, leave it."""
    sender = asyncio.ensure_future(sending)
    watcher = asyncio.ensure_future(_disconnection(receive))
    try:
        await asyncio.wait([sender, watcher], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sender, watcher):
            task.cancel()
        await asyncio.gather(sender, watcher, return_exceptions=True)
    for task in (sender, watcher):
        if not task.cancelled():
            task.result()


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
