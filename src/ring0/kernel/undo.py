"""Takes back what a run did to the world: its reversible calls, the last one first.

Undo is itself a run, of the operator who asks for it: each step is a `once` call through the gate,
on record, and refused where what was done has been changed since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ring0.errors import NotFound, Ring0Error, UndoRefused
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
    ToolManifest,
)

if TYPE_CHECKING:
    from ring0.kernel.agent.agents import Agent
    from ring0.kernel.live import LiveRun
    from ring0.tools.workspace import Workspace

TOOL = "undo"
AGENT = "ring0.undo"


def manifest(calls: int) -> AgentManifest:
    """The agent of an undo; its budget is one call for each step."""
    return AgentManifest(name=AGENT, budget=Budget(calls=max(1, calls)))


def agent(manifest: AgentManifest) -> Agent:
    """It is the operator's, and its code is the kernel's own."""
    from ring0.kernel.agent import agents

    family = agents.Family(manifest=manifest, mode=Mode.EMBEDDED, operator=True)
    return agents.embedded(family, {f"agent:{AGENT}": take_back})


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
        """`workspace`: a run's files; `secret`: a value by its name, for a database's password."""
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
            state=call,
            lines=(f"take back {call.name} ({call.id})",),
        )

    async def _touches(self, call: Call) -> tuple[str, ...]:
        """The tables whose rows it puts back: a lock on one of them is a lock against this too."""
        from ring0.kernel.steps import recording
        from ring0.tools import sql

        evidence = await self._store.blob(call.undo)
        if evidence_of(evidence) == "file":
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
        if evidence_of(evidence) == "file":
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


def evidence_of(evidence: bytes) -> str:
    """What kind of evidence a call left: `file` or `rows`."""
    return "file" if "path" in msgspec.msgpack.decode(evidence) else "rows"


def why_not(call: Call) -> str | None:
    """Why a call can't be taken back; None where it can."""
    if call.state is not CallState.OK:
        return f"It is {call.state}: only what was done can be undone."
    if call.undone_by:
        return f"It was taken back before, by {call.undone_by}."
    if not call.undo:
        return "It left nothing that takes it back: it only read, or it is irreversible."
    return None


def undoable(calls: list[Call]) -> list[Call]:
    """The calls of a run that can be taken back, the last one first."""
    return [call for call in reversed(calls) if why_not(call) is None]


def steps(run: str, calls: list[Call], only: str = "") -> list[str]:
    """The calls that an undo of that run takes back, or of that one call. Raises UndoRefused."""
    found = [call.id for call in undoable(calls) if not only or call.id == only]
    if not found:
        why = next((why_not(call) for call in calls if call.id == only), None) if only else None
        raise UndoRefused(
            f"There is nothing to take back in {only or run}.",
            why=why or "No call of it left anything that takes it back.",
            todo="`ring0 show RUN` says of each call how it can be.",
        )
    return found


async def take_back(run: LiveRun, gate: Any, calls: list[str]) -> dict[str, Any]:
    """The body of an undo run: step by step, and no further than the first refusal."""
    done: list[dict[str, Any]] = []
    for number, call in enumerate(calls):
        request = Request(
            kind=CallKind.TOOL, name=TOOL, args={"call": call}, path="0", counter=number
        )
        outcome = await gate.call(run.handle, request)
        if outcome.error is not None:
            error = Ring0Error(
                outcome.error["what"], why=outcome.error["why"], todo=outcome.error["todo"]
            )
            raise UndoRefused(
                f"{call} was not taken back: {error.what}",
                why=f"{error.why} {len(done)} calls after it were taken back before.",
                todo=error.todo,
            )
        done.append({"call": call, **outcome.value})
    return {"undone": done}
