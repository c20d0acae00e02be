"""Known secrets never leave and never get stored: each occurrence becomes «secret:NAME».

Finds the values it was given, in the usual encodings. Not a detector of unknown secrets, and not
proof against a secret that is cut in pieces, reversed or encrypted.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.guardrails.finding import Finder

TOO_DEEP: Final = "«nested too deep to be searched for secrets»"
_NAME: Final = re.compile(r"[A-Za-z0-9_./\-]{1,128}")
_NAMELESS: Final = "«secret»"
"""No value is part of it: they are longer, and hold no «."""


class Secrets:
    """The secrets to keep in. Its `repr` shows names only."""

    __slots__ = ("_finder", "_forms", "_marks", "_names")

    def __init__(self, values: Mapping[str, str]) -> None:
        """`values`: name to value. Raises InvalidInput for one that cannot be kept in safely."""
        self.replace(values)

    def replace(self, values: Mapping[str, str], old: Iterable[tuple[str, str]] = ()) -> None:
        """Other values from now on; `old`: (name, value) of what had these names before and is
        kept in as well. Raises InvalidInput; then all stays as it is."""
        forms: dict[str, str] = {}
        for name, value in (*values.items(), *old):
            _acceptable(name, value)
            for form in _forms(value):
                forms.setdefault(form, name)
        self._marks = {
            name: marked if not any(form in marked for form in forms) else _NAMELESS
            for name in {*values, *forms.values()}
            for marked in [f"«secret:{name}»"]
        }
        self._names = tuple(values)
        self._forms = forms
        self._finder: Finder | None = None

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._names)})"

    def forms(self) -> Iterable[str]:
        """All that is looked for: the values, and how they look inside base64, hex, URLs, JSON."""
        return self._forms

    def finder(self) -> Finder:
        """Looks for all of them at once; another one as soon as there are other values."""
        if self._finder is None:
            self._finder = Finder(self._forms)
        return self._finder

    def redact(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """`value` without secrets, keys too, and the names that were found.

        `value`: any JSON value. Without a finding it is returned as it is, not copied.
        """
        found: dict[str, None] = {}
        clean = self._walk(value, found, 0) if self._forms else value
        return clean, tuple(found)

    def redact_text(self, text: str) -> str:
        """`text` without secrets."""
        return self._text(text, {})

    def _walk(self, value: Any, found: dict[str, None], depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value, found)
        if isinstance(value, dict | list | tuple) and depth >= limits.CALL_DEPTH_MAX:
            return TOO_DEEP if value else value
        if isinstance(value, dict):
            return self._object(value, found, depth)
        if isinstance(value, list | tuple):
            items = [self._walk(item, found, depth + 1) for item in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):  # a secret of digits alone may come as a number
            text = repr(value)
            clean = self._text(text, found)
            return value if clean is text else clean
        raise TypeError(f"not a JSON value: {type(value).__name__}")

    def _object(self, value: dict[Any, Any], found: dict[str, None], depth: int) -> dict[Any, Any]:
        clean: dict[Any, Any] = {}
        changed = False
        for key, item in value.items():
            kept = key if not isinstance(key, str) else self._text(key, found)
            new_item = self._walk(item, found, depth + 1)
            changed = changed or kept is not key or new_item is not item
            name, count = kept, 1
            while name in clean:  # two keys that differed in their secrets alone
                count += 1
                name = f"{kept}«{count}»"  # no secret holds «: nothing is completed by it
            clean[name] = new_item
        return clean if changed else value

    def _text(self, text: str, found: dict[str, None]) -> str:
        """Occurrences that overlap are replaced as one, so that no rest of either stays."""
        spans = [
            (start, start + len(form), name)
            for form, name in self._forms.items()
            if form in text
            for start in _occurrences(form, text)
        ]
        if not spans:
            return text
        spans.sort()
        pieces: list[str] = []
        end, names = 0, dict[str, None]()
        for start, stop, name in spans:
            if start >= end:
                pieces.extend(map(self.mark, names))
                pieces.append(text[end:start])
                names = {}
            names[name] = None
            found[name] = None
            end = max(end, stop)
        return "".join([*pieces, *map(self.mark, names), text[end:]])

    def mark(self, name: str) -> str:
        """What is written in its place: its name, unless that would tell of another secret or of
        itself. What a login server gives as a token is its own choice."""
        return self._marks.get(name, _NAMELESS)


def _acceptable(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"A secret cannot be named {name[:40]!r}.",
                           todo="Use letters, digits, '_', '.' and '-'.")  # fmt: skip
    if len(value) < limits.SECRET_CHARS_MIN:
        raise InvalidInput(
            f"The secret {name!r} is too short.",
            why=f"Under {limits.SECRET_CHARS_MIN} characters it is found by chance everywhere.",
            todo="Use a longer one.",
        )
    if "«" in value or "»" in value:
        raise InvalidInput(f"The secret {name!r} holds « or ».",
                           why="They mark the place where a secret was taken out.",
                           todo="Use another value.")  # fmt: skip


def _forms(value: str) -> Iterator[str]:
    """`value` itself and how it looks inside base64, hex, URLs and JSON."""
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    yield raw.hex()
    yield raw.hex().upper()
    yield from _base64_forms(raw)
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw), _quoted_all(raw)):
        yield quoted
        yield re.sub("%..", lambda found: found.group().lower(), quoted)
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        for form in (once, once.replace("/", "\\/"), _upper_escapes(once)):
            yield form
            yield json.dumps(form, ensure_ascii=ascii_only)[1:-1]  # JSON inside JSON


def _base64_forms(raw: bytes) -> Iterator[str]:
    """As it stands alone, and inside something longer that begins 0, 1 or 2 bytes earlier.

    Of the latter only the characters that the secret alone decides: 8 bytes leave 9 of them.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode()
        for before in range(3):
            text = encode(b"\0" * before + raw).decode().rstrip("=")
            first = (before * 8 + 5) // 6
            yield text[first : (before + len(raw)) * 8 // 6]


def _quoted_all(raw: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in raw)


def _upper_escapes(text: str) -> str:
    return re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found.group()[2:].upper(), text)


def _occurrences(form: str, text: str) -> Iterator[int]:
    start = text.find(form)
    while start >= 0:
        yield start
        start = text.find(form, start + 1)
