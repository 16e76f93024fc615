"""All programs of examples/: each says what it does, and stands in the README there."""

from __future__ import annotations

import pytest
from example_programs import EXAMPLES, load

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "static_server":
        pytest.importorskip("aiohttp")
    module = load(name)
    assert module.__doc__
    with pytest.raises(SystemExit) as ending:
        module.parse(["--help"])
    assert ending.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_table() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for name in NAMES:
        assert f"[{name}.py]({name}.py)" in text
