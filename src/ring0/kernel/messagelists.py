"""A question to a model is kept as the list of its messages: what each turn adds, and no more.

The bytes that go on record are the same as ever: a list is the concatenation of its parts. Not
here: what a list is in the store (store/lists.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ring0 import limits
from ring0.kernel import values
from ring0.store import address
from ring0.store.lists import Listed, form_of, grown, list_address
from ring0.types import CallKind

if TYPE_CHECKING:
    from ring0.kernel.live import Held

_CONVERSATIONS: Final = ("messages", "input", "contents")
"""Where dialects have the messages, in the arguments or in the `body` that a door gives."""


class MessageLists:
    """Of one run: the addresses of the parts that it has asked with, and which the store has.

    A message that was seen before is neither hashed nor written again.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, str] = {}
        self._lists: dict[bytes, str] = {}
        """Apart: a list and a value of the same bytes are two."""
        self._size_bytes = 0
        self._kept: set[str] = set()

    def stored(self, key: bytes, held: Held) -> tuple[str, dict[str, bytes]]:
        """The address of a call's arguments, with the blobs of it that the store may not have."""
        value = values.canonical(held.args)
        parts = split(value, held.args) if held.kind is CallKind.MODEL else []
        if not parts:
            where = address(key, value)
            return where, {where: value}
        blobs: dict[str, bytes] = {}

        def add(part: bytes) -> str:
            where = self._address(key, part)
            if where not in self._kept:
                blobs[where] = part
            return where

        *front, rest = parts
        top = form_of([*grown([add(part) for part in front], add), add(rest)])
        return add(top), blobs

    def kept(self, blobs: Mapping[str, bytes]) -> None:
        """These are in the store now."""
        for where, part in blobs.items():
            known = self._lists if isinstance(part, Listed) else self._values
            if known.get(part) == where:
                self._kept.add(where)

    def _address(self, key: bytes, part: bytes) -> str:
        is_list = isinstance(part, Listed)
        known = self._lists if is_list else self._values
        found = known.get(part)
        if found is None:
            found = list_address(key, part) if is_list else address(key, part)
            self._size_bytes += len(part)
            if self._size_bytes > limits.LIST_PARTS_CACHED_SIZE_BYTES_MAX:
                self._forget(len(part))
            known[part] = found
        return found

    def _forget(self, size_bytes: int) -> None:
        """All of it: what is asked again is hashed, and written, once more. The store takes that
        for what it has."""
        self._values.clear()
        self._lists.clear()
        self._kept.clear()
        self._size_bytes = size_bytes


def split(value: bytes, args: Mapping[str, Any]) -> list[bytes]:
    """The canonical arguments, in parts: what comes before the messages, each of them, what comes
    after. None where that is not worth it."""
    messages = _messages(args)
    worth = 2 <= len(messages) <= limits.MODEL_MESSAGES_MAX
    if len(value) < limits.LIST_VALUE_SIZE_BYTES_MIN or not worth:
        return []
    told = [values.canonical(message) for message in messages]
    told = [told[0], *(b"," + each for each in told[1:])]
    joined = b"".join(told)
    at = value.find(b"[" + joined + b"]") + 1
    return [value[:at], *told, value[at + len(joined) :]] if at else []


def _messages(args: Mapping[str, Any]) -> list[Any]:
    """Those that are asked, whatever the dialect calls them."""
    for there in (args, args.get("body")):
        if isinstance(there, Mapping):
            for name in _CONVERSATIONS:
                found = there.get(name)
                if isinstance(found, list):
                    return found
    return []
