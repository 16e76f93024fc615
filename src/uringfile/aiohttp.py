"""``FileResponse`` for aiohttp's server, read by the kernel.

``from uringfile.aiohttp import FileResponse`` in the place of ``aiohttp.web``: the same arguments,
headers, conditions and ranges; it is a subclass of the other. Needs ``pip install
'uringfile[aiohttp]'``.

aiohttp's looks at the path, opens and closes the file in a thread, and sends it with sendfile(2),
which copies nothing through Python, but waits on the loop's thread for what the page cache does
not have. Without sendfile (TLS, uvloop, compression) it reads in a thread, too. So:

- large files that are in the page cache, over plain TCP on asyncio's own loop, are better sent by
  aiohttp's: 64 MiB take 3.6 times the processor time with this one;
- small files (4 KiB: 0.67 of the processor time), TLS, uvloop (0.5), and files that are seldom in
  the page cache, by this one.

``python -m benchmarks.serve`` measures both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import stat
import sys
from typing import TYPE_CHECKING

from uringfile import _osfiles
from uringfile._file import AIOFile

try:
    from aiohttp import ETag, hdrs, web
    from aiohttp.web_fileresponse import CONTENT_TYPES, ENCODING_EXTENSIONS
except ImportError as error:
    raise ImportError(
        f"uringfile.aiohttp needs aiohttp: pip install 'uringfile[aiohttp]' ({error})"
    ) from error

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.typedefs import LooseHeaders, PathLike

__all__ = ["FileResponse"]

_NO_BODY = (204, 304)


class FileResponse(web.FileResponse):
    """``aiohttp.web.FileResponse``, whose file io_uring or POSIX AIO read.

    At most ``chunk_size`` bytes of the file are in memory, beside what the connection buffers.
    The body ends where the headers say, also when the file grows meanwhile; when it becomes
    shorter, the connection is closed. The file is closed when the client has gone, and when the
    handler is cancelled.

    Status 404 when there is no such file, and for what else ``open`` raises; 403 when it is not
    a regular file, or not permitted; 304, 412 and 416 as the conditions and the range of the
    request want it. PATH.br and PATH.gz are sent in its place to who accepts them.
    """

    def __init__(
        self,
        path: PathLike,
        chunk_size: int = 256 * 1024,
        status: int = 200,
        reason: str | None = None,
        headers: LooseHeaders | None = None,
    ) -> None:
        super().__init__(path, chunk_size, status, reason, headers)
        self._place = pathlib.Path(path)
        self._piece = chunk_size
        # With the first piece: a small response is one packet.
        self._send_headers_immediately = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await self._begin(request)
        try:
            path, status, coding = await self._find(request)
            code = _outcome(request, status)
            if code != 200:
                return await self._begin_without_file(request, code, status)
            file = await AIOFile(path, "rb")
        except PermissionError:
            return await self._begin(request, 403)
        except OSError:
            return await self._begin(request, 404)
        try:
            return await self._send(request, file, await file.stat(), coding)
        finally:
            await file.close()

    async def _begin(
        self, request: web.BaseRequest, code: int | None = None
    ) -> AbstractStreamWriter | None:
        """Send the headers, or have them sent with what follows."""
        if code is not None:
            self.set_status(code)
        return await web.StreamResponse.prepare(self, request)

    async def _begin_without_file(
        self, request: web.BaseRequest, code: int, status: os.stat_result
    ) -> AbstractStreamWriter | None:
        if code == 304:
            self.content_length = None
            self.etag = _etag(status)
            self.last_modified = status.st_mtime
        elif code == 412:
            self.content_length = 0
        return await self._begin(request, code)

    async def _find(
        self, request: web.BaseRequest
    ) -> tuple[pathlib.Path, os.stat_result, str | None]:
        """The file, or one beside it that is compressed as the client accepts it."""
        accepted = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
        for extension, coding in ENCODING_EXTENSIONS.items():
            if coding in accepted:
                path = self._place.with_suffix(self._place.suffix + extension)
                with contextlib.suppress(OSError):
                    status = await _osfiles.lstat(path)
                    if stat.S_ISREG(status.st_mode):
                        return path, status, coding
        return self._place, await _osfiles.stat(self._place), None

    async def _send(
        self,
        request: web.BaseRequest,
        file: AIOFile,
        status: os.stat_result,
        coding: str | None,
    ) -> AbstractStreamWriter | None:
        size = status.st_size
        try:
            begin, end, is_range = _asked_range(request, status)
        except ValueError:
            self.headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
            return await self._begin(request, 416)
        if is_range:
            self.headers[hdrs.CONTENT_RANGE] = f"bytes {begin}-{end - 1}/{size}"
            self.set_status(206)
        if hdrs.CONTENT_TYPE not in self.headers:
            self.content_type = _guess_type(self._place)
        if coding:
            self.headers[hdrs.CONTENT_ENCODING] = coding
            self.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
            self._compression = False  # not twice
        self.etag = _etag(status)
        self.last_modified = status.st_mtime
        self.content_length = end - begin
        self.headers[hdrs.ACCEPT_RANGES] = "bytes"
        writer = await self._begin(request)
        if writer is not None and request.method != hdrs.METH_HEAD and self.status not in _NO_BODY:
            while begin < end:
                piece = await file.read_bytes(min(self._piece, end - begin), begin)
                if not piece:
                    raise RuntimeError(f"{file.name!r} is shorter than expected")
                await writer.write(piece)
                begin += len(piece)
                if begin < end:
                    # Neither a cached read nor a write need suspend: others have their turn.
                    await asyncio.sleep(0)
        return writer


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _outcome(request: web.BaseRequest, status: os.stat_result) -> int:
    """The status code: 200 if the file is to be opened (RFC 9110, 13.2.2)."""
    if not stat.S_ISREG(status.st_mode):
        return 403
    etag = _etag(status)
    if request.if_match is not None:
        if not _is_among(etag, request.if_match, weak=False):
            return 412
    elif (date := request.if_unmodified_since) and status.st_mtime > date.timestamp():
        return 412
    if request.if_none_match is not None:
        if _is_among(etag, request.if_none_match, weak=True):
            return 304
    elif (date := request.if_modified_since) and status.st_mtime <= date.timestamp():
        return 304
    return 200


def _is_among(etag: str, given: tuple[ETag, ...], *, weak: bool) -> bool:
    if len(given) == 1 and given[0].value == "*":
        return True
    return any(one.value == etag for one in given if weak or not one.is_weak)


def _asked_range(request: web.BaseRequest, status: os.stat_result) -> tuple[int, int, bool]:
    """Begin and end of what is to be sent, and whether a range was asked for. Raises
    ``ValueError`` for one that there is not."""
    size = status.st_size
    if (date := request.if_range) is not None and status.st_mtime > date.timestamp():
        return 0, size, False
    begin, end = request.http_range.start, request.http_range.stop
    if begin is None:
        return 0, size, False
    if begin < 0:  # so many at the end
        begin = max(0, size + begin)
    if begin >= size:
        raise ValueError("the range begins behind the end")
    return begin, size if end is None else min(end, size), True


def _guess_type(path: pathlib.Path) -> str:
    if sys.version_info >= (3, 13):
        guessed = CONTENT_TYPES.guess_file_type(path)[0]
    else:
        guessed = CONTENT_TYPES.guess_type(path)[0]
    return guessed or "application/octet-stream"
