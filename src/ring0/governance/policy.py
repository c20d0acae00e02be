"""Whether a call may run: Cedar over what the kernel found out about it, and nothing else.

Fails closed: whatever Cedar cannot decide is a deny. Not for liveness, budgets or kills: those are
the kernel's own code, since Cedar skips a `forbid` that errors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import cedarpy
import msgspec
from cedarpy import Entities, PolicySet, Schema

from ring0 import limits
from ring0.errors import PolicyInvalid
from ring0.governance import questions, schema, statements
from ring0.governance.arguments import Shape, Unheld, shape_of, type_of, value_of
from ring0.governance.questions import Arguments, Question
from ring0.governance.statements import TOOLS, Statement, action_of
from ring0.governance.telling import Telling
from ring0.types import CallKind, Frozen, Profile, Reason, Verdict, VerdictKind

DECISIONS_KEPT_MAX: Final = 4_096
"""About half a KiB each."""
DECISION_KEY_BYTES_MAX: Final = 4 * limits.KIB
"""A question that is longer (by an argument that a rule looks at) is not remembered."""
ENGINE_MESSAGE_CHARS_MAX: Final = 400

_UNDECIDED: Final = "ring0.undecided"
NO_PERMIT: Final = Reason(rule="ring0.no-permit", text="No rule permits it.")
OBSERVED: Final = Reason(
    rule="ring0.observed",
    text="Profile observe: a person would be asked, and nobody is. These rules would have asked:",
)

"""What holds beside the operator's own files; empty: as `balanced`."""


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

    def __init__(self, text: str, parsed: Sequence[Statement], profile: Profile = "") -> None:
        """Use `load` or `from_text`."""
        self.text = text
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.profile: Profile = profile
        self._statements = tuple(parsed)
        self._named = frozenset(s.resource for s in self._statements if s.resource)
        self._actions = frozenset(name for s in self._statements for name in s.tools)
        self._looked_at = _looked_at(self._statements)
        self._shapes: dict[tuple[str, str], tuple[Shape, str]] = {}
        self._slices: dict[tuple[str, tuple[str, str] | None], _Slice] = {}
        self._decided: dict[Any, Verdict] = {}
        """By all that its policies can tell questions apart by: the same question has the same
        answer, and to ask Cedar costs more than all else that the gate does."""

    @classmethod
    def load(cls, extra: Sequence[Path] = (), profile: Profile = "") -> Policies:
        """The profile's set and the files added to it. Raises PolicyInvalid, naming file and
        line."""
        names = ["default.cedar", *(["strict.cedar"] if profile == "strict" else [])]
        files = [(name, schema.packaged(name)) for name in names]
        files += [(str(path), _read(path)) for path in extra]
        parsed: list[Statement] = []
        for name, text in files:
            parsed += statements.read(text, name, len(parsed))
        schema.check(parsed)
        # A newline ends a comment, so no file can swallow the beginning of the next.
        text = "\n".join([_head(profile), *(text for _, text in files)])
        return cls(text, parsed, profile)

    @classmethod
    def from_text(cls, text: str) -> Policies:
        """A set exactly as `text` has it, without the defaults: to replay an old decision."""
        profile = _profile(text)
        parsed = statements.read(text, "policy", 0)
        schema.check(parsed)
        return cls(text, parsed, profile)

    def check_tools(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        """Holds the statements that name one of an agent's tools against the tool's JSON Schema.
        Raises PolicyInvalid, naming file and line."""
        schema.check_tools(self._statements, tools)

    def unknown_tools(self, tools: Sequence[str]) -> list[str]:
        """A warning for each statement that names a tool which is none of these."""
        return schema.unknown(self._statements, tools) if self.names_tools else []

    @property
    def names_tools(self) -> bool:
        """Whether some statement names a tool, as an action or as a resource."""
        return bool(self._actions) or any(s.of_tools for s in self._statements)

    @property
    def tools(self) -> list[str]:
        """The tools' own actions that statements name."""
        return sorted(self._actions)

    def looks_at(self, tool: str) -> bool:
        """Whether some statement looks at this tool's arguments."""
        return action_of(tool) in self._looked_at

    @property
    def count(self) -> int:
        """How many statements."""
        return len(self._statements)

    def arguments(
        self, tool: str, digest: str, json_schema: Mapping[str, Any], args: Any
    ) -> Arguments | None:
        """Those of a tool's arguments that some statement looks at; None: none does."""
        only = self._looked_at.get(action_of(tool)) if self._looked_at else None
        if only is None:
            return None
        found = self._shapes.get((tool, digest))
        if found is None:
            if len(self._shapes) >= limits.POLICY_SCHEMAS_KEPT_MAX:
                self._shapes.clear()
            shape = shape_of(json_schema)
            found = self._shapes[tool, digest] = (shape, type_of(shape, only))
        try:
            return Arguments(type=found[1], values=value_of(found[0], args, only))
        except Unheld as error:
            return Arguments(type=found[1], unheld=str(error))

    def decide(self, question: Question) -> Verdict:
        """Allow, ask or deny, with the rules that decided. Never raises: a fault is a deny."""
        try:
            if question.args is not None and question.args.unheld:
                return self._denied(_unheld(question.args.unheld))
            resource = questions.resource_of(question)
            part = self._slice(question, resource)
            alike, size = part.telling.key(question)
            if (found := self._decided.get(alike)) is not None:
                return found
            verdict = self._decide(question, resource, part)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Cedar's is no Exception
            return self._denied(_fault(f"{type(error).__name__}: {error}"))
        short = size <= DECISION_KEY_BYTES_MAX
        # What could not be decided names the run.
        if short and not any(reason.rule == _UNDECIDED for reason in verdict.reasons):
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
            context=questions.context(question),
        )

    def _decide(self, question: Question, resource: tuple[str, str], part: _Slice) -> Verdict:
        args = question.args.type if question.args else ""
        entities = questions.entities_of(question, part.action, args)
        model = schema.of_action(part.action, args)
        facts = msgspec.json.encode(questions.context(question)).decode()[1:]
        request: dict[str, Any] = {
            "principal": {"type": "Run", "id": question.run},
            "action": {"type": "Action", "id": part.action},
            "resource": {"type": resource[0], "id": resource[1]},
            "context": '{"approved":false,' + facts,
        }
        plain = part.evaluate(request, entities, model)
        if plain.failed:
            return self._denied(plain.failed)
        if plain.allowed:
            return Verdict(kind=VerdictKind.ALLOW, reasons=plain.reasons, policy_digest=self.digest)
        request["context"] = '{"approved":true,' + facts
        approved = part.evaluate(request, entities, model)
        if approved.failed:
            return self._denied(approved.failed)
        if approved.allowed:
            return self._asked(question, plain, approved)
        return self._denied(*(approved.reasons or (NO_PERMIT,)))

    def _denied(self, *reasons: Reason) -> Verdict:
        return Verdict(kind=VerdictKind.DENY, reasons=reasons, policy_digest=self.digest)

    def _asked(self, question: Question, plain: _Evaluation, approved: _Evaluation) -> Verdict:
        """A forbid that an approval lifts says why; without one, the permit that wants it does."""
        reasons = plain.reasons or approved.reasons
        if self.profile == "observe" and question.action != CallKind.ASK:
            # To ask for more budget is to ask a person: there is nothing to observe.
            reasons = (OBSERVED, *reasons)
            return Verdict(kind=VerdictKind.ALLOW, reasons=reasons, policy_digest=self.digest)
        # Of all that had a say, also of the permit behind a forbid: one more reason to ask never
        # makes it fewer people.
        asking = [s for s in (*plain.statements, *approved.statements) if s.asks]
        return Verdict(
            kind=VerdictKind.ASK,
            reasons=reasons,
            policy_digest=self.digest,
            approver=tuple(dict.fromkeys(s.approver for s in asking if s.approver)),
            approvers=max((s.approvers for s in asking), default=0),
            expires_s=min((s.expires_s for s in asking if s.expires_s), default=0),
        )

    def _slice(self, question: Question, resource: tuple[str, str]) -> _Slice:
        """The policies whose scope can fit; so 1,000 policies for other tools cost nothing."""
        action = question.action
        if action == TOOLS:
            # A tool that no statement names is like any other: it needs no action of its own.
            own = action_of(question.resource)
            action = own if own in self._actions else TOOLS
        key = (action, resource if resource in self._named else None)
        found = self._slices.get(key)
        if found is None:
            CallKind(question.action)  # refused here, so that the number of slices stays bounded
            fitting = [s for s in self._statements if s.concerns(action, resource)]
            found = self._slices[key] = _Slice(key, fitting)
        return found


def _looked_at(parsed: Sequence[Statement]) -> dict[str, frozenset[str]]:
    """By the actions of tools: which arguments some statement looks at."""
    found: dict[str, frozenset[str]] = {}
    for statement in parsed:
        if statement.args:
            for name in statement.tools:
                found[name] = found.get(name, frozenset()) | statement.args
    return found


_NUMBERED: Final = re.compile(r"(?<=`)policy\d+(?=`)")


class _Evaluation(msgspec.Struct, frozen=True):
    allowed: bool
    statements: tuple[Statement, ...] = ()
    failed: Reason | None = None

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(Reason(rule=s.rule, text=s.reason) for s in self.statements)


class _Slice:
    """Some policies, parsed once, under the ids that Cedar numbers them with."""

    def __init__(self, key: tuple[str, Any], parsed: Sequence[Statement]) -> None:
        """`key`: the action, and the resource where some statement names it."""
        self.action = key[0]
        self.telling = Telling(key, (s.uses for s in parsed))
        self._policies = PolicySet.from_str("\n".join(s.text for s in parsed))
        if len(self._policies) != len(parsed):
            raise PolicyInvalid("Cedar reads the policies otherwise than ring0 does.",
                                todo="Report this with the policy's text.")  # fmt: skip
        self._numbered = {f"policy{index}": (index, s) for index, s in enumerate(parsed)}

    def evaluate(self, request: dict[str, Any], entities: Entities, model: Schema) -> _Evaluation:
        result = cedarpy.is_authorized(request, self._policies, entities, model)
        errors = result.diagnostics.errors
        # Cedar skips a forbid that errors and may then allow: any error at all is a deny.
        if errors or result.decision is cedarpy.Decision.NoDecision:
            message = "; ".join(map(str, errors)) or "no decision"
            return _Evaluation(False, failed=_fault(_NUMBERED.sub(self._rule, message)))
        numbered = sorted(
            (self._numbered[policy] for policy in result.diagnostics.reasons),
            key=lambda found: found[0],
        )
        return _Evaluation(
            result.decision is cedarpy.Decision.Allow, tuple(statement for _, statement in numbered)
        )

    def _rule(self, numbered: re.Match[str]) -> str:
        found = self._numbered.get(numbered.group())
        return found[1].rule if found else numbered.group()


def _fault(message: str) -> Reason:
    return Reason(rule=_UNDECIDED, text=f"The policy could not be decided: {_plain(message)}")


def _unheld(message: str) -> Reason:
    text = f"A rule looks at an argument that policies can't be given: {_plain(message)}."
    return Reason(rule="ring0.unheld", text=text)


def _plain(message: str) -> str:
    """The engine's message holds text from outside: bounded, and nothing that moves a cursor."""
    return "".join(c if c.isprintable() else "?" for c in message[:ENGINE_MESSAGE_CHARS_MAX])


# --- files ---------------------------------------------------------------------------------------

_HEAD: Final = "// ring0 policy, schema sha256:"
_PROFILE: Final = ", profile "


def _head(profile: Profile) -> str:
    """First line of a set, so that its digest covers the schema and the profile too."""
    return f"{_HEAD}{schema.digest()}{_PROFILE + profile if profile else ''}"


def _profile(text: str) -> Profile:
    """The profile that a set was loaded with. Raises PolicyInvalid."""
    first = text.partition("\n")[0]
    if not first.startswith(_HEAD):
        return ""
    for profile in get_args(Profile):
        if first == _head(profile):
            return profile  # type: ignore[no-any-return]
    raise PolicyInvalid(
        "This policy was made for another version of ring0.",
        why="Its schema is not the one that this version checks against.",
        todo="Explain that decision with the version of ring0 that took it.",
    )


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
