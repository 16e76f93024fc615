"""Where lines end, for each value of ``newline``. Linear in what is looked at."""

from __future__ import annotations

import re

# Whatever ends a line with universal newlines, when nothing is translated.
_UNIVERSAL = re.compile("\r\n|\r|\n")
_LINES = re.compile("[^\n]*\n")


def check_newline(newline: str | None) -> None:
    """Raises what ``open`` raises for a newline that it does not know."""
    if newline is not None and not isinstance(newline, str):
        raise TypeError(f"open() argument 'newline' must be str or None, not {newline!r}")
    if newline not in (None, "", "\n", "\r", "\r\n"):
        raise ValueError(f"illegal newline value: {newline!r}")


def line_end(text: str, start: int, newline: str) -> int:
    """The index behind the line that starts at ``start``, or -1.

    ``newline`` is what ends lines; ``""`` stands for any of the three kinds.
    """
    if newline:
        end = text.find(newline, start)
        return end + len(newline) if end >= 0 else -1
    match = _UNIVERSAL.search(text, start)
    return match.end() if match else -1


def split_lines(text: str) -> list[str]:
    """The lines of ``text``, which all end with ``\\n``; what follows the last is left out."""
    lines = text.splitlines(True)
    if len(lines) - (not text.endswith("\n")) == text.count("\n"):
        if lines and not lines[-1].endswith("\n"):
            del lines[-1]
        return lines
    return _LINES.findall(text)  # splitlines() knows other ends of lines, too
