"""A run as the rules on flows see it: what its user typed, what it was given, what it calls."""

from __future__ import annotations

from typing import Any

from ring0.governance import Policies, Question
from ring0.guardrails import Seen, flows
from ring0.types import (
    Confidentiality,
    Effect,
    FieldRule,
    Integrity,
    Label,
    Origin,
    ToolManifest,
    VerdictKind,
)

POLICIES = Policies.load()
STRICT = Policies.load(profile="strict")
BEGUN_US = 1_767_607_200_000_000
"""2026-01-05, a Monday."""
IDS = tuple(
    FieldRule(path=path, integrity=Integrity.TRUSTED_FIELD) for path in ("**.id", "**.number")
)


def tool(name: str, *critical: str, **more: Any) -> ToolManifest:
    """One that changes something, where `critical` chooses what."""
    fields: dict[str, Any] = {
        "name": name,
        "description": "",
        "schema": {"type": "object"},
        "effect": Effect.ONCE,
        "critical": critical,
        "unattended": True,
        "fields": IDS,
        **more,
    }
    return ToolManifest(**fields)


def reader(name: str, *critical: str, **more: Any) -> ToolManifest:
    return tool(name, *critical, **{"effect": Effect.IDEMPOTENT, **more})


class Desk:
    """One run."""

    def __init__(self, *typed: str, policies: Policies = POLICIES) -> None:
        self.seen = Seen()
        self.policies = policies
        self.calls = 0
        for text in typed:
            self.seen.add("task", Label(integrity=Integrity.USER), text)

    def saw(
        self,
        name: str,
        value: Any,
        asked: dict[str, Any] | None = None,
        *,
        private: bool = False,
        shaped: bool = True,
    ) -> None:
        """What a tool of our own driver gave; `shaped`: its manifest vouches for ids in it."""
        self.calls += 1
        hidden = Confidentiality.PRIVATE if private else Confidentiality.PUBLIC
        label = Label(integrity=Integrity.UNTRUSTED, confidentiality=hidden)
        source = f"{name}@{self.calls}"
        if shaped:
            self.seen.add(source, label, value, IDS, asked or {})
        else:
            self.seen.add(source, label, value)

    def origins(self, manifest: ToolManifest, **args: Any) -> tuple[Origin, ...]:
        return flows.origins(self.seen, manifest, args, BEGUN_US)

    def flow(self, manifest: ToolManifest, host: str = "", **args: Any) -> flows.Flow:
        mutates = manifest.effect is Effect.ONCE
        found = self.origins(manifest, **args)
        return flows.facts(self.seen, manifest, args, found, mutates=mutates, host=host)

    def asks(self, manifest: ToolManifest, host: str = "", **args: Any) -> list[str]:
        """The rules by which a person is asked (or by which it is denied); none: it goes on."""
        flow = self.flow(manifest, host, **args)
        mutates = manifest.effect is Effect.ONCE
        question = Question(
            tenant="acme",
            principal="ada",
            agent="clerk",
            run="r-1",
            action="tool",
            resource=manifest.name,
            effect=manifest.effect,
            reversal=manifest.reversal,
            mutates=mutates,
            own=False,
            changes_schema=False,
            forbidden="",
            rows=0,
            tables=(),
            run_integrity=Integrity.UNTRUSTED,
            untrusted_args=flow.untrusted,
            unfounded_args=flow.unfounded,
            unchosen_args=flow.unchosen,
            untrusted_urls=flow.untrusted_urls,
            private_args=flow.private,
            recipients=flow.recipients,
            removals=flow.removals,
            hinted=flow.hinted,
            chosen=flow.chosen,
            unattended=manifest.unattended,
            operator=False,
            depth=0,
            calls_used=0,
            cost_microusd=0,
        )
        verdict = self.policies.decide(question)
        if verdict.kind is VerdictKind.ALLOW:
            return []
        return [reason.rule for reason in verdict.reasons]

    def did(self, manifest: ToolManifest, **args: Any) -> None:
        flows.carried_out(self.seen, manifest, args)
