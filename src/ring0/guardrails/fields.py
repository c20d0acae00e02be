"""Rules about fields, and the label of each leaf of a value by them.

A path is matched step by step, never as text: a key `note.id` is one step, and no `**.id` fits it.
Not here: who may say a rule, and what becomes of an outcome's label (kernel/steps/labelling.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from ring0.guardrails.sanitisers import sanitiser
from ring0.types import (
    FIELD_PATH,
    INTEGRITY_RANK,
    Confidentiality,
    FieldRule,
    Integrity,
    Label,
)

Step = str | int
"""A key of an object, or a place of a list."""
Steps = tuple[Step, ...]
Scalar = str | int | float | bool | None

_ANY: Final = None
"""One step, whatever it is."""
_PLACE: Final = -1
"""Any place of a list."""
_SHAPES_MAX: Final = 256
_NONE: Final = 1 << 30
_PATH: Final = re.compile(FIELD_PATH)
_PART: Final = re.compile(r"\[(?P<place>[0-9]*)\]|(?P<any>\*)|(?P<name>[^.\[\]*]+)")
_PLAIN_NAME: Final = re.compile(r"[^.\[\]*\x00-\x1f]{1,128}")
_BEST: Final = Integrity.TRUSTED_FIELD
"""What a manifest can vouch for: the user's own word is only what the user typed."""


class Pattern:
    """A path of a rule, read."""

    __slots__ = ("_anywhere", "_everything", "_steps")

    def __init__(self, path: str) -> None:
        """Raises ValueError."""
        if _PATH.fullmatch(path) is None:
            raise ValueError(
                f"{path[:80]!r} is no path of a field: write it as `sender`, `[].sender`, `**.id`"
            )
        self._anywhere = path.startswith("**")
        self._everything = path == "**"
        rest = path.removeprefix("**").removeprefix(".")
        self._steps: tuple[Step | None, ...] = tuple(map(_step, _PART.finditer(rest)))

    @property
    def exactly(self) -> Steps | None:
        """The steps of the one field that it names; None: it may be several."""
        if self._anywhere or any(step is _ANY or step == _PLACE for step in self._steps):
            return None
        return tuple(step for step in self._steps if step is not None)

    @property
    def names_a_place(self) -> bool:
        return any(type(step) is int and step != _PLACE for step in self._steps)

    def fits(self, steps: Steps) -> bool:
        """Exactly this field."""
        own = self._steps
        if self._everything:
            return True
        if len(steps) < len(own) or (len(steps) > len(own) and not self._anywhere):
            return False
        return _all_fit(own, steps[len(steps) - len(own) :])

    def is_above(self, steps: Steps) -> bool:
        """This field, or something that is within it."""
        own = self._steps
        if self._everything:
            return True
        last = len(steps) - len(own) if self._anywhere else 0
        return any(_all_fit(own, steps[at : at + len(own)]) for at in range(last + 1))


def _step(part: re.Match[str]) -> Step | None:
    if part["any"]:
        return _ANY
    if part["name"] is not None:
        return part["name"]
    return int(part["place"]) if part["place"] else _PLACE


def _all_fit(own: tuple[Step | None, ...], steps: Steps) -> bool:
    if len(own) > len(steps):
        return False
    for wanted, step in zip(own, steps, strict=False):
        if wanted is _ANY or wanted == step:
            continue
        if wanted == _PLACE and type(wanted) is int and type(step) is int:
            continue
        return False
    return True


@functools.lru_cache(maxsize=4_096)
def pattern(path: str) -> Pattern:
    """Raises ValueError."""
    return Pattern(path)


def leaves(value: Any) -> Iterator[tuple[Steps, Scalar]]:
    """Each scalar of a JSON value with the steps that lead to it, in its order."""
    stack: list[tuple[Steps, Any]] = [((), value)]
    while stack:
        steps, item = stack.pop()
        if isinstance(item, Mapping):
            stack.extend(((*steps, str(key)), item[key]) for key in reversed(list(item)))
        elif isinstance(item, list | tuple):
            stack.extend(((*steps, at), item[at]) for at in range(len(item) - 1, -1, -1))
        else:
            yield steps, item


def written(steps: Steps) -> str:
    """The path of exactly this field; empty where none can be written."""
    parts: list[str] = []
    for step in steps:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_NAME.fullmatch(step):
            parts.append(f".{step}" if parts else step)
        else:
            return ""
    path = "".join(parts)
    return path if _PATH.fullmatch(path) else ""


class _First:
    """Which of some rules is the first that speaks of a field. What makes a field better speaks of
    just that field, what makes it worse of all within it too."""

    __slots__ = ("_exact", "_known", "_places", "_wide")

    def __init__(self, rules: Iterable[tuple[int, FieldRule, bool]]) -> None:
        """(its place, the rule, whether it makes better), in their order."""
        self._exact: dict[Steps, list[tuple[int, bool]]] = {}
        """Those that name one single field, by its steps."""
        self._wide: list[tuple[int, Pattern, bool]] = []
        for at, rule, better in rules:
            read = pattern(rule.path)
            if (steps := read.exactly) is None:
                self._wide.append((at, read, better))
            else:
                self._exact.setdefault(steps, []).append((at, better))
        self._places = any(read.names_a_place for _, read, _ in self._wide)
        self._known: dict[Steps, int] = {}
        """Of the wide ones: which speaks of a field, by its steps."""

    def of(self, steps: Steps) -> int:
        """Its place; _NONE: there is none."""
        found = self._wide_of(steps) if self._wide else _NONE
        for length in range(len(steps) + 1) if self._exact else ():
            for at, better in self._exact.get(steps[:length], ()):
                if not better or length == len(steps):
                    found = min(found, at)
        return found

    def _wide_of(self, steps: Steps) -> int:
        """Found once for all places of a list, where no rule tells them apart."""
        key = steps if self._places else tuple(_PLACE if type(s) is int else s for s in steps)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _SHAPES_MAX:
                self._known.clear()
            fitting = (
                at
                for at, read, better in self._wide
                if (read.fits(steps) if better else read.is_above(steps))
            )
            known = self._known[key] = next(fitting, _NONE)
        return known


class Rules:
    """The rules of one output. Integrity and confidentiality are each what the first rule says that
    says something of them."""

    __slots__ = ("_hidden", "_integrity", "_passes", "_rules")

    def __init__(self, rules: Sequence[FieldRule]) -> None:
        """Raises ValueError for a path or a sanitiser that is none."""
        self._rules = tuple(rules)
        self._passes = [sanitiser(rule.sanitiser) if rule.sanitiser else None for rule in rules]
        numbered = list(enumerate(rules))
        self._integrity = _First(
            (at, rule, vouches(rule)) for at, rule in numbered if rule.integrity is not None
        )
        public = Confidentiality.PUBLIC
        self._hidden = _First(
            (at, rule, rule.confidentiality is public)
            for at, rule in numbered
            if rule.confidentiality is not None
        )

    def __bool__(self) -> bool:
        return bool(self._rules)

    def places(self, steps: Steps) -> tuple[int, ...]:
        """Which of the rules count for this field."""
        both = (self._integrity.of(steps), self._hidden.of(steps))
        return tuple(sorted({at for at in both if at != _NONE}))

    def vouching(self, steps: Steps, leaf: Scalar) -> int:
        """Which rule gives this leaf a better integrity; -1: none."""
        at = self._integrity.of(steps)
        if at == _NONE or not vouches(self._rules[at]):
            return -1
        passes = self._passes[at]
        return at if passes is None or passes(leaf) else -1

    def label(self, steps: Steps, leaf: Scalar, whole: Label) -> Label:
        """The leaf's own label, in an output whose label is `whole`. No manifest makes anything the
        user's own word."""
        integrity, hidden = whole.integrity, whole.confidentiality
        at = self._integrity.of(steps)
        if at != _NONE and (
            not vouches(rule := self._rules[at]) or self.vouching(steps, leaf) == at
        ):
            assert rule.integrity is not None
            integrity = max(rule.integrity, _BEST, key=INTEGRITY_RANK.__getitem__)
        at = self._hidden.of(steps)
        if at != _NONE:
            hidden = self._rules[at].confidentiality or hidden
        if integrity is whole.integrity and hidden is whole.confidentiality:
            return whole
        return replace(whole, integrity=integrity, confidentiality=hidden)


@functools.lru_cache(maxsize=256)
def compiled(rules: tuple[FieldRule, ...]) -> Rules:
    """The same for each result of a tool. Raises ValueError."""
    return Rules(rules)


def vouches(rule: FieldRule) -> bool:
    """It gives a better integrity than none."""
    return rule.integrity is not None and rule.integrity is not Integrity.UNTRUSTED


def labelled(
    value: Any, whole: Label, rules: Sequence[FieldRule]
) -> Iterator[tuple[Steps, Scalar, Label]]:
    """Each leaf of a value with its own label. Raises ValueError for rules that are none."""
    read = compiled(tuple(rules))
    for steps, leaf in leaves(value):
        yield steps, leaf, read.label(steps, leaf, whole)


__all__ = [
    "Pattern",
    "Rules",
    "Scalar",
    "Step",
    "Steps",
    "compiled",
    "labelled",
    "leaves",
    "vouches",
    "written",
]
