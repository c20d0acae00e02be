"""Takes back what a run and all beneath it did to the world, the last call first.

Undo is itself a run, of the operator who asks for it: each step is a `once` call through the gate,
on record, and refused where what was done has been changed since. What it will do is known before
(planning.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from ring0 import limits
from ring0.errors import NotFound, Ring0Error, UndoRefused
from ring0.kernel.undo import planning
from ring0.kernel.undo.planning import AGENT
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import (
    AgentManifest,
    Budget,
    Call,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    Mode,
    Request,
    Run,
    RunState,
    ToolManifest,
    UndoPlan,
)

if TYPE_CHECKING:
    from ring0.kernel.agent.agents import Agent
    from ring0.kernel.gate import Gate
    from ring0.kernel.life.runs import Runs
    from ring0.kernel.live import LiveRun
    from ring0.tools.registry import Tool
    from ring0.tools.workspace import Workspace

TOOL = "undo"
_WAITS_FOR_A_PERSON = ("unknown", "approval")


def manifest(found: UndoPlan, tools: Mapping[str, Tool]) -> AgentManifest:
    """The agent of an undo. Its budget is what its steps need, and no more."""
    others = [tools[step.tool].manifest for step in found.steps if step.how == "call"]
    budget = Budget(
        # The sandbox of a step may ask for something outside: each request is a call of its own.
        calls=max(1, len(found.steps) + len(others) * limits.UNDO_REQUESTS_PER_STEP_MAX),
        cost_microusd=sum(other.cost_microusd for other in others),
        wall_s=limits.RUN_WALL_S_DEFAULT + sum(other.wall_s for other in others),
    )
    return AgentManifest(name=AGENT, budget=budget)


def agent(manifest: AgentManifest) -> Agent:
    """It is the operator's, and its code is the kernel's own."""
    from ring0.kernel.agent import agents

    family = agents.Family(manifest=manifest, mode=Mode.EMBEDDED, operator=True)
    return agents.embedded(family, {f"agent:{AGENT}": take_back})


def why_not(call: Call) -> str | None:
    """Why a call can't be taken back by what it left; None where it can."""
    if call.state is not CallState.OK:
        return f"It is {call.state}: only what was done can be undone."
    if call.undone_by:
        return f"It was taken back before, by {call.undone_by}."
    if not call.undo:
        return "It left nothing that takes it back: it only read, or it is irreversible."
    return None


class Undoing:
    """Plans and begins the undos of one kernel."""

    def __init__(
        self,
        runs: Runs,
        workspace: Callable[[str], Workspace],
        secret: Callable[[str], str],
        begin: Callable[[Agent, str, str], Awaitable[Run]],
    ) -> None:
        """`workspace`: a run's files; `secret`: a value by its name, for a database's password;
        `begin`: starts the run of an undo, with a task, for a principal."""
        self._runs = runs
        self._store = runs.store
        self._workspace = workspace
        self._secret = secret
        self._begin = begin
        self._code: dict[str, Agent] = {}
        """Of embedded runs that are taken back, by the root of their tree."""

    # --- what it would do -----------------------------------------------------------------------

    async def plan(
        self, run: str, *, only: str = "", code: Agent | None = None, rehearse: bool = False
    ) -> UndoPlan:
        """`code`: the code of an embedded run. `rehearse`: look also whether rows and files have
        changed since. Raises NotFound, UndoRefused, LimitReached."""
        found, _ = await self._plan(run, only, code)
        if not rehearse:
            return found
        from ring0.kernel.undo import rehearsing

        return await rehearsing.rehearsed(
            found, self._store, self._runs.runtime, self._workspace, self._secret
        )

    async def _plan(
        self, run: str, only: str, code: Agent | None
    ) -> tuple[UndoPlan, Mapping[str, Tool]]:
        await self._store.flush()
        row = await self._store.run(run)
        if row is None:
            raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
        tools = _Once(lambda: self._tools(row.root, code))
        found = await planning.plan(self._store, row, tools.get, only)
        return found, tools.found

    async def _tools(self, root: str, given: Agent | None = None) -> dict[str, Tool]:
        """The tools of a tree, fresh: what a child has, its root has too, and the same."""
        return {tool.manifest.name: tool for tool in self._runs.tools(await self._of(root, given))}

    async def _of(self, root: str, given: Agent | None) -> Agent:
        """The agent that a tree began with, as it was then. Raises UndoRefused, StoreDamaged."""
        from ring0.kernel.agent import agents

        row = await self._store.run(root)
        assert row is not None, "a tree has a root"
        if row.mode is Mode.ISOLATED:
            family = await agents.family_of(self._store, root)
            return agents.restore(family, row.agent_digest, self._runs.folder)
        live = self._runs.gate.live.get(root)
        found = given or self._code.get(root) or (live.agent if live is not None else None)
        if found is None:
            raise UndoRefused(
                f"The functions of {row.agent} are not here.",
                why="It ran embedded, in a program of its own.",
                todo="Undo it in that program.",
            )
        self.knows(root, found)
        return found

    def knows(self, root: str, code: Agent) -> None:
        """The code of an embedded tree: an undo of it that goes on after a crash needs it too."""
        self._code[root] = code
        while len(self._code) > limits.UNDO_CODE_KEPT_MAX:
            del self._code[next(iter(self._code))]

    # --- doing it -------------------------------------------------------------------------------

    async def undo(self, run: str, *, by: str, only: str = "", code: Agent | None = None) -> Run:
        """The run of the undo, once it has ended or waits for a person. Raises what `plan` does,
        and UndoRefused where it is known before that a step can't be taken."""
        found, tools = await self._plan(run, only, code)
        planning.check(found, only)
        task = {"undo": run, "calls": [step.call for step in found.steps]}
        own = agent(manifest(found, tools))
        row = await self._begin(own, msgspec.json.encode(task).decode(), by)
        return await self._ended_or_asks(row.id)

    async def _ended_or_asks(self, run: str) -> Run:
        while True:
            with suppress(TimeoutError):
                return await self._runs.runtime.wait_for(
                    self._runs.wait(run), limits.UNDO_LOOKED_AT_EVERY_S
                )
            row = await self._store.run(run)
            assert row is not None, "it was begun"
            waits = row.state is RunState.WAITING
            if waits and row.waiting_for in _WAITS_FOR_A_PERSON:
                return row

    async def carry_out(self, run: LiveRun, gate: Gate, body: Callable[..., Any]) -> Any:
        """The run of an undo, from its beginning; what is on record already is recalled."""
        from ring0.kernel.undo import compensating
        from ring0.tools.registry import Tool

        task = msgspec.json.decode(await self._store.blob(run.row.task))
        run.watch = None  # Its steps are counted already, and alike where the calls were.
        driver = UndoDriver(self._store, self._runs.runtime, self._workspace, self._secret)
        run.tools[TOOL] = Tool(driver)
        root = (await self._store.run(task["undo"]) or run.row).root
        tools = _Once(lambda: self._tools(root))
        requests: dict[str, str] = {}
        """By the id of a step: the call that it takes back."""
        steps = []
        settled: dict[str, frozenset[str]] = {}
        for number, named in enumerate(task["calls"]):
            call = await self._store.call(named)
            assert call is not None, "what is to be taken back is on record"
            requests[f"{run.id}/0/{number}"] = named
            if call.undo:
                steps.append((TOOL, {"call": named}))
                continue
            if call.run not in settled:
                settled[call.run] = await planning.settled(self._store, call.run)
            other = await planning.compensated_by(self._store, call)
            told = named not in settled[call.run]
            step = await compensating.step(self._store, call, other, tools.get, told=told)
            if step.refused:
                raise UndoRefused(f"{named} can't be taken back.", why=step.refused)
            if other not in run.tools:
                inner = tools.found[other].driver
                run.tools[other] = Tool(compensating.Compensation(inner, requests.__getitem__))
            steps.append((other, step.args))
        return await body(run, gate, task["calls"], steps)


class _Once:
    """Tools that are made when they are first asked for."""

    def __init__(self, make: Callable[[], Awaitable[dict[str, Tool]]]) -> None:
        self._make = make
        self._made = False
        self.found: dict[str, Tool] = {}

    async def get(self) -> Mapping[str, Tool]:
        if not self._made:
            self.found = await self._make()
            self._made = True
        return self.found


class UndoDriver:
    """The tool `undo`: takes back one call, by the evidence that its outcome kept."""

    manifest = ToolManifest(
        name=TOOL,
        description="Take back one call.",
        effect=Effect.ONCE,
        schema={
            "type": "object",
            "properties": {"call": {"type": "string"}},
            "required": ["call"],
            "additionalProperties": False,
        },
    )

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        workspace: Callable[[str], Workspace],
        secret: Callable[[str], str],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._workspace = workspace
        self._secret = secret

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        call = await self._store.call(args["call"])
        if call is None:
            raise NotFound(
                f"There is no call {args['call'][:80]!r}.", todo="`ring0 show RUN` lists them."
            )
        if (why := why_not(call)) is not None:
            raise UndoRefused(
                f"{call.id} can't be taken back.",
                why=why,
                todo="`ring0 show RUN` says of each call how it can be.",
            )
        return Prepared(
            driver_bytes=msgspec.json.encode(args),
            mutates=True,
            own=False,
            touches=await self._touches(call),
            undoes=call.id,
            state=call,
            lines=(f"take back {call.name} ({call.id})",),
        )

    async def _touches(self, call: Call) -> tuple[str, ...]:
        """The tables whose rows it puts back: a lock on one of them is a lock against this too."""
        from ring0.kernel.steps import recording
        from ring0.tools import sql

        evidence = await self._store.blob(call.undo)
        if planning.evidence_of(evidence) == "file":
            return ()
        value = (await recording.load(self._store, call)).value
        return sql.touched(evidence, value.get("changed", ()))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        # Here, so that the CLI can ask `why_not` without all that the drivers import.
        from ring0.tools import files, sql

        call: Call = prepared.state
        evidence = await self._store.blob(call.undo)
        if planning.evidence_of(evidence) == "file":
            target = msgspec.structs.replace(context, workspace=self._workspace(call.run))
            result = await files.undo(evidence, target)
            result.files_of = call.run
        else:
            result = Result(
                value=await sql.undo(evidence, self._runtime, self._secret),
                label=Label(integrity=Integrity.SYSTEM),
            )
        result.undoes = call.id
        return result


async def take_back(
    run: LiveRun, gate: Gate, calls: Sequence[str], steps: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """The body of an undo run: step by step, and no further than the first refusal.

    `steps`: the tool and its arguments for each of `calls`.
    """
    done: list[dict[str, Any]] = []
    for number, (call, (tool, args)) in enumerate(zip(calls, steps, strict=True)):
        request = Request(kind=CallKind.TOOL, name=tool, args=args, path="0", counter=number)
        outcome = await gate.call(run.handle, request)
        if outcome.error is not None:
            error = Ring0Error(
                outcome.error["what"], why=outcome.error["why"], todo=outcome.error["todo"]
            )
            raise UndoRefused(
                f"{call} was not taken back: {error.what}",
                why=f"{error.why} {len(done)} calls after it were taken back before.".strip(),
                todo=error.todo,
            )
        how = outcome.value if tool == TOOL else {"by": tool, "args": args, "said": outcome.value}
        done.append({"call": call, **how})
    return {"undone": done}
