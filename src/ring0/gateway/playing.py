"""Plays a cassette: each of its runs is replayed, strictly, in a folder that is gone afterwards.

Nothing of a cassette ever goes live: there is no model, no tool, no network and no journal here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CassetteInvalid
from ring0.gateway import door
from ring0.kernel import replay
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent
from ring0.kernel.agent.environments import is_environment
from ring0.kernel.live import LiveRun
from ring0.kernel.replay import Replayed
from ring0.kernel.replaying import cassette as tape
from ring0.kernel.replaying import exporting
from ring0.kernel.replaying.cassette import Cassette
from ring0.kernel.replaying.recorded import CassetteStore
from ring0.runtime import Runtime
from ring0.sdk.embedded import DirectDoor, HasGate, code_of
from ring0.sdk.runner import run_agent
from ring0.types import AgentManifest, Mode


async def play(
    data: bytes,
    runtime: Runtime,
    *,
    code: Path | None = None,
    agent: Callable[..., Any] | None = None,
    environment: Mapping[str, str] | None = None,
    read: Sequence[Path] = (),
    tier_min: str = "",
) -> list[Replayed]:
    """What became of each of its runs, that which was exported first.

    `code`: the folder of other code of the agent, in place of what was recorded; `agent`: the
    `@agent` function of a run that was embedded in the program that asks. `read`: of this machine,
    what may be shown to its sandboxes where its manifest names it; `tier_min`: their weakest tier.
    Raises CassetteInvalid, InvalidInput, SandboxUnavailable.
    """
    cassette = tape.read(data)
    with tempfile.TemporaryDirectory(prefix="ring0-replay-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # The sandbox's own uid reads its code.
        return [
            await _one(
                cassette, run, runtime, folder, code, agent, environment or {}, read, tier_min
            )
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
    read: Sequence[Path],
    tier_min: str,
) -> Replayed:
    store = CassetteStore(cassette)
    gate = replay.replay_gate(store.as_store(), runtime, environment, tier_min=tier_min)
    embed = embedding(gate) if agent is not None else None
    try:
        other = await _other_code(store, run, folder, code, agent)
        recorded = await exporting.recorded(cassette, run, folder, other)
        _check_sandbox(recorded.agent.manifest, read)
        return await replay.again(recorded, gate, door.doors(gate), embed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CassetteInvalid(
            "The cassette can't be used.",
            why=f"A value in it is not what its run says: {str(error)[:200]}.",
            todo="Have it exported and sent again.",
        ) from None


def _check_sandbox(manifest: AgentManifest, read: Sequence[Path]) -> None:
    """What a stranger's manifest may ask of this machine. Raises CassetteInvalid."""
    profile = manifest.sandbox
    size_bytes = max(profile.memory_bytes, profile.tmp_bytes)
    if (
        min(profile.memory_bytes, profile.tmp_bytes, profile.processes) < 1
        or size_bytes > limits.CASSETTE_MEMORY_BYTES_MAX
        or profile.processes > limits.CASSETTE_PROCESSES_MAX
    ):
        raise CassetteInvalid(
            "The cassette can't be used.",
            why=f"Its sandbox would have {size_bytes:,} bytes and {profile.processes:,} processes.",
            todo="Record it with less.",
        )
    may = [path.resolve() for path in read]
    for name in profile.read:
        path = Path(manifest.folder, os.path.expanduser(name.replace("\0", "?"))).resolve()
        if not is_environment(path) and not any(path.is_relative_to(one) for one in may):
            raise CassetteInvalid(
                f"The cassette asks to be shown {str(path)[:200]} of this machine.",
                why="It may be a stranger's, and what differs in a replay is printed.",
                todo="Where it may see that, say so: `ring0 test --read PATH`.",
            )


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
