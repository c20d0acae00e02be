"""A run that was forked from another, for the tests of the store."""

from __future__ import annotations

from msgspec.structs import replace

import journals
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.types import CallState, Effect


def story(run: str) -> list[Write]:
    """A fork of that run at its seq 12: a call recalled, a model that answers in pieces, an end."""
    fork = f"{run}f"
    first = journals.queued(fork)
    (began,) = first.events
    assert isinstance(began, ev.RunQueued)
    began = replace(began, run=replace(began.run, forked=f"{run}#12"))
    outcome, stream = (
        address(journals.key_of(fork), b"ok"),
        address(journals.key_of(fork), b"[[1]]"),
    )
    copy = journals.call_row(
        fork, 0, state=CallState.OK, outcome=outcome, effect=Effect.PURE, decision=""
    )
    forked = ev.RunForked(
        run=run, at=12, by="bob", edits=("task", copy.id), label=journals.UNTRUSTED
    )
    copied = ev.CallCopied(call=copy, of=f"{run}/0/0")
    blobs = {**first.blobs, outcome: b"ok", **journals.named(fork, b"{}")}
    return [
        Write(run=fork, key=first.key, blobs=blobs, durable=True, events=[began, forked, copied]),
        journals.moved(fork, epoch=1),
        journals.intended(fork, 1),
        journals.ended(fork, 1),
        Write(
            run=fork,
            blobs={stream: b"[[1]]"},
            events=[ev.CallStreamed(call=f"{fork}/0/1", stream=stream)],
        ),
        journals.over(fork, epoch=2),
    ]
