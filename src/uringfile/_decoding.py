"""From chunks of bytes to characters, and from a character back to a position.

Decoding goes in chunks, as in ``io.TextIOWrapper``, so that positions are the same numbers.
Of the last chunk the bytes are kept, with the state that the decoder was in before it: a
position within the chunk is found by decoding it once more, up to there.
"""

from __future__ import annotations

import io
from typing import Any

from uringfile._codec import new_incremental_decoder
from uringfile._cookie import Cookie


def new_decoder(encoding: str, errors: str, newline: str | None) -> Any:
    """An incremental decoder, which also translates newlines if ``newline`` is ``None``."""
    decoder: Any = new_incremental_decoder(encoding, errors)
    if newline:
        return decoder
    return io.IncrementalNewlineDecoder(decoder, translate=newline is None)


class Decoding:
    """The characters of the last chunk, those of them that are used, and where they are."""

    def __init__(self, decoder: Any, locating: bool, *, zero_is_a_state: bool = True) -> None:
        self.decoder = decoder
        # The ISO 2022 codecs of CPython crash in the state 0, which a plain offset means.
        self._zero_is_a_state = zero_is_a_state
        self.text = ""
        self.used = 0
        # The decoder's state before the chunk, and the chunk with what was left of the one
        # before it. None: the position is that of the bytes.
        self.snapshot: tuple[int, bytes] | None = None
        # Bytes for each character, as the last chunk had it.
        self.ratio = 0.0
        self._locating = locating

    def feed(self, chunk: bytes) -> bool:
        """Decode the next chunk; ``b""`` is the end. ``False`` if that gives nothing more.

        Raises what the codec raises, and then nothing has changed.
        """
        if self._locating:
            undecoded, flags = self.decoder.getstate()
        text = self.decoder.decode(chunk, not chunk)
        self.text = text
        self.used = 0
        self.ratio = len(chunk) / len(text) if text else 0.0
        if self._locating:
            self.snapshot = (flags, undecoded + chunk)
        return bool(chunk or text)

    def take(self, size: int) -> str:
        """Use up to ``size`` characters (a negative number: all that are left)."""
        start = self.used
        text = self.text[start : start + size] if size >= 0 else self.text[start:]
        self.used = start + len(text)
        return text

    def forget(self) -> None:
        self.text = ""
        self.used = 0
        self.snapshot = None

    def save(self) -> tuple[Any, ...]:
        return self.decoder.getstate(), self.text, self.used, self.snapshot, self.ratio

    def restore(self, saved: tuple[Any, ...]) -> None:
        state, self.text, self.used, self.snapshot, self.ratio = saved
        self.decoder.setstate(state)

    # ---- positions ----------------------------------------------------------------

    def start_at(self, start: int, flags: int) -> None:
        """Put the decoder into the state in which it is at ``start``."""
        if not flags and (not start or not self._zero_is_a_state):
            # The initial state of some codecs is not 0 (UTF-16 before its mark).
            self.decoder.reset()
        else:
            self.decoder.setstate((b"", flags))

    def replay(self, cookie: Cookie, fed: bytes) -> None:
        """Be where ``cookie`` says, whose start and flags are set. Raises ``OSError``."""
        self.snapshot = (cookie.flags, fed)
        self.text = self.decoder.decode(fed, cookie.eof)
        self.used = 0
        if len(self.text) < cookie.skip:
            raise OSError("can't restore logical file position")
        self.used = cookie.skip

    def locate(self, position: int) -> int:
        """The cookie of the next character, if the next chunk stands at ``position``."""
        if self.snapshot is None:
            return position
        flags, fed = self.snapshot
        cookie = Cookie(position - len(fed), flags)
        if not self.used:
            return cookie.pack()
        state = self.decoder.getstate()
        try:
            cookie, index = self._leap(cookie, fed)
            if cookie.skip:
                cookie = self._walk(cookie, fed, index)
            return cookie.pack()
        finally:
            self.decoder.setstate(state)

    def _leap(self, cookie: Cookie, fed: bytes) -> tuple[Cookie, int]:
        """A safe start not far before the position, by the ratio of bytes to characters.

        A safe start is where the decoder holds no bytes back. Also gives its index in
        ``fed``. The decoder is left there.
        """
        # The ratio may be that of a longer chunk, from before a seek.
        index = min(int(self.ratio * self.used), len(fed))
        step = 1
        while index > 0:
            self.start_at(cookie.start, cookie.flags)
            count = len(self.decoder.decode(fed[:index]))
            if count > self.used:
                index -= step
                step *= 2
                continue
            held, flags = self.decoder.getstate()
            if not held:
                return Cookie(cookie.start + index, flags, skip=self.used - count), index
            index -= len(held)
            step = 1
        self.start_at(cookie.start, cookie.flags)
        return cookie._replace(skip=self.used), 0

    def _walk(self, cookie: Cookie, fed: bytes, index: int) -> Cookie:
        """On from a safe start, byte by byte, to the last one before the position."""
        start, flags, _, skip, _ = cookie
        feed = count = 0
        for i in range(index, len(fed)):
            count += len(self.decoder.decode(fed[i : i + 1]))
            feed += 1
            held, state = self.decoder.getstate()
            if not held and count <= skip:
                start += feed
                skip -= count
                flags = state
                feed = count = 0
            if count >= skip:
                return Cookie(start, flags, feed, skip)
        count += len(self.decoder.decode(b"", True))
        if count < skip:
            raise OSError("can't reconstruct logical file position")
        return Cookie(start, flags, feed, skip, True)
