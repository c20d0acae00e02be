"""From the journal to spans: an entry that ends something gives the span of it, and no other does.

A run is `invoke_agent`, a call hangs beneath it, what a call of a sandbox asks for beneath that
call, a child beneath the `spawn` that made it. A span says what was decided and by which rule; what
people and models wrote is in it only where the operator says so, and never what is not public.
Not here: how a call of each kind is told (calling.py), bytes (otlp.py), sending.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.observability.telemetry import calling, ids
from ring0.observability.telemetry import conventions as names
from ring0.observability.telemetry.calling import Told
from ring0.observability.telemetry.spans import Span, SpanEvent, Value
from ring0.store import Store, child_of
from ring0.store import events as ev
from ring0.types import (
    AgentManifest,
    Approval,
    ApprovalState,
    Call,
    CallKind,
    Confidentiality,
    ModelConfig,
    Outcome,
    Run,
    RunState,
)


class _Family(msgspec.Struct):
    """What is stored of an agent with each run, as far as it is read here."""

    manifest: AgentManifest
    others: tuple[AgentManifest, ...] = ()


class _Known:
    """Of one run, what its spans need again and again."""

    def __init__(self, run: Run, manifest: AgentManifest, parent_span: str) -> None:
        self.run = run
        self.manifest = manifest
        self.parent_span = parent_span


class Projection:
    """The spans of one journal. It reads; it remembers nothing that the journal does not say."""

    def __init__(
        self, store: Store, models: Mapping[str, ModelConfig] | None = None, *, content: bool
    ) -> None:
        """`models`: those of ring0.toml. `content`: with what people and models wrote."""
        self._store = store
        self._models = models or {}
        self._content = content
        self._runs: OrderedDict[str, _Known] = OrderedDict()

    async def spans(self, entry: ev.Entry) -> list[Span]:
        """Those that are complete with this entry, in order."""
        if entry.run == ev.KERNEL:
            return []
        match entry.body:
            case ev.RunEnded() as body:
                return [await self._run(entry, body)]
            case ev.CallRefused(call=call):
                return [await self._call(replace(call, seq=entry.seq), entry)]
            case ev.CallsRefusedAlike() as alike:
                return [await self._named(call, entry) for call in alike.calls]
            case ev.CallEnded(call=call) | ev.CallCutOff(call=call):
                return [await self._named(call, entry)]
            case ev.CallSettled() as settled:
                return [await self._settled(settled, entry)]
            case _:
                return []

    # --- runs -----------------------------------------------------------------------------------

    async def _run(self, entry: ev.Entry, body: ev.RunEnded) -> Span:
        known = await self._known(entry.run, anew=True)
        run = known.run
        code, what = await self._end_of(body)
        attributes: dict[str, Value] = {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT_NAME: run.agent,
            names.AGENT_VERSION: run.agent_digest[:12],
            names.CONVERSATION: run.root,
            names.RUN: run.id,
            names.RUN_STATE: str(body.state),
            names.RUN_MODE: str(run.mode),
            names.TENANT: run.tenant,
            names.SEQ: entry.seq,
            names.INTEGRITY: str(run.label.integrity),
            names.CONFIDENTIALITY: str(run.label.confidentiality),
            names.CALLS: run.calls_used,
            names.TOKENS: run.tokens_used,
            names.COST: run.cost_used_microusd,
        }
        failed = body.state is not RunState.DONE
        if failed:
            attributes[names.ERROR_TYPE] = code or str(body.state)
        return Span(
            trace_id=ids.trace_id(run),
            span_id=ids.run_span(run.id),
            parent_id=known.parent_span,
            name=f"{names.INVOKE_AGENT} {run.agent}",
            start_us=run.started_us,
            end_us=entry.at_us,
            attributes=attributes,
            failed=failed,
            told=what if self._may_tell(run.label.confidentiality) else "",
        )

    async def _end_of(self, body: ev.RunEnded) -> tuple[str, str]:
        """The code and the words of its error."""
        try:
            told = msgspec.json.decode(await self._store.blob(body.result))
            error = told.get("error") or {}
            return str(error.get("code", "")), str(error.get("what", ""))
        except (StoreDamaged, msgspec.DecodeError, AttributeError):
            return "", ""

    async def _known(self, run: str, *, anew: bool = False) -> _Known:
        known = self._runs.get(run)
        if known is not None and not anew:
            self._runs.move_to_end(run)
            return known
        row = await self._store.run(run)
        assert row is not None, f"{run} has entries and no row"
        if known is None:
            known = _Known(row, await self._manifest(row), await self._parent_of(row))
            self._runs[run] = known
            while len(self._runs) > limits.OTLP_KEPT_RUNS_MAX:
                self._runs.popitem(last=False)
        known.run = row
        return known

    async def _manifest(self, run: Run) -> AgentManifest:
        """The agent's; where it was erased, one that says nothing."""
        async for entry in self._store.entries(run.id):
            if isinstance(entry.body, ev.RunQueued):
                try:
                    raw = await self._store.blob(entry.body.manifest)
                    family = msgspec.json.decode(raw, type=_Family)
                except (StoreDamaged, msgspec.DecodeError):
                    break
                every = (family.manifest, *family.others)
                return next((one for one in every if one.name == run.agent), family.manifest)
            break
        return AgentManifest(name=run.agent)

    async def _parent_of(self, run: Run) -> str:
        """The span that it hangs beneath: the `spawn`, or that of who ordered the tree."""
        if not run.parent:
            parent = ids.parsed(run.traceparent)
            return parent.span_id if parent else ""
        for call in await self._store.calls(run.parent):
            if call.kind is CallKind.SPAWN and child_of(call.id) == run.id:
                return ids.call_span(call.id)
        return ids.run_span(run.parent)

    # --- calls ----------------------------------------------------------------------------------

    async def _named(self, name: str, entry: ev.Entry) -> Span:
        call = await self._store.call(name)
        assert call is not None, f"{name} has an end and no beginning"
        return await self._call(call, entry)

    async def _call(self, call: Call, entry: ev.Entry) -> Span:
        known = await self._known(call.run)
        outcome = await self._outcome(call, entry)
        told = Told(call=call, outcome=outcome, args=await self._args(call, known.run))
        about = calling.told(told, known.manifest, self._models, self._tells(known.run, outcome))
        attributes = {**self._every(known, call, outcome), **about.attributes}
        approval = await self._store.approval(call.approval) if call.approval else None
        failed = str(call.state) not in ("ok", "intended")
        error = (outcome.error if outcome is not None else None) or {}
        if failed:
            attributes[names.ERROR_TYPE] = error.get("code") or str(call.state)
        if approval is not None:
            attributes[names.APPROVAL_STATE] = _state(approval)
        link = ids.parsed(call.traceparent)
        return Span(
            trace_id=ids.trace_id(known.run),
            span_id=ids.call_span(call.id),
            parent_id=_above(call),
            name=about.name,
            kind=about.kind,
            start_us=min(call.begun_us, approval.asked_us if approval else call.begun_us),
            end_us=entry.at_us,
            attributes=attributes,
            events=_asked(approval),
            links=((link.trace_id, link.span_id),) if link else (),
            failed=failed,
            told=error.get("what", "")[: limits.SPAN_REASON_CHARS_MAX]
            if self._tells(known.run, outcome)
            else "",
        )

    def _every(self, known: _Known, call: Call, outcome: Outcome | None) -> dict[str, Value]:
        """What is said of every call."""
        verdict = call.verdict
        found: dict[str, Value] = {
            names.RUN: call.run,
            names.CONVERSATION: known.run.root,
            names.AGENT_NAME: known.run.agent,
            names.CALL: call.id,
            names.CALL_KIND: str(call.kind),
            names.CALL_STATE: str(call.state),
            names.SEQ: call.seq,
            names.EFFECT: str(call.effect),
            names.VERDICT: str(verdict.kind),
            names.RULES: tuple(one.rule for one in verdict.reasons)[: limits.SPAN_LIST_MAX],
        }
        if verdict.policy_digest:
            found[names.POLICY] = verdict.policy_digest
        if call.approval:
            found[names.APPROVAL] = call.approval
        if call.cost_microusd:
            found[names.COST] = call.cost_microusd
        if call.undoes:
            found[names.UNDOES] = call.undoes
        if outcome is None:
            found[names.ERASED] = True
            return found
        found[names.INTEGRITY] = str(outcome.label.integrity)
        found[names.CONFIDENTIALITY] = str(outcome.label.confidentiality)
        if outcome.findings:
            rules = dict.fromkeys(one.rule for one in outcome.findings)
            found[names.FINDINGS] = tuple(rules)[: limits.SPAN_LIST_MAX]
        if self._tells(known.run, outcome):
            said = tuple(one.text[: limits.SPAN_REASON_CHARS_MAX] for one in verdict.reasons)
            found[names.REASONS] = said[: limits.SPAN_LIST_MAX]
        return found

    async def _outcome(self, call: Call, entry: ev.Entry) -> Outcome | None:
        """None where its value is there no more, or was none."""
        where = call.outcome
        if isinstance(entry.body, ev.CallEnded):
            where = entry.body.outcome
        try:
            return msgspec.json.decode(await self._store.blob(where), type=Outcome)
        except (StoreDamaged, msgspec.DecodeError):
            return None

    async def _args(self, call: Call, run: Run) -> object:
        """What it was asked with: read only where it is told."""
        if not self._may_tell(run.label.confidentiality):
            return None
        try:
            return msgspec.json.decode(await self._store.blob(call.args))
        except (StoreDamaged, msgspec.DecodeError):
            return None

    async def _settled(self, body: ev.CallSettled, entry: ev.Entry) -> Span:
        known = await self._known(entry.run)
        return Span(
            trace_id=ids.trace_id(known.run),
            span_id=ids.entry_span(entry.run, entry.seq),
            parent_id=ids.call_span(body.call),
            name="settle",
            start_us=entry.at_us,
            end_us=entry.at_us,
            attributes={
                names.RUN: entry.run,
                names.CALL: body.call,
                names.SEQ: entry.seq,
                names.SETTLED: body.happened,
            },
        )

    def _may_tell(self, confidentiality: Confidentiality) -> bool:
        return self._content and confidentiality is Confidentiality.PUBLIC

    def _tells(self, run: Run, outcome: Outcome | None) -> bool:
        """Neither what the run has read nor what came of it is for fewer eyes than everybody's."""
        own = outcome.label.confidentiality if outcome is not None else Confidentiality.PUBLIC
        return self._may_tell(run.label.confidentiality) and self._may_tell(own)


def _above(call: Call) -> str:
    """A request of a tool's sandbox is within that tool's call."""
    if call.kind is CallKind.EGRESS:
        return ids.call_span(call.id.rpartition("/e")[0])
    return ids.run_span(call.run)


def _asked(approval: Approval | None) -> tuple[SpanEvent, ...]:
    if approval is None:
        return ()
    found = [
        SpanEvent(name="ask", at_us=approval.asked_us, attributes={names.APPROVAL: approval.id})
    ]
    if approval.answered_us:
        state: dict[str, Value] = {names.APPROVAL_STATE: _state(approval)}
        found.append(SpanEvent(name="answer", at_us=approval.answered_us, attributes=state))
    return tuple(found)


def _state(approval: Approval) -> str:
    consumed = approval.state is ApprovalState.CONSUMED
    return str(ApprovalState.APPROVED if consumed else approval.state)
