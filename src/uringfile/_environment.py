"""Settings that come from environment variables."""

from __future__ import annotations

import os
from collections.abc import Sequence

_MOST = 2**31 - 1


def number(variable: str, unit: str, default: int) -> int:
    """A number from 0 on; raises ``ValueError`` for anything else."""
    text = os.environ.get(variable)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST):
        raise ValueError(f"{variable} must be a number of {unit}, not {text!r}")
    return int(text)


def choice(variable: str, choices: Sequence[str]) -> str:
    """One of these, the first by default; raises ``ValueError`` for anything else."""
    text = os.environ.get(variable) or choices[0]
    if text not in choices:
        raise ValueError(f"{variable} must be {' or '.join(choices)}, not {text!r}")
    return text
