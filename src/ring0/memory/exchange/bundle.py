"""What all the formats come down to: records to be written, each with its name where it was."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.types import Frozen, Integrity, Label, NewRecord

Format = Literal["ring0", "mem0", "letta"]
UNTRUSTED: Final = Label(integrity=Integrity.UNTRUSTED)


class Imported(Frozen, frozen=True, kw_only=True):
    """A record as a file has it. Its label is what the file says; nobody has believed it yet."""

    record: NewRecord
    origin: str
    """Its id there."""
    parents: tuple[str, ...] = ()
    """Ids there."""
    superseded_by: str = ""
    """Likewise."""
    labelled: bool = False
    """The file said where it came from; else its label is untrusted."""


class Bundle(msgspec.Struct, kw_only=True):
    """All that a file holds, in the order in which it is to be written."""

    format: Format
    records: list[Imported] = []
    left_out: Counter[str] = msgspec.field(default_factory=Counter)
    """Why, and how often."""

    def add(self, one: Imported) -> None:
        """Raises InvalidInput."""
        if len(self.records) >= limits.EXCHANGE_RECORDS_MAX:
            raise InvalidInput(
                f"The file holds more than {limits.EXCHANGE_RECORDS_MAX:,} records.",
                why="That many are taken at once.",
                todo="Split it.",
            )
        self.records.append(one)


def parsed(text: str | bytes, *, where: str) -> Any:
    """JSON, without what our own parser refuses: duplicate keys, NaN, lone surrogates, and more
    levels than anybody needs. Raises InvalidInput."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return found

    def no_number(name: str) -> Any:
        raise ValueError(f"{name} is no number")

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        found = json.loads(text, object_pairs_hook=once, parse_constant=no_number)
        if "\\u" in text:  # An escape may stand for half of a letter, which nothing can store.
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise _unread(where, "it is nested too deeply") from None
    except ValueError as error:
        raise _unread(where, str(error)[:200]) from None
    if _deeper(found, limits.EXCHANGE_DEPTH_MAX):
        raise _unread(where, f"it is nested more than {limits.EXCHANGE_DEPTH_MAX} deep")
    return found


def text_of(value: Any) -> str:
    """Text that can be stored: no NUL, no lone surrogate. What is no text is empty."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd").strip()


def short(value: Any, most: int = limits.RECORD_FIELD_CHARS_MAX) -> str:
    """Likewise, as one line of so many characters."""
    return " ".join(text_of(value).split())[:most]


def parts_of(text: str) -> list[str]:
    """A long text in pieces that can be remembered, cut between paragraphs or words."""
    found = []
    while len(text) > limits.EPISODE_CHARS_MAX:
        window = text[: limits.EPISODE_CHARS_MAX]
        at = max(window.rfind("\n\n"), window.rfind("\n"), window.rfind(" "))
        at = at if at > limits.EPISODE_CHARS_MAX // 2 else limits.EPISODE_CHARS_MAX
        found.append(text[:at].strip())
        text = text[at:].strip()
    return [one for one in (*found, text) if one]


def chosen(names: dict[str, Any], wanted: str, *, what: str) -> str:
    """The one whose memory is meant: people's memories are never mixed into one scope. Raises
    InvalidInput."""
    if wanted and wanted not in names:
        known = ", ".join(list(names)[:10]) or "nobody's"
        raise InvalidInput(
            f"The file holds nothing of {what} {wanted[:60]!r}.",
            why=f"It holds: {known[:400]}.",
            todo="Give --owner one of these.",
        )
    if not wanted and len(names) > 1:
        raise InvalidInput(
            f"The file holds memory of {len(names)} {what}s.",
            why=f"{', '.join(list(names)[:10])[:400]}: one scope is of one of them.",
            todo="Give --owner, and import each into a scope of its own.",
        )
    return wanted or next(iter(names), "")


def _unread(where: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{where} can't be read.", why=f"{why[:1].upper()}{why[1:]}.", todo="Export it anew."
    )


def _deeper(value: Any, levels: int) -> bool:
    stack = [(value, 0)]
    while stack:
        one, depth = stack.pop()
        if isinstance(one, dict | list):
            if depth >= levels:
                return True
            inner = one.values() if isinstance(one, dict) else one
            stack += [(child, depth + 1) for child in inner]
    return False
