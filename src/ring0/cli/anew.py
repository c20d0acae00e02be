"""After `ring0 approve --set`: what has become of the changed call, and the question about it.

Whoever changed an argument has not seen what the call would do now: it is shown first. Not here:
that it is judged anew (kernel/steps/editing.py).
"""

from __future__ import annotations

import sys
import termios
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, line, text
from ring0.cli.parts import Asking, asking, held, outcome_of
from ring0.cli.place import Place, work
from ring0.cli.prompt import read_line
from ring0.store.sqlite import SqliteStore
from ring0.types import Approval, ApprovalState, Call, CallState, Shown

QUESTION: Final = "this is what it would do now. approve? [y/N]: "
_YES: Final = frozenset({"y", "yes"})
_DIGEST_CHARS: Final = 16


class Anew(msgspec.Struct, frozen=True, kw_only=True):
    """What a change came to: it is asked about, or it is not (it is refused, or needs nobody)."""

    ask: Approval | None = None
    shown: Shown | None = None
    of: Asking | None = None
    call: Call | None = None
    why: str = ""
    """Why it is refused."""

    @property
    def waits(self) -> bool:
        return self.ask is not None and self.ask.state is ApprovalState.PENDING

    def as_dict(self) -> dict[str, Any]:
        call = {"state": self.call.state, "why": self.why} if self.call else None
        ask = {**output.builtins(self.ask), "shown": self.shown} if self.ask else None
        return {"ask": ask, "call": call}


async def look(place: Place, edited: Approval) -> Anew | None:
    """What it came to, once the call was judged anew; None: its run has not come to it in time."""
    ends_us = place.runtime.monotonic_us() + limits.EDITED_S_MAX * 1_000_000
    async with place.reading() as store:
        while (found := await _found(store, edited)) is None:
            if place.runtime.monotonic_us() > ends_us:
                break
            await place.runtime.sleep(limits.EDITED_LOOK_S)
    return found


async def _found(store: SqliteStore, edited: Approval) -> Anew | None:
    newer = [
        one
        for one in await store.approvals(run=edited.run)
        if one.call == edited.call and one.edition > edited.edition
    ]
    if newer:
        ask = max(newer, key=lambda one: one.edition)
        shown = msgspec.json.decode(await store.blob(ask.shown), type=Shown)
        return Anew(ask=ask, shown=shown, of=await asking(store, ask))
    call = await store.call(edited.call)
    if call is None:
        return None
    error = (await outcome_of(store, call)).error or {}
    why = f"{error.get('what', '')} {error.get('why', '')}".strip()
    return Anew(call=call, why=why if call.state is CallState.REFUSED else "")


def ask(found: Anew | None, run: str) -> bool:
    """Tells what it came to; where it waits and somebody sits here, whether they say yes."""
    out = console()
    if found is None:
        out.print(text(f"It is asked about anew when its run goes on: `ring0 approvals {run}`."))
    elif found.call is not None and found.why:
        out.print(text(("refused: ", "red"), line(found.why, 600)))
    elif found.waits:
        return _asked(found)
    return False


def _asked(found: Anew) -> bool:
    assert found.ask is not None and found.shown is not None and found.of is not None
    out, ask = console(), found.ask
    out.print(held(ask, found.shown, found.of))
    if not (sys.stdin.isatty() and out.is_terminal):
        digest = ask.bound_to[:_DIGEST_CHARS]
        out.print(
            text(
                (f"{ask.id} waits", "yellow"),
                f" (digest {digest}): nobody has said yes to what it would do now. "
                f"`ring0 approve {ask.id}` or `ring0 deny {ask.id}`",
            )
        )
        return False
    # What was typed before it was shown is no answer to it.
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    out.print(text((QUESTION, "bold yellow")), end="")
    out.file.flush()
    typed = work(lambda: read_line(sys.stdin.fileno())) or ""
    if typed.strip().lower() in _YES:
        return True
    out.print(text((f"{ask.id} waits.", "yellow")))
    return False
