"""`memory-consolidate`: a scope is tidied up by a run of its own, and what came of it is told.

Not here: what that run does (kernel/memory/consolidator.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.kernel.agent import agents
from ring0.types import AgentManifest, RunState

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct
    from ring0.kernel.kernel import Kernel

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.RECORD_FIELD_CHARS_MAX)]


class Consolidate(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    agent: _Name
    principal: _Name
    model: str = ""
    """Reads what is new; empty: the one that the agent's manifest names for it, or none."""

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-consolidate").name
        kernel = to.kernel
        consolidating = kernel.memory.consolidating
        assert consolidating is not None, "the kernel is wired"
        owner = (kernel.config.tenant, self.principal, self.agent)
        manifest = await _newest(kernel, self.agent)
        model = self.model or manifest.memory.consolidate_model
        row = await consolidating.begin(owner, manifest, model=model, by=by)
        row = await kernel.runs.wait(row.id)
        said = msgspec.json.decode(await kernel.store.blob(row.result)) if row.result else {}
        told = {"run": row.id, "state": str(row.state)}
        if row.state is RunState.DONE:
            return {**told, **said.get("value", {})}
        return {**told, "error": said.get("error")}


async def _newest(kernel: Kernel, name: str) -> AgentManifest:
    """The agent as it was started last; of one that never was here, the name alone."""
    for row in await kernel.store.runs(most=limits.RUNS_LISTED_MAX):
        if row.agent != name or row.agent_digest == agents.CONSOLIDATE:
            continue
        try:
            return (await agents.family_of(kernel.store, row.id)).named(name)
        except Ring0Error:  # Forgotten, or in its archive.
            continue
    return AgentManifest(name=name)


VERBS: Final[dict[str, Any]] = {"memory-consolidate": Consolidate}
