"""Looks before an undo whether rows and files are as the calls left them. It changes nothing.

What is found can be otherwise a moment later: the undo itself looks again, step by step.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.tools import files, sql
from ring0.tools.workspace import Workspace
from ring0.types import UndoPlan, UndoStep


async def rehearsed(
    found: UndoPlan,
    store: Store,
    runtime: Runtime,
    workspace: Callable[[str], Workspace],
    secret: Callable[[str], str],
) -> UndoPlan:
    """The plan, with what keeps steps from being taken as the world is now. Where one can't be,
    what comes before it in its database or workspace is not tried: the undo ends there."""
    of: dict[str, list[UndoStep]] = {}
    for step in found.steps:
        if step.how != "call":
            # Each run has a workspace of its own; databases are told apart by the evidence.
            where = step.call.partition("/")[0] if step.how == "files" else ""
            of.setdefault(where, []).append(step)
    refused: dict[str, str] = {}
    for run, steps in of.items():
        kept = [await _evidence(store, step.call) for step in steps]
        try:
            if run:
                said = await files.rehearse_undo(kept, workspace(run))
            else:
                said = await sql.rehearse_undo(kept, runtime, secret)
        except Ring0Error as error:  # The database can't be asked: so it could not be restored.
            said = [f"{error.what} {error.why}".strip()] + [""] * (len(steps) - 1)
        refused |= {step.call: why for step, why in zip(steps, said, strict=True) if why}
    return replace(
        found,
        steps=tuple(
            replace(step, refused=step.refused or refused.get(step.call, ""))
            for step in found.steps
        ),
    )


async def _evidence(store: Store, call: str) -> bytes:
    row = await store.call(call)
    assert row is not None, "what is to be taken back is on record"
    return await store.blob(row.undo)
