"""What a person is told of a program that ended without ever having asked the kernel for anything:
most likely it looked for its model elsewhere, where there is nothing.
"""

from __future__ import annotations

from typing import Any

from ring0.errors import RunFailed
from ring0.types import ENDED, CallKind, Mode, Run

HINT = (
    "It asked ring0 for no model and no tool. A sandbox has no network, only ring0's doors: let the"
    " program take their addresses from OPENAI_BASE_URL, ANTHROPIC_BASE_URL and RING0_MCP_URL"
    " (set for it; a file for MCP clients: RING0_MCP_CONFIG), and write none into its code."
)


async def hint(store: Any, row: Run, error: str) -> str:
    """`error`: the code of what the run ended with. Empty where there is nothing to say: it goes
    on, it was never started or was killed, it has called, or it is an agent of the SDK's, which
    knows the way by itself."""
    if row.state not in ENDED or row.mode is not Mode.ISOLATED:
        return ""
    if error not in ("", RunFailed.code):
        return ""
    if any(call.kind in (CallKind.MODEL, CallKind.TOOL) for call in await store.calls(row.id)):
        return ""
    from ring0.kernel.agent.agents import family_of

    family = await family_of(store, row.id)
    return HINT if family.manifest.command else ""
