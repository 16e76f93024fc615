#!/usr/bin/env python3
"""A server of static files over HTTP: ranges, conditional requests, bounded memory.

Needs `pip install 'uringfile[aiohttp]'`. From the shell:

    static_server.py DIR [--port 8080] [--listing] [--max-age 3600] [--follow-symlinks]

Nothing outside the directory is served: not by "..", and not by symbolic links unless
`--follow-symlinks` says so. Names that begin with a dot are not served either. (Whoever can write
in the directory can exchange a file for a link between the look and the open.) For each client at
most 256 KiB of a file are in memory, beside what the socket takes.

As a part of an aiohttp application:

    app.router.add_get("/files/{path:.*}", StaticFiles("/srv/files").answer)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import html
import os
import signal
import stat
import sys
from urllib.parse import quote

from aiohttp import web

import uringfile.os
from uringfile.aiohttp import FileResponse


class StaticFiles:
    """The files below a directory, as answers to GET and HEAD."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        follow_symlinks: bool = False,
        listing: bool = False,
        max_age: int | None = None,
    ) -> None:
        """Raises ``OSError`` if there is no such directory."""
        self.root = os.path.realpath(root, strict=True)
        if not os.path.isdir(self.root):
            raise NotADirectoryError(20, "Not a directory", self.root)
        self.follow_symlinks = follow_symlinks
        self.listing = listing
        self.headers = {"X-Content-Type-Options": "nosniff"}
        if max_age is not None:
            self.headers["Cache-Control"] = f"max-age={max_age}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = request.match_info["path"]
        try:
            path, status = await self.find(asked)
            if stat.S_ISDIR(status.st_mode):
                return await self._answer_directory(request, asked, path)
        except PermissionError:
            raise web.HTTPForbidden from None
        except OSError:  # not there, a loop of links, a name that is too long
            raise web.HTTPNotFound from None
        return FileResponse(path, headers=self.headers)

    async def find(self, asked: str) -> tuple[str, os.stat_result]:
        """What a path of a URL names, and its status. Raises ``OSError``."""
        names = [name for name in asked.split("/") if name not in ("", ".")]
        if "\0" in asked or any(name.startswith(".") for name in names):
            raise FileNotFoundError(2, "No such file or directory", asked)
        path = self.root
        status = await uringfile.os.stat(path)
        # What is asked about one name after another is in the kernel's cache, and needs no
        # thread; realpath() does, and is for links.
        for name in names:
            path = f"{path}/{name}"
            status = await uringfile.os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                if not self.follow_symlinks:
                    path = await self._inside(path)
                status = await uringfile.os.stat(path)
        if asked.endswith("/") and not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(20, "Not a directory", asked)
        return path, status

    async def _inside(self, link: str) -> str:
        """Where a link leads to; raises ``PermissionError`` if that is outside."""
        target = os.fsdecode(await uringfile.os.path.realpath(link, strict=True))
        if os.path.commonpath([self.root, target]) != self.root:
            raise PermissionError(13, "the link leads out of the directory", link)
        return target

    async def _answer_directory(
        self, request: web.Request, asked: str, path: str
    ) -> web.StreamResponse:
        if asked and not asked.endswith("/"):
            # Else the browser would take relative links for those of the directory above.
            raise web.HTTPPermanentRedirect(f"{quote(asked.rpartition('/')[2])}/")
        try:
            index, status = await self.find(f"{asked}index.html")
            if stat.S_ISREG(status.st_mode):
                return FileResponse(index, headers=self.headers)
        except FileNotFoundError:
            pass
        if not self.listing:
            raise web.HTTPNotFound
        return await self._list(asked, path)

    async def _list(self, asked: str, path: str) -> web.StreamResponse:
        names = [".."] if asked else []
        async for entry in uringfile.os.scandir(path):
            if not entry.name.startswith("."):
                with contextlib.suppress(OSError):  # a loop of links
                    names.append(entry.name + "/" * entry.is_dir())
        title = html.escape(f"/{asked}")
        lines = [
            f'<li><a href="{quote(name, errors="surrogateescape")}">{_shown(name)}</a></li>'
            for name in sorted(names)
        ]
        body = f"<!DOCTYPE html><title>{title}</title><h1>{title}</h1><ul>{''.join(lines)}</ul>\n"
        return web.Response(text=body, content_type="text/html")


def _shown(name: str) -> str:
    return html.escape(name.encode(errors="surrogateescape").decode(errors="replace"))


def application(files: StaticFiles) -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", files.answer)  # HEAD, too
    return app


# ---- the command -----------------------------------------------------------------------


async def serve(args: argparse.Namespace) -> None:
    files = StaticFiles(
        args.directory,
        follow_symlinks=args.follow_symlinks,
        listing=args.listing,
        max_age=args.max_age,
    )
    runner = web.AppRunner(application(files), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, args.host, args.port)
        await site.start()
        # Port 0 is any that is free.
        for host, port, *_ in runner.addresses:
            print(f"serving {files.root} at http://{host}:{port}/", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
    finally:
        await runner.cleanup()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve the files below a directory over HTTP.")
    parser.add_argument("directory")
    parser.add_argument("--host", default="127.0.0.1", help="by default only this machine")
    parser.add_argument("--port", type=int, default=8080, help="8080 by default; 0: any")
    parser.add_argument(
        "--listing", action="store_true", help="list directories without index.html"
    )
    parser.add_argument("--max-age", type=int, metavar="S", help="how long clients may keep a file")
    parser.add_argument(
        "--follow-symlinks", action="store_true", help="also those that lead out of the directory"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    try:
        asyncio.run(serve(parse(arguments)))
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
