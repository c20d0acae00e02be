"""What a yes that was given in advance covers: a tool, arguments, a run or a time, and no more.

Pure. That it was not revoked, has not expired and is not used up is looked at where it is used, in
the transaction (`store.base.StandingGood`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.types import (
    CONFIDENTIALITY_RANK,
    INTEGRITY_RANK,
    Frozen,
    Label,
    Run,
    Standing,
    Verdict,
)

ANYTHING: Final = "*"
"""As a whole pattern: any value, or none at all."""
_DOT: Final = re.compile("%2e", re.IGNORECASE)
_PARTING: Final = frozenset("/@?#\\")
"""In `https://*.example.com/` or `*@example.com`, one of them would make it another place."""
IRREVERSIBLE: Final = "irreversible"


class Pattern(Frozen, frozen=True, kw_only=True):
    """The arguments that a standing approval covers."""

    same: dict[str, Any]
    """Each of these is exactly this."""
    like: dict[str, str]
    """Each of these is a text that fits: `*` stands for any letters but those that part an address
    (`/`, `@`, `?`, `#`, `\\`), `**` for any, `?` for one letter as of `*`. A pattern that is `*`
    alone fits everything."""


class Asked(Frozen, frozen=True, kw_only=True):
    """A call that is held, as far as a standing approval looks at it."""

    tool: str
    tool_digest: str
    args: dict[str, Any]
    reversal: str
    rows: int
    tables: tuple[str, ...]
    verdict: Verdict


def pattern_of(args: Mapping[str, Any], match: Mapping[str, str]) -> Pattern:
    """`args` with what `match` lets differ. Raises InvalidInput where it would not fit `args`."""
    for name, glob in match.items():
        if len(glob) > limits.STANDING_PATTERN_CHARS_MAX or not glob:
            raise InvalidInput(
                f"The pattern of {name[:60]!r} has {len(glob)} letters.",
                todo=f"Write it with 1 to {limits.STANDING_PATTERN_CHARS_MAX}.",
            )
        if glob != ANYTHING and name not in args:
            raise InvalidInput(
                f"The call has no argument {name[:60]!r}.",
                why=f"It has: {', '.join(args) or 'none'}.",
                todo="Match one of those.",
            )
        if not _fits(args.get(name), glob):
            raise InvalidInput(
                f"What {name[:60]!r} is in this call does not fit {glob[:60]!r}.",
                why="`*` stands for letters other than / @ ? # \\, `**` for any; only texts without"
                " `..` as a part of a path fit.",
                todo="A yes to many covers the call that it is given to: widen the pattern.",
            )
    same = {name: value for name, value in args.items() if name not in match}
    return Pattern(same=same, like=dict(match))


def fits(pattern: Pattern, args: Mapping[str, Any]) -> bool:
    """Every argument is as it has to be, and there is no other."""
    if not set(args) <= set(pattern.same) | set(pattern.like):
        return False
    if any(name not in args or not _equal(args[name], v) for name, v in pattern.same.items()):
        return False
    return all(
        _fits(args.get(name), glob) if name in args or glob == ANYTHING else False
        for name, glob in pattern.like.items()
    )


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether they are the same JSON."""
    return _equal(one, other)


def why_not(reversal: str, needs: int) -> str:
    """Why no yes in advance is possible for such a call; empty: it is."""
    if needs > 1:
        return "More than one person has to say yes to it, each to the very call."
    if reversal.partition(":")[0] == IRREVERSIBLE:
        return "Nothing takes it back, so a person looks at each such call."
    return ""


def covers(standing: Standing, pattern: Pattern, run: Run, by_person: bool, asked: Asked) -> bool:
    """Whether it is a yes to this call. `by_person`: a person has started the run."""
    if standing.everywhere:
        # Neither a child nor a run that an order has started has it: nobody looked at what it does.
        whose = run.tenant, run.principal, run.agent, run.agent_digest
        mine = standing.tenant, standing.principal, standing.agent, standing.agent_digest
        if run.parent or not by_person or whose != mine:
            return False
    elif run.id != standing.run:
        return False
    verdict = asked.verdict
    return (
        (asked.tool, asked.tool_digest) == (standing.tool, standing.tool_digest)
        and verdict.policy_digest == standing.policy_digest
        and {reason.rule for reason in verdict.reasons} <= set(standing.rules)
        and not why_not(asked.reversal, verdict.approvers)
        and not (verdict.approvers and standing.given_by == run.principal)
        and asked.rows <= standing.rows
        and set(asked.tables) <= set(standing.tables)
        and not _worse(run.label, standing.label)
        and fits(pattern, asked.args)
    )


def _worse(label: Label, than: Label) -> bool:
    return (
        INTEGRITY_RANK[label.integrity] > INTEGRITY_RANK[than.integrity]
        or CONFIDENTIALITY_RANK[label.confidentiality] > CONFIDENTIALITY_RANK[than.confidentiality]
    )


def _equal(one: Any, other: Any) -> bool:
    """As JSON: `1` is not `true`, and not `1.0`."""
    encode = msgspec.json.Encoder(order="sorted").encode
    return encode(one) == encode(other)


def _fits(value: Any, glob: str) -> bool:
    if glob == ANYTHING:
        return True
    if not isinstance(value, str) or len(value) > limits.STANDING_VALUE_CHARS_MAX:
        return False
    parts = _DOT.sub(".", value).replace("\\", "/").split("/")
    if ".." in parts or not value.isprintable():
        return False
    return _matches(value, _steps(glob))


def _steps(glob: str) -> list[str]:
    """One for each letter, `*`, `**` and `?`."""
    steps: list[str] = []
    at = 0
    while at < len(glob):
        step = "**" if glob.startswith("**", at) else glob[at]
        steps.append(step)
        at += len(step)
    return steps


def _matches(value: str, steps: list[str]) -> bool:
    """By sets of places: the time is the product of both lengths, whatever the pattern says."""
    places = _past_stars({0}, steps)
    for letter in value:
        reached = set()
        for place in places:
            if place == len(steps):
                continue
            step = steps[place]
            inside = letter not in _PARTING
            if step == "**" or (step == "*" and inside):
                reached.add(place)
            elif step != "*" and (step == letter or (step == "?" and inside)):
                reached.add(place + 1)
        places = _past_stars(reached, steps)
        if not places:
            return False
    return len(steps) in places


def _past_stars(places: set[int], steps: list[str]) -> set[int]:
    """With the places behind stars that stand for nothing."""
    found = set()
    for first in places:
        place = first
        found.add(place)
        while place < len(steps) and steps[place] in ("*", "**"):
            place += 1
            found.add(place)
    return found
