"""How a call's end goes on record: results taken in, refusals, and outcomes loaded again."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallInvalid, Ring0Error
from ring0.guardrails import Secrets, flows
from ring0.kernel import values
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.memory import warning
from ring0.kernel.steps import (
    editing,
    episodes,
    judging,
    labelling,
    looping,
    marking,
    scanning,
    spending,
)
from ring0.kernel.steps.judging import Denied, Judged
from ring0.store import Store, Write, address, base
from ring0.store import events as ev
from ring0.tools.driver import FileChange, Result
from ring0.types import (
    Call,
    CallKind,
    CallState,
    Effect,
    FileDelta,
    Integrity,
    Label,
    Outcome,
    Reason,
    Verdict,
    VerdictKind,
)

_SYSTEM = Label(integrity=Integrity.SYSTEM)
_decode_outcome = msgspec.json.Decoder(Outcome).decode


class Settled(Ring0Error):
    """Marks a call that was unknown and has been settled: its outcome is on record already."""

    def __init__(self, call: str) -> None:
        super().__init__(f"{call} was settled.")


class Taken:
    """A result, ready to be recorded."""

    __slots__ = ("beside", "blobs", "event", "outcome", "settled")

    def __init__(self, event: ev.CallEnded, outcome: Outcome, blobs: dict[str, bytes]) -> None:
        self.event = event
        self.outcome = outcome
        self.blobs = blobs
        self.beside: tuple[ev.AnyEvent, ...] = ()
        """Events of the same write."""
        self.settled = False

    def guards(self, run: str) -> tuple[base.Guard, ...]:
        """What must hold in that write: a message is received once."""
        number = self.event.received
        return (base.MessageWaits(to=run, number=number),) if number else ()


class Refused:
    """A refusal, ready to be recorded."""

    __slots__ = ("blobs", "call", "event", "outcome")

    def __init__(
        self,
        event: ev.CallRefused | ev.CallEnded,
        call: Call,
        outcome: Outcome,
        blobs: dict[str, bytes],
    ) -> None:
        self.event = event
        self.call = call
        self.outcome = outcome
        self.blobs = blobs


def source(held: Held) -> str:
    """How a result is called as the source of a value."""
    return f"{held.name or held.kind}@{held.id}"


async def load(store: Store, record: Call) -> Outcome:
    """The outcome under a call's record."""
    await store.flush()
    return _decode_outcome(await store.blob(record.outcome))


def take_in(run: LiveRun, judged: Judged, result: Result | Ring0Error, secrets: Secrets) -> Taken:
    """Labels, redacts and bounds a result; works out how the run's own label rises."""
    held = judged.held
    if isinstance(result, Settled):
        taken = Taken(
            ev.CallEnded(call=held.id, state=CallState.OK, outcome=""),
            Outcome(state=CallState.OK, label=_SYSTEM),
            {},
        )
        taken.settled = True
        return taken
    if isinstance(result, Ring0Error):
        outcome = failure(run, judged, result, secrets)
        seen = looping.ended(run, held, [outcome.error], None)
        outcome = replace(outcome, notice=editing.with_notice(held, seen.notice))
        stored = msgspec.json.encode(outcome)
        where = address(run.key, stored)
        label = _risen(run, warning.with_quoted(held, outcome.label))
        cost, tokens = _spent(run, judged, result)
        blobs = {where: stored}
        text = warning.of_failure(held, result, outcome)
        event = ev.CallEnded(
            call=held.id,
            state=CallState.ERROR,
            outcome=where,
            run_label=label,
            cost_microusd=cost,
            tokens=tokens,
            notice=seen.notice or held.notice,
            fingerprint=seen.fingerprint,
            remembered=episodes.kept(run, secrets.redact_text(text), blobs) if text else "",
            remembered_role=warning.ROLE,
            remembered_label=run.row.label.join(outcome.label) if text else None,
            remembered_fingerprint=held.tried if text else "",
            recalled=held.warned_by,
        )
        return Taken(event, outcome, blobs)
    whole, _ = secrets.redact(result.value)
    value = values.bounded(whole)
    seen = looping.ended(run, held, value, result)
    told = editing.with_notice(held, seen.notice)
    labels = labelling.of_result(run, judged, result, value, cut=value is not whole)
    outcome = Outcome(
        state=CallState.OK,
        value=value,
        label=labels.whole,
        notice=told,
        fields=labels.fields,
        findings=held.arrived,
        mark=marking.mark(run, held, labels.whole, labels.fields),
    )
    stored = msgspec.json.encode(outcome)
    where = address(run.key, stored)
    blobs = {where: stored}
    files = tuple(_delta(run, change, labels.worst, blobs) for change in result.files)
    undo = ""
    if result.undo:
        undo = address(run.key, result.undo)
        blobs[undo] = result.undo
    label = _risen(run, warning.with_quoted(held, labels.worst))
    text = result.remember if result.remember is not None else episodes.of_tool(judged, value)
    remembered = ""
    if text:
        remembered = episodes.kept(run, secrets.redact_text(text), blobs)
    is_failure = result.remember_role == warning.ROLE
    cost, tokens = _spent(run, judged, result)
    event = ev.CallEnded(
        call=held.id,
        state=CallState.OK,
        outcome=where,
        run_label=label,
        cost_microusd=cost,
        tokens=tokens,
        notice=seen.notice or held.notice,
        fingerprint=seen.fingerprint,
        received=result.received,
        undo=undo,
        undoes=result.undoes,
        files=files,
        files_of=result.files_of,
        remembered=remembered,
        remembered_role=result.remember_role,
        remembered_label=run.row.label.join(labels.worst) if remembered else None,
        remembered_fingerprint=held.tried if remembered and is_failure else "",
        recalled=tuple(dict.fromkeys((*result.recalled, *held.warned_by))),
    )
    taken = Taken(event, outcome, {**blobs, **result.blobs})
    taken.beside = (*labels.declassified, *result.events)
    return taken


def _spent(run: LiveRun, judged: Judged, result: Result | Ring0Error) -> tuple[int, int]:
    """Money and tokens that the call took: what came of this try, and all that was reserved for
    earlier ones, which may have been spent. A failure keeps what was reserved for it too, unless
    it is known to have cost nothing."""
    call, prepared = run.records[judged.held.id], judged.prepared
    earlier = call.cost_microusd - prepared.reserve_microusd, call.tokens - prepared.reserve_tokens
    if isinstance(result, Ring0Error):
        return earlier if result.unspent else (call.cost_microusd, call.tokens)
    return earlier[0] + result.cost_microusd, earlier[1] + result.tokens


def failure(run: LiveRun, judged: Judged, error: Ring0Error, secrets: Secrets) -> Outcome:
    """A tool's own error is text from the tool: labelled as its results are."""
    held = judged.held
    label = labelling.of_error(judged.tool.manifest, error, source(held))
    told = {key: secrets.redact_text(text) for key, text in error.as_dict().items()}
    mark = marking.mark(run, held, label)
    return Outcome(state=CallState.ERROR, label=label, error=told, findings=held.arrived, mark=mark)


def refused(run: LiveRun, held: Held, error: Ring0Error, secrets: Secrets, now_us: int) -> Refused:
    """The record of a no: what was asked, which rule or bound refused, in which words."""
    error, seen = looping.refused(run, held, error)
    told = {key: secrets.redact_text(text) for key, text in error.as_dict().items()}
    label, run_label = _SYSTEM, None
    if error.tells_of_data and held.tool is not None:
        label = labelling.of_error(held.tool.manifest, error, source(held))
        run_label = _risen(run, label)
    noticed = editing.with_notice(held, seen.notice)
    outcome = Outcome(
        state=CallState.REFUSED,
        label=label,
        error=told,
        notice=noticed,
        findings=held.arrived,
        mark=marking.mark(run, held, label),
    )
    scanning.learn(run, source(held), outcome)
    stored = msgspec.json.encode(outcome)
    where = address(run.key, stored)
    if held.retry is not None:
        call = replace(held.retry, state=CallState.ERROR, outcome=where)
        ended_event = ev.CallEnded(
            call=held.id,
            state=CallState.ERROR,
            outcome=where,
            run_label=run_label,
            # What was reserved for the try that a crash cut off may have been spent.
            cost_microusd=held.retry.cost_microusd,
            tokens=held.retry.tokens,
        )
        return Refused(ended_event, call, outcome, {where: stored})
    if isinstance(error, Denied):
        judged = error.judged
        call = judging.call_row(run, judged, error.approval, CallState.REFUSED, now_us)
        blobs = dict(judged.blobs)
    else:
        rule = "form" if isinstance(error, CallInvalid) else error.code
        verdict = Verdict(kind=VerdictKind.DENY, reasons=(Reason(rule=rule, text=told["what"]),))
        args, _ = secrets.redact(held.args)
        raw = values.canonical(args)
        if len(raw) > limits.REFUSED_ARGS_SIZE_BYTES_MAX:
            kept = raw[: limits.REFUSED_ARGS_SIZE_BYTES_MAX].decode("utf-8", "replace")
            raw = values.canonical({"cut": kept, "size_bytes": len(raw)})
        call = Call(
            id=held.id,
            run=run.id,
            seq=0,
            kind=held.kind,
            name=held.name,
            state=CallState.REFUSED,
            request_digest=held.digest,
            args=address(run.key, raw),
            effect=Effect.PURE,
            verdict=verdict,
            decision="",
            begun_us=now_us,
        )
        blobs = {call.args: raw}
    told_too = seen.notice or call.notice
    call = replace(
        call, outcome=where, ended_us=now_us, notice=told_too, fingerprint=seen.fingerprint
    )
    event = ev.CallRefused(call=call, run_label=run_label)
    return Refused(event, call, outcome, {where: stored, **blobs})


def admitted(run: LiveRun, judged: Judged, write: Write) -> None:
    """The kernel's own picture of a call and its run, as the store's projection moves them."""
    event = write.events[-1]
    run.lists.kept(write.blobs)
    if isinstance(event, ev.CallRetried) and event.approval:
        call = run.records[event.call]
        run.records[call.id] = replace(call, approval=event.approval)
    if isinstance(event, ev.CallIntended):  # A retried one is counted already.
        run.records[event.call.id] = event.call
        if not event.uncounted:
            run.row = replace(run.row, calls_used=run.row.calls_used + 1)
    spending.reserve(run, judged.held.id, judged.prepared)


def ended(run: LiveRun, judged: Judged, taken: Taken) -> None:
    """The same for the end of a call."""
    call = run.records[judged.held.id]
    cost, tokens = taken.event.cost_microusd, taken.event.tokens
    run.records[call.id] = replace(
        call,
        state=taken.event.state,
        outcome=taken.event.outcome,
        undo=taken.event.undo,
        notice=taken.event.notice,
        fingerprint=taken.event.fingerprint or call.fingerprint,
        cost_microusd=cost,
        tokens=tokens,
    )
    run.row = replace(
        run.row,
        cost_used_microusd=run.row.cost_used_microusd - call.cost_microusd + cost,
        tokens_used=run.row.tokens_used - call.tokens + tokens,
    )


def learn(run: LiveRun, held: Held, outcome: Outcome) -> None:
    """What a result adds to what the run has seen."""
    if outcome.findings:
        scanning.learn(run, source(held), outcome)
    if (label := labelling.founds(held.kind, held.args, outcome)) is None:
        return
    value = held.args["result"] if held.kind is CallKind.OBSERVED else outcome.value
    tool = held.tool if held.kind is CallKind.TOOL else None
    asked = held.args if tool is not None and tool.manifest.fields else None
    run.seen.add(source(held), label, value, outcome.fields if tool is not None else (), asked)
    if tool is not None:
        flows.carried_out(run.seen, tool.manifest, held.args)


def raise_label(run: LiveRun, taken: Taken | Refused) -> None:
    """The kernel's picture of the run's label rises at once, before its event is written: two
    calls that end at the same time then rise one upon the other, and neither lowers it again."""
    if taken.event.run_label is not None:
        run.row = replace(
            run.row, label=taken.event.run_label, label_version=run.row.label_version + 1
        )


def ending(run: LiveRun, judged: Judged, taken: Taken, event: ev.CallEnded) -> Write:
    """The write of an outcome. `event`: with what the call is settled at.

    What was paid for goes to the disk at once, so that it is hardly ever asked and paid again. The
    run hears it meanwhile: a crash ends who heard it, and nothing that the run does because of it
    is admitted before it is there (`Write.soon`). Who holds a token outlives the kernel, and waits.
    """
    paid = taken.event.cost_microusd > 0
    return Write(
        run=run.id,
        events=[event, *taken.beside],
        blobs=taken.blobs,
        guards=[
            base.RunLive(run=run.id, epoch=run.row.epoch),
            base.CallOpen(call=judged.held.id),
            *taken.guards(run.id),
        ],
        durable=judged.effect is Effect.ONCE or (paid and judged.held.scope is not None),
        soon=paid,
    )


def cutting_off(run: LiveRun, held: Held, why: str) -> Write:
    """The write that a `once` effect was begun, and nobody knows what came of it."""
    return Write(
        run=run.id,
        events=[ev.CallCutOff(call=held.id, why=values.why(why))],
        guards=[base.CallOpen(call=held.id)],
        durable=True,
    )


def cut_off(call: Call) -> Call:
    return replace(call, state=CallState.UNKNOWN)


def _risen(run: LiveRun, label: Label) -> Label | None:
    """The run's label joined with what it is about to be given; None where it stays.

    Sources are kept with each value; the run's own label says only how far it fell. What the
    kernel itself made (a clock, a count) takes nothing away.
    """
    if label.integrity is Integrity.SYSTEM:
        label = Label(integrity=Integrity.USER, confidentiality=label.confidentiality)
    joined = run.row.label.join(
        Label(integrity=label.integrity, confidentiality=label.confidentiality)
    )
    return None if joined == run.row.label else joined


def _delta(run: LiveRun, change: FileChange, label: Label, blobs: dict[str, bytes]) -> FileDelta:
    if change.value is None:
        return FileDelta(path=change.path, label=change.label or label)
    where = address(run.key, change.value)
    blobs[where] = change.value
    return FileDelta(
        path=change.path, blob=where, size_bytes=len(change.value), label=change.label or label
    )
