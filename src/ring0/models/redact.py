"""Holds a provider's key so that nothing shows it, and takes it out of texts that come back."""

from __future__ import annotations

import re
from typing import Final

from ring0 import errors

_PRINTABLE: Final = re.compile(r"[\x21-\x7e]*")
_KEY_LIKE: Final = re.compile(r"(?i)\b(?:sk|pk|key|gsk|xai)-[^\s\"',}]{4,}|bearer\s+\S+")
_SHOWN: Final = "[key]"
_PART_CHARS_MIN: Final = 6
"""Providers echo parts of a wrong key, and a cut leaves one: any part this long is taken out."""


class Redactor:
    """The one place that knows the key: `authorization()` gives it, calling takes it out."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        if not _PRINTABLE.fullmatch(key):
            # Else the HTTP library's own error about the header would show it.
            raise errors.ManifestInvalid(
                "The model's key can't be used.",
                why="it holds spaces, line ends or characters that no key has",
                todo="store it again, without quotes or line ends",
            )
        self._key = key

    def __repr__(self) -> str:
        return "Redactor([key])"

    def authorization(self) -> dict[str, str]:
        """The header; none where there is no key."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def __call__(self, text: str) -> str:
        """`text` (short, an error's) without any part of the key, nor what looks like any key."""
        hidden = [False] * len(text)
        width = min(_PART_CHARS_MIN, len(self._key))
        for begin in range(len(self._key) - width + 1 if width else 0):
            part = self._key[begin : begin + width]
            at = text.find(part)
            while at >= 0:
                hidden[at : at + width] = [True] * width
                at = text.find(part, at + 1)
        shown = []
        for place, character in enumerate(text):
            if not hidden[place]:
                shown.append(character)
            elif place == 0 or not hidden[place - 1]:
                shown.append(_SHOWN)
        return _KEY_LIKE.sub(_SHOWN, "".join(shown))
