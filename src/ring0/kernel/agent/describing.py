"""An agent as its code describes it: started once in a sandbox, only to say what it declares."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ring0.kernel.agent import agents, declared, processes
from ring0.kernel.agent.agents import Family
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.types import AgentManifest


async def describe(
    manifest: AgentManifest, around: tuple[str, ...], snapshots: Path, runtime: Runtime, tier: str
) -> Family:
    """A manifest with all that its code declares: functions, agents. Raises AgentInvalid.

    `around`: files that it may import for this; those that it does are its code.
    """
    if not manifest.entry:
        return Family(manifest=manifest)
    wide = msgspec.structs.replace(manifest, code=manifest.code + around)
    bare = agents.snapshot(Family(manifest=wide), snapshots)
    apart = Sandboxes(None, runtime, tier_min=tier)
    found = await processes.describe(bare, apart, runtime)
    chosen = processes.choose(found, manifest.entry)
    # The code tells its paths from its own folder; a family, from its manifest's.
    beneath = Path(manifest.entry.partition(":")[0]).parent
    return Family(
        manifest=declared.merged(manifest, chosen),
        others=tuple(
            msgspec.structs.replace(other, entry=str(beneath / other.entry))
            for other in found.agents
            if other.name != chosen.name
        ),
    )
