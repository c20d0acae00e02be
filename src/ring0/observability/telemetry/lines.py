"""An entry of the journal as one line of a structured log: who, what, by which rule, at what cost.

It has run, seq, trace and span ids, so that a line is found from a span and a span from a line.
What people and models wrote is in none: a log goes where nobody asked whether it may.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ring0.observability.telemetry import ids
from ring0.store import events as ev
from ring0.types import Call, Run


def call_of(entry: ev.Entry) -> str:
    """The call that an entry is about; empty: it is about none."""
    body = entry.body
    if isinstance(body, ev.CallIntended | ev.CallRefused):
        return body.call.id
    if isinstance(body, ev.ApprovalAsked):
        return body.approval.call
    found = getattr(body, "call", "")
    return found if isinstance(found, str) else ""


def told(entry: ev.Entry, run: Run | None, call: Call | None) -> dict[str, Any]:
    """One line. `run`: its row; `call`: that of the call it is about."""
    at = datetime.fromtimestamp(entry.at_us / 1_000_000, UTC)
    found: dict[str, Any] = {
        "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "run": entry.run,
        "seq": entry.seq,
        "event": event_of(entry),
    }
    if run is not None:
        span = ids.call_span(call.id) if call is not None else ids.run_span(run.id)
        found |= {"trace_id": ids.trace_id(run), "span_id": span}
        found |= {"agent": run.agent, "tenant": run.tenant}
    if call is not None:
        found |= _call(call)
    return found | _more(entry, call)


def event_of(entry: ev.Entry) -> str:
    """What it is called in the journal."""
    return str(type(entry.body).__struct_config__.tag)


def _call(call: Call) -> dict[str, Any]:
    return {
        "call": call.id,
        "kind": str(call.kind),
        "name": call.name,
        "effect": str(call.effect),
        "verdict": str(call.verdict.kind),
        "rules": [reason.rule for reason in call.verdict.reasons],
    }


def _more(entry: ev.Entry, call: Call | None) -> dict[str, Any]:
    """What is special about a kind of entry."""
    match entry.body:
        case ev.CallEnded() as body:
            took_us = entry.at_us - call.begun_us if call is not None else 0
            found = {"state": str(body.state), "took_us": max(0, took_us)}
            return found | {"cost_microusd": body.cost_microusd, "tokens": body.tokens}
        case ev.CallRefused(call=refused):
            return {"state": str(refused.state)}
        case ev.CallsRefusedAlike() as alike:
            return {"like": alike.like, "calls": len(alike.calls)}
        case ev.RunMoved() as moved:
            return {"state": str(moved.state), "waiting_for": moved.waiting_for}
        case ev.RunEnded() as ended:
            return {"state": str(ended.state), "by": ended.by}
        case ev.ApprovalAsked(approval=approval):
            return {"approval": approval.id, "expires_us": approval.expires_us}
        case ev.ApprovalAnswered() as answer:
            return {"approval": answer.approval, "state": str(answer.state), "by": answer.by}
        case ev.CallSettled() as settled:
            return {"happened": settled.happened, "by": settled.by}
        case ev.Killed() as killed:
            return {"scope": killed.scope, "target": killed.target, "by": killed.by}
        case ev.SettingChanged() as changed:
            return {"setting": changed.name, "by": changed.by, "loosened": changed.loosened}
        case _:
            by = getattr(entry.body, "by", "")
            return {"by": by} if isinstance(by, str) and by else {}
