"""The kernel at work: what it is made of, and all that operators and the doors may ask of it.

Not here: the order in which one is opened (boot.py), who gets to know of whom (wiring.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ring0 import limits
from ring0.errors import StoreFailed, StoreFull
from ring0.governance import Policies
from ring0.identity import Handles, Vault, narrowing, operator_name
from ring0.identity.fetching import Fetcher
from ring0.identity.tokens import Tokens
from ring0.kernel.agent import agents, describing, manifests, profiles, vouching
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.agent.config_checkpoints import anchorages_of
from ring0.kernel.agent.config_notify import places_of
from ring0.kernel.agent.manifests import Config
from ring0.kernel.anchoring import Anchoring
from ring0.kernel.calls.egress import Reach
from ring0.kernel.calls.locking import Locking
from ring0.kernel.calls.messages import Mail
from ring0.kernel.calls.outside import Outside
from ring0.kernel.folder import SNAPSHOTS
from ring0.kernel.gate import Gate
from ring0.kernel.identities import Identities
from ring0.kernel.keeping import Keeping
from ring0.kernel.life import killing, recovery
from ring0.kernel.life.forking import Forking
from ring0.kernel.life.granting import Granting
from ring0.kernel.life.notifying import Notifying
from ring0.kernel.life.orders import Orders
from ring0.kernel.life.pausing import Pausing
from ring0.kernel.life.queueing import ALONE, Beside
from ring0.kernel.life.runs import Doors, Embed, Runs
from ring0.kernel.live import LiveRun
from ring0.kernel.localmodels import LocalModels
from ring0.kernel.memory.ingesting import Ingesting
from ring0.kernel.memory.manager import Memory
from ring0.kernel.operating.entering import Entering
from ring0.kernel.providers import Providers
from ring0.kernel.sandboxes import Sandboxes
from ring0.kernel.steps import slots
from ring0.kernel.steps.answering import Answering
from ring0.kernel.steps.turns import Turns
from ring0.kernel.steps.waiting import Waiting
from ring0.kernel.undo import compensating, undoing
from ring0.kernel.wiring import wire
from ring0.runtime import Runtime
from ring0.scheduler.admission import Load
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore
from ring0.tools import ahead
from ring0.tools.registry import Means
from ring0.tools.workspace import Workspace
from ring0.types import (
    AgentManifest,
    Approval,
    Call,
    Mode,
    Operator,
    Run,
    Terms,
    UndoPlan,
)


class Kernel:
    """A kernel at work, one a folder. `boot.open_kernel` opens it, `close` closes it."""

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
        self.environment = environment
        self._embed = embed
        self._make_gate(environment)
        self._make_calls(environment)
        self._make_runs(doors)
        self._make_operating()
        wire(self)
        self.answering = Answering(
            store, runtime, self.waiting, self.pausing, self.gate.live, self.gate.kinds
        )

    def _make_gate(self, environment: Mapping[str, str]) -> None:
        """What the gate asks, and the gate."""
        store, runtime, config = self.store, self.runtime, self.config
        self.keeping = Keeping(self.vault, config, environment, runtime)
        self.waiting = Waiting(store, runtime)
        self.admission = slots.admission(config, runtime)
        self.turns = Turns(self.admission)
        self.sandboxes = Sandboxes(
            store, runtime, trusted=config.sandbox.image, tier_min=config.sandbox.tier
        )
        self.gate = Gate(
            store,
            runtime,
            Handles(runtime),
            self.policies,
            self.keeping.secrets,
            self.waiting,
            self.sandboxes,
            self.turns,
            manifests.caps_of(config),
        )
        self.gate.answers.said = config.guardrails
        self.spending = self.gate.spending

    def _make_calls(self, environment: Mapping[str, str]) -> None:
        """What carries out the calls, each with what it needs of others."""
        store, runtime, config, live = self.store, self.runtime, self.config, self.gate.live
        local = LocalModels(self.sandboxes, runtime)
        self.providers = Providers(
            config, environment, self.secret, runtime, self.admission, local.start
        )
        self.identities = Identities(self.home, config.identity, store, runtime, live)
        self.outside = Outside(
            config,
            self.secret,
            runtime,
            model_urls=[environment.get(name, "") for name in manifests.MODEL_URLS],
            token=self.keeping.logins.token,
            refused=self.keeping.logins.refused,
            jwt=self.identities.edge_jwt,
            is_live=self.gate.handles.is_live,
        )
        self.memory = Memory(store, runtime)
        self.locking = Locking(store, runtime, self.waiting, live)
        self.mail = Mail(store, runtime, self.waiting, self.gate.secrets, live)

    def _make_runs(self, doors: Doors | None) -> None:
        """The lives of runs, and what starts and stops them."""
        store, runtime, config, live = self.store, self.runtime, self.config, self.gate.live
        snapshots = self.home / SNAPSHOTS
        means = Means(
            runtime=runtime,
            off_limits=self.home,
            secret=self.secret,
            outside=self.outside,
            reach=Reach(self.gate, self.outside, runtime),
        )
        self.runs = Runs(
            store,
            runtime,
            self.gate,
            self.sandboxes,
            snapshots,
            means,
            doors,
            self._embedded,
            config.scheduler,
        )
        self.runs.models = frozenset(config.models)
        self.runs.environment = self.identities.environment
        tokens = Tokens(self.identities.keys, self.gate.handles, store.now_us)
        self.granting = Granting(store, runtime, tokens, live, config.principals)
        self.runs.granting = self.granting
        self.pausing = Pausing(store, live, self.runs.wake)
        self.undoing = undoing.Undoing(self.runs, self.workspace, self.secret, self._begin)
        self.orders = Orders(
            store, self.gate.secrets, snapshots, self.runs.begin, self._check_agent
        )

    def _make_operating(self) -> None:
        """Who operates it, how they are told, and how their files are taken up."""
        store, runtime, config = self.store, self.runtime, self.config
        self.notifying = Notifying(
            store,
            runtime,
            places_of(config.notify, self.secret),
            self.secret,
            lambda: self.outside.egress,
        )
        self.anchoring = Anchoring(
            self.home,
            store,
            runtime,
            anchorages_of(config.checkpoints, self.home, self.secret),
            self.secret,
            lambda: self.outside.egress,
            operator_name(os.getuid()),
        )
        fetch = Fetcher(runtime, config.network.authorities)
        self.logins = Entering(store, runtime, self.home, fetch, self.secret)
        self.storing = asyncio.Lock()
        """One archive, back-up, fork or the like at a time."""
        self.forking = Forking(self.runs, config.tenant, self._check_agent, self.storing)
        self.ingesting = Ingesting(self)
        self.reloading = asyncio.Lock()
        self.held_profile = ""
        """What ring0.toml names where a stricter profile holds (operating/changing.py)."""
        self.looked_for_tools: set[tuple[str, str, str]] = set()
        """By agent, its code and the policies: whether rules name tools that nobody has is said."""
        self.unmatched: list[str] = []
        """Warnings: principals that ring0.toml narrows, and nobody is (operating/principals.py)."""

    async def close(self) -> None:
        """Stops what runs (it can be recovered), and lets go of the folder."""
        try:
            try:
                await self.notifying.close()
                await self.runs.stop()
            finally:
                self.admission.close()
                await self.memory.close()
                await self.sandboxes.close()
            await self.providers.close()
            await self.keeping.logins.close()
            await self.anchoring.first()
            await self.store.append(Write(run=ev.KERNEL, events=[ev.KernelStopped()], durable=True))
        except (StoreFull, StoreFailed):
            pass  # A journal that can't be written has said so to whoever wrote before.
        finally:
            await self.anchoring.close()
            await self.store.close()
            os.close(self._lock)

    # --- runs ---------------------------------------------------------------------------------

    async def start(
        self,
        family: Family,
        task: str,
        *,
        principal: str,
        only: Sequence[str] | None = None,
        traceparent: str = "",
    ) -> Run:
        """Queues and starts a run of an isolated agent; `only`: its task's grant; `traceparent`:
        the span that it is ordered in. Raises what keeps it from starting."""
        grant = None if only is None else narrowing.for_task(only)
        beside = Beside(only=grant, traceparent=traceparent)
        self.providers.check(family)
        agent = agents.snapshot(family, self.home / SNAPSHOTS)
        await self._check_tools(agent)  # Before anything is written.
        return await self._begin(agent, task, principal, beside)

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
        agent = agents.embedded(family, functions)
        await self._check_tools(agent)
        return await self._begin(agent, task, principal)

    async def _check_agent(self, agent: Agent) -> None:
        self.providers.check(agent.family)
        await self._check_tools(agent)

    async def _check_tools(self, agent: Agent) -> None:
        """A bad manifest starts nothing, and a tool that can never start here says so now, not at
        its first call. Raises ManifestInvalid, PolicyInvalid, SandboxUnavailable,
        SandboxFailed."""
        tools = self.runs.tools(agent)
        profiles.check(agent, tools, self.policies)
        compensating.check(tools)
        vouching.check(tool.manifest for tool in tools)
        means, sandboxes = self.runs.means.of(agent.manifest.name), self.sandboxes
        needs = list(ahead.needs_of(agent.manifest.tools))
        if agent.family.mode is Mode.ISOLATED:
            needs += ahead.needs_of_functions(agent.manifest)
        ahead.check_named(needs, means, self.config.sandbox.image)
        await ahead.check_tiers(
            needs, self.config.sandbox.tier, means.runtime, host_uid=sandboxes.next_uid()
        )

    async def _begin(self, agent: Agent, task: str, principal: str, beside: Beside = ALONE) -> Run:
        return await self.runs.begin(
            agent, task, principal=principal, tenant=self.config.tenant, beside=beside
        )

    async def recover(self, agent: Agent | None = None, *, died_young: int = 0) -> list[str]:
        """Starts every run again that a crash or Ctrl-C stopped; `agent` gives embedded ones.
        `died_young`: so many kernels in a row died soon after they had done so."""
        find = recovery.code_of(agent)
        return await recovery.recover(self.runs, find, self._check_tools, died_young=died_young)

    async def describe(self, manifest: AgentManifest, around: tuple[str, ...] = ()) -> Family:
        """A manifest with all that its code declares: functions, agents. Raises AgentInvalid.

        `around`: files that it may import for this; those that it does are its code.
        """
        return await describing.describe(
            manifest, around, self.home / SNAPSHOTS, self.runtime, self.config.sandbox.tier
        )

    async def drain(self) -> bool:
        """Before a stop: nothing new is carried out, and what must not be cut off ends. Whether it
        all did in time."""
        return await self.turns.drain(self.runtime, limits.STOP_DRAIN_S)

    def load(self) -> Load:
        """What is under way, and what waits for its turn."""
        return self.turns.load()

    # --- what operators do ----------------------------------------------------------------------

    async def answer(
        self,
        approval: str,
        *,
        yes: bool,
        by: Operator,
        note: str = "",
        edits: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> Approval:
        """Approves or denies, by one person: as it is, with other arguments, or with what else is
        approved in advance."""
        return await self.answering.answer(
            approval, yes=yes, by=by, note=note, edits=edits, terms=terms
        )

    async def send(self, run: str, text: str, *, by: str) -> None:
        """Tells a run something, as a person's word: it has it when it receives next."""
        await self.mail.tell(run, text, by)

    async def settle(self, call: str, *, happened: bool, by: str, note: str = "") -> Call:
        """Says what became of an unknown effect."""
        return await self.waiting.settle(call, happened=happened, by=by, note=note)

    async def raise_budget(
        self, run: str, more: Mapping[str, int], *, by: str, note: str = ""
    ) -> Run:
        """Gives a run more; those above it get as much, and move it down. Returns its row."""
        return await self.spending.give(run, more, by=by, note=note)

    async def kill(self, scope: str, target: str, *, by: str) -> list[str]:
        """Ends a run with all beneath it, an agent's runs, or all. Returns the runs it ended.
        Raises InvalidInput, NotFound."""
        return await killing.kill(self.runs, self.orders, scope, target, by=by)

    async def pause(self, run: str, *, by: str, note: str = "", tree: bool = False) -> list[str]:
        """From its next call on the run waits; its children go on, unless `tree`. Returns the runs
        that it paused. Raises NotFound, InvalidInput."""
        return await self.pausing.pause(run, by=by, note=note, tree=tree)

    async def resume(self, run: str, *, by: str, tree: bool = False) -> list[str]:
        """Lets it go on: one that is paused, that is held, or that could not go on. Returns the
        runs that it resumed. Raises NotFound, InvalidInput, what keeps it from starting."""
        if await recovery.again(self.runs, run, recovery.code_of(None), self._check_tools):
            return [run]
        return await self.pausing.resume(run, by=by, tree=tree)

    async def undo(self, run: str, *, by: str, only: str = "", code: Agent | None = None) -> Run:
        """Takes back what a run and all beneath it did, or one call of it. Returns the undo's own
        run, once it has ended or waits for a person. Raises NotFound, UndoRefused.
        `code`: that of an embedded agent which has ended."""
        return await self.undoing.undo(run, by=by, only=only, code=code)

    async def plan_undo(
        self, run: str, *, only: str = "", code: Agent | None = None, rehearse: bool = True
    ) -> UndoPlan:
        """What that would do, and what it would leave; nothing is done."""
        return await self.undoing.plan(run, only=only, code=code, rehearse=rehearse)

    def secret(self, name: str) -> str:
        """A secret's value, of the vault or the environment; empty where there is none."""
        return self.keeping.value(name)

    def workspace(self, run: str) -> Workspace:
        """A run's files: those of the live run itself, where it goes on."""
        live = self.gate.live.get(run)
        return live.workspace if live else Workspace(self.store, run)

    async def _embedded(self, run: LiveRun, function: Callable[..., Any]) -> Any:
        if run.agent.operator:
            return await self.undoing.carry_out(run, self.gate, function)
        assert self._embed is not None, "no SDK was given to embed with"
        return await self._embed(run, function)
