"""The documentation: that nothing public is missing, and that it builds."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest

import uringfile
import uringfile.aiofiles
import uringfile.logging
import uringfile.os
import uringfile.tempfile
from uringfile import _engine, _ospath
from uringfile._driver import Driver

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def documented() -> list[str]:
    pages = (DOCS / "reference").glob("*.md")
    return [name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]


def importable() -> list[str]:
    """Without the modules whose packages are not installed here."""
    missing = [name for name in ("starlette", "aiohttp", "anyio") if find_spec(name) is None]
    return [name for name in documented() if name.split(".")[1] not in missing]


def names(module: ModuleType, prefix: str) -> set[str]:
    return {f"{prefix}.{name}" for name in module.__all__}


def test_the_reference_has_every_public_name_once() -> None:
    of_path = {*_ospath.__all__}
    public = names(uringfile, "uringfile")
    public |= {n for n in names(uringfile.os, "uringfile.os") if n.split(".")[-1] not in of_path}
    public |= names(_ospath, "uringfile.os.path")
    public |= names(uringfile.tempfile, "uringfile.tempfile")
    public |= names(uringfile.logging, "uringfile.logging")
    public |= {"uringfile.aiofiles.open", "uringfile.aiofiles.install"}
    public |= {f"uringfile.{name}.FileResponse" for name in ("starlette", "aiohttp")}
    public |= {"uringfile.anyio.open_file", "uringfile.anyio.AsyncFile"}
    found = documented()
    assert len(found) == len(set(found))
    assert {*found} == public - {"uringfile.os.path"}


def test_what_is_documented_has_docstrings() -> None:
    for name in importable():
        assert resolve_name(name).__doc__, name


def test_the_names_of_the_drop_in_are_told() -> None:
    text = (DOCS / "reference" / "aiofiles.md").read_text()
    for name in uringfile.aiofiles.__all__:
        assert f"`{name}`" in text, name


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in text] == []


def test_files_that_the_texts_name_exist() -> None:
    places = (ROOT, ROOT / "src" / "uringfile", ROOT / "csrc", ROOT / "tests")
    for page in [ROOT / "CONTRIBUTING.md", DOCS / "how-it-works.md"]:
        for name in re.findall(r"`([\w./-]+\.(?:py|c|h|md|yml))`", page.read_text()):
            if name != "my_program.py":
                assert any((place / name).exists() for place in places), (page.name, name)


def test_methods_that_the_texts_name_exist() -> None:
    known = {"Driver": Driver, "AIOFile": uringfile.AIOFile}
    named = re.findall(r"`(\w+)\.(\w+)(?:\(\))?`", (DOCS / "how-it-works.md").read_text())
    found = [(known[name], method) for name, method in named if name in known]
    assert len(found) > 3
    for owner, method in found:
        assert hasattr(owner, method), (owner, method)
    for name in re.findall(r"`(?:self\.)?(_\w+)\(\)`", (DOCS / "how-it-works.md").read_text()):
        assert hasattr(uringfile.AIOFile, name), name


def test_the_operations_are_the_contracts() -> None:
    """Of the recipe for a new operation: what every operation has beside its number."""
    contract = (ROOT / "csrc" / "engine_api.h").read_text()
    comment = contract.partition("/*\n * Operations")[2].partition("*/")[0]
    ring = (ROOT / "csrc" / "uring_sqe.c").read_text()
    for name in _engine.OPCODE_NAMES:
        assert name.upper() in comment, name
        assert f"[UF_{name.upper()}] = " in ring, name
    numbers = contract.partition("enum uf_opcode {")[2].partition("UF_OPCODES")[0]
    in_c = re.findall(r"^\tUF_([A-Z_]+),", numbers, re.M)
    assert [name.lower() for name in in_c] == [*_engine.OPCODE_NAMES]
    assert [getattr(_engine, name) for name in in_c] == [*range(len(in_c))]


# Of the library's own use.
NOT_TOLD = {"as_written", "close_at_once", "detach", "open_at_once", "read_cached_rest"}


def members() -> set[str]:
    """The public methods and properties of the classes that are documented; but not what has the
    name of, and says no more than, one of another package's class that they derive from."""
    found = set()
    for name in importable():
        thing = resolve_name(name)
        for member in dir(thing) if isinstance(thing, type) else ():
            owners = [base for base in thing.__mro__ if member in vars(base)]
            inherited = [base for base in owners if not base.__module__.startswith("uringfile")]
            what = vars(owners[0])[member]
            if (
                not member.startswith("_")
                and owners[0] not in inherited
                and not getattr(what, "__isabstractmethod__", False)
                and not (inherited and not what.__doc__)
                and (member not in NOT_TOLD or thing is not uringfile.AIOFile)
            ):
                found.add(f"{name}.{member}")
    return found


@pytest.mark.timeout(120)
def test_it_builds_strictly(tmp_path: Path) -> None:
    packages = (
        "mkdocs",
        "material",
        "mkdocstrings",
        "griffe_sphinx",
        "griffe_inherited_docstrings",
    )
    if missing := [name for name in packages if find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (the extra docs)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert len(pages) > 25
    told = {name for text in pages for name in re.findall(r' id="(uringfile\.[\w.]+)"', text)}
    assert members() - told == set()
    for text in pages:  # a reader's browser asks nobody else for anything
        assert not re.search(r'<(script|link|img|iframe)[^>]* (src|href)="(https?:)?//', text)
