"""Cases that a user writes for policies: a call that is supposed, and what should become of it.

A file is TOML, read strictly. No journal, no kernel, no tool is needed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ring0 import limits
from ring0.errors import PolicyInvalid
from ring0.governance.policy import Policies
from ring0.governance.questions import Question
from ring0.types import (
    CallKind,
    Confidentiality,
    Effect,
    Frozen,
    Integrity,
    Profile,
    Verdict,
    VerdictKind,
)


class Facts(Frozen, frozen=True):
    """What the kernel would find out, under the names that policies use; all quiet by default."""

    tenant: str = "local"
    run: str = "r-test"
    integrity: Integrity = Integrity.USER
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    depth: int = 0
    effect: Effect = Effect.ONCE
    reversal: str = "irreversible"
    operator: bool = False
    mutates: bool = False
    own: bool = False
    changes_schema: bool = False
    forbidden: str = ""
    rows: int = 0
    tables: tuple[str, ...] = ()
    untrusted_args: tuple[str, ...] = ()
    unfounded_args: tuple[str, ...] = ()
    unchosen_args: tuple[str, ...] = ()
    untrusted_urls: tuple[str, ...] = ()
    private_args: tuple[str, ...] = ()
    recipients: int = 0
    removals: int = 0
    hinted: bool = True
    chosen: bool = False
    unattended: bool = False
    findings: tuple[str, ...] = ()
    severity: int = 0
    calls_used: int = 0
    budget_left_calls: int = limits.RUN_CALLS_DEFAULT
    budget_left_tokens: int = limits.RUN_TOKENS_DEFAULT
    budget_left_microusd: int = 0
    cost_microusd: int = 0
    features: tuple[str, ...] = ()
    host: str = ""
    method: str = ""


class Case(Frozen, frozen=True):
    """One supposed call."""

    name: str
    want: VerdictKind
    kind: CallKind = CallKind.TOOL
    tool: str = ""
    """The tool, the model or the agent that is asked for."""
    agent: str = "agent"
    principal: str = "somebody"
    args: dict[str, Any] | None = None
    facts: Facts = Facts()
    rules: tuple[str, ...] | None = None
    """The @ids that decide, all of them; left out: whichever."""
    approvers: int | None = None


class Cases(Frozen, frozen=True):
    """A file of them."""

    case: Annotated[tuple[Case, ...], msgspec.Meta(min_length=1)]
    policy: tuple[str, ...] = ()
    """Cedar files beside this one, added to the profile's set."""
    profile: Profile = ""
    manifest: str = ""
    """An agent.toml beside this file: its tools' schemas are those of the arguments."""
    tools: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """JSON Schemas of tools that no manifest here has."""


class Failed(Frozen, frozen=True):
    """A case that came out otherwise."""

    case: str
    want: str
    got: str
    verdict: Verdict


def read(path: Path) -> Cases:
    """Raises PolicyInvalid, naming the place."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.POLICY_CASES_SIZE_BYTES_MAX + 1)
        if len(data) > limits.POLICY_CASES_SIZE_BYTES_MAX:
            raise PolicyInvalid(f"{path}: this is too long for a file of cases.",
                                why=f"At most {limits.POLICY_CASES_SIZE_BYTES_MAX} bytes are read.",
                                todo="Split it up.")  # fmt: skip
        found = msgspec.convert(tomllib.loads(data.decode("utf-8")), Cases)
    except OSError as error:
        raise PolicyInvalid(f"{path}: the cases can't be read.", why=error.strerror or str(error),
                            todo="Check the path.") from None  # fmt: skip
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyInvalid(f"{path}: this is no TOML: {error}.", todo="Mend it.") from None
    except (msgspec.ValidationError, RecursionError) as error:
        raise PolicyInvalid(f"{path}: {error}.", why="It has to fit exactly.",
                            todo="docs/governance.md tells what a case has.") from None  # fmt: skip
    if len(found.case) > limits.POLICY_CASES_MAX:
        raise PolicyInvalid(f"{path}: more than {limits.POLICY_CASES_MAX} cases.",
                            todo="Split it up.")  # fmt: skip
    names = [case.name for case in found.case]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PolicyInvalid(f"{path}: two cases are named {twice!r}.", todo="Rename one.")
    return found


Misfit = Callable[[str, dict[str, Any]], str]
"""Given a tool and arguments: where they don't fit its schema; empty: they do."""


def run(
    case: Case, policies: Policies, schemas: Mapping[str, Mapping[str, Any]], misfit: Misfit
) -> Failed | None:
    """Decides it; None where it comes out as it should. Raises PolicyInvalid for a case that can't
    be asked: no such call would ever get as far as the policies."""
    verdict = policies.decide(_question(case, policies, schemas, misfit))
    rules = tuple(reason.rule for reason in verdict.reasons)
    want, got = [str(case.want)], [str(verdict.kind)]
    if case.rules is not None:
        want.append(f"by {', '.join(sorted(case.rules)) or 'no rule'}")
        got.append(f"by {', '.join(sorted(rules)) or 'no rule'}")
    if case.approvers is not None:
        want.append(f"{case.approvers} approvers")
        got.append(f"{verdict.approvers} approvers")
    if want == got:
        return None
    return Failed(case=case.name, want=", ".join(want), got=", ".join(got), verdict=verdict)


def _question(
    case: Case, policies: Policies, schemas: Mapping[str, Mapping[str, Any]], misfit: Misfit
) -> Question:
    facts = msgspec.structs.asdict(case.facts)
    args = None
    if case.args is not None or case.tool in schemas:
        schema = _schema(case, schemas)
        if case.kind is CallKind.TOOL:
            _check_args(case, policies, misfit)
            args = policies.arguments(case.tool, "", schema, case.args or {})
    return Question(
        principal=case.principal,
        agent=case.agent,
        action=case.kind,
        resource=case.tool,
        run_integrity=facts.pop("integrity"),
        run_confidentiality=facts.pop("confidentiality"),
        args=args,
        **facts,
    )


def _check_args(case: Case, policies: Policies, misfit: Misfit) -> None:
    """A case may leave its arguments out only where no rule looks at them. Raises PolicyInvalid."""
    if case.args is None and not policies.looks_at(case.tool):
        return
    if where := misfit(case.tool, case.args or {}):
        raise PolicyInvalid(
            f"The case {case.name!r} has arguments that {case.tool} does not take: {where}",
            why="The kernel refuses such a call before any policy is asked."
            if case.args is not None
            else "It has no `args`, and a rule looks at them.",
            todo="Correct `args`: they have to fit the tool's schema.",
        )


def _schema(case: Case, schemas: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The schema that the case's arguments are held against. Raises PolicyInvalid."""
    schema = schemas.get(case.tool)
    if schema is None:
        raise PolicyInvalid(
            f"The case {case.name!r} has args, and nothing says what {case.tool!r} takes.",
            todo="Name the agent's `manifest`, or write its schema under [tools.NAME].",
        )
    allowed = schema.get("properties", {})
    if unknown := next((key for key in case.args or {} if key not in allowed), None):
        raise PolicyInvalid(
            f"The case {case.name!r} has the argument {unknown!r}, which {case.tool} has not.",
            why=f"It takes: {', '.join(allowed) or 'none'}.",
            todo="Correct its name.",
        )
    return schema
