"""Strict replay: the agent runs again from the journal alone, and must do the very same.

No model, no tool, no clock, no network is reached; nothing is written. A call that is not on
record, or that differs, stops the replay and is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ring0.errors import (
    InvalidInput,
    LimitReached,
    ManifestInvalid,
    NotFound,
    Ring0Error,
    SandboxUnavailable,
)
from ring0.governance import Policies
from ring0.guardrails import Secrets
from ring0.identity import Handles
from ring0.kernel import values
from ring0.kernel.agent import agents, manifests, processes
from ring0.kernel.agent.agents import Agent
from ring0.kernel.agent.printed import Output
from ring0.kernel.calls import kinds
from ring0.kernel.calls.asking import Ask
from ring0.kernel.calls.lockcalls import LockCall
from ring0.kernel.calls.locking import Locking
from ring0.kernel.calls.messages import Mail, Send
from ring0.kernel.folder import SNAPSHOTS
from ring0.kernel.gate import Gate
from ring0.kernel.life.runs import Doors, Embed, Runs
from ring0.kernel.live import LiveRun
from ring0.kernel.memory import calls as remembering
from ring0.kernel.memory import windows
from ring0.kernel.memory.manager import Memory
from ring0.kernel.replaying.recorded import Recorded
from ring0.kernel.sandboxes import Sandboxes
from ring0.kernel.steps.turns import Turns
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.store.sqlite import SqliteStore
from ring0.tools.egress import Credential, Egress
from ring0.tools.reach import Outlet
from ring0.tools.registry import Means, Tool
from ring0.tools.sandbox import Sandbox
from ring0.types import ENDED, CallKind, Frozen, Mode, Run, RunState


class Replayed(Frozen, frozen=True, kw_only=True):
    """What a strict replay came to."""

    run: str
    calls: int
    """On record."""
    matched: int
    """Asked for again, each the same to the byte."""
    same_result: bool
    divergence: str = ""
    """The first thing that differed; empty: nothing did."""

    at: str = ""
    """The call that it was at; empty: at none."""

    cut_off: bool = False
    """The run was stopped in the middle of a call: it was compared up to there."""

    @property
    def ok(self) -> bool:
        whole = self.cut_off or self.matched == self.calls
        return self.same_result and not self.divergence and whole


def replay_gate(
    store: Store,
    runtime: Runtime,
    environment: Mapping[str, str],
    config: manifests.Config | None = None,
    vault: Mapping[str, str] | None = None,
    tier_min: str = "",
) -> Gate:
    """A gate that recalls and does nothing else: strict runs never get past its third step.
    `tier_min`: of the sandbox, where that is not for `config` to say."""
    waiting = Waiting(store, runtime)
    config = config or manifests.Config()
    known = manifests.secrets_of(config, environment, vault or {})
    return Gate(
        store,
        runtime,
        Handles(runtime),
        Policies.load(),
        Secrets(known),
        waiting,
        Sandboxes(None, runtime, tier_min=tier_min or config.sandbox.tier),
        Turns(),
    )


async def replay(home: Path, store: SqliteStore, gate: Gate, doors: Doors, run: str) -> Replayed:
    """Replays one ended, isolated run of this folder. Raises NotFound, InvalidInput,
    SandboxUnavailable."""
    row = await store.run(run)
    if row is None:
        raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
    return await again(await of_journal(home, store, gate, row), gate, doors)


async def again(
    recorded: Recorded, gate: Gate, doors: Doors | None = None, embed: Embed | None = None
) -> Replayed:
    """Replays what was recorded of one run; `gate`: of `replay_gate`, over the same store. Raises
    InvalidInput, SandboxUnavailable."""
    row = recorded.row
    _check(row, embed)
    live = _strict(recorded, gate)
    live.was_stopped = await _was_stopped(recorded)
    gate.live[row.id] = live
    divergence = ""
    result: bytes = b""
    try:
        result = await _once_more(live, gate, doors, embed)
    except Ring0Error as error:
        divergence = f"{error.what} {error.why}".strip()
    finally:
        gate.handles.kill(row.id)
        gate.live.pop(row.id, None)
        await live.stop_calls()
    if live.cut_off and live.diverged is None:
        matched = live.recorded - len(live.unmet)
        return Replayed(
            run=row.id, calls=live.recorded, matched=matched, same_result=True, cut_off=True
        )
    divergence, at = _first(live, divergence)
    same = bool(result) and result == await recorded.store.blob(row.result)
    if live.was_stopped and not divergence:
        same = True  # It has no result of its own to compare.
    if not same and not divergence:
        divergence = "the result differs from the one on record"
    return Replayed(
        run=row.id,
        calls=live.recorded,
        matched=live.recorded - len(live.unmet),
        same_result=same,
        divergence=divergence,
        at=at,
    )


def _first(live: LiveRun, failed: str) -> tuple[str, str]:
    """The first thing that differed, and the call that it was at; empty: nothing, or no call."""
    if live.diverged is not None:
        return live.diverged.why, live.diverged_at
    if not failed and live.unmet:
        first = min(live.unmet, key=lambda call: live.records[call].seq)
        return f"{first} is on record and was not asked for again", first
    return failed, ""


async def _was_stopped(recorded: Recorded) -> bool:
    """Whether it was killed or cancelled, or the kernel ended it: its time was over."""
    row = recorded.row
    if row.state is not RunState.FAILED:
        return row.state is not RunState.DONE
    body = msgspec.json.decode(await recorded.store.blob(row.result))
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and error.get("code") == LimitReached.code


def _check(row: Run, embed: Embed | None) -> None:
    if row.state not in ENDED:
        raise InvalidInput(
            f"{row.id} goes on: it is {row.state}.",
            why="Only what has ended can be replayed.",
            todo="Wait for its end, or `ring0 kill` it.",
        )
    if row.mode is not Mode.ISOLATED and embed is None:
        raise InvalidInput(
            f"{row.id} was embedded in another program.",
            why="Its code is that program's, and is not here.",
            todo="Replay isolated runs; or give the agent, in a test of that program:"
            " `ring0_replay(cassette, agent=…)`.",
        )


async def of_journal(
    home: Path, store: SqliteStore, gate: Gate, row: Run, code: Agent | None = None
) -> Recorded:
    """What is on record of a run of this folder. `code`: other code in place of its snapshot.
    Raises StoreDamaged, ValueArchived, ManifestInvalid."""
    store.check_here(row.id)
    family = await agents.family_of(store, row.id)
    if code is not None:
        agent = Agent(family, code.digest, code=code.code, functions=code.functions)
    elif row.mode is Mode.ISOLATED:
        agent = agents.restore(family, row.agent_digest, home / SNAPSHOTS)
    else:
        agent = Agent(family, row.agent_digest)
    means = Means(
        runtime=gate.runtime, off_limits=home, secret=_never, outside=_Nothing(), reach=_nowhere
    )
    runs = Runs(store, gate.runtime, gate, gate.sandboxes, home / SNAPSHOTS, means, None, None)
    return Recorded(
        row, await store.run_key(row.id), agent, runs.tools(agent), await store.calls(row.id), store
    )


def _strict(recorded: Recorded, gate: Gate) -> LiveRun:
    row, store = recorded.row, recorded.store
    gate.kinds = kinds.kinds(
        gate.runtime,
        kinds.Ports(
            provider=_never,
            model_config=_never,
            model_fallbacks=_never,
            model_needs=_never,
            directives=_never,
            pass_on=_never,
            reserve_again=_never,
            spawn=_never,
            wait=_never,
            receive=_never,
            sleep=_never,
        ),
    )
    memory = Memory(store, gate.runtime)
    gate.kinds |= remembering.kinds(memory) | windows.kinds(memory)
    locking = Locking(store, gate.runtime, gate.waiting, gate.live)
    mail = Mail(store, gate.runtime, gate.waiting, gate.secrets, gate.live)
    gate.kinds[CallKind.LOCK] = Tool(LockCall(locking, gate.runtime))
    gate.kinds[CallKind.SEND] = Tool(Send(mail))
    gate.kinds[CallKind.ASK] = Tool(Ask(store, gate.live))
    run = LiveRun(
        row,
        recorded.key,
        recorded.agent,
        recorded.tools,
        gate.handles.mint(row.id, row.epoch),
        store,
        records=recorded.records,
        strict=True,
    )
    run.models |= {call.name for call in run.records.values() if call.kind == "model"}
    run.models |= recorded.models
    return run


class _Nothing:
    """All that there is beyond a replay."""

    @property
    def egress(self) -> Egress:
        raise AssertionError("a strict replay reached beyond the journal")

    def of(self, names: tuple[str, ...], place: str) -> list[Credential]:
        return []

    def refusal(self, *_: Any) -> Ring0Error:
        raise AssertionError("a strict replay reached beyond the journal")

    def seen_by(self, agent: str) -> _Nothing:
        return self


async def _nowhere(sandbox: Sandbox, rules: tuple[str, ...]) -> Outlet:
    raise AssertionError("a strict replay reached beyond the journal")


def _never(*_: Any) -> Any:
    raise AssertionError("a strict replay reached beyond the journal")


async def _once_more(run: LiveRun, gate: Gate, doors: Doors | None, embed: Embed | None) -> bytes:
    """Starts the agent once more; the bytes of its result as they would be recorded."""
    try:
        if run.row.mode is Mode.EMBEDDED:
            value = await _embedded(run, embed)
        else:
            assert doors is not None, "no gateway was given to open doors with"
            value = await _process(run, gate, doors)
        body: dict[str, Any] = {"value": value}
    except (SandboxUnavailable, ManifestInvalid):
        raise  # This machine's, and no result of the run's.
    except Ring0Error as error:
        if run.diverged is not None:
            raise
        body = {"error": error.as_dict()}
    return values.canonical({key: gate.secrets.redact(part)[0] for key, part in body.items()})


async def _embedded(run: LiveRun, embed: Embed | None) -> Any:
    """What the agent's function returns. Raises its error, told as the kernel tells it."""
    assert embed is not None, "no SDK was given to embed with"
    function = run.agent.functions.get(f"agent:{run.agent.manifest.name}")
    if function is None:
        raise InvalidInput(
            f"No function is the agent {run.agent.manifest.name}.",
            why="The run was one of that agent.",
            todo="Give its function.",
        )
    return await embed(run, function)


async def _process(run: LiveRun, gate: Gate, doors: Doors) -> Any:
    """What its process returns. Raises its error."""
    opened: list[Any] = []

    async def open_door(sandbox: Sandbox) -> None:
        opened.append(await doors(run, sandbox))

    output = Output()
    task = await gate.store.blob(run.row.task)
    spec = processes.agent_spec(run.agent, gate.sandboxes, task)
    sandbox = await gate.sandboxes.start(run.id, spec, "replay", open_door)
    reading = asyncio.ensure_future(output.read(sandbox))
    try:
        sandbox.stdin.close()
        async with asyncio.timeout(run.row.budget.wall_s):
            return await processes.outcome(run, sandbox, output, reading)
    except TimeoutError:
        raise InvalidInput(
            f"{run.id} did not end again within {run.row.budget.wall_s} s.",
            todo="See what it waits for with `ring0 show`.",
        ) from None
    finally:
        gate.handles.kill(run.id)
        for door in opened:
            await door.close()
        await gate.sandboxes.end(sandbox)
        reading.cancel()
