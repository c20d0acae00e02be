"""What of a question some policies can tell apart: two questions that they can't have one answer.

Read from the policies as Cedar parses them; whatever has a form that is not known here reads all
that it may. Not for deciding, and not for arguments: those are part of every question they are in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0.governance.arguments import LONG_MAX
from ring0.types import Confidentiality, Effect, Integrity

if TYPE_CHECKING:
    from ring0.governance.questions import Question

WHOLE: Final = "whole"
EMPTY: Final = "empty"
"""Of a set: whether anything is in it."""
HOLDS: Final = "holds"
"""Of a set: whether this text is in it."""
EQUALS: Final = "equals"
"""Of a text: whether it is this one."""
BESIDE: Final = "beside"
"""Of a number: whether it is less, more or the same as this one."""

Use = tuple[str, Any]
"""How a policy looks at a fact, and beside what."""
Uses = frozenset[tuple[str, str, Any]]
"""Of a policy: (fact, how, beside what)."""

_KINDS: Final[dict[str, type]] = {
    **dict.fromkeys(("tenant", "principal", "agent", "run", "resource", "reversal"), str),
    **dict.fromkeys(("forbidden", "host", "method"), str),
    **dict.fromkeys(("mutates", "own", "changes_schema", "operator"), bool),
    **dict.fromkeys(("hinted", "chosen", "unattended"), bool),
    **dict.fromkeys(("rows", "recipients", "removals", "severity", "depth", "calls_used"), int),
    **dict.fromkeys(("cost_microusd", "budget_left_calls", "budget_left_tokens"), int),
    **dict.fromkeys(("budget_left_microusd",), int),
    **dict.fromkeys(("tables", "untrusted_args", "unfounded_args", "unchosen_args"), tuple),
    **dict.fromkeys(("untrusted_urls", "private_args", "features", "findings"), tuple),
    "effect": Effect,
    "run_integrity": Integrity,
    "run_confidentiality": Confidentiality,
}
"""The facts of a question, but for its action and its arguments."""
FACTS: Final = tuple(_KINDS)
_BEHIND: Final = {"integrity": "run_integrity", "confidentiality": "run_confidentiality",
                  "depth": "depth"}  # fmt: skip
"""Attributes of the principal, the run."""
_OF_TOOL: Final = ("effect", "reversal", "unattended")
"""Attributes of the resource."""
_NAMES: Final = ("tenant", "principal", "agent", "run", "resource")
_NAMED: Final = {
    "Tenant": ("tenant",),
    "Principal": ("principal",),
    "Agent": ("agent", "resource"),
    "Run": ("run",),
    "Tool": ("resource",),
    "Model": ("resource",),
}
"""Which names a policy can tell apart that names one of this type: an entity can only be compared
with another, and all others that a policy can get at are those of the question itself."""
_COMPARING: Final = ("<", "<=", ">", ">=", "==", "!=")
_OF_CONTEXT: Final = frozenset(FACTS) - {*_NAMES, *_BEHIND.values(), *_OF_TOOL}
_WITHIN: Final[Mapping[str, Iterable[str]]] = {
    "context": _OF_CONTEXT,
    "principal": tuple(_BEHIND.values()),
    "resource": _OF_TOOL,
}
"""What a policy may look at that does not go straight for one attribute: all of them."""
_BOTH: Final = frozenset({"principal", "resource"})


def uses_of(policy: Mapping[str, Any]) -> Uses:
    """How one policy, as Cedar's JSON has it, looks at the facts."""
    found: set[tuple[str, str, Any]] = set()
    beside: set[str] = set()
    left: list[Any] = [policy]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            if (use := _narrow(node)) is not None:
                found.add(use)
                continue
            if (attribute := _attribute(node)) is not None:
                found.update((fact, WHOLE, None) for fact in attribute)
                continue
            if (all_of := _WITHIN.get(node.get("Var", ""))) is not None:
                found.update((fact, WHOLE, None) for fact in all_of)
                beside.add(node["Var"])
            for kind in _kinds_named(node):
                found.update((fact, WHOLE, None) for fact in kind)
            left += node.values()
    if beside >= _BOTH:  # `principal in resource`: who is asked for may be who asks.
        found.update((fact, WHOLE, None) for fact in _NAMES)
    return frozenset(found)


def _kinds_named(node: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """An entity is written `{"type": …, "id": …}`."""
    kind = node.get("type")
    if isinstance(kind, str):
        yield _NAMED.get(kind, ())


def _attribute(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The facts behind `context.fact`, `principal.depth`; None: it is something else."""
    for how in (".", "has"):
        access = node.get(how)
        if not isinstance(access, dict) or len(node) != 1:
            continue
        name, whose = access.get("attr"), access.get("left")
        if whose == {"Var": "context"}:
            # `approved` is no fact of a question, and arguments are in it anyhow.
            return (name,) if name in _OF_CONTEXT else ()
        if whose == {"Var": "principal"}:
            return (_BEHIND[name],) if name in _BEHIND else tuple(_BEHIND.values())
        if whose == {"Var": "resource"}:
            return (name,) if name in _OF_TOOL else _OF_TOOL
    return None


def _narrow(node: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    """A way to look at a fact that leaves most of its values the same; None: it is none."""
    if len(node) != 1:
        return None
    ((how, inner),) = node.items()
    if not isinstance(inner, dict):
        return None
    if how == "isEmpty":
        fact = _fact(inner.get("arg"), tuple)
        return (fact, EMPTY, None) if fact else None
    one, other = inner.get("left"), inner.get("right")
    if how == "contains":
        fact, text = _fact(one, tuple), _literal(other, str)
        return (fact, HOLDS, text) if fact and text is not None else None
    if how not in _COMPARING:
        return None
    for access, value in ((one, other), (other, one)):
        if (fact := _fact(access, int)) and (number := _literal(value, int)) is not None:
            return fact, BESIDE, number
        text = _literal(value, str)
        if how in ("==", "!=") and text is not None and (fact := _fact(access, str)):
            return fact, EQUALS, text
    return None


def _fact(access: Any, kind: type) -> str:
    """The fact of this kind that `context.fact` names; empty: it is something else."""
    if not isinstance(access, dict) or access.keys() != {"."}:
        return ""
    inner = access["."]
    if not isinstance(inner, dict) or inner.get("left") != {"Var": "context"}:
        return ""
    name = inner.get("attr")
    return name if name in _OF_CONTEXT and _KINDS[name] is kind else ""


def _literal(node: Any, kind: type) -> Any:
    """The value that it is; None: it is none of this kind."""
    if not isinstance(node, dict) or node.keys() != {"Value"}:
        return None
    return node["Value"] if type(node["Value"]) is kind else None


# --- questions ------------------------------------------------------------------------------------

_Getter = Callable[["Question"], tuple[Any, ...]]


def _several(names: Iterable[str]) -> _Getter:
    """The values of these facts, whether they are many, one or none."""
    found = tuple(names)
    if len(found) > 1:
        return attrgetter(*found)
    return lambda question: tuple(getattr(question, name) for name in found)


_all: Final = _several(FACTS)
_TYPES: Final = tuple(_KINDS.values())
_strings: Final = _several(fact for fact, kind in _KINDS.items() if kind is str)
_numbers: Final = _several(fact for fact, kind in _KINDS.items() if kind is int)
_sets: Final = _several(fact for fact, kind in _KINDS.items() if kind is tuple)


class Telling:
    """What the policies of a slice, all together, can tell questions apart by."""

    def __init__(self, of: Any, policies: Iterable[Uses]) -> None:
        """`of`: names the slice, among all that remember in one place."""
        self._of = of
        uses: dict[str, set[Use]] = {}
        for fact, how, beside in frozenset[tuple[str, str, Any]]().union(*policies):
            uses.setdefault(fact, set()).add((how, beside))
        whole = {fact for fact, found in uses.items() if (WHOLE, None) in found}
        empty = {fact for fact, found in uses.items() if found == {(EMPTY, None)}}
        self._whole = _several(sorted(whole))
        self._empty = _several(sorted(empty))
        rest = sorted(uses.keys() - whole - empty)
        self._rest = _several(rest)
        self._classed = tuple(_classed(_KINDS[fact], uses[fact]) for fact in rest)

    def key(self, question: Question) -> tuple[Any, int]:
        """The same for all questions that they can't tell apart, and how many characters it has at
        the most.

        Where Cedar would not take one of the facts, that is a fault whether it is read or not: such
        a question is like no other.
        """
        if (texts := _texts(question)) is None:
            raw = msgspec.json.encode(question)
            return (self._of, raw), len(raw)
        args = None if question.args is None else msgspec.json.encode(question.args)
        key = (
            self._of,
            args,
            self._whole(question),
            tuple(map(bool, self._empty(question))),
            tuple(
                classed(value)
                for classed, value in zip(self._classed, self._rest(question), strict=True)
            ),
        )
        return key, texts + len(args or b"")


def _texts(question: Question) -> int | None:
    """How many characters its facts have; None: Cedar would not take one of them."""
    if tuple(map(type, _all(question))) != _TYPES:
        return None
    numbers = _numbers(question)
    if min(numbers) < 0 or max(numbers) > LONG_MAX:
        return None
    try:
        texts = "".join(chain(_strings(question), *_sets(question)))
        if not texts.isascii():
            texts.encode()
    except (TypeError, UnicodeEncodeError):  # no text; half of a surrogate pair
        return None
    return len(texts)


def _classed(kind: type, uses: set[Use]) -> Callable[[Any], Any]:
    """What these uses make of a value: the same for all values that they can't tell apart."""
    beside = sorted(what for how, what in uses if how in (BESIDE, HOLDS, EQUALS))
    if kind is int:
        return lambda number: (bisect_left(beside, number), bisect_right(beside, number))
    texts = frozenset(beside)
    if kind is str:
        return lambda text: text if text in texts else None
    if (EMPTY, None) not in uses:
        return lambda some: texts.intersection(some)
    return lambda some: (texts.intersection(some), not some)
