"""What a container's seccomp profile makes of the choice of engine.

Each situation is shown twice: in a container of podman, where there is podman, root and a
local image of this Python; and everywhere, under a filter that says the same of io_uring.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import count
from rigs import rig

import uringfile

IO_URING = ["io_uring_enter", "io_uring_register", "io_uring_setup"]
PACKAGE = Path(uringfile.__file__).parent
SHIPPED: dict[str, Any] = json.loads((PACKAGE / "seccomp.json").read_text())

HYBRID_CGROUPS = Path("/sys/fs/cgroup/unified")
PODMAN_RUN = (
    # crun refuses a hybrid cgroup tree: podman gets a mount namespace without its second half.
    *(
        ("unshare", "--mount", "sh", "-c", f'umount {HYBRID_CGROUPS}; exec "$@"', "sh")
        if HYBRID_CGROUPS.exists()
        else ()
    ),
    *("podman", "run", "--rm", "--pull=never", "--network=none", "--cgroups=disabled"),
    *("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"),
)

Doctor = Callable[["dict[str, Any] | None"], "dict[str, Any]"]

UNCONFINED: dict[str, Any] = {}


def without_io_uring() -> dict[str, Any]:
    """The default profile of podman: what is not allowed does not exist (ENOSYS)."""
    profile = copy.deepcopy(SHIPPED)
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"] != IO_URING]
    return profile


def not_permitted() -> dict[str, Any]:
    """As the default profile of Docker answers: EPERM."""
    profile = without_io_uring()
    rule = {"names": IO_URING, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    profile["syscalls"].append(rule)
    return profile


@pytest.fixture(params=["podman", "filter"])
def doctor(request: pytest.FixtureRequest, tmp_path: Path) -> Doctor:
    """Run ``doctor --json`` under a profile; ``None`` is the default one of podman."""
    profile_file = tmp_path / "profile.json"
    command = ["-m", "uringfile", "doctor", "--json"]
    environment = {key: value for key, value in os.environ.items() if key != "URINGFILE_ENGINE"}

    if request.param == "podman":
        image = python_image()
        mounts = [f"--volume={path}:{path}:ro" for path in library_path()]
        path = f"--env=PYTHONPATH={':'.join(library_path())}"

        def run(profile: dict[str, Any] | None) -> dict[str, Any]:
            options = []
            if profile is UNCONFINED:
                options = ["--security-opt=seccomp=unconfined"]
            elif profile is not None:
                profile_file.write_text(json.dumps(profile))
                options = [f"--security-opt=seccomp={profile_file}"]
            argv = [*PODMAN_RUN, *mounts, path, *options, image, "python3", *command]
            return report_of(argv, environment)

    else:
        filtered = [str(Path(__file__).with_name("seccomp_filter.py")), str(profile_file)]

        def run(profile: dict[str, Any] | None) -> dict[str, Any]:
            if profile is UNCONFINED:
                return report_of([sys.executable, *command], environment)
            profile_file.write_text(json.dumps(profile or without_io_uring()))
            return report_of([sys.executable, *filtered, sys.executable, *command], environment)

    return run


def report_of(argv: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["engine"] == "io_uring" else 1)
    return report


def library_path() -> list[str]:
    """Where uringfile and what it imports lie."""
    return list(dict.fromkeys([str(PACKAGE.parent), sysconfig.get_path("platlib")]))


def python_image() -> str:
    """A local image whose Python can import what was built for ours, or a named skip."""
    if shutil.which("podman") is None:
        rig("podman", "podman is not installed")
    if os.getuid() != 0:
        rig("podman", "podman is tested as root only")
    version = "{}.{}".format(*sys.version_info[:2])
    listed = subprocess.run(
        ["podman", "images", "--format={{.Repository}}:{{.Tag}}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    images = [name for name in listed.stdout.split() if f"/python:{version}" in name]
    if not images:
        rig("podman", f"no local image python:{version}; podman pull python:{version}-slim")
    started = subprocess.run(
        [*PODMAN_RUN, images[0], "true"], capture_output=True, text=True, timeout=60
    )
    if started.returncode:
        rig("podman", f"podman starts no container here: {started.stderr.strip()}")
    rig("podman")
    return images[0]


def test_default_profile_falls_back_and_says_why(doctor: Doctor) -> None:
    report = doctor(None)
    assert report["seccomp"] == "filter"
    assert report["engine"] == "posix_aio"
    assert report["reason"].startswith("io_uring_setup: ")
    assert "seccomp filter" in report["reason"]
    assert "python -m uringfile seccomp-profile" in report["reason"]


def test_default_profile_that_answers_eperm(doctor: Doctor) -> None:
    report = doctor(not_permitted())
    assert report["seccomp"] == "filter"
    assert report["engine"] == "posix_aio"
    assert report["reason"].startswith("io_uring_setup: Operation not permitted")
    assert "seccomp filter" in report["reason"] or report["io_uring_disabled"]


def test_shipped_profile_serves_io_uring(doctor: Doctor) -> None:
    count("io_uring")
    report = doctor(SHIPPED)
    assert report["seccomp"] == "filter"
    assert report["engine"] == "io_uring"
    assert report["reason"] is None


def test_unconfined_serves_io_uring(doctor: Doctor) -> None:
    count("io_uring")
    report = doctor(UNCONFINED)
    assert report["engine"] == "io_uring"
    assert report["reason"] is None


def test_shipped_profile_allows_io_uring_by_one_rule() -> None:
    rules = [rule for rule in SHIPPED["syscalls"] if set(rule["names"]) & set(IO_URING)]
    assert [rule["names"] for rule in rules] == [IO_URING]
    assert rules[0]["action"] == "SCMP_ACT_ALLOW"
    assert not any(map(rules[0].get, ("args", "includes", "excludes")))
    assert "Apache License 2.0" in rules[0]["comment"]
    assert SHIPPED["defaultAction"] == "SCMP_ACT_ERRNO"
    assert len(SHIPPED["syscalls"]) > 30
