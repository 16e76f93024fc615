"""The package as it is shipped: sdist to wheel to import, layers, other systems."""

from __future__ import annotations

import ast
import datetime
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import release
from conftest import run_python
from native_build import why_no_build

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "uringfile"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and a wheel that was built from it."""
    pytest.importorskip("build")
    if (reason := why_no_build()) is not None:
        pytest.skip(reason)
    out = tmp_path_factory.mktemp("dist")
    # What builds it is here: isolated, it would be installed anew for each.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return out


@pytest.mark.timeout(300)
def test_sdist_carries_the_c_sources(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    in_tree = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*.[ch]")}
    assert in_tree | {"csrc/build_native.py", "setup.py", "LICENSE", "README.md"} <= names
    assert "tests/test_contract.py" in names
    assert list(release.distribution(sdist)) == []


@pytest.mark.timeout(300)
def test_the_wheel_imports_and_reads(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    if not sysconfig.get_config_var("Py_GIL_DISABLED") and sys.implementation.name == "cpython":
        assert "-cp310-abi3-" in wheel.name
    assert list(release.distribution(wheel)) == []
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "uringfile/_bench/workloads/ticker.py" in names
    code = """
import asyncio, sys, uringfile
assert uringfile.__file__.startswith(sys.argv[1]), uringfile.__file__
async def main():
    async with uringfile.AIOFile(sys.argv[2], "rb") as f:
        print(len(await f.read()))
asyncio.run(main())
"""
    site = str(tmp_path / "site")
    done = run_python(code, site, str(wheel), PYTHONPATH=site)
    assert done.stdout == f"{wheel.stat().st_size}\n", done.stderr


def test_other_systems_get_an_import_error() -> None:
    done = run_python("import sys; sys.platform = 'darwin'; import uringfile")
    assert "ImportError: uringfile needs Linux" in done.stderr


# From the bottom to the top. A module may import from its own line and from those above it.
LAYERS = [
    {"_native", "_environment"},
    {
        "_engine",
        "_errors",
        "_mode",
        "_paths",
        "_stats",
        "_statx",
        "_codec",
        "_splitter",
        "_frames",
        "_blocks",
        "_kernel",
        "_poll",
    },
    {"_cookie", "_newlines", "_window", "_background", "_executor", "_rotation", "_frames_search"},
    {"_backlog", "_linefile"},
    {"_filehandler"},
    {"_rotatinghandler"},
    {"logging"},
    {"_logdamage", "_logbatch", "_logpolicy"},
    {"_decoding"},
    {"_native_engine", "_fd", "_inflight", "_batch", "_pool"},
    {"_ending", "_inotify", "_watch", "_held", "_turns"},
    {"_choice", "_driver"},
    {"_uninterrupted"},
    {"_loop", "_open"},
    {"_names"},
    {"_osfiles", "_ospath", "_scandir"},
    {"_ostree"},
    {"os"},
    {"_copy"},
    {"_direct", "_streamio", "_gather", "_logfile"},
    {"_logdirect"},
    {"_logopen"},
    {"_commit"},
    {"_log"},
    {"_closing"},
    {"_openfile"},
    {"_inodefile"},
    {"_manyfile"},
    {"_file"},
    {"_opener"},
    {"_whole"},
    {"_readers", "_writer", "_shared", "_writeback", "_follow"},
    {"_recover"},
    {"_logreader"},
    {"_fileobject"},
    {"_buffered"},
    {"_writing"},
    {"_reading"},
    {"_binary", "_textposition"},
    {"_textfile"},
    {"_async_open", "_detach"},
    {"aiohttp", "anyio", "starlette"},
    {"_temporary"},
    {"_spooled"},
    {"tempfile"},
    {"_atomic"},
    {"_bench"},
    {"aiofiles"},
    {"__init__"},
    {"_commands"},
]

PURE = {
    "_environment",
    "_mode",
    "_paths",
    "_statx",
    "_codec",
    "_splitter",
    "_frames",
    "_frames_search",
    "_cookie",
    "_newlines",
    "_window",
}


def imports(module: str) -> set[str]:
    """What a module of the package imports from the package when it runs."""
    folder = PACKAGE / module
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]
    return set().union(*map(imports_of, paths))


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text()).body:  # not what stands under TYPE_CHECKING
        if isinstance(node, ast.ImportFrom) and node.module == "uringfile":
            names = {alias.name for alias in node.names}
            found |= {name if _is_module(name) else "__init__" for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uringfile."):
            found.add((node.module or "").split(".")[1])
    return found


def _is_module(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def test_imports_point_downwards() -> None:
    allowed: set[str] = set()
    for layer in LAYERS:
        allowed |= layer
        for module in layer - {"_native"}:
            assert imports(module) <= allowed, module


def test_pure_modules_import_pure_ones_alone() -> None:
    for module in PURE:
        assert imports(module) <= PURE
        text = (PACKAGE / f"{module}.py").read_text()
        assert "asyncio" not in text
        assert "cffi" not in text


def test_one_module_imports_the_cffi_library() -> None:
    importers = [
        path.stem for path in PACKAGE.glob("*.py") if "uringfile._native import" in path.read_text()
    ]
    assert importers == ["_native_engine"]


def test_the_version_stands_in_one_place() -> None:
    import uringfile

    assert uringfile.__version__ == release.version()
    assert metadata.version("uringfile") == uringfile.__version__
    assert list(release.changelog(final=False)) == []
    assert not re.search(r"^version = \"", (ROOT / "pyproject.toml").read_text(), re.M)


UNRELEASED = "# Changelog\n\n## [Unreleased]\n\n- one\n"
RELEASED = (
    f"## [Unreleased]\n\n## [{release.version()}] - 2030-01-02\n\n- one\n\n## [0.0.1]\n\n- no\n"
)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (RELEASED, []),
        (UNRELEASED, ["no entry '## [", "unreleased: they belong to"]),
        (RELEASED.replace(" - 2030-01-02", ""), ["no entry '## ["]),
        (RELEASED.replace("- one\n", ""), ["no entry '## [", "none that is unreleased"]),
        (UNRELEASED + RELEASED.partition("\n\n")[2], ["unreleased: they belong to"]),
    ],
)
def test_the_changelog_of_a_release(
    text: str, wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src/uringfile").mkdir(parents=True)
    (tmp_path / "src/uringfile/__init__.py").write_text(f'__version__ = "{release.version()}"\n')
    (tmp_path / "CHANGELOG.md").write_text(text)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    found = list(release.changelog(final=True))
    assert len(found) == len(wrong)
    assert all(part in problem for part, problem in zip(wrong, found, strict=True))


def test_a_release_has_all_its_wheels() -> None:
    wheels = ["uringfile-1-{0}-{1}_2_28_{2}.{1}2014_{2}.whl".format(*t) for t in release.WHEELS]
    names = ["uringfile-1.tar.gz", *wheels]
    assert list(release.missing([*map(Path, names)])) == []
    for i, name in enumerate(names):
        assert len(list(release.missing([Path(n) for n in names if n != name]))) == 1, i


def test_links_lead_somewhere() -> None:
    for document in sorted(ROOT.glob("*.md")):
        assert list(release.links(document)) == []


def test_the_report_of_the_benchmarks_is_of_this_version() -> None:
    measured = re.search(r"Measured (\S+)", (ROOT / "benchmarks/REPORT.md").read_text())
    assert measured is not None
    day = datetime.date.fromisoformat(measured[1])
    assert list(release.report(day)) == []
    (old,) = release.report(day + datetime.timedelta(days=1 + release.REPORT_DAYS))
    assert "run it again" in old
