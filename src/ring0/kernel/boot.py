"""Boots a kernel on a data folder and wires the primitives together. One kernel a folder.

The order at boot: lock the folder, open the journal (refused where it is damaged), load the
policies, confirm every old sandbox dead, mark cut-off effects unknown. Only then may runs start.
"""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ring0 import __version__, limits, models
from ring0.errors import (
    InvalidInput,
    KernelBusy,
    ManifestInvalid,
    NotFound,
    StoreFailed,
    StoreFull,
    UndoRefused,
)
from ring0.governance import Policies
from ring0.guardrails import Secrets
from ring0.identity import Handles, Vault
from ring0.kernel import agents, kinds, manifests, processes, recovery, undo
from ring0.kernel.agents import Agent, Family
from ring0.kernel.egress import EgressKind, Outside, Reach
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.kernel.manifests import Config
from ring0.kernel.runs import Doors, Embed, Runs
from ring0.kernel.sandboxes import Sandboxes
from ring0.kernel.waiting import Waiting
from ring0.runtime import Runtime
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore, open_store
from ring0.tools.registry import Means, Tool
from ring0.tools.workspace import Workspace
from ring0.types import (
    LIVE,
    AgentManifest,
    Approval,
    Call,
    CallKind,
    Effect,
    Grant,
    Integrity,
    Mode,
    ModelConfig,
    Run,
    ToolManifest,
)

LOCK = "kernel.lock"
SNAPSHOTS = "snapshots"
CODE_MAY_SAY = {
    "files": frozenset({"use"}),
    "sql": frozenset({"use", "database"}),
    "python": frozenset({"use", "timeout_s"}),
    "shell": frozenset({"use", "timeout_s"}),
}
"""What an agent's code may set of a built-in tool where no agent.toml speaks for it."""
KILL_SCOPES = ("run", "agent", "tenant", "all")


class Kernel:
    """A kernel at work. Open it with `open_kernel`, close it with `close`."""

    def __init__(
        self,
        home: Path,
        lock: int,
        store: SqliteStore,
        runtime: Runtime,
        config: Config,
        vault: Vault,
        policies: Policies,
        environment: Mapping[str, str],
        doors: Doors | None,
        embed: Embed | None,
    ) -> None:
        self.home = home
        self.store = store
        self.runtime = runtime
        self.config = config
        self.policies = policies
        self.vault = vault
        self._lock = lock
        self._environment = environment
        self._embed = embed
        self._providers: dict[tuple[str, str], models.Provider] = {}
        self.waiting = Waiting(store, runtime)
        self.sandboxes = Sandboxes(
            store, runtime, trusted=config.sandbox.image, tier_min=config.sandbox.tier
        )
        self.gate = Gate(
            store,
            runtime,
            Handles(runtime),
            policies,
            Secrets(manifests.secrets_of(config, environment, vault.values())),
            self.waiting,
            self.sandboxes,
        )
        self.outside = Outside(
            config, self.secret, runtime, model_url=environment.get("OPENAI_BASE_URL", "")
        )
        means = Means(
            runtime=runtime,
            off_limits=home,
            secret=self.secret,
            outside=self.outside,
            reach=Reach(self.gate, self.outside, runtime),
        )
        self.runs = Runs(
            store,
            runtime,
            self.gate,
            self.sandboxes,
            home / SNAPSHOTS,
            means,
            doors,
            self._embedded,
        )
        self.runs.models = frozenset(config.models)
        self.gate.kinds = kinds.kinds(
            store,
            runtime,
            kinds.Ports(
                provider=self._provider,
                model_config=self._model_config,
                spawn=self.runs.children.spawn,
                wait=self.runs.children.wait_for_child,
            ),
        )
        self.gate.kinds[CallKind.EGRESS] = Tool(EgressKind(self.outside))

    async def close(self) -> None:
        """Stops what runs (it can be recovered), and lets go of the folder."""
        try:
            try:
                await self.runs.stop()
            finally:
                await self.sandboxes.close()
            for provider in self._providers.values():
                await provider.close()
            await self.store.append(Write(run=ev.KERNEL, events=[ev.KernelStopped()], durable=True))
        except (StoreFull, StoreFailed):
            pass  # A journal that can't be written has said so to whoever wrote before.
        finally:
            await self.store.close()
            os.close(self._lock)

    # --- runs ---------------------------------------------------------------------------------

    async def start(self, family: Family, task: str, *, principal: str) -> Run:
        """Queues and starts a run of an isolated agent. Raises what keeps it from starting."""
        self._check_models(family)
        agent = agents.snapshot(family, self.home / SNAPSHOTS)
        self.runs.tools(agent)  # Before anything is written: a bad manifest starts nothing.
        return await self._begin(agent, task, principal)

    async def start_embedded(
        self,
        manifest: AgentManifest,
        others: tuple[AgentManifest, ...],
        functions: Mapping[str, Callable[..., Any]],
        task: str,
        *,
        principal: str,
    ) -> Run:
        """The same for an agent function of this process. It is not contained."""
        family = Family(manifest=manifest, others=others, mode=Mode.EMBEDDED)
        return await self._begin(_in_process(family, functions), task, principal)

    async def _begin(self, agent: Agent, task: str, principal: str) -> Run:
        row = await self.runs.queue(agent, task, principal=principal, tenant=self.config.tenant)
        await self.runs.start(row, agent)
        return row

    async def recover(self, agent: Agent | None = None) -> list[str]:
        """Starts every run again that a crash or Ctrl-C stopped; `agent` gives embedded ones."""

        def find(family: Family) -> Agent | None:
            if family.operator:
                return self._undo_agent(family.manifest)
            if agent is None:
                return None
            if agent.manifest.name == family.manifest.name:
                return agent
            if f"agent:{family.manifest.name}" in agent.functions:  # One that it spawned.
                return Agent(family, agent.digest, functions=agent.functions)
            return None

        return await recovery.recover(self.runs, find)

    async def describe(self, manifest: AgentManifest, around: tuple[str, ...] = ()) -> Family:
        """A manifest with all that its code declares: functions, agents. Raises AgentInvalid.

        `around`: files that it may import for this; those that it does are its code.
        """
        if not manifest.entry:
            return Family(manifest=manifest)
        wide = msgspec.structs.replace(manifest, code=manifest.code + around)
        bare = agents.snapshot(Family(manifest=wide), self.home / SNAPSHOTS)
        apart = Sandboxes(None, self.runtime, tier_min=self.config.sandbox.tier)
        declared = await processes.describe(bare, apart, self.runtime)
        chosen = processes.choose(declared, manifest.entry)
        return Family(
            manifest=merged(manifest, chosen),
            others=tuple(a for a in declared.agents if a.name != chosen.name),
        )

    # --- what operators do ----------------------------------------------------------------------

    async def answer(self, approval: str, *, yes: bool, by: str, note: str = "") -> Approval:
        """Approves or denies."""
        return await self.waiting.answer(approval, yes=yes, by=by, note=note)

    async def settle(self, call: str, *, happened: bool, by: str, note: str = "") -> Call:
        """Says what became of an unknown effect."""
        return await self.waiting.settle(call, happened=happened, by=by, note=note)

    async def kill(self, scope: str, target: str, *, by: str) -> list[str]:
        """Ends a run with all beneath it, an agent's runs, or all. Returns the runs it ended."""
        if scope not in KILL_SCOPES:
            raise InvalidInput(
                f"Nothing can be killed by {scope[:40]!r}.",
                why=f"There are: {', '.join(KILL_SCOPES)}.",
                todo="Name one of those.",
            )
        if scope == "run":
            row = await self.store.run(target)
            if row is None:
                raise NotFound(f"There is no run {target[:40]!r}.", todo="`ring0 ps` lists them.")
            if row.state not in LIVE:
                raise InvalidInput(
                    f"{target} has ended already: it is {row.state}.", todo="Nothing."
                )
        generation = await self.store.kill_generation() + 1
        await self.store.append(
            Write(
                run=ev.KERNEL,
                durable=True,
                events=[
                    ev.Killed(
                        scope=scope,
                        target="" if scope == "all" else target,
                        generation=generation,
                        by=by,
                    )
                ],
            )
        )
        # Asked after the kill is on disk: what is queued from here on has seen it.
        generation = await self.store.kill_generation()
        victims = []
        for row in await self.store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX):
            names = {"run": row.id, "agent": row.agent, "tenant": row.tenant, "all": target}
            if names[scope] == target and (scope == "run" or row.kill_seen < generation):
                victims.append(row.id)
        for run in victims:
            await self.runs.cancel(run, by=by)
        return victims

    async def undo(self, run: str, *, by: str, only: str = "") -> Run:
        """Takes back a run's reversible calls, or one of them. Raises NotFound, UndoRefused."""
        await self.store.flush()
        calls = await self.store.calls(run)
        if await self.store.run(run) is None:
            raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
        steps = [call.id for call in undo.undoable(calls) if not only or call.id == only]
        if not steps:
            why = next((undo.why_not(c) for c in calls if c.id == only), None) if only else None
            raise UndoRefused(
                f"There is nothing to take back in {only or run}.",
                why=why or "No call of it left anything that takes it back.",
                todo="`ring0 show RUN` says of each call how it can be.",
            )
        agent = self._undo_agent(undo.manifest(len(steps)))
        task = msgspec.json.encode({"undo": run, "calls": steps}).decode()
        row = await self._begin(agent, task, by)
        return await self.runs.wait(row.id)

    def _undo_agent(self, manifest: AgentManifest) -> Agent:
        family = Family(manifest=manifest, mode=Mode.EMBEDDED, operator=True)
        return _in_process(family, {f"agent:{undo.AGENT}": undo.take_back})

    def secret(self, name: str) -> str:
        """A secret's value, of the vault or the environment; empty where there is none."""
        return self.vault.values().get(name) or self._environment.get(name, "")

    def workspace(self, run: str) -> Workspace:
        """A run's files: those of the live run itself, where it goes on."""
        live = self.gate.live.get(run)
        return live.workspace if live else Workspace(self.store, run)

    # --- what the drivers need --------------------------------------------------------------------

    async def _embedded(self, run: LiveRun, function: Callable[..., Any]) -> Any:
        if run.agent.operator:
            run.tools[undo.TOOL] = Tool(
                undo.UndoDriver(self.store, self.runtime, self.workspace, self.secret)
            )
            task = msgspec.json.decode(await self.store.blob(run.row.task))
            return await function(run, self.gate, task["calls"])
        assert self._embed is not None, "no SDK was given to embed with"
        return await self._embed(run, function)

    def _model_config(self, run: Run, name: str) -> ModelConfig:
        manifest = self.gate.live[run.id].agent.manifest
        found = manifests.model_of(name, manifest, self.config, self._environment)
        if found is None:
            raise no_model(name)
        return found

    def _check_models(self, family: Family) -> None:
        for name in family.manifest.models:
            config = manifests.model_of(name, family.manifest, self.config, self._environment)
            if config is None:
                raise no_model(name)
            self._make_provider(config, family.manifest.folder)

    def _provider(self, run: Run, name: str) -> models.Provider:
        config = self._model_config(run, name)
        return self._make_provider(config, self.gate.live[run.id].agent.manifest.folder)

    def _make_provider(self, config: ModelConfig, folder: str) -> models.Provider:
        key = (folder, msgspec.json.encode(config).decode())
        if key not in self._providers:
            secret = self.secret("OPENAI_API_KEY")
            self._providers[key] = models.provider(config, folder, secret, self.runtime)
        return self._providers[key]


def _in_process(family: Family, functions: Mapping[str, Callable[..., Any]]) -> Agent:
    return Agent(family, "embedded", functions=functions)


def no_model(name: str) -> ManifestInvalid:
    return ManifestInvalid(
        f"No model is configured under the name {name!r}.",
        why="The agent's manifest, ring0.toml and the environment name none.",
        todo="Add [models.default] to agent.toml or ring0.toml, or set"
        " OPENAI_API_KEY (and OPENAI_BASE_URL).",
    )


def merged(manifest: AgentManifest, declared: AgentManifest) -> AgentManifest:
    """A manifest with what its code declares.

    An agent.toml says all that the agent may ask for: its code adds nothing to that but its own
    functions, which run in sandboxes. Without one (`manifest.name` is empty) the decorator is the
    manifest, within bounds that code can't move: see `_within_its_folder`.
    """
    # The code tells its paths from the entry's own folder; a manifest, from its own.
    beneath = Path(manifest.entry.partition(":")[0]).parent
    code = manifest.code or tuple(str(beneath / path) for path in declared.code)
    entry = manifest.entry if ":" in manifest.entry else str(beneath / declared.entry)
    functions = tuple(
        msgspec.structs.replace(function, output=Integrity.UNTRUSTED)
        for function in declared.functions
    )
    _granted(functions, manifest.grants)
    if manifest.name:
        return msgspec.structs.replace(manifest, code=code, entry=entry, functions=functions)
    _within_its_folder(declared, Path(manifest.folder).resolve())
    return msgspec.structs.replace(
        declared,
        code=code,
        entry=entry,
        functions=functions,
        folder=manifest.folder,
        sandbox=manifest.sandbox,
    )


def _granted(functions: tuple[ToolManifest, ...], grants: Mapping[str, Grant]) -> None:
    """A function reaches out only where the operator says so too. Raises ManifestInvalid.

    The SDK refuses the same; but it runs beside the agent's code, which could say anything.
    """
    if unknown := sorted(set(grants) - {function.name for function in functions}):
        raise ManifestInvalid(
            f"agent.toml has [functions.{unknown[0][:80]}], and no `@tool` has that name.",
            why=f"There are: {', '.join(function.name for function in functions) or 'none'}.",
            todo="Correct its name, or take it out.",
        )
    for function in functions:
        if not function.name.isidentifier():
            raise ManifestInvalid(
                f"{function.name[:80]!r} is no name for a function.",
                why="With a dot it would take the place of a built-in tool's operation.",
                todo="Use letters, digits and _.",
            )
        if function.effect is Effect.PURE and (function.egress or function.secrets):
            raise ManifestInvalid(
                f"{function.name} is called pure, and it has egress or secrets.",
                why="A pure call is never asked about: a lie about it has to be harmless.",
                todo="Take them out, or say effect='idempotent' or 'once'.",
            )
        grant = grants.get(function.name, Grant())
        for key in ("egress", "secrets"):
            asked, given = getattr(function, key), getattr(grant, key)
            if beyond := [wish for wish in asked if wish not in given]:
                raise ManifestInvalid(
                    f"The agent's code gives {function.name} the {key} {beyond[0][:200]!r}.",
                    why="What leaves a sandbox is the operator's word, not the code's.",
                    todo=f"Write in agent.toml, under [functions.{function.name}]:"
                    f" {key} = {list(asked)}.",
                )


def _within_its_folder(declared: AgentManifest, folder: Path) -> None:
    """What code may say of itself without an agent.toml. Raises ManifestInvalid."""
    for name, model in declared.models.items():
        if model.base_url:
            raise ManifestInvalid(
                f"The agent's code sends the model {name!r} to {model.base_url[:200]!r}.",
                why="The operator's key would go there.",
                todo=f"Write an agent.toml with [models.{name}]: that is the operator's word.",
            )
    for instance, config in declared.tools.items():
        database = config.get("database")
        if isinstance(database, str):
            inside = (folder / database).resolve().is_relative_to(folder)
            if not inside:
                raise ManifestInvalid(
                    f"The agent's code names the database {database[:200]!r}.",
                    why="Code that speaks for itself reaches only files beside it.",
                    todo=f"Write an agent.toml with [tools.{instance}], the operator's word.",
                )
        may = CODE_MAY_SAY.get(str(config.get("use")), frozenset())
        if beyond := sorted(set(config) - may):
            raise ManifestInvalid(
                f"The agent's code sets {beyond[0][:80]!r} of the tool {instance!r}.",
                why="What reaches out, runs programs or vouches for text is the operator's word.",
                todo=f"Write an agent.toml with [tools.{instance}].",
            )


async def open_kernel(
    home: Path,
    runtime: Runtime,
    environment: Mapping[str, str],
    *,
    doors: Doors | None = None,
    embed: Embed | None = None,
) -> Kernel:
    """Boots. Raises KernelBusy, StoreDamaged, StoreFull, PolicyInvalid, ManifestInvalid."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(
            f"{home} can't be made: {error.strerror}.",
            todo="Set RING0_HOME to a folder that you may write to.",
        ) from None
    raise_open_files()
    lock = lock_folder(home)
    try:
        config = manifests.read_config(home)
        vault = Vault(home)
        policies = Policies.load([home / name for name in config.policy])
        store = open_store(home, runtime, write=True)
    except BaseException:
        os.close(lock)
        raise
    try:
        kernel = Kernel(
            home, lock, store, runtime, config, vault, policies, environment, doors, embed
        )
        text = policies.text.encode()
        where = address(b"", text)
        await store.append(
            Write(
                run=ev.KERNEL,
                blobs={where: text},
                durable=True,
                events=[
                    ev.KernelStarted(
                        version=__version__, pid=os.getpid(), secrets=tuple(vault.names())
                    ),
                    ev.PolicyLoaded(digest=policies.digest, text=where),
                ],
            )
        )
        await kernel.sandboxes.bury()
        await recovery.cut_off(store)
    except BaseException:
        await store.close()
        os.close(lock)
        raise
    return kernel


def raise_open_files() -> None:
    """Lets this process open as many files as it may (at most KERNEL_OPEN_FILES_MAX).

    Every connection of every run is one; the usual 1,024 are too few for many runs at once.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits.KERNEL_OPEN_FILES_MAX
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def lock_folder(home: Path) -> int:
    """The lock of a data folder, as an open descriptor. Raises KernelBusy."""
    lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "?"
        os.close(lock)
        raise KernelBusy(
            f"Another kernel (process {other}) has {home}.",
            why="Two kernels on one journal would both be right.",
            todo="Wait until it ends, or set RING0_HOME to another folder.",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
