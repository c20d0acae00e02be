"""What a run left open when whoever carried it on was gone: closed, before it goes on or ends."""

from __future__ import annotations

from ring0.errors import EffectUnknown
from ring0.kernel.calls import requests
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.types import Call, CallState, Effect, Run


async def cut_off(store: Store, row: Run) -> list[Call]:
    """Of one run that nobody carries on: each `once` call without an outcome becomes unknown,
    and the requests of its tools' sandboxes have ended, with what was asked about them. Returns
    the calls that became unknown."""
    calls = await store.calls(row.id)
    why = EffectUnknown("the kernel ended between the intent and the outcome").what
    unknown = [c for c in calls if c.state is CallState.INTENDED and c.effect is Effect.ONCE]
    events: list[ev.AnyEvent] = [ev.CallCutOff(call=call.id, why=why) for call in unknown]
    blobs: dict[str, bytes] = {}
    if left := requests.repeatable(calls):
        key = await store.run_key(row.id)
        ends, blobs = requests.ended(left, key, "The kernel ended in the middle of it.")
        events += ends
    events += requests.revoked(await store.approvals(run=row.id))
    if events:
        await store.append(Write(run=row.id, durable=True, events=events, blobs=blobs))
    return unknown
