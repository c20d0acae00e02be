"""Plays a cassette: each of its runs is replayed, strictly, in a folder that is gone afterwards.

Nothing of a cassette ever goes live: there is no model, no tool, no network and no journal here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ring0.gateway import door
from ring0.kernel import replay
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent
from ring0.kernel.live import LiveRun
from ring0.kernel.replay import Replayed
from ring0.kernel.replaying import cassette as tape
from ring0.kernel.replaying import exporting
from ring0.kernel.replaying.cassette import Cassette
from ring0.kernel.replaying.recorded import CassetteStore
from ring0.runtime import Runtime
from ring0.sdk.embedded import DirectDoor, HasGate, code_of
from ring0.sdk.runner import run_agent
from ring0.types import Mode


async def play(
    data: bytes,
    runtime: Runtime,
    *,
    code: Path | None = None,
    agent: Callable[..., Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Replayed]:
    """What became of each of its runs, that which was exported first.

    `code`: the folder of other code of the agent, in place of what was recorded; `agent`: the
    `@agent` function of a run that was embedded in the program that asks. Raises CassetteInvalid,
    InvalidInput, SandboxUnavailable.
    """
    cassette = tape.read(data)
    with tempfile.TemporaryDirectory(prefix="ring0-replay-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # The sandbox's own uid reads its code.
        return [
            await _one(cassette, run, runtime, folder, code, agent, environment or {})
            for run in exporting.runs_in(cassette)
        ]


async def _one(
    cassette: Cassette,
    run: str,
    runtime: Runtime,
    folder: Path,
    code: Path | None,
    agent: Callable[..., Any] | None,
    environment: Mapping[str, str],
) -> Replayed:
    store = CassetteStore(cassette)
    gate = replay.replay_gate(store.as_store(), runtime, environment)
    other = await _other_code(store, run, folder, code, agent)
    recorded = await exporting.recorded(cassette, run, folder, other)
    embed = embedding(gate) if agent is not None else None
    return await replay.again(recorded, gate, door.doors(gate), embed)


async def _other_code(
    store: CassetteStore,
    run: str,
    folder: Path,
    code: Path | None,
    agent: Callable[..., Any] | None,
) -> Agent | None:
    row = await store.run(run)
    if agent is not None and row is not None and row.mode is Mode.EMBEDDED:
        return code_of(agent)
    if code is None:
        return None
    family = await agents.family_of(store.as_store(), run)
    manifest = replace(family.manifest, folder=str(code.absolute()))
    return agents.snapshot(replace(family, manifest=manifest), folder)


class _Gated:
    def __init__(self, gate: Any) -> None:
        self.gate = gate


def embedding(gate: Any) -> Any:
    """Runs an agent's function in this process, at a gate that only recalls."""

    async def embed(run: LiveRun, function: Callable[..., Any]) -> Any:
        there: HasGate = _Gated(gate)
        at = DirectDoor(there, run)
        return await run_agent(function, at, await at.describe())

    return embed
