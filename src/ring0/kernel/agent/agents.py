"""An agent as the kernel starts it: its manifest, its family, and the snapshot of its code.

The snapshot is taken when a run starts and named by its digest, so that recovery and replay run
the same code. Not here: how a manifest is read (manifests.py), how it is started (processes.py).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid, NotFound, StoreDamaged
from ring0.kernel.agent import hostfiles
from ring0.kernel.agent.hostfiles import LEFT_OUT as LEFT_OUT
from ring0.kernel.agent.hostfiles import NEVER_READ as NEVER_READ
from ring0.store import Store
from ring0.store.events import RunQueued
from ring0.types import AgentManifest, Budget, Frozen, Mode, ToolManifest

_CODE = hostfiles.Taken(
    key="`code`",
    files_max=limits.SNAPSHOT_FILES_MAX,
    file_size_bytes_max=limits.SNAPSHOT_SIZE_BYTES_MAX,
    size_bytes_max=limits.SNAPSHOT_SIZE_BYTES_MAX,
    todo="Name less; libraries belong in the environment, or in `[sandbox] read`.",
)


CONSOLIDATE: Final = "consolidate"
"""The kernel's own agent that consolidates what an agent remembers; also the digest of its code."""


class Family(Frozen, frozen=True, kw_only=True):
    """What is stored of an agent with each run: its own manifest and those that it may spawn."""

    manifest: AgentManifest
    others: tuple[AgentManifest, ...] = ()
    mode: Mode = Mode.ISOLATED
    operator: bool = False
    kernels: str = ""
    """Which of the kernel's own agents it is (`CONSOLIDATE`); empty: somebody's."""

    def named(self, name: str) -> AgentManifest:
        """Raises NotFound."""
        for manifest in (self.manifest, *self.others):
            if manifest.name == name:
                return manifest
        raise NotFound(
            f"There is no agent {name!r} in this agent's code.",
            todo="Declare it with @agent in the same file.",
        )


class Agent:
    """A family with its code: a folder for an isolated agent, functions for an embedded one."""

    def __init__(
        self,
        family: Family,
        digest: str,
        *,
        code: Path | None = None,
        functions: Mapping[str, Callable[..., Awaitable[Any]]] | None = None,
    ) -> None:
        self.family = family
        self.digest = digest
        self.code = code
        self.functions = functions or {}
        """Embedded only: `agent:NAME` and `tool:NAME` to what runs them."""

    @property
    def manifest(self) -> AgentManifest:
        return self.family.manifest

    @property
    def operator(self) -> bool:
        return self.family.operator

    def child(self, name: str, most: Budget) -> Agent:
        """An agent to spawn: never more than its own. Raises NotFound, ManifestInvalid."""
        manifest = self.family.named(name)
        wider = set(manifest.tools) - set(self.manifest.tools)
        own = {function.name: function for function in self.manifest.functions}
        wider |= {function.name for function in manifest.functions} - own.keys()
        if wider:
            raise ManifestInvalid(
                f"{name} may not be spawned: it wants {', '.join(sorted(wider))}.",
                why="A child gets a subset of its parent's tools, never more.",
                todo="Give the parent that tool too, or take it from the child.",
            )
        others = tuple(m for m in (self.manifest, *self.family.others) if m.name != name)
        if not manifest.agents:  # It spawns nobody: its siblings need that share.
            most = msgspec.structs.replace(most, children=0)
        narrowed = msgspec.structs.replace(
            manifest,
            budget=_within(manifest.budget, most),
            tools=self._tools_of(manifest),
            # As the parent has them: what code says of its child's was never held against a grant.
            # But for credentials, which nobody inherits.
            functions=tuple(_granted(own[one.name], one) for one in manifest.functions),
            models=self.manifest.models,
            sandbox=self.manifest.sandbox,
            memory=self.manifest.memory,
            folder=self.manifest.folder,
            code=self.manifest.code,
        )
        family = Family(manifest=narrowed, others=others, mode=self.family.mode)
        return Agent(family, self.digest, code=self.code, functions=self.functions)

    def _tools_of(self, child: AgentManifest) -> dict[str, dict[str, Any]]:
        """The built-in tools of a child: as its parent has them, or narrower where it says so.
        Raises ManifestInvalid."""
        from ring0.kernel.agent.inheriting import inherited  # It loads all tools.

        folder = Path(self.manifest.folder)
        own_folder = folder / Path(self.manifest.entry.partition(":")[0]).parent
        try:
            return {
                name: inherited(
                    name,
                    config,
                    self.manifest.tools[name],
                    own_folder=own_folder,
                    parents_folder=folder,
                )
                for name, config in child.tools.items()
            }
        except ManifestInvalid as error:
            raise ManifestInvalid(
                f"{child.name} may not be spawned: {error.what}", why=error.why, todo=error.todo
            ) from None


def _granted(parents: ToolManifest, own: ToolManifest) -> ToolManifest:
    secrets = tuple(name for name in parents.secrets if name in own.secrets)
    return msgspec.structs.replace(parents, secrets=secrets)


def _within(wanted: Budget, most: Budget) -> Budget:
    """What a child says that it needs, as far as there is so much. One that says nothing gets a
    share: dozens of them find something left."""
    usual = Budget()

    def part(wish: int, unsaid: int, left: int) -> int:
        return min(wish, left if wish != unsaid else -(-left // limits.CHILD_SHARE))

    return Budget(
        calls=part(wanted.calls, usual.calls, most.calls),
        tokens=part(wanted.tokens, usual.tokens, most.tokens),
        children=part(wanted.children, usual.children, most.children),
        cost_microusd=min(wanted.cost_microusd, most.cost_microusd),
        wall_s=min(wanted.wall_s, most.wall_s),
        depth=min(wanted.depth, most.depth),
    )


def code_files(manifest: AgentManifest, store_folder: Path) -> dict[str, bytes]:
    """The agent's code, path inside to content; nothing of the data folder around `store_folder`.
    Raises ManifestInvalid."""
    entry = (manifest.entry.partition(":")[0],) if manifest.entry else ()
    return hostfiles.read(manifest.folder, (*entry, *manifest.code), _CODE, store_folder)


def snapshot(family: Family, store_folder: Path) -> Agent:
    """Copies the code beneath `store_folder`, under its digest. Raises ManifestInvalid."""
    contents = code_files(family.manifest, store_folder)
    return laid_out(family, digest(family.manifest, contents), contents, store_folder)


def laid_out(family: Family, name: str, contents: Mapping[str, bytes], store_folder: Path) -> Agent:
    """These files as a folder beneath `store_folder`, under that name, where it is not there."""
    place = store_folder / name
    if not place.is_dir():
        building = store_folder / f".{name}.{os.getpid()}"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True, mode=0o755)
        program = os.path.normpath(family.manifest.command[0]) if family.manifest.command else ""
        for inside, content in contents.items():
            path = building / inside
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            path.write_bytes(content)
            path.chmod(0o755 if inside == program else 0o644)
        building.rename(place)
    return Agent(family, name, code=place)


def embedded(family: Family, functions: Mapping[str, Callable[..., Awaitable[Any]]]) -> Agent:
    """An agent whose code is functions of this process: nothing of it is copied."""
    return Agent(family, "embedded", functions=functions)


def restore(family: Family, named: str, store_folder: Path) -> Agent:
    """The snapshot of an earlier run, checked. Raises StoreDamaged."""
    place = store_folder / named
    contents = {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
    if not place.is_dir() or digest(family.manifest, contents) != named:
        raise StoreDamaged(
            f"The code of agent {family.manifest.name} ({named[:12]}) is not what it was.",
            why="Its snapshot was changed or removed.",
            todo=f"Put back {place}; other code is never run in its place.",
        )
    return Agent(family, named, code=place)


async def queued(store: Store, run: str) -> RunQueued:
    """How a run began. Raises NotFound."""
    async for entry in store.entries(run):
        if isinstance(entry.body, RunQueued):
            return entry.body
    raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")


async def family_of(store: Store, run: str) -> Family:
    """The agent that a run was started with. Raises NotFound."""
    began = await queued(store, run)
    return msgspec.json.decode(await store.blob(began.manifest), type=Family)


def digest(manifest: AgentManifest, contents: Mapping[str, bytes]) -> str:
    """Of the code and what starts it. The rest of the manifest is on record with each run; a child
    has its parent's code and a manifest of its own."""
    hashed = hashlib.sha256(msgspec.json.encode(manifest.command))
    for inside in sorted(contents):
        for part in (inside.encode(), contents[inside]):
            hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.hexdigest()
