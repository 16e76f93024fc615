"""Odd arguments: ``uringfile.os`` gives the result of ``os``, or the same exception with the same
errno and names. Random sequences of ordinary ones: test_os_differential.py."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run

from uringfile import os as ours
from uringfile import pending_operations

pytestmark = pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="its os raises other errors, with other names"
)

NOBODY = 65534

# No descriptor has this number.
CLOSED = 9999


@pytest.fixture(autouse=True)
def by_that_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)


class Named(os.PathLike[Any]):
    def __init__(self, name: Any) -> None:
        self._name = name

    def __fspath__(self) -> Any:
        if isinstance(self._name, Exception):
            raise self._name
        return self._name


class Text(str):
    pass


PATHS: dict[str, Any] = {
    "file": "file",
    "bytes": b"file",
    "str of a subclass": Text("file"),
    "PathLike of str": Named("file"),
    "PathLike of bytes": Named(b"file"),
    "PathLike of int": Named(3),
    "PathLike that raises": Named(ZeroDivisionError()),
    "Path": Path("file"),
    "empty": "",
    "empty bytes": b"",
    "dot": ".",
    "dots": "..",
    "a slash behind a file": "file/",
    "a slash behind a directory": "dir/",
    "slashes behind a link": "dirlink//",
    "slashes within": "dir//file",
    "a dot within": "dir/./file",
    "dots within": "dir/../file",
    "dots behind a file": "file/..",
    "a link": "link",
    "a slash behind a link to a file": "link/",
    "dangling": "dangling",
    "a slash behind a dangling link": "dangling/",
    "a loop": "loop",
    "below a loop": "loop/x",
    "below a file": "file/x",
    "missing": "missing",
    "a slash behind what is missing": "missing/",
    "below what is missing": "missing/x",
    "255 bytes": "n" * 255,
    "256 bytes": "n" * 256,
    "255 characters": "ä" * 255,
    "too long": "d/" * 2500,
    "a zero byte": "fi\0le",
    "a zero byte in bytes": b"file\0",
    "no UTF-8": os.fsdecode(b"\xff"),
    "a half character": "\ud800",
    "a line": "one\ntwo",
    "a full directory": "dir",
    "an empty directory": "vacant",
    "not to be read": "closed",
    "below what is not to be read": "closed/file",
    "not to be changed": "fixed/file",
    "new where nothing is to be changed": "fixed/new",
    "None": None,
    "a float": 1.5,
    "a list": ["file"],
    "a descriptor": "FD",
    "a closed descriptor": CLOSED,
    "a negative descriptor": -2,
    "no descriptor": 2**40,
}

#: Outside of the tree: for those that only ask.
ELSEWHERE = {"the root": "/", "two slashes": "//", "another file system": "/proc/version"}

ASKING = [
    "stat",
    "lstat",
    "path.exists",
    "path.isdir",
    "path.ismount",
    "path.getsize",
    "path.realpath",
    "access",
    "readlink",
    "listdir",
    "scandir",
    "statvfs",
    "open",
]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def with_(*args: Any, **kwargs: Any) -> Arguments:
    return args, kwargs


P = "PATH"

#: One call of each, in which PATH is replaced by the odd one.
ON_PATH: dict[str, list[Arguments]] = {
    "stat": [with_(P), with_(P, follow_symlinks=False)],
    "lstat": [with_(P)],
    "path.exists": [with_(P)],
    "path.lexists": [with_(P)],
    "path.isfile": [with_(P)],
    "path.isdir": [with_(P)],
    "path.islink": [with_(P)],
    "path.ismount": [with_(P)],
    "path.getsize": [with_(P)],
    "path.getmtime": [with_(P)],
    "path.realpath": [with_(P), with_(P, strict=True)],
    "path.samefile": [with_(P, "file"), with_("file", P)],
    "access": [with_(P, os.R_OK), with_(P, os.F_OK, follow_symlinks=False), with_(P, 99)],
    "readlink": [with_(P)],
    "listdir": [with_(P)],
    "scandir": [with_(P)],
    "walk": [with_(P), with_(P, topdown=False)],
    "statvfs": [with_(P)],
    "open": [
        with_(P, os.O_RDONLY),
        with_(P, os.O_RDONLY | os.O_DIRECTORY),
        with_(P, 2**70),
        with_(P, 1.5),
        with_(P, os.O_RDONLY, 2**70),
    ],
    "chmod": [with_(P, 0o700), with_(P, "x"), with_(P, 0o700, follow_symlinks=False)],
    "utime": [with_(P, (1, 2)), with_(P, (1, 2), ns=(1, 2)), with_(P, ns=(1, 2)), with_(P, 5)],
    "truncate": [with_(P, 3), with_(P, -1), with_(P, 2**70), with_(P, "x")],
    "mkdir": [with_(P), with_(P, "x"), with_(P, -1), with_(P, 2**70)],
    "rmdir": [with_(P)],
    "makedirs": [with_(P), with_(P, exist_ok=True)],
    "removedirs": [with_(P)],
    "symlink": [with_("target", P), with_(P, "new link")],
    "link": [with_("file", P), with_(P, "new name"), with_(P, "newer", follow_symlinks=False)],
    "rename": [with_("file", P), with_(P, "new"), with_(P, P)],
    "replace": [with_("file", P), with_(P, "new")],
    "renames": [with_("file", P), with_(P, "new/er")],
    "unlink": [with_(P)],
    "remove": [with_(P)],
}

DIR_FDS: dict[str, Any] = {
    "the root": "FD",
    "a file": "FILE",
    "closed": CLOSED,
    "negative": -1,
    "AT_FDCWD": -100,
    "no number": "x",
    "too large": 2**40,
    "a float": 1.5,
    "None": None,
}

ON_DIR_FD: dict[str, Arguments] = {
    "stat": with_(P),
    "lstat": with_(P),
    "access": with_(P, os.R_OK),
    "readlink": with_(P),
    "open": with_(P, os.O_RDONLY),
    "chmod": with_(P, 0o700),
    "utime": with_(P),
    "mkdir": with_(P),
    "rmdir": with_(P),
    "unlink": with_(P),
    "remove": with_(P),
    "symlink": with_("target", P),
}

#: Descriptors, each in turn, in the place of FD.
ON_DESCRIPTOR: dict[str, list[Arguments]] = {
    "close": [with_(P)],
    "ftruncate": [with_(P, 3), with_(P, -1), with_(P, "x"), with_(P, 2**70)],
    "posix_fallocate": [
        with_(P, 0, 10),
        with_(P, 0, 0),
        with_(P, -1, 5),
        with_(P, 0, 2**70),
        with_(P, 0, 1.5),
    ],
    "sendfile": [with_(P, "FILE", 0, 4), with_("FILE", P, 0, 4), with_(P, "FILE", None, -1)],
    "path.sameopenfile": [with_(P, "FD"), with_("FD", P)],
}


class World:
    """A tree of its own, below a directory that others may enter."""

    def __init__(self, module: Any, folder: Path) -> None:
        self.module = module
        self.root = folder / ("theirs" if module is os else "ours--")
        self.root.mkdir()
        os.chmod(self.root, 0o777)
        for name in ("dir", "vacant", "closed", "fixed"):
            (self.root / name).mkdir()
        for name in ("file", "dir/file", "closed/file", "fixed/file", "stays"):
            (self.root / name).write_bytes(b"some data")
            (self.root / name).chmod(0o666)
        for link, target in [
            ("link", "file"),
            ("dirlink", "dir"),
            ("dangling", "x"),
            ("loop", "loop"),
        ]:
            (self.root / link).symlink_to(target)
        (self.root / "closed").chmod(0o604)  # others may read names, and no more
        (self.root / "fixed").chmod(0o555)
        (self.root / "dir").chmod(0o777)
        self.fds = {
            "FD": os.open(self.root, os.O_RDONLY),
            "FILE": os.open(self.root / "file", os.O_RDWR),
        }

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        shutil.rmtree(self.root)

    def outcome(self, loop: Any, name: str, arguments: Arguments) -> Any:
        function = self.module
        for part in name.split("."):
            function = getattr(function, part)
        args = [self._own(arg) for arg in arguments[0]]
        kwargs = {key: self._own(value) for key, value in arguments[1].items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                done = loop.run_until_complete(in_loop(function, args, kwargs))
                return self._plain(done)
        except OSError as error:
            names = [self._plain_name(n) for n in (error.filename, error.filename2)]
            return type(error), error.errno, error.strerror, names
        except Exception as error:
            return type(error)

    def _own(self, arg: Any) -> Any:
        return self.fds.get(arg, arg) if type(arg) is str else arg

    def _plain(self, result: Any) -> Any:
        """Without what must differ."""
        if isinstance(result, os.stat_result):
            return result.st_mode, result.st_nlink, result.st_size, result.st_uid
        if isinstance(result, os.statvfs_result):
            return result.f_bsize
        if isinstance(result, list):
            return sorted(map(repr, result))
        if isinstance(result, float):
            return float
        if isinstance(result, bytes):
            return result.replace(os.fsencode(self.root), b"ROOT")
        if isinstance(result, str):
            return result.replace(str(self.root), "ROOT")
        return result

    def _plain_name(self, name: Any) -> Any:
        if type(name) is int and name in self.fds.values():
            return "FD or FILE"
        return self._plain(name)

    def tree(self) -> list[Any]:
        os.chdir("/")
        found = []
        for folder, dirs, files in os.walk(self.root):
            for name in [*dirs, *files]:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                found.append((os.path.relpath(path, self.root), status.st_mode, size))
        return sorted(found)


async def in_loop(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    result = function(*args, **kwargs)
    if hasattr(result, "__aiter__"):
        result = [found async for found in result]
    elif inspect.iscoroutine(result):
        result = await result
    elif hasattr(result, "__next__"):
        result = list(result)
    if isinstance(result, list):
        return [kind(found) if hasattr(found, "is_dir") else found for found in result]
    if function in (os.open, ours.open):
        status = os.fstat(result)
        os.close(result)
        return status
    return result


def kind(entry: Any) -> Any:
    facts = [entry.name, entry.path, entry.is_symlink()]
    for question in (entry.is_dir, entry.is_file):
        try:
            facts.append(question())
        except OSError as error:
            facts.append(error.errno)
    return facts


@contextlib.contextmanager
def worlds() -> Iterator[list[World]]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    here = os.getcwd()
    both: list[World] = []
    try:
        both += [World(os, folder), World(ours, folder)]
        yield both
        assert both[0].tree() == both[1].tree()
    finally:
        os.chdir(here)
        for world in both:
            world.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    if uid != os.geteuid():
        os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


async def still_pending() -> list[Any]:
    """What was refused must not have begun, or the loop never ends."""
    return list(pending_operations())


@contextlib.contextmanager
def own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
        assert not loop.run_until_complete(still_pending())
    finally:
        run(asyncio.sleep(0), loop)


def users() -> list[int]:
    return [0, NOBODY] if os.getuid() == 0 else [os.getuid()]


def replaced(arguments: Arguments, path: Any) -> Arguments:
    def own(value: Any) -> Any:
        return path if type(value) is str and value == P else value

    return tuple(map(own, arguments[0])), {key: own(v) for key, v in arguments[1].items()}


def compare(name: str, calls: list[tuple[str, Arguments]]) -> None:
    differences = []
    for uid in users():
        with worlds() as both, own_loop() as loop:
            for which, arguments in calls:
                outcomes = []
                for world in both:
                    os.chdir(world.root)
                    with as_user(uid):
                        outcomes.append(world.outcome(loop, name, arguments))
                expected, got = outcomes
                if got != expected:
                    differences.append(f"{uid}: {name}({which}) {arguments}: {got}, not {expected}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("name", ON_PATH)
def test_odd_paths(name: str) -> None:
    paths = {**PATHS, **ELSEWHERE} if name in ASKING else PATHS
    calls = [
        (which, replaced(arguments, path))
        for arguments in ON_PATH[name]
        for which, path in paths.items()
        # Of the standard module these fail for want of stack.
        if which != "too long" or name not in ("makedirs", "renames")
    ]
    compare(name, [call for call in calls if not wrong_twice(name, *call)])


def wrong_twice(name: str, which: str, arguments: Arguments) -> bool:
    """Which of two mistakes is told of is not ours to copy."""
    if name == "stat" and "descriptor" in which:
        return "follow_symlinks" in arguments[1]
    bad = any(arg in ("x", 1.5, -1, 2**70) for arg in arguments[0][1:])
    return name in ("mkdir", "open") and bad and which not in ("file", "missing")


@pytest.mark.parametrize("name", ON_DIR_FD)
def test_odd_directories(name: str) -> None:
    calls = []
    for which, dir_fd in DIR_FDS.items():
        elsewhere = ["/proc/version"] if name in ASKING else []
        for path in ["file", "link", "missing", "new", "/nowhere/missing", *elsewhere]:
            args, kwargs = replaced(ON_DIR_FD[name], path)
            calls.append((f"{path} in {which}", (args, {**kwargs, "dir_fd": dir_fd})))
    compare(name, calls)


@pytest.mark.parametrize("name", ["rename", "replace", "link"])
def test_odd_directories_of_two(name: str) -> None:
    calls = []
    for which, dir_fd in DIR_FDS.items():
        for key, other in [("src_dir_fd", "dst_dir_fd"), ("dst_dir_fd", "src_dir_fd")]:
            for path in ("file", "missing", "dir"):
                arguments = with_(path, f"new {which} {key}", **{key: dir_fd, other: "FD"})
                calls.append((f"{path}, {key} {which}", arguments))
    compare(name, calls)


@pytest.mark.parametrize("name", ON_DESCRIPTOR)
def test_odd_descriptors(name: str) -> None:
    odd = {**DIR_FDS, "a huge number": 10**30, "bytes": b"1", "a list": [1]}
    if name == "close":
        del odd["the root"], odd["a file"]
    compare(
        name,
        [
            (which, replaced(arguments, fd))
            for arguments in ON_DESCRIPTOR[name]
            for which, fd in odd.items()
        ],
    )
