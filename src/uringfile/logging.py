"""Handlers for the standard ``logging`` module whose callers do not wait for the disk.

``FileHandler`` and ``RotatingFileHandler`` take the place of the standard ones. A record is
formatted in the thread or task that logs it; a thread of the handler writes the lines, many
at a time.
"""

from uringfile._filehandler import FileHandler
from uringfile._rotatinghandler import RotatingFileHandler

__all__ = ["FileHandler", "RotatingFileHandler"]
