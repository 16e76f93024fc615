"""Random sequences of calls on one small tree by ``os``, on another by ``uringfile.os``.

Results, exceptions with their errno and names, and the trees at the end are compared.
URINGFILE_EXAMPLES=10000 makes it that many examples; a hundred or so otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uringfile import os as ours

EXAMPLES = int(os.environ.get("URINGFILE_EXAMPLES", "160"))

NAMES = [
    "a",
    "b",
    "file",
    "empty",
    "dir",
    "dir/file",
    "dir/deep",
    "dir/deep/er",
    "file/below",
    "link",
    "dirlink",
    "dirlink/file",
    "dangling",
    "loop",
    "loop/x",
    "new",
    "new/er/est",
    "dir/",
    "file/",
    "dir/.",
    "dir/../file",
    "",
    ".",
    os.fsdecode(b"not-\xffutf"),
    "n" * 255,
    "n" * 256,
    "d/" * 2500,
    "nul\0l",
]

names = st.sampled_from(NAMES)
SHALLOW = st.sampled_from([name for name in NAMES if name.count("/") < 10])
kinds = st.sampled_from(["str", "bytes", "Path"])
forms = st.sampled_from(["relative", "absolute", "dir_fd"])
modes = st.sampled_from([0o777, 0o700, 0o644, 0o1777, 0])
booleans = st.booleans()

# The name of the function, and what its arguments are drawn from: "path" is a path.
CALLS: dict[str, tuple[list[Any], dict[str, Any], bool]] = {
    # name: positional, keyword arguments, whether it takes dir_fd
    "stat": (["path"], {"follow_symlinks": booleans}, True),
    "lstat": (["path"], {}, True),
    "path.exists": (["path"], {}, False),
    "path.lexists": (["path"], {}, False),
    "path.isfile": (["path"], {}, False),
    "path.isdir": (["path"], {}, False),
    "path.islink": (["path"], {}, False),
    "path.ismount": (["path"], {}, False),
    "path.getsize": (["path"], {}, False),
    "path.samefile": (["path", "path"], {}, False),
    "unlink": (["path"], {}, True),
    "remove": (["path"], {}, True),
    "rmdir": (["path"], {}, True),
    "mkdir": (["path", modes], {}, True),
    "makedirs": (["path", modes], {"exist_ok": booleans}, False),
    "rename": (["path", "path"], {}, True),
    "replace": (["path", "path"], {}, True),
    "renames": (["path", "path"], {}, False),
    "removedirs": (["path"], {}, False),
    "link": (["path", "path"], {"follow_symlinks": booleans}, True),
    "symlink": (["path", "path"], {}, True),
    "readlink": (["path"], {}, True),
    "listdir": (["path"], {}, False),
    "scandir": (["path"], {}, False),
    "walk": (["path", booleans], {"followlinks": st.just(False)}, False),
    "access": (["path", st.sampled_from([os.F_OK, os.R_OK, os.X_OK])], {}, True),
    "statvfs": (["path"], {}, False),
    "chmod": (["path", st.sampled_from([0o700, 0o755])], {}, True),
    "utime": (["path", st.just((1e9, 2e9))], {"follow_symlinks": booleans}, True),
    "truncate": (["path", st.sampled_from([0, 3, 5000, -1])], {}, False),
    "open": (
        ["path", st.sampled_from([os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_CREAT | os.O_EXCL])],
        {"mode": modes},
        True,
    ),
}


@st.composite
def calls(draw: Any) -> tuple[str, list[Any], dict[str, Any], str]:
    name = draw(st.sampled_from(sorted(CALLS)))
    positional, keywords, takes_dir_fd = CALLS[name]
    form = draw(forms if takes_dir_fd else st.sampled_from(["relative", "absolute"]))
    kind = draw(kinds)  # of both, or os.path.join and the like refuse
    # makedirs of the standard module fails at a deep path for want of stack.
    some = SHALLOW if name in ("makedirs", "renames") else names
    args = [("path", kind, draw(some)) if arg == "path" else draw(arg) for arg in positional]
    return name, args, {key: draw(value) for key, value in keywords.items()}, form


def make_tree(root: Path) -> None:
    root.mkdir()
    (root / "file").write_bytes(b"some data")
    (root / "empty").touch()
    (root / "dir" / "deep").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"other")
    (root / "link").symlink_to("file")
    (root / "dirlink").symlink_to("dir")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (root / "stays").touch()  # so that removedirs ends here


def tree_of(root: Path) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for folder, dirs, files in os.walk(os.fsencode(root)):
        for name in [*dirs, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path).replace(os.fsencode(root), b"ROOT")
            relative = os.path.relpath(path, os.fsencode(root))
            found[relative] = (status.st_mode, status.st_nlink, content)
    return found


class World:
    """One of the two trees, and whose functions work on it."""

    def __init__(self, root: Path, module: Any) -> None:
        self.root = root
        self.module = module
        make_tree(root)
        self.fd = os.open(root, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.fd)
        shutil.rmtree(self.root)

    def path(self, kind: str, name: str, form: str) -> Any:
        # os.path.join would make an absolute path of the empty name, too.
        text = f"{self.root}/{name}" if form == "absolute" else name
        if kind == "bytes":
            return os.fsencode(text)
        return Path(text) if kind == "Path" and "\0" not in text else text

    def call(self, name: str, args: list[Any], kwargs: dict[str, Any], form: str) -> Any:
        """The outcome, without what must differ."""
        os.chdir(self.root if form == "relative" else "/")
        function = self.module
        for part in name.split("."):
            function = getattr(function, part)
        paths = [
            self.path(arg[1], arg[2], form) if type(arg) is tuple and arg[0] == "path" else arg
            for arg in args
        ]
        kwargs = dict(kwargs)
        if form == "dir_fd":
            keys = ["dir_fd"] if name not in TWO else ["src_dir_fd", "dst_dir_fd"]
            kwargs.update(dict.fromkeys(keys, self.fd))
        try:
            return self.plain(name, function(*paths, **kwargs))
        except (OSError, ValueError, TypeError, NotImplementedError) as error:
            if isinstance(error, OSError):
                names = [self.without_root(n) for n in (error.filename, error.filename2)]
                return type(error), error.errno, str(error.strerror), names
            return type(error)

    def plain(self, name: str, result: Any) -> Any:
        if inspect.isawaitable(result) and name != "scandir":
            result = loop.run_until_complete(result)  # type: ignore[arg-type]
        if name == "scandir":
            return self.entries(result)
        if name == "walk":
            found = list(result) if not hasattr(result, "__aiter__") else collect(result)
            return [(self.without_root(a), sorted(b), sorted(c)) for a, b, c in found]
        if name == "open":
            status, flags = os.fstat(result), os.get_inheritable(result)
            os.close(result)
            return status.st_mode, status.st_size, flags
        if isinstance(result, os.stat_result):
            return result.st_mode, result.st_nlink, result.st_size, result.st_uid, type(result)
        if isinstance(result, os.statvfs_result):
            return result.f_bsize, result.f_namemax
        return sorted(result) if isinstance(result, list) else self.without_root(result)

    def entries(self, result: Any) -> Any:
        asynchronous = hasattr(result, "__aiter__")
        found = collect(result) if asynchronous else list(result)
        plain = []
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            if asynchronous:
                status = loop.run_until_complete(status)
            facts: list[Any] = [entry.name, self.without_root(entry.path), entry.is_symlink()]
            facts += [self.without_root(os.fspath(entry)), status.st_mode, type(entry.inode())]
            for follow in (False, True):
                for question in (entry.is_dir, entry.is_file):
                    try:
                        facts.append(question(follow_symlinks=follow))
                    except OSError as error:
                        facts.append(error.errno)
            plain.append(facts)
        return sorted(plain)

    def without_root(self, name: Any) -> Any:
        if isinstance(name, bytes):
            return name.replace(os.fsencode(self.root), b"ROOT")
        return name.replace(str(self.root), "ROOT") if isinstance(name, str) else name


TWO = {"rename", "replace", "link"}

loop: asyncio.AbstractEventLoop


def refuse_both(call: tuple[str, list[Any], dict[str, Any], str], got: Any, expected: Any) -> bool:
    """Of two names that are both wrong io_uring looks at the form of both before the rest."""
    refused = [isinstance(o, tuple) and isinstance(o[0], type) for o in (got, expected)]
    paths = [arg[2] for arg in call[1] if isinstance(arg, tuple) and arg[0] == "path"]
    return all(refused) and len(paths) == 2 and any(not 0 < len(p) < 4000 for p in paths)


def collect(iterator: Any) -> list[Any]:
    async def gather() -> list[Any]:
        return [item async for item in iterator]

    return loop.run_until_complete(gather())


@contextlib.contextmanager
def own_loop() -> Iterator[None]:
    global loop
    loop = asyncio.new_event_loop()
    before = os.getcwd()
    try:
        yield
    finally:
        os.chdir(before)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="its os puts other names in errors")
@pytest.mark.timeout(0)
def test_random_calls(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URINGFILE_ENGINE", engine)
    folder = Path(tempfile.mkdtemp())
    numbers: Iterator[int] = iter(range(10**9))

    @settings(
        max_examples=max(1, EXAMPLES // 2),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(calls(), min_size=1, max_size=25))
    def compare(sequence: list[tuple[str, list[Any], dict[str, Any], str]]) -> None:
        number = next(numbers)
        worlds = [World(folder / f"{who}{number}", module) for who, module in WORLDS]
        try:
            for call in sequence:
                expected, got = [world.call(*call) for world in worlds]
                if not (engine == "io_uring" and refuse_both(call, got, expected)):
                    assert got == expected, call
            os.chdir("/")
            expected_tree, tree = [tree_of(world.root) for world in worlds]
            assert tree == expected_tree
        finally:
            for world in worlds:
                world.close()

    try:
        with own_loop():
            compare()
    finally:
        shutil.rmtree(folder)


# Of one length, or names get too long in one of them alone.
WORLDS: list[tuple[str, Any]] = [("theirs", os), ("ours--", ours)]


def test_all_the_functions_are_compared() -> None:
    compared = {name.rpartition(".")[2] for name in CALLS}
    elsewhere = {"close", "ftruncate", "posix_fallocate", "sendfile", "path"}
    assert set(ours.__all__) - {"DirEntry", "ScandirIterator"} <= compared | elsewhere


@pytest.mark.parametrize(
    "name", [name for name in ours.__all__ if name not in ("DirEntry", "ScandirIterator", "path")]
)
def test_arguments_have_the_standard_names(name: str) -> None:
    theirs: Callable[..., Any] = getattr(os, name, None) or getattr(os.path, name)
    try:
        expected = inspect.signature(theirs).parameters
    except ValueError:
        # A default has no value (chmod: since Python 3.13, link: 3.14).
        assert name in ("utime", "chmod", "link")
        return
    got = inspect.signature(getattr(ours, name)).parameters
    assert [n for n in got if n in expected] == [n for n in expected if n in got]
    for parameter, value in got.items():
        if name in ("exists", "lexists", "isfile", "isdir", "islink", "getsize"):
            continue  # their one argument is called this or that, by version
        assert parameter in expected
        default = expected[parameter].default
        assert value.default == default or default is inspect.Parameter.empty
