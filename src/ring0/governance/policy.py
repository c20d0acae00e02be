"""Whether a call may run: Cedar over what the kernel found out about it, and nothing else.

Fails closed: whatever Cedar cannot decide is a deny. Not for liveness, budgets or kills: those are
the kernel's own code, since Cedar skips a `forbid` that errors.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import cedarpy
import msgspec
from cedarpy import Entities, PolicySet, Schema
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import PolicyInvalid
from ring0.governance import statements
from ring0.governance.statements import VARYING, Statement
from ring0.types import CallKind, Effect, Frozen, Integrity, Reason, Verdict, VerdictKind

ENTITIES_KEPT_MAX: Final = 1_024
DECISIONS_KEPT_MAX: Final = 4_096
"""About half a KiB each."""
ENGINE_MESSAGE_CHARS_MAX: Final = 400

_UNDECIDED: Final = "ring0.undecided"
NO_PERMIT: Final = Reason(rule="ring0.no-permit", text="No rule permits it.")

_RESOURCE_TYPE: Final = {
    CallKind.TOOL: "Tool",
    CallKind.MODEL: "Model",
    CallKind.SPAWN: "Agent",
    CallKind.EGRESS: "Tool",
}
_KERNEL: Final = ("Kernel", "kernel")


class Question(Frozen, frozen=True):
    """All that a decision is made of; stored with the call, so that it can be asked again."""

    tenant: str
    principal: str
    agent: str
    run: str
    action: str
    """A `CallKind`."""
    resource: str
    """Name of the tool, the model or the agent; empty for the others."""
    effect: Effect
    reversal: str
    mutates: bool
    """Changes something outside the run's own workspace and memory: from the engine's dry run."""
    own: bool
    """Touches only the run's own workspace or memory."""
    changes_schema: bool
    forbidden: str
    """What the tool's engine calls out of bounds (`ATTACH`); empty: nothing."""
    rows: int
    tables: tuple[str, ...]
    run_integrity: Integrity
    untrusted_args: tuple[str, ...]
    """Critical arguments whose value came only from untrusted data."""
    unfounded_args: tuple[str, ...]
    """Critical arguments whose value came from nowhere that the kernel has seen."""
    operator: bool
    """The call is a human operator's own (undo), not an agent's."""
    depth: int
    calls_used: int
    cost_microusd: int
    host: str = ""
    """Where a request goes; empty where nothing goes anywhere."""
    method: str = ""


class PolicyText(Frozen, frozen=True):
    """One policy as it is written."""

    rule: str
    effect: str
    reason: str
    text: str


class Explanation(Frozen, frozen=True):
    """Why a verdict came out as it did."""

    verdict: Verdict
    policies: tuple[PolicyText, ...]
    """Those that determined it, in the order of the text; none: the kernel's own rule did."""
    question: Question
    context: dict[str, Any]
    """What of the question Cedar was given as context; the rest went in as run and tool."""


class Policies:
    """One set of policies, swapped as a whole: `digest` names it, `text` is all of it."""

    def __init__(self, text: str, parsed: Sequence[Statement], schema: Schema) -> None:
        """Use `load` or `from_text`."""
        self.text = text
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self._schema = schema
        self._statements = tuple(parsed)
        self._named = frozenset(s.resource for s in self._statements if s.resource)
        self._slices: dict[tuple[str, tuple[str, str] | None], _Slice] = {}
        self._decided: dict[bytes, Verdict] = {}
        """By all that its policies can tell questions apart by: the same question has the same
        answer, and to ask Cedar costs more than all else that the gate does."""

    @classmethod
    def load(cls, extra: Sequence[Path] = ()) -> Policies:
        """The default set and the files added to it. Raises PolicyInvalid, naming file and line."""
        schema_text = _packaged("schema.cedarschema")
        files = [("default.cedar", _packaged("default.cedar"))]
        files += [(str(path), _read(path)) for path in extra]
        parsed: list[Statement] = []
        for name, text in files:
            parsed += statements.read(text, name, len(parsed))
        # A newline ends a comment, so no file can swallow the beginning of the next.
        text = "\n".join([_head(schema_text), *(text for _, text in files)])
        return cls(text, parsed, _checked(parsed, schema_text))

    @classmethod
    def from_text(cls, text: str) -> Policies:
        """A set exactly as `text` has it, without the defaults: to replay an old decision."""
        schema_text = _packaged("schema.cedarschema")
        first = text.partition("\n")[0]
        if first.startswith(_HEAD) and first != _head(schema_text):
            raise PolicyInvalid(
                "This policy was made for another version of ring0.",
                why="Its schema is not the one that this version checks against.",
                todo="Explain that decision with the version of ring0 that took it.",
            )
        parsed = statements.read(text, "policy", 0)
        return cls(text, parsed, _checked(parsed, schema_text))

    def decide(self, question: Question) -> Verdict:
        """Allow, ask or deny, with the rules that decided. Never raises: a fault is a deny."""
        try:
            resource = _resource(question)
            part = self._slice(question.action, resource)
            alike = part.alike(question)
            if (known := self._decided.get(alike)) is not None:
                return known
            kind, reasons = self._decide(question, resource, part)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Cedar's is no Exception
            fault = _fault(f"{type(error).__name__}: {error}")
            return Verdict(kind=VerdictKind.DENY, reasons=(fault,), policy_digest=self.digest)
        verdict = Verdict(kind=kind, reasons=reasons, policy_digest=self.digest)
        if not any(reason.rule == _UNDECIDED for reason in reasons):  # Its text names the run.
            self._decided[alike] = verdict
            if len(self._decided) > DECISIONS_KEPT_MAX:
                del self._decided[next(iter(self._decided))]
        return verdict

    def explain(self, question: Question) -> Explanation:
        """The verdict again, with the full text of what determined it."""
        verdict = self.decide(question)
        decided = {reason.rule for reason in verdict.reasons}
        return Explanation(
            verdict=verdict,
            policies=tuple(
                PolicyText(rule=s.rule, effect=s.effect, reason=s.reason, text=s.text)
                for s in self._statements
                if s.rule in decided
            ),
            question=question,
            context=_context(question),
        )

    def _decide(
        self, question: Question, resource: tuple[str, str], part: _Slice
    ) -> tuple[VerdictKind, tuple[Reason, ...]]:
        entities = _described(question)
        facts = msgspec.json.encode(_context(question)).decode()[1:]
        request: dict[str, Any] = {
            "principal": {"type": "Run", "id": question.run},
            "action": {"type": "Action", "id": question.action},
            "resource": {"type": resource[0], "id": resource[1]},
            "context": '{"approved":false,' + facts,
        }
        plain = part.evaluate(request, entities, self._schema)
        if plain.failed:
            return VerdictKind.DENY, (plain.failed,)
        if plain.allowed:
            return VerdictKind.ALLOW, plain.reasons
        request["context"] = '{"approved":true,' + facts
        approved = part.evaluate(request, entities, self._schema)
        if approved.failed:
            return VerdictKind.DENY, (approved.failed,)
        if approved.allowed:
            # A forbid that an approval lifts says why; without one, the permit that wants it does.
            return VerdictKind.ASK, plain.reasons or approved.reasons
        return VerdictKind.DENY, approved.reasons or (NO_PERMIT,)

    def _slice(self, action: str, resource: tuple[str, str]) -> _Slice:
        """The policies whose scope can fit; so 1,000 policies for other tools cost nothing."""
        key = (action, resource if resource in self._named else None)
        found = self._slices.get(key)
        if found is None:
            CallKind(action)  # refused here, so that the number of slices stays bounded
            fitting = [s for s in self._statements if s.concerns(action, resource)]
            found = self._slices[key] = _Slice(fitting)
        return found


_SAME: Final[dict[str, Any]] = {"run": "", "calls_used": 0, "cost_microusd": 0}
"""What stands for each of VARYING where no policy reads it."""
_LONG_MAX: Final = 2**63 - 1

_NUMBERED: Final = re.compile(r"(?<=`)policy\d+(?=`)")


class _Evaluation(msgspec.Struct, frozen=True):
    allowed: bool
    reasons: tuple[Reason, ...]
    failed: Reason | None = None


class _Slice:
    """Some policies, parsed once, and their reasons under the ids that Cedar numbers them with."""

    def __init__(self, parsed: Sequence[Statement]) -> None:
        self._policies = PolicySet.from_str("\n".join(s.text for s in parsed))
        if len(self._policies) != len(parsed):
            raise PolicyInvalid("Cedar reads the policies otherwise than ring0 does.",
                                todo="Report this with the policy's text.")  # fmt: skip
        self._reasons = {
            f"policy{index}": (index, Reason(rule=s.rule, text=s.reason))
            for index, s in enumerate(parsed)
        }
        unread = VARYING.difference(*(s.reads for s in parsed))
        self._same = {name: value for name, value in _SAME.items() if name in unread}

    def alike(self, question: Question) -> bytes:
        """The same for all questions that these policies can't tell apart."""
        return msgspec.json.encode(
            replace(question, **self._same) if _is_plain(question) else question
        )

    def evaluate(self, request: dict[str, Any], entities: Entities, schema: Schema) -> _Evaluation:
        result = cedarpy.is_authorized(request, self._policies, entities, schema)
        errors = result.diagnostics.errors
        # Cedar skips a forbid that errors and may then allow: any error at all is a deny.
        if errors or result.decision is cedarpy.Decision.NoDecision:
            message = "; ".join(map(str, errors)) or "no decision"
            return _Evaluation(False, (), _fault(_NUMBERED.sub(self._rule, message)))
        numbered = sorted(self._reasons[policy] for policy in result.diagnostics.reasons)
        return _Evaluation(
            result.decision is cedarpy.Decision.Allow, tuple(reason for _, reason in numbered)
        )

    def _rule(self, numbered: re.Match[str]) -> str:
        found = self._reasons.get(numbered.group())
        return found[1].rule if found else numbered.group()


def _is_plain(question: Question) -> bool:
    """Whether Cedar takes what is left out of `alike`: it is a fault whether it is read or not."""
    run, numbers = question.run, (question.calls_used, question.cost_microusd)
    return (
        type(run) is str
        and run.isascii()
        and all(type(number) is int and 0 <= number <= _LONG_MAX for number in numbers)
    )


# --- what Cedar is given -------------------------------------------------------------------------


def _context(question: Question) -> dict[str, Any]:
    """The facts as Cedar's JSON. Text from outside is only ever a string here, never a key or an
    object, so `{"__entity": ...}` in it stays text."""
    return {
        "operator": question.operator,
        "mutates": question.mutates,
        "own": question.own,
        "changes_schema": question.changes_schema,
        "forbidden": question.forbidden,
        "rows": question.rows,
        "tables": question.tables,
        "untrusted_args": question.untrusted_args,
        "unfounded_args": question.unfounded_args,
        "calls_used": question.calls_used,
        "cost_microusd": question.cost_microusd,
        "host": question.host,
        "method": question.method,
    }


def _resource(question: Question) -> tuple[str, str]:
    kind = _RESOURCE_TYPE.get(CallKind(question.action))
    return (kind, question.resource) if kind else _KERNEL


def _described(question: Question) -> Entities:
    return _entities(
        question.run,
        (("Tenant", question.tenant), ("Principal", question.principal), ("Agent", question.agent)),
        question.run_integrity,
        question.depth,
        _resource(question),
        question.effect,
        question.reversal,
    )


@functools.lru_cache(maxsize=ENTITIES_KEPT_MAX, typed=True)
def _entities(
    run: str,
    behind: tuple[tuple[str, str], ...],
    integrity: str,
    depth: int,
    resource: tuple[str, str],
    effect: str,
    reversal: str,
) -> Entities:
    """The run and the tool as entities: the same from call to call, so parsed once (10 µs)."""
    run_entity = {
        "uid": {"type": "Run", "id": run},
        "attrs": {"integrity": {"type": "Integrity", "id": integrity}, "depth": depth},
        "parents": [{"type": kind, "id": name} for kind, name in behind],
    }
    attributes = {"effect": {"type": "Effect", "id": effect}, "reversal": reversal}
    tool_entity = {
        "uid": {"type": resource[0], "id": resource[1]},
        "attrs": attributes if resource[0] == "Tool" else {},
        "parents": [],
    }
    return Entities.from_json_str(
        msgspec.json.encode([run_entity, tool_entity]).decode(), _schema()
    )


def _fault(message: str) -> Reason:
    """The engine's message holds text from outside: bounded, and nothing that moves a cursor."""
    plain = "".join(c if c.isprintable() else "?" for c in message[:ENGINE_MESSAGE_CHARS_MAX])
    return Reason(rule=_UNDECIDED, text=f"The policy could not be decided: {plain}")


# --- files ---------------------------------------------------------------------------------------

_HEAD: Final = "// ring0 policy, schema sha256:"


def _head(schema_text: str) -> str:
    """First line of a set, so that its digest covers the schema too."""
    return _HEAD + hashlib.sha256(schema_text.encode()).hexdigest()


@functools.cache
def _packaged(name: str) -> str:
    return resources.files("ring0.governance").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _schema() -> Schema:
    return Schema.from_str(_packaged("schema.cedarschema"))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limits.BLOB_SIZE_BYTES_MAX + 1)
        if len(data) > limits.BLOB_SIZE_BYTES_MAX:  # a set's text is kept as one blob
            raise PolicyInvalid(f"{path}: over {limits.BLOB_SIZE_BYTES_MAX} bytes of policy.",
                                todo="Split it up.")  # fmt: skip
        return data.decode("utf-8")
    except OSError as error:
        raise PolicyInvalid(f"{path}: the policy file cannot be read.",
                            why=error.strerror or str(error),
                            todo="Check the path and its permissions.") from None  # fmt: skip
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{path}: the policy file is not UTF-8.", why=str(error),
                            todo="Save it as plain UTF-8.") from None  # fmt: skip


def _checked(parsed: Sequence[Statement], schema_text: str) -> Schema:
    """The schema that all statements fit. Raises PolicyInvalid at the first that does not."""
    seen: dict[str, Statement] = {}
    for statement in parsed:
        where = f"{statement.file}:{statement.line}"
        if first := seen.get(statement.rule):
            raise PolicyInvalid(
                f"{where}: @id({statement.rule!r}) is taken.",
                why=f"{first.file}:{first.line} has it already.",
                todo="Choose another @id: a verdict names the rule by it.",
            )
        seen[statement.rule] = statement
    schema = _schema()
    whole = cedarpy.validate_policies("\n".join(s.text for s in parsed), schema)
    if whole.validation_passed and not whole.errors:
        return schema
    for statement in parsed:
        result = cedarpy.validate_policies(statement.text, schema)
        if result.validation_passed and not result.errors:
            continue
        raise PolicyInvalid(
            f"{statement.file}:{statement.line}: {statement.rule} does not fit the schema.",
            why="; ".join(e.error.removeprefix("for policy `policy0`").lstrip(":, ")
                          for e in result.errors),
            todo="Use the actions, attributes and values that ring0's schema.cedarschema names.",
        )  # fmt: skip
    raise PolicyInvalid("The policies do not fit the schema.",
                        why="; ".join(e.error for e in whole.errors))  # fmt: skip
