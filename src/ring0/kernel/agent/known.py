"""Which agents a data folder knows, and which tools each has: those of its newest runs and of its
orders. To tell a rule for a tool that nobody has from one for another agent's.

Not here: the tools of an agent that has not been started yet (offered.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.kernel.agent import agents, offered
from ring0.kernel.agent.agents import Family
from ring0.runtime import Runtime
from ring0.store.sqlite import SqliteStore
from ring0.types import AgentManifest

Schemas = Mapping[str, Mapping[str, Any]]
"""By the name of a tool, its JSON Schema."""


async def tools(store: SqliteStore, runtime: Runtime, home: Path) -> dict[str, Schemas]:
    """By the name of each agent on record, its tools as they would be now. A built-in tool that
    can't be made any more (its database is gone) is nobody's."""
    manifests: dict[str, AgentManifest] = {}
    for family in await _families(store):
        for manifest in (family.manifest, *family.others):
            manifests.setdefault(manifest.name, manifest)
    return {name: _of(manifest, runtime, home) for name, manifest in manifests.items()}


async def _families(store: SqliteStore) -> list[Family]:
    """The newest first: what an agent was before counts no more."""
    seen: set[str] = set()
    found = []
    for row in await store.runs(most=limits.RUNS_LISTED_MAX):
        if row.agent in seen or row.parent or row.agent_digest == agents.CONSOLIDATE:
            continue  # A child's family is its parent's.
        seen.add(row.agent)
        try:
            found.append(await agents.family_of(store, row.id))
        except Ring0Error:  # Forgotten.
            continue
    for order in (*await store.crons(), *await store.hooks()):
        found.append(msgspec.json.decode(await store.blob(order.family), type=Family))
    return [family for family in found if not family.operator]


def _of(manifest: AgentManifest, runtime: Runtime, home: Path) -> Schemas:
    found = {function.name: function.schema for function in manifest.functions}
    for instance, config in manifest.tools.items():
        try:
            made = offered.built_in(replace(manifest, tools={instance: config}), runtime, home)
        except Ring0Error:
            continue
        found |= {tool.name: tool.schema for tool in made}
    return found


__all__ = ["Schemas", "tools"]
