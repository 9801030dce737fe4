"""Text in pieces in, text up to the first stop word out: no part of a stop word is ever let through."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class StopWords:
    """Watches one stream. What could be the beginning of a stop word is held back until that is decided.

    The stop word that is complete first ends the text; of those complete at the same character, the longest. So
    the result does not depend on how the text was cut into pieces.
    """

    def __init__(self, words: Iterable[str]) -> None:
        """Watch for `words`; empty ones are ignored."""
        self._words = tuple(dict.fromkeys(word for word in words if word))
        self._longest = max(map(len, self._words), default=0)
        self._held = ""
        self.has_stopped = False

    def feed(self, text: str) -> str:
        """Return the text that may be shown now; sets `has_stopped` once a stop word is complete."""
        if self.has_stopped:
            return ""
        if not self._words:
            return text
        text = self._held + text
        end = self._first_stop(text)
        if end is not None:
            self.has_stopped = True
            self._held = ""
            return text[:end]
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Return what was held back, when no more text follows."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self, text: str) -> int | None:
        """Return where the first complete stop word begins."""
        found = [(start + len(word), start) for word in self._words if (start := text.find(word)) >= 0]
        return min(found)[1] if found else None

    def _undecided(self, text: str) -> int:
        """Return the length of the longest tail that begins a stop word."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - length :]
            if any(word.startswith(tail) for word in self._words):
                return length
        return 0
