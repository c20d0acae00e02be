"""Where the arguments of a call came from, approximated by text: a bound, not a proof.

A value that a model rephrased is found nowhere, and one that a user's text holds by chance is
found there. Exact flow is kept elsewhere, by ids. Nothing here decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.guardrails import tokens
from ring0.types import INTEGRITY_RANK, Integrity, Label, Origin

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
        self._texts: deque[_Text] = deque()
        self._index: dict[str, list[int]] = {}
        self._next = 0
        self._cost = 0
        self._dropped = False

    def add(self, source: str, label: Label, value: Any) -> None:
        """Remember `value` (any JSON value, or text) as seen in `source` under `label`."""
        text = tokens.folded(tokens.visible(_APART.join(_texts(value))))
        found = tokens.keys(text) if len(text) < limits.SEEN_SIZE_BYTES_MAX else set()
        cost = len(text) + KEY_COST_BYTES + sum(len(key) + KEY_COST_BYTES for key in found)
        if cost > limits.SEEN_SIZE_BYTES_MAX:
            self._dropped = True  # more than all that may be remembered: nothing of it is
            return
        self._texts.append(_Text(self._next, source, label.integrity, text, found, cost))
        for key in found:
            self._index.setdefault(key, []).append(self._next)
        self._next += 1
        self._cost += cost
        while self._cost > limits.SEEN_SIZE_BYTES_MAX:
            self._drop_oldest()

    def origins(self, args: Mapping[str, Any], critical: Sequence[str]) -> tuple[Origin, ...]:
        """Where each critical argument of `args` came from; a value may come in several parts.

        Integrity is the best of the sources that hold the value; found nowhere is untrusted.
        """
        work = _Work()
        found: list[Origin] = []
        for name in dict.fromkeys(critical):
            for path, leaf in _named(args, name):
                for origin in self._leaf(path, leaf, work):
                    if len(found) == ORIGINS_PER_CALL_MAX:
                        found[-1] = _origin(path, "and more", (NOT_SEARCHED,), Integrity.UNTRUSTED)
                        return tuple(found)
                    found.append(origin)
        return tuple(found)

    def _leaf(self, path: str, leaf: Scalar, work: _Work) -> Iterator[Origin]:
        if leaf is None or isinstance(leaf, bool) or leaf == "":
            return
        if not isinstance(leaf, str):
            key = tokens.number_key(leaf)
            yield _origin(path, _shown(leaf), *self._found_by(key or "", work))
            return
        whole = self._find(leaf, work)
        is_long = len(leaf) > LONG_TEXT_CHARS or any(map(str.isspace, leaf))
        parts = tokens.literals(leaf) if is_long and not _is_found(whole) else []
        # Inside a statement a single character (LIMIT 1) chooses no target and is everywhere.
        parts = [part for part in parts if len(part) >= limits.ORIGIN_VALUE_CHARS_MIN]
        if not parts:
            yield _origin(path, leaf, *whole)
        for part in parts:
            yield _origin(path, part, *self._find(part, work))

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


def _named(args: Mapping[str, Any], name: str) -> Iterator[tuple[str, Scalar]]:
    """Leaves of what `name` stands for: an argument, or a dotted way into objects and lists."""
    if name in args:
        yield from leaves(args[name], name)
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


def _shown(number: Scalar) -> str:
    try:
        return str(number)
    except ValueError:  # Python writes out no int of more than 4,300 digits
        return "a number of thousands of digits"


def _origin(path: str, value: str, sources: tuple[str, ...], integrity: Integrity) -> Origin:
    if len(value) > LONG_TEXT_CHARS:
        value = value[: LONG_TEXT_CHARS - 1] + "…"
    return Origin(argument=path, value=value, sources=sources, integrity=integrity)
