"""Whether the tree says the same everywhere before it is published as a release.

    python -m tests.release [--final] [FILE ...]

The version stands in one place, and the changelog has an entry for it; the benchmarks' report is
of this version, and not old; the README's links lead somewhere. Each FILE, an sdist or a wheel,
has the version and what belongs into it. With --final the entry must have a date, git nothing
that is not committed, and no wheel may be missing among FILEs. ``nox -s release`` makes the files,
tests them, and asks this.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Days after which the benchmarks are to be run again.
REPORT_DAYS = 60

IN_SDIST = {"setup.py", "csrc/build_native.py", "csrc/engine_api.h", "tests/conftest.py", "LICENSE"}
WHEELS = [
    (python, libc, machine)
    for python in ("cp310-abi3", "cp314-cp314t")
    for libc in ("manylinux", "musllinux")
    for machine in ("x86_64", "aarch64")
]
IN_WHEEL = {"uringfile/py.typed", "uringfile/seccomp.json", "uringfile/__init__.py"}


def version() -> str:
    """As the package says it, which is where the build reads it from."""
    text = (ROOT / "src/uringfile/__init__.py").read_text()
    (found,) = re.findall(r'^__version__ = "([^"]+)"$', text, re.M)
    return str(found)


def entries() -> dict[str, tuple[str, str]]:
    """Of the changelog: version, its date or nothing, and its text."""
    text = (ROOT / "CHANGELOG.md").read_text()
    _, *parts = re.split(r"^## \[([^]]+)\](?: - (\S+))?\n", text, flags=re.M)
    parts = [part or "" for part in parts]
    return {
        name: (date, body.strip())
        for name, date, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def changelog(final: bool) -> Iterator[str]:
    date, text = entries().get(version(), ("", ""))
    unreleased = entries().get("Unreleased", ("", ""))[1]
    if final and (not re.fullmatch(r"\d{4}-\d\d-\d\d", date) or not text):
        yield f"CHANGELOG.md has no entry '## [{version()}] - YYYY-MM-DD'"
    if final and unreleased:
        yield f"CHANGELOG.md has entries that are unreleased: they belong to {version()}"
    if not text and not unreleased:
        yield f"CHANGELOG.md has no entry for {version()}, and none that is unreleased"


def report(today: datetime.date) -> Iterator[str]:
    text = (ROOT / "benchmarks/REPORT.md").read_text()
    measured = re.search(r"^Measured (\d{4}-\d\d-\d\d)", text, re.M)
    if measured is None:
        yield "benchmarks/REPORT.md has no date"
    elif (today - datetime.date.fromisoformat(measured[1])).days > REPORT_DAYS:
        yield f"benchmarks/REPORT.md is of {measured[1]}: run it again (benchmarks/README.md)"
    if f": uringfile {version()} (" not in text:
        yield f"benchmarks/REPORT.md is not of version {version()}"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> Iterator[str]:
    """Those that lead to no file, or to no heading of one."""
    text = document.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", path):
            continue
        file = document.parent / path if path else document
        if not file.exists():
            yield f"{document.name}: no such file: {target}"
        elif anchor and anchor not in anchors(file.read_text()):
            yield f"{document.name}: no such heading: {target}"


def git() -> Iterator[str]:
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    if done.stdout:
        yield f"not committed:\n{done.stdout.rstrip()}"


def contents(path: Path) -> dict[str, bytes]:
    """What is in a wheel, or in an sdist, there without its top directory."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(path) as sdist:
        return {
            member.name.partition("/")[2]: file.read()
            for member in sdist.getmembers()
            if (file := sdist.extractfile(member)) is not None
        }


def distribution(path: Path) -> Iterator[str]:
    names = contents(path)
    metadata = "PKG-INFO"
    needed = IN_SDIST
    if path.suffix == ".whl":
        metadata = f"uringfile-{version()}.dist-info/METADATA"
        needed = IN_WHEEL
        if sum(name.endswith(".so") for name in names) != 1:
            yield f"{path.name}: not one compiled module"
        if any(name.endswith((".c", ".h")) for name in names):
            yield f"{path.name}: sources"
    if missing := needed - names.keys():
        yield f"{path.name}: without {', '.join(sorted(missing))}"
    if metadata not in names:
        yield f"{path.name}: without {metadata}"
    elif (found := Parser().parsestr(names[metadata].decode())["Version"]) != version():
        yield f"{path.name}: version {found}, not {version()}"


def missing(files: list[Path]) -> Iterator[str]:
    """Each wheel has a file of its own."""
    names = [path.name for path in files]
    if not any(name.endswith(".tar.gz") for name in names):
        yield "no sdist"
    for tags in WHEELS:
        if not any(re.search(r"-{}-{}\w+_{}\b".format(*tags), name) for name in names):
            yield f"no wheel {'-'.join(tags)}"


def problems(files: list[Path], *, final: bool = False) -> Iterator[str]:
    yield from changelog(final)
    yield from report(datetime.date.today())
    for document in sorted(ROOT.glob("*.md")):
        yield from links(document)
    if final:
        yield from git()
        if files:
            yield from missing(files)
    for path in files:
        yield from distribution(path)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--final", action="store_true")
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    found = list(problems(args.files, final=args.final))
    for problem in found:
        print(problem)
    if not found:
        print(f"{version()}: ready{'' if args.final else ', but for what --final asks for'}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
