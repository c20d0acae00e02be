"""Tool names as OpenAI's dialect allows them (`crm.query` as `crm__query`), and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from ring0.models.base import ModelRequest

_ALLOWED: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")
_CHARS_MAX: Final = 64
_HASH_CHARS: Final = 12


class NameMap:
    """A one-to-one map for the names of one request: the same set gives the same map."""

    def __init__(self, names: Iterable[str]) -> None:
        every = sorted(set(names))
        # A name that is allowed stays itself, so none that is translated may take its place.
        self._there = {name: name for name in every if _ALLOWED.fullmatch(name)}
        taken = set(self._there)
        for name in every:
            if name not in self._there:
                self._there[name] = _free(name, taken)
                taken.add(self._there[name])
        self._back = {there: name for name, there in self._there.items()}

    def there(self, name: str) -> str:
        """Our name as the provider is told it."""
        return self._there[name]

    def back(self, name: str) -> str:
        """The provider's name as ours. What was never offered stays as the model wrote it."""
        return self._back.get(name, name)


def names_of(request: ModelRequest) -> NameMap:
    """The map of all names in a request: those offered, and those in its history."""
    called = (call.name for message in request.messages for call in message.tool_calls)
    return NameMap([*(tool.name for tool in request.tools), *called])


def _free(name: str, taken: set[str]) -> str:
    plain = _ODD.sub("_", name.replace(".", "__"))
    candidate, attempt = plain, 0
    while candidate in taken or len(candidate) > _CHARS_MAX:
        digest = hashlib.sha256(f"{attempt}:{name}".encode()).hexdigest()[:_HASH_CHARS]
        candidate = f"{plain[: _CHARS_MAX - _HASH_CHARS - 1]}_{digest}"
        attempt += 1
    return candidate
