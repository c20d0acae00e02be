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
from ring0.governance.arguments import WHOLE
from ring0.governance.telling import Uses, uses_of
from ring0.types import CallKind, Frozen

STATEMENT_CHARS_MAX: Final = 64 * limits.KIB
REASON_CHARS_MAX: Final = 120
RESERVED_PREFIX: Final = "ring0."
"""Rules of the kernel itself in a verdict; no @id may begin so, that no file can forge one."""
TOOLS: Final = CallKind.TOOL.value
"""The action that every tool's own action is in."""
BASE_ACTIONS: Final = frozenset(kind.value for kind in CallKind)
ANNOTATIONS: Final = ("id", "reason", "approver", "approvers", "expires")
_OF_ASKS: Final = ("approver", "approvers", "expires")
APPROVER_CHARS_MAX: Final = 120
_PERIOD: Final = re.compile(r"([1-9][0-9]{0,6}) (s|min|h|d)")
_PERIOD_S: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}

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
    uses: Uses
    """How it looks at the facts of a question."""
    of_tools: tuple[str, ...] = ()
    """The tools that it names as a resource, in its scope or its condition."""
    args: frozenset[str] = frozenset()
    """The arguments that it may look at, or WHOLE; only a statement that names tools has some."""
    asks: bool = False
    """Whether a person's yes changes what it says."""
    approver: str = ""
    approvers: int = 0
    expires_s: int = 0

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools' own actions that its scope names."""
        return tuple(name for name in self.actions or () if name not in BASE_ACTIONS)

    def concerns(self, action: str, resource: tuple[str, str]) -> bool:
        """False only where the scope alone says that this request is none of its business."""
        if self.actions is not None and action not in self.actions:
            # A tool's own action is in the one of all tools.
            of_a_tool = action not in BASE_ACTIONS and TOOLS in self.actions
            if not of_a_tool:
                return False
        return self.resource is None or self.resource == resource


def action_of(tool: str) -> str:
    """The action of a tool. One that is called as a kind of call is (`send`) is `tool:send`."""
    return f"{TOOLS}:{tool}" if tool in BASE_ACTIONS else tool


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
    asks = _looks_at(policy, "approved")
    _check_notes(notes, asks, file, line)
    _check_actions(policy, file, line)
    actions = _actions(policy["action"])
    args = _args(policy)
    if args and set(actions or ()) <= BASE_ACTIONS:
        if "" not in args:
            raise _invalid(
                file, line, "it speaks of `context.args` and names no tool: each tool has its own",
                'name the tool in the scope: `action == Action::"crm.execute"`',
            )  # fmt: skip
        args = frozenset()
    # Of the text alone, not of the file: a replay from the stored text says the same.
    beginning = " ".join(text.split())[:REASON_CHARS_MAX]
    return Statement(
        rule=rule,
        reason=notes.get("reason") or f"A {policy['effect']} without a @reason: {beginning}",
        effect=policy["effect"],
        text=text,
        file=file,
        line=line,
        actions=actions,
        resource=_resource(policy["resource"]),
        uses=uses_of(policy),
        of_tools=_of_tools(policy),
        args=args,
        asks=asks,
        approver=notes.get("approver", ""),
        approvers=_approvers(notes["approvers"], file, line) if "approvers" in notes else 0,
        expires_s=_expires_s(notes["expires"], file, line) if "expires" in notes else 0,
    )


def _check_notes(notes: dict[str, Any], asks: bool, file: str, line: int) -> None:
    """A misspelt annotation, or one that does nothing, is an error: somebody relies on it."""
    for name, value in notes.items():
        if name not in ANNOTATIONS:
            known = ", ".join(f"@{known}" for known in ANNOTATIONS)
            raise _invalid(file, line, f"@{name} is no annotation of ring0", f"there are {known}")
        if not value:
            raise _invalid(file, line, f"@{name} says nothing", f'write @{name}("...")')
        if name in _OF_ASKS and not asks:
            raise _invalid(
                file, line, f"@{name} is for what asks, and this never does",
                "say `context.approved` in its condition, or leave it out",
            )  # fmt: skip
    if len(notes.get("approver", "")) > APPROVER_CHARS_MAX:
        raise _invalid(file, line, "@approver is too long", f"use {APPROVER_CHARS_MAX} letters")


def _approvers(text: str, file: str, line: int) -> int:
    if re.fullmatch("[1-9][0-9]{0,2}", text) and int(text) <= limits.APPROVERS_MAX:
        return int(text)
    raise _invalid(
        file, line, f"@approvers({text[:40]!r}) is no number of people",
        f'write @approvers("2"); at most {limits.APPROVERS_MAX}',
    )  # fmt: skip


def _expires_s(text: str, file: str, line: int) -> int:
    found = _PERIOD.fullmatch(text)
    seconds = int(found[1]) * _PERIOD_S[found[2]] if found else 0
    if not 1 <= seconds <= limits.POLICY_EXPIRES_S_MAX:
        raise _invalid(
            file, line, f"@expires({text[:40]!r}) is no time",
            'write @expires("10 min"), "1 h" or "1 d"; at most 30 days',
        )  # fmt: skip
    return seconds


def _check_actions(policy: dict[str, Any], file: str, line: int) -> None:
    """All tools together are named with `in`, one tool in the scope: anything else would hold for
    fewer calls than it seems to."""
    scope = policy["action"]
    if scope["op"] == "==" and scope["entity"]["id"] == TOOLS:
        raise _invalid(
            file, line, f'`action == Action::"{TOOLS}"` holds for no tool: each has its own action',
            f'write `action in Action::"{TOOLS}"` for all tools, or name one',
        )  # fmt: skip
    left: list[Any] = list(policy["conditions"])
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            if node.get("type") == "Action":
                _check_action(str(node.get("id")), file, line)
            within = node.get("in")
            if isinstance(within, dict) and within.get("right") in _ALL_TOOLS:
                left.append(within["left"])
            else:
                left += node.values()


_ALL_TOOLS: Final[list[Any]] = [{"Value": {"__entity": {"type": "Action", "id": TOOLS}}}]


def _check_action(name: str, file: str, line: int) -> None:
    if name == TOOLS:
        raise _invalid(
            file, line, f'a condition compares with `Action::"{TOOLS}"`: each tool has its own',
            f'write `action in Action::"{TOOLS}"`',
        )  # fmt: skip
    if name not in BASE_ACTIONS:
        raise _invalid(
            file, line, f"a condition names the action {name[:80]!r}",
            "name tools in the scope: `permit (principal, action == Action::...`",
        )  # fmt: skip


def _actions(scope: dict[str, Any]) -> tuple[str, ...] | None:
    if scope["op"] == "All":
        return None
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return tuple(entity["id"] for entity in entities)


def _resource(scope: dict[str, Any]) -> tuple[str, str] | None:
    if scope["op"] != "==":
        return None
    return scope["entity"]["type"], scope["entity"]["id"]


def _of_tools(policy: dict[str, Any]) -> tuple[str, ...]:
    found: set[str] = set()
    left: list[Any] = [policy["resource"], policy["conditions"]]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            if node.get("type") == "Tool":
                found.add(str(node.get("id")))
            left += node.values()
        elif isinstance(node, list):
            left += node
    return tuple(sorted(found))


def _looks_at(policy: dict[str, Any], wanted: str) -> bool:
    """Whether `context.wanted`, or the context as a whole, is in it."""
    left: list[Any] = [policy]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            if node.get("Var") == "context":
                return True
            for name, inner in node.items():
                fact = _fact(inner) if name in (".", "has") else ""
                if fact == wanted:
                    return True
                left += () if fact else (inner,)
    return False


def _args(policy: dict[str, Any]) -> frozenset[str]:
    """The arguments that it may look at; WHOLE: any of them, and "": it looks at all the facts."""
    found: set[str] = set()
    left: list[Any] = list(policy["conditions"])
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            if node.get("Var") == "context":
                return frozenset({WHOLE, ""})
            for name, inner in node.items():
                argument = _argument(inner) if name in (".", "has") else ""
                if argument:
                    found.add(argument)
                elif name in (".", "has") and (fact := _fact(inner)):
                    found |= {WHOLE} if fact == "args" else set()
                else:
                    left.append(inner)
    return frozenset(found)


def _argument(access: Any) -> str:
    """The argument that `context.args.name` or `context.args has name` names."""
    left = access.get("left") if isinstance(access, dict) else None
    if not isinstance(left, dict) or _fact(left.get(".")) != "args":
        return ""
    name = access.get("attr")
    return name if isinstance(name, str) else WHOLE


def _fact(access: Any) -> str:
    """The fact that `context.fact` or `context has fact` names; empty: it is something else."""
    if not isinstance(access, dict) or access.get("left") != {"Var": "context"}:
        return ""
    fact = access.get("attr")
    return fact if isinstance(fact, str) else ""


def _invalid(file: str, line: int, why: str, todo: str) -> PolicyInvalid:
    return PolicyInvalid(f"{file}:{line}: this policy cannot be used.", why=why, todo=todo)
