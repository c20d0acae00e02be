"""Decisions on record, decided again under two sets of policies."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ring0 import limits
from ring0.cli.explaining import Evidence
from ring0.cli.output import console, count, indented, line, text
from ring0.cli.parts import gone
from ring0.cli.place import Place
from ring0.errors import Ring0Error
from ring0.governance import Policies, Question
from ring0.kernel.agent import agents, offered
from ring0.store.sqlite import SqliteStore
from ring0.tools import registry
from ring0.types import Call, CallKind, Frozen, Run, ToolManifest, Verdict


class Differs(Frozen, frozen=True):
    """A decision that the two sets take differently."""

    call: str
    kind: str
    name: str
    old: Verdict
    new: Verdict


class Compared(Frozen, frozen=True):
    """What became of all decisions on record."""

    decided: int
    differ: tuple[Differs, ...]
    undecided: tuple[str, ...] = ()
    """Calls whose arguments a set looks at, and whose tool is not known any more as it was; those
    of runs whose values are gone."""


async def compare(place: Place, old: Policies, new: Policies) -> Compared:
    """Raises StoreDamaged."""
    decided = 0
    differ: list[Differs] = []
    undecided: list[str] = []
    async with place.reading() as store:
        for run in await store.runs(most=limits.RUNS_LISTED_MAX):
            tools: dict[str, ToolManifest] | None = None
            away = bool(gone(store, run))
            for call in await store.calls(run.id):
                if not call.decision:
                    continue
                if away:
                    undecided.append(call.id)
                    continue
                evidence = msgspec.json.decode(await store.blob(call.decision), type=Evidence)
                if tools is None and (old.looks_at(call.name) or new.looks_at(call.name)):
                    tools = await tools_of(store, run, place)
                verdicts = [again(policies, call, evidence, tools or {}) for policies in (old, new)]
                if None in verdicts:
                    undecided.append(call.id)
                    continue
                decided += 1
                differ += _differs(call, *(v for v in verdicts if v is not None))
    return Compared(decided=decided, differ=tuple(differ), undecided=tuple(undecided))


def _differs(call: Call, old: Verdict, new: Verdict) -> Iterator[Differs]:
    def told(verdict: Verdict) -> tuple[object, ...]:
        return verdict.kind, verdict.approvers, verdict.expires_s, verdict.approver

    if told(old) != told(new):
        yield Differs(call=call.id, kind=call.kind, name=call.name, old=old, new=new)


def again(
    policies: Policies, call: Call, evidence: Evidence, tools: dict[str, ToolManifest]
) -> Verdict | None:
    """None: it looks at arguments, and the tool's schema of then is not known."""
    question: Question = msgspec.structs.replace(evidence.question, args=None)
    if call.kind is CallKind.TOOL and policies.looks_at(call.name):
        tool = tools.get(call.tool_digest)
        if tool is None:
            return None
        args = policies.arguments(
            call.name, call.tool_digest, tool.schema, evidence.shown.arguments
        )
        question = msgspec.structs.replace(question, args=args)
    return policies.decide(question)


async def tools_of(store: SqliteStore, run: Run, place: Place) -> dict[str, ToolManifest]:
    """By digest, the tools of the agent that a run was started with, as far as they are known."""
    manifest = (await agents.family_of(store, run.id)).manifest
    found = list(manifest.functions)
    # As an isolated run had them: pinned with their code.
    found += [msgspec.structs.replace(one, code_digest=run.agent_digest) for one in found]
    try:
        found += offered.built_in(manifest, place.runtime, place.home)
    except Ring0Error:  # A file or a pin that it names is gone; its functions are on record.
        pass
    return {registry.digest(tool): tool for tool in found}


def show(compared: Compared) -> None:
    """For a person."""
    out = console()
    if not compared.decided and not compared.undecided:
        out.print(text("No decision is on record here: there is nothing to compare."))
        return
    for one in compared.differ:
        out.print(
            text(
                (one.call, "bold cyan"),
                f"  {one.kind} {line(one.name, 80)}  ",
                (f"{one.old.kind} → {one.new.kind}", "bold"),
            )
        )
        for name, verdict in (("old", one.old), ("new", one.new)):
            rules = ", ".join(reason.rule for reason in verdict.reasons) or "none"
            people = f", {verdict.approvers} approvers" if verdict.approvers else ""
            out.print(indented(text((f"{name}  ", "dim"), f"by {line(rules, 300)}{people}"), 4))
    if compared.undecided:
        told = count(len(compared.undecided), "decision")
        out.print(
            text(
                (f"{told} could not be decided again", "yellow"),
                ": what was asked is erased or archived, or a set looks at arguments of a tool that"
                " is no more what it was: ",
                line(", ".join(compared.undecided), 400),
            )
        )
    out.print(
        text(
            (f"{len(compared.differ)} of {count(compared.decided, 'decision')} on record differ.",
             "bold"),
        )
    )  # fmt: skip
