"""Where the arguments of a call came from, approximated by text: a bound, not a proof.

A value that a model rephrased is found nowhere, and one that a user's text holds by chance is
found there. Exact flow is kept elsewhere, by ids. Nothing here decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.guardrails import fields as of_fields
from ring0.guardrails import tokens
from ring0.guardrails.echoes import Asked
from ring0.guardrails.records import Records
from ring0.types import (
    INTEGRITY_RANK,
    Confidentiality,
    FieldRule,
    Integrity,
    Label,
    Origin,
)

DROPPED: Final = "dropped"
NOT_SEARCHED: Final = "not searched: too much"

LONG_TEXT_CHARS: Final = 80
ORIGINS_PER_CALL_MAX: Final = 256
SEARCH_CHARS_PER_CALL_MAX: Final = 4 * limits.SEEN_SIZE_BYTES_MAX
KEY_COST_BYTES: Final = 128
"""About what a key of the index weighs beside its text: the bound is on memory, not on text."""
_STEP_COST_CHARS: Final = 64
_FILTER_WORDS: Final = 8
_APART: Final = "\0"
"""Between the leaves of one value: no word and no whitespace, so nothing is found across it."""

Scalar = str | int | float | bool | None
Chooser = Callable[[str, Scalar], str]
"""Given an argument's path and a value: how the user's words choose it; empty: they don't."""


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Scalar]]:
    """Path and value of every scalar in a JSON value: `("parameters[0]", 4711)`. In its order."""
    stack: list[tuple[str, Any]] = [(name, value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, Mapping):
            dot = f"{path}." if path else ""
            stack.extend((f"{dot}{key}", inner) for key, inner in reversed(list(item.items())))
        elif isinstance(item, list | tuple):
            stack.extend((f"{path}[{i}]", item[i]) for i in range(len(item) - 1, -1, -1))
        else:
            yield path, item


class _Text(msgspec.Struct):
    number: int
    source: str
    integrity: Integrity
    is_private: bool
    text: str
    keys: set[str]
    cost: int


class _Work(msgspec.Struct):
    """What is left to spend on one call: hostile arguments must not take quadratic time."""

    chars: int = SEARCH_CHARS_PER_CALL_MAX
    known: dict[str, tuple[tuple[str, ...], Integrity]] = msgspec.field(default_factory=dict)


class Seen:
    """What one run has seen: its task, results, files. Bounded; the oldest is dropped."""

    def __init__(self) -> None:
        self.records = Records()
        self.holds_private = False
        """Something that it has seen is not public."""
        self.reached: dict[str, set[str]] = {}
        """What its calls have reached so far: recipients, things removed."""
        self._texts: deque[_Text] = deque()
        self._index: dict[str, list[int]] = {}
        self._next = 0
        self._cost = 0
        self._dropped = False
        self._begun_us = -1

    def add(
        self,
        source: str,
        label: Label,
        value: Any,
        fields: tuple[FieldRule, ...] = (),
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember `value` (any JSON value, or text) as seen in `source` under `label`, single
        fields of it under what `fields` make of that.

        `asked`: with which arguments our own driver was asked for it, where the tool's manifest
        vouches for fields of what it returns: only then its objects are records.
        """
        if label.integrity is Integrity.USER:
            for text in _texts(value):
                self.records.typed(text)
        if not fields:
            self._remember(source, label, value)
        else:
            self._remember_apart(source, label, value, fields)
        if asked is not None:
            given = Asked(asked, self.is_typed, self.records.are_all)
            self.records.add(source, of_fields.labelled(value, label, fields), given)

    def _remember_apart(
        self, source: str, label: Label, value: Any, fields: tuple[FieldRule, ...]
    ) -> None:
        """Each leaf with its like; what is a key says nothing better than the whole."""
        apart: dict[Label, list[Any]] = {label: [list(_keys(value))]}
        for _, leaf, own in of_fields.labelled(value, label, fields):
            apart.setdefault(own, []).append(leaf)
        for own, alike in apart.items():
            self._remember(source, own, alike)

    def _remember(self, source: str, label: Label, value: Any) -> None:
        text = tokens.folded(tokens.visible(_APART.join(_texts(value))))
        found = tokens.keys(text) if len(text) < limits.SEEN_SIZE_BYTES_MAX else set()
        cost = len(text) + KEY_COST_BYTES + sum(len(key) + KEY_COST_BYTES for key in found)
        if cost > limits.SEEN_SIZE_BYTES_MAX:
            self._dropped = True  # more than all that may be remembered: nothing of it is
            return
        is_private = label.confidentiality is not Confidentiality.PUBLIC
        self.holds_private = self.holds_private or is_private
        text_ = _Text(self._next, source, label.integrity, is_private, text, found, cost)
        self._texts.append(text_)
        for key in found:
            self._index.setdefault(key, []).append(self._next)
        self._next += 1
        self._cost += cost
        while self._cost > limits.SEEN_SIZE_BYTES_MAX:
            self._drop_oldest()

    def begin(self, started_us: int) -> None:
        """When the run began: what the user calls `tomorrow` counts from there."""
        if started_us == self._begun_us:
            return
        self._begun_us = started_us
        self.records.begin(datetime.fromtimestamp(started_us / 1_000_000, UTC).date())

    def is_typed(self, value: Scalar) -> bool:
        """Whether the user typed this."""
        found = self.origins({"": value}, ("",))
        return all(origin.integrity is Integrity.USER for origin in found)

    def only_private(self, key: str) -> tuple[str, ...]:
        """The sources of a token (folded) that was seen, and only in what is not public."""
        first = self._texts[0].number if self._texts else 0
        holding = [self._texts[number - first] for number in self._index.get(key, ())]
        if not all(text.is_private for text in holding):
            return ()
        return tuple(dict.fromkeys(text.source for text in holding))

    def origins(
        self, args: Mapping[str, Any], critical: Sequence[str], chosen: Chooser | None = None
    ) -> tuple[Origin, ...]:
        """Where each critical argument of `args` came from; a value may come in several parts.

        Integrity is the best of the sources that hold the value; found nowhere is untrusted.
        `chosen` is asked about what the user did not type.
        """
        work = _Work()
        found: list[Origin] = []
        for name in dict.fromkeys(critical):
            for path, leaf in named(args, name):
                for origin in self._leaf(path, leaf, work, chosen):
                    if len(found) == ORIGINS_PER_CALL_MAX:
                        found[-1] = _origin(path, "and more", (NOT_SEARCHED,), Integrity.UNTRUSTED)
                        return tuple(found)
                    found.append(origin)
        return tuple(found)

    def _leaf(
        self, path: str, leaf: Scalar, work: _Work, chosen: Chooser | None
    ) -> Iterator[Origin]:
        if leaf is None or isinstance(leaf, bool) or leaf == "":
            return

        def origin(value: Scalar, found: tuple[tuple[str, ...], Integrity]) -> Origin:
            how = chosen(path, value) if chosen and found[1] is not Integrity.USER else ""
            return _origin(path, _shown(value), *found, how)

        if not isinstance(leaf, str):
            key = tokens.number_key(leaf)
            yield origin(leaf, self._found_by(key or "", work))
            return
        whole = self._find(leaf, work)
        is_long = len(leaf) > LONG_TEXT_CHARS or any(map(str.isspace, leaf))
        parts = tokens.literals(leaf) if is_long and not _is_found(whole) else []
        # Inside a statement a single character (LIMIT 1) chooses no target and is everywhere.
        parts = [part for part in parts if len(part) >= limits.ORIGIN_VALUE_CHARS_MIN]
        first = origin(leaf, whole)
        if not parts or first.chosen:
            yield first
            return
        for part in parts:
            yield origin(part, self._find(part, work))

    def _find(self, value: str, work: _Work) -> tuple[tuple[str, ...], Integrity]:
        value = tokens.folded(value)
        if value not in work.known:
            if number := tokens.as_number(value):
                exact = self._index.get(value, ())
                found = self._sources(sorted({*exact, *self._index.get(number, ())}), work)
            elif tokens.is_key(value):
                found = self._found_by(value, work)
            else:
                found = self._sources(self._holding(value, work), work)
            work.known[value] = found
        return work.known[value]

    def _found_by(self, key: str, work: _Work) -> tuple[tuple[str, ...], Integrity]:
        if key not in work.known:
            work.known[key] = self._sources(self._index.get(key, ()), work)
        return work.known[key]

    def _holding(self, value: str, work: _Work) -> Iterator[int]:
        """The texts that hold `value`, several words or signs, as a whole."""
        first = self._texts[0].number if self._texts else 0
        candidates: Sequence[int] | range = range(first, self._next)
        for word in tokens.words(value, _FILTER_WORDS):
            fewer: Sequence[int] = self._index.get(word, [])
            candidates = min(candidates, fewer, key=len)
        for number in tuple(candidates) if value else ():
            text = self._texts[number - first].text
            start = text.find(value)
            work.chars -= len(text) + _STEP_COST_CHARS
            while start >= 0 and work.chars > 0:
                if tokens.stands_alone(text, start, start + len(value)):
                    yield number
                    break
                work.chars -= _STEP_COST_CHARS
                start = text.find(value, start + 1)
            if work.chars <= 0:
                return

    def _sources(
        self, numbers: Sequence[int] | Iterator[int], work: _Work
    ) -> tuple[tuple[str, ...], Integrity]:
        first = self._texts[0].number if self._texts else 0
        sources: dict[str, None] = {}
        best = Integrity.UNTRUSTED
        for number in numbers:
            text = self._texts[number - first]
            best = min(best, text.integrity, key=INTEGRITY_RANK.__getitem__)
            if len(sources) < limits.LABEL_SOURCES_MAX:
                sources[text.source] = None
        if work.chars <= 0 and not sources:
            return (NOT_SEARCHED,), Integrity.UNTRUSTED
        if not sources and self._dropped:
            return (DROPPED,), Integrity.UNTRUSTED
        return tuple(sources), best

    def _drop_oldest(self) -> None:
        oldest = self._texts.popleft()
        self._cost -= oldest.cost
        self._dropped = True
        for key in oldest.keys:
            numbers = self._index[key]
            del numbers[0]  # texts are added and dropped in the same order: it is the first
            if not numbers:
                del self._index[key]


def _texts(value: Any) -> Iterator[str]:
    """All text of a value: scalars and keys."""
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            for key, inner in reversed(list(item.items())):
                stack.append(inner)
                stack.append(str(key))
        elif isinstance(item, list | tuple):
            stack.extend(reversed(item))
        elif not isinstance(item, bool) and (key := tokens.number_key(item)):
            yield key[1:]


def named(args: Mapping[str, Any], name: str) -> Iterator[tuple[str, Scalar]]:
    """Leaves of what `name` stands for: an argument, or a dotted way into objects and lists. Both
    where there are both: a driver may take either."""
    if name in args:
        value = args[name]
        if value is None or isinstance(value, str | int | float):
            yield name, value
        else:
            yield from leaves(value, name)
    if "." not in name:
        return
    ways: list[tuple[str, Any]] = [("", args)]
    for step in name.split("."):
        further: list[tuple[str, Any]] = []
        while ways:
            path, item = ways.pop()
            if isinstance(item, list | tuple):
                ways.extend((f"{path}[{i}]", item[i]) for i in range(len(item) - 1, -1, -1))
            elif isinstance(item, Mapping) and step in item:
                further.append((f"{path}.{step}" if path else step, item[step]))
        ways = further
    for path, item in ways:
        yield from leaves(item, path)


def _is_found(found: tuple[tuple[str, ...], Integrity]) -> bool:
    return bool(found[0]) and found[0] not in ((DROPPED,), (NOT_SEARCHED,))


def _keys(value: Any) -> Iterator[str]:
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            yield from map(str, item)
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _shown(value: Scalar) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes out no int of more than 4,300 digits
        return "a number of thousands of digits"


def _origin(
    path: str, value: str, sources: tuple[str, ...], integrity: Integrity, chosen: str = ""
) -> Origin:
    if len(value) > LONG_TEXT_CHARS:
        value = value[: LONG_TEXT_CHARS - 1] + "…"
    return Origin(argument=path, value=value, sources=sources, integrity=integrity, chosen=chosen)
