"""Policy text as single statements: which file and line, which @id and @reason, which scope.

For errors that point at a line, reasons that a person understands, and slices by tool. Cedar itself
parses, validates and decides; nothing here does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import cedarpy
import msgspec

from ring0 import limits
from ring0.errors import PolicyInvalid
from ring0.types import Frozen

STATEMENT_CHARS_MAX: Final = 64 * limits.KIB
REASON_CHARS_MAX: Final = 120
RESERVED_PREFIX: Final = "ring0."
"""Rules of the kernel itself in a verdict; no @id may begin so, that no file can forge one."""
VARYING: Final = frozenset({"run", "calls_used", "cost_microusd"})
"""What differs from one call of a run to the next, or from run to run."""

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n\r]*|\bif\b|[;(){}\[\]]|\S', re.DOTALL)


class Statement(Frozen, frozen=True):
    """One `permit` or `forbid`."""

    rule: str
    """Its @id; without one `policyN`, N counted from 0 over the whole text."""
    reason: str
    effect: str
    """`permit` or `forbid`."""
    text: str
    file: str
    line: int
    actions: tuple[str, ...] | None
    """Actions that its scope names; None: any."""
    resource: tuple[str, str] | None
    """Type and id that its scope names with `==`; None: any."""
    reads: frozenset[str]
    """What of VARYING it may look at."""

    def concerns(self, action: str, resource: tuple[str, str]) -> bool:
        """False only where the scope alone says that this request is none of its business."""
        if self.actions is not None and action not in self.actions:
            return False
        return self.resource is None or self.resource == resource


def read(text: str, file: str, first: int = 0) -> list[Statement]:
    """The statements of one file, numbered from `first`. Raises PolicyInvalid with the line."""
    if text.startswith("\ufeff"):
        raise _invalid(file, 1, "the file begins with a byte order mark", "save it as plain UTF-8")
    return [
        _parse(part, file, line, first + index)
        for index, (line, part) in enumerate(_split(text, file))
    ]


def _split(text: str, file: str) -> Iterator[tuple[int, str]]:
    """Line and text of each statement, comments before it left out.

    Cedar's parser is recursive and unbounded: 1,000 open brackets or 10,000 `if` end the whole
    process with a segmentation fault. So nesting is bounded before Cedar sees the text.
    """
    start, line, counted, depth, ifs = -1, 1, 0, 0, 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word.startswith("//"):
            continue
        if start < 0:
            line += text.count("\n", counted, token.start())
            start = counted = token.start()
        depth += (word in "([{") - (word in ")]}")
        ifs += word == "if"
        if max(depth, ifs) > limits.CALL_DEPTH_MAX or token.end() - start > STATEMENT_CHARS_MAX:
            raise _invalid(file, line, "the policy is nested too deep or too long", "split it up")
        if word == ";":
            yield line, text[start : token.end()]
            start, depth, ifs = -1, 0, 0
    if start >= 0:
        yield line, text[start:]


def _parse(text: str, file: str, line: int, number: int) -> Statement:
    try:
        parsed: dict[str, Any] = msgspec.json.decode(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise _invalid(file, line, f"Cedar cannot read the policy: {error}", "mend it") from None
    if parsed["templates"]:
        raise _invalid(
            file, line, "a template (?principal, ?resource) decides nothing by itself",
            "write out the principal and the resource",
        )  # fmt: skip
    (policy,) = parsed["staticPolicies"].values()
    notes: dict[str, str] = policy.get("annotations", {})
    rule = notes.get("id") or f"policy{number}"
    if rule.startswith(RESERVED_PREFIX):
        raise _invalid(file, line, f"@id({rule!r}) is the kernel's own", "choose another @id")
    # Of the text alone, not of the file: a replay from the stored text says the same.
    beginning = " ".join(text.split())[:REASON_CHARS_MAX]
    return Statement(
        rule=rule,
        reason=notes.get("reason") or f"A {policy['effect']} without a @reason: {beginning}",
        effect=policy["effect"],
        text=text,
        file=file,
        line=line,
        actions=_actions(policy["action"]),
        resource=_resource(policy["resource"]),
        reads=_reads(policy),
    )


def _actions(scope: dict[str, Any]) -> tuple[str, ...] | None:
    if scope["op"] == "All":
        return None
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return tuple(entity["id"] for entity in entities)


def _resource(scope: dict[str, Any]) -> tuple[str, str] | None:
    if scope["op"] != "==":
        return None
    return scope["entity"]["type"], scope["entity"]["id"]


def _reads(policy: dict[str, Any]) -> frozenset[str]:
    """All of VARYING that could change what the policy says, or more.

    `context.rows` reads that one fact; `context` in any other place, all. Which run it is can be
    told only beside a run that the text names: nothing else that a policy knows is a run.
    """
    found: set[str] = set()
    left: list[Any] = [policy]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            if node.get("Var") == "context":
                return VARYING
            if node.get("type") == "Run":
                found.add("run")
            for name, inner in node.items():
                fact = _fact(inner) if name in (".", "has") else ""
                found.add(fact)
                left += () if fact else (inner,)
    return VARYING & found


def _fact(access: Any) -> str:
    """The fact that `context.fact` or `context has fact` names; empty: it is something else."""
    if not isinstance(access, dict) or access.get("left") != {"Var": "context"}:
        return ""
    fact = access.get("attr")
    return fact if isinstance(fact, str) else ""


def _invalid(file: str, line: int, why: str, todo: str) -> PolicyInvalid:
    return PolicyInvalid(f"{file}:{line}: this policy cannot be used.", why=why, todo=todo)
