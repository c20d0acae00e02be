"""Known secrets never leave in pieces either: the filter of a text that comes bit by bit.

What could still become a secret is held back; all else goes on at once. Each place of the text is
looked at once, and what is held is never longer than a secret, however the text is made.
"""

from __future__ import annotations

from collections import deque

from ring0.guardrails.redact import Secrets


class StreamFilter:
    """One text on its way. What it has let through is the beginning of what `redact_text` makes of
    the whole. Places are counted from the beginning of the text."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._finder = secrets.finder()
        self._held = ""
        self._base = 0
        """Where what is held begins."""
        self._looked = 0
        """Up to here each place is known to be a start, or none."""
        self._starts: deque[int] = deque()
        """Where forms may stand, of what is held."""
        self._told = 0
        """Up to here the text has gone on, or is covered by `_names`."""
        self._names: dict[str, None] = {}
        """Secrets that overlap, found but not told: what follows may overlap them too."""

    def feed(self, text: str) -> str:
        """What may go on of all that has come so far and has not gone on."""
        self._take_up_finder()
        if not self._finder and not self.holds:
            self._base = self._looked = self._told = self._base + len(text)
            return text
        text = self._held + text
        self._look(text)
        found: list[str] = []
        until = self._begun(text)
        while self._starts:
            if self._finder.is_open(text, self._starts[0] - self._base):
                until = self._starts[0]
                break
            self._pass(text, self._starts.popleft(), found)
        if self._told <= until:  # No secret that begins later touches the ones before.
            self._tell(text, until, found)
        self._held, self._base = text[until - self._base :], until
        self._looked = max(self._looked, until)
        return "".join(found)

    @property
    def holds(self) -> bool:
        """Something is kept back."""
        return bool(self._held or self._names)

    def end(self) -> str:
        """What is left when nothing more comes."""
        text, found = self._held, list[str]()
        while self._starts:
            self._pass(text, self._starts.popleft(), found)
        end = self._base + len(text)
        self._tell(text, max(end, self._told), found)
        self._held, self._base, self._looked = "", end, end
        return "".join(found)

    def _take_up_finder(self) -> None:
        """There may be other secrets by now: what is held is looked at anew."""
        if self._secrets.finder() is not self._finder:
            self._finder = self._secrets.finder()
            self._looked = self._base
            self._starts.clear()

    def _look(self, text: str) -> None:
        """Finds the starts in what has become long enough to have one."""
        chars, heads, base = self._finder.head_chars, self._finder.heads, self._base
        last = len(text) - chars
        first = self._looked - base
        if last >= first:
            self._starts.extend(
                base + place
                for place in range(first, last + 1)
                if text[place : place + chars] in heads
            )
            self._looked = base + last + 1

    def _begun(self, text: str) -> int:
        """Where the first form could begin in the end of the text, which is too short to tell."""
        begins = self._finder.begins
        for place in range(self._looked - self._base, len(text)):
            if text[place:] in begins:
                return self._base + place
        return self._base + len(text)

    def _pass(self, text: str, start: int, found: list[str]) -> None:
        """Takes in all forms that stand at `start`."""
        for end, name in self._finder.at(text, start - self._base):
            if start >= self._told:
                self._tell(text, start, found)
            self._names[name] = None
            self._told = max(self._told, self._base + end)

    def _tell(self, text: str, until: int, found: list[str]) -> None:
        """What was found, and the text after it."""
        found.extend(map(self._secrets.mark, self._names))
        self._names = {}
        found.append(text[self._told - self._base : until - self._base])
        self._told = until
