"""The calls of one run, as its own entries make them: for whoever has these and no projection.

Not here: the projection of a whole journal (store/project.py).
"""

from __future__ import annotations

from msgspec.structs import replace

from ring0.store import events as ev
from ring0.store.events import Entry
from ring0.types import Call, CallState


def fold(calls: dict[str, Call], entry: Entry) -> None:
    """What the entry says of calls, by their ids. Raises KeyError where it is about one that none
    before it has begun."""
    match entry.body:
        case ev.CallRefused(call=call) | ev.CallIntended(call=call) | ev.CallCopied(call=call):
            calls[call.id] = replace(call, seq=entry.seq)
        case ev.CallsRefusedAlike(like=like, calls=alike):
            for one in alike:
                calls[one] = replace(calls[like], id=one, seq=entry.seq)
        case ev.CallEnded(call=where, state=state, outcome=outcome, notice=notice):
            calls[where] = replace(calls[where], state=state, outcome=outcome, notice=notice)
        case ev.CallStreamed(call=where, stream=stream):
            calls[where] = replace(calls[where], stream=stream)
        case ev.CallCutOff(call=where):
            calls[where] = replace(calls[where], state=CallState.UNKNOWN)
        case ev.CallSettled(call=where, happened=happened, outcome=outcome):
            state = CallState.OK if happened else CallState.ERROR
            calls[where] = replace(calls[where], state=state, outcome=outcome)
