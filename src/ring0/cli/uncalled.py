"""What a person is told of a program that ended without ever having got anything of the kernel:
most likely it looked for its model elsewhere, where there is nothing; or all that it asked was
refused, and what it made of that says less than the refusal.
"""

from __future__ import annotations

from typing import Any, Final

from ring0.cli.output import line
from ring0.cli.parts import outcome_of
from ring0.errors import RunFailed
from ring0.types import ENDED, Call, CallKind, CallState, Mode, Run

HINT = (
    "It asked ring0 for no model and no tool. A sandbox has no network, only ring0's doors: let the"
    " program take their addresses from OPENAI_BASE_URL, ANTHROPIC_BASE_URL and RING0_MCP_URL"
    " (set for it; a file for MCP clients: RING0_MCP_CONFIG), and write none into its code."
)
_KINDS: Final = (CallKind.MODEL, CallKind.TOOL)
_IN_VAIN: Final = (CallState.REFUSED, CallState.ERROR)


async def hint(store: Any, row: Run, error: str) -> str:
    """`error`: the code of what the run ended with. Empty where there is nothing to say: it goes
    on, it was never started or was killed, it was answered, or it is an agent of the SDK's, which
    knows the way by itself."""
    if row.state not in ENDED or row.mode is not Mode.ISOLATED:
        return ""
    if error not in ("", RunFailed.code):
        return ""
    asked = [call for call in await store.calls(row.id) if call.kind in _KINDS]
    if any(call.state not in _IN_VAIN for call in asked):
        return ""
    from ring0.kernel.agent.agents import family_of

    family = await family_of(store, row.id)
    if not family.manifest.command:
        return ""
    return await _in_vain(store, row, asked) if asked else HINT


async def _in_vain(store: Any, row: Run, asked: list[Call]) -> str:
    """The last refusal: a program that goes on after one has asked for something else since."""
    error = (await outcome_of(store, asked[-1])).error or {}
    count = "Its question" if len(asked) == 1 else f"Each of its {len(asked)} questions"
    told = " ".join(filter(None, (error.get("what"), error.get("why"))))
    todo = f" Do: {error['todo']}" if error.get("todo") else ""
    return line(f"{count} was refused or failed. {told}{todo} All: `ring0 show {row.id}`", 1_200)
