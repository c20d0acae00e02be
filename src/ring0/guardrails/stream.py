"""Known secrets never leave in pieces either: the filter of a text that comes bit by bit.

What could still become a secret is held back; all else goes on at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from ring0.guardrails.redact import Secrets


class StreamFilter:
    """One text on its way. What it has let through is the beginning of what `redact_text` makes of
    the whole."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._by_first: dict[str, list[str]] = {}
        for form in secrets.forms():
            self._by_first.setdefault(form[0], []).append(form)
        self._held = ""

    def feed(self, text: str) -> str:
        """What may go on of all that has come so far and has not gone on."""
        text = self._held + text
        if not self._by_first:
            return text
        cut = self._begins(text)
        self._held = text[cut:]
        return self._secrets.redact_text(text[:cut])

    @property
    def holds(self) -> bool:
        """Something is kept back."""
        return bool(self._held)

    def end(self) -> str:
        """What is left when nothing more comes."""
        text, self._held = self._held, ""
        return self._secrets.redact_text(text)

    def _begins(self, text: str) -> int:
        """Where the first thing begins that is or could become a secret and reaches to the end.

        A whole secret that touches such a beginning is held with it: they are replaced as one.
        """
        cut = len(text)
        for start in range(len(text)):
            if self._could_be(text, start):
                cut = start
                break
        return cut

    def _could_be(self, text: str, start: int) -> bool:
        forms: Iterable[str] = self._by_first.get(text[start], ())
        rest = len(text) - start
        return any(len(form) > rest and form.startswith(text[start:]) for form in forms) or any(
            text.startswith(form, start) and self._touches(text, start, start + len(form))
            for form in forms
        )

    def _touches(self, text: str, start: int, end: int) -> bool:
        """Something that could become a secret begins inside it."""
        return any(
            len(form) > len(text) - inner and form.startswith(text[inner:])
            for inner in range(start + 1, min(end, len(text)))
            for form in self._by_first.get(text[inner], ())
        )
