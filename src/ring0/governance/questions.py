"""What a decision is made of, and how Cedar is given it.

Values only: who finds the facts out is the gate, who decides is policy.py.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec
from cedarpy import Entities

from ring0.governance import schema
from ring0.types import CallKind, Confidentiality, Effect, Frozen, Integrity

ENTITIES_KEPT_MAX: Final = 1_024

_RESOURCE_TYPE: Final = {
    CallKind.TOOL: "Tool",
    CallKind.MODEL: "Model",
    CallKind.SPAWN: "Agent",
    CallKind.EGRESS: "Tool",
    CallKind.PROPOSAL: "Tool",
    CallKind.OBSERVED: "Tool",
}
_KERNEL: Final = ("Kernel", "kernel")


class Arguments(Frozen, frozen=True):
    """Those of a tool's arguments that a policy looks at, as Cedar is given them."""

    type: str
    """Cedar's type of the record."""
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    unheld: str = ""
    """Why Cedar can't be given one of them; empty: it can."""


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
    run_confidentiality: Confidentiality = Confidentiality.PUBLIC
    budget_left_calls: int = 0
    budget_left_tokens: int = 0
    budget_left_microusd: int = 0
    features: tuple[str, ...] = ()
    """What a model's provider is asked for beyond an answer."""
    args: Arguments | None = None
    """None: no policy looks at the arguments."""
    unchosen_args: tuple[str, ...] = ()
    """Arguments that name something which is there, and which the user's words don't choose."""
    untrusted_urls: tuple[str, ...] = ()
    """Arguments with a URL, in what goes out, that is not the user's."""
    private_args: tuple[str, ...] = ()
    """Arguments with private data for a place that the user named only as a place."""
    recipients: int = 0
    """That the run will have reached, and that the user did not type."""
    removals: int = 0
    """Likewise: things removed."""
    hinted: bool = True
    """The user's words speak of what the tool does."""
    chosen: bool = False
    """The user's words choose all that the call does."""
    unattended: bool = False
    """The tool's manifest lets what they choose go on without a person."""
    findings: tuple[str, ...] = ()
    """What scanners found in what goes out: rules, and the kinds that ask by themselves."""
    severity: int = 0
    """The worst of them."""


def context(question: Question) -> dict[str, Any]:
    """The facts as Cedar's JSON. Text from outside is only ever a string here, never a key or an
    object, so `{"__entity": ...}` in it stays text."""
    facts = {
        "operator": question.operator,
        "mutates": question.mutates,
        "own": question.own,
        "changes_schema": question.changes_schema,
        "forbidden": question.forbidden,
        "rows": question.rows,
        "tables": question.tables,
        "untrusted_args": question.untrusted_args,
        "unfounded_args": question.unfounded_args,
        "unchosen_args": question.unchosen_args,
        "untrusted_urls": question.untrusted_urls,
        "private_args": question.private_args,
        "recipients": question.recipients,
        "removals": question.removals,
        "hinted": question.hinted,
        "chosen": question.chosen,
        "findings": question.findings,
        "severity": question.severity,
        "calls_used": question.calls_used,
        "cost_microusd": question.cost_microusd,
        "budget_left_calls": question.budget_left_calls,
        "budget_left_tokens": question.budget_left_tokens,
        "budget_left_microusd": question.budget_left_microusd,
        "features": question.features,
        "host": question.host,
        "method": question.method,
    }
    if question.args is not None:
        facts["args"] = question.args.values
    return facts


def resource_of(question: Question) -> tuple[str, str]:
    """Type and id of what is asked for."""
    kind = _RESOURCE_TYPE.get(CallKind(question.action))
    return (kind, question.resource) if kind else _KERNEL


def entities_of(question: Question, action: str, args: str) -> Entities:
    """The run, the tool, and the actions that `action` is in."""
    return _entities(
        question.run,
        (("Tenant", question.tenant), ("Principal", question.principal), ("Agent", question.agent)),
        question.run_integrity,
        question.run_confidentiality,
        question.depth,
        resource_of(question),
        question.effect,
        question.reversal,
        question.unattended,
        action,
        args,
    )


@functools.lru_cache(maxsize=ENTITIES_KEPT_MAX, typed=True)
def _entities(
    run: str,
    behind: tuple[tuple[str, str], ...],
    integrity: str,
    confidentiality: str,
    depth: int,
    resource: tuple[str, str],
    effect: str,
    reversal: str,
    unattended: bool,
    action: str,
    args: str,
) -> Entities:
    """The same from call to call, so parsed once (10 µs). The actions come with the schema."""
    run_entity = {
        "uid": {"type": "Run", "id": run},
        "attrs": {
            "integrity": {"type": "Integrity", "id": integrity},
            "confidentiality": {"type": "Confidentiality", "id": confidentiality},
            "depth": depth,
        },
        "parents": [{"type": kind, "id": name} for kind, name in behind],
    }
    attributes = {
        "effect": {"type": "Effect", "id": effect},
        "reversal": reversal,
        "unattended": unattended,
    }
    tool_entity = {
        "uid": {"type": resource[0], "id": resource[1]},
        "attrs": attributes if resource[0] == "Tool" else {},
        "parents": [],
    }
    return Entities.from_json_str(
        msgspec.json.encode([run_entity, tool_entity]).decode(), schema.of_action(action, args)
    )
