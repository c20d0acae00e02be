"""A live run as the kernel holds it: its row, its tools, what it has seen, what is on record.

Nothing here must survive a crash: all of it is made anew from the journal.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, ReplayDiverged, Ring0Error, RunDead
from ring0.guardrails import Seen
from ring0.identity import Handle, narrowing
from ring0.identity.narrowing import Narrowed
from ring0.identity.tokens import Scope, came_with_token
from ring0.kernel import values
from ring0.kernel.agent.agents import Agent
from ring0.kernel.asks import newest
from ring0.kernel.messagelists import MessageLists
from ring0.kernel.weight import Weight
from ring0.runtime import Runtime
from ring0.scheduler.budgets import Riding
from ring0.scheduler.caps import Taking
from ring0.scheduler.loops import Asked, Watch
from ring0.store import Store
from ring0.tools.driver import Said, Within
from ring0.tools.registry import Tool
from ring0.tools.workspace import Workspace
from ring0.types import (
    Approval,
    Call,
    CallKind,
    CallState,
    Found,
    Label,
    Outcome,
    Request,
    Run,
    ToolManifest,
)


class Stop(enum.Enum):
    """Why the kernel stops a run's process in the middle, without ending the run."""

    AWAY = "away"
    """It waits, and is put away until there is something to do."""
    OVER = "over"
    """Its deadline has come."""
    FROZEN = "frozen"
    """Its process was stopped by a signal and stays so: it is started again."""


def _nobody(run: LiveRun) -> None:
    """A strict replay waits for nothing."""


_PATH = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})*")


class Held:
    """A call on its way through the gate: parsed, named, validated; nothing decided yet."""

    __slots__ = (
        "args", "arrived", "asked", "asked_args", "begun_us", "canonical", "digest", "edited",
        "edits", "findings", "id", "invalid", "kind", "name", "notice", "retry", "said", "scanned",
        "scope", "spotlight", "tool", "traceparent", "tried", "warned",
        "warned_by", "within",
    )  # fmt: skip

    def __init__(self, call: str, kind: CallKind, name: str, canonical: bytes, digest: str) -> None:
        self.id = call
        self.kind = kind
        self.name = name
        self.canonical = canonical
        """Of (kind, name, arguments), as it came in."""
        self.digest = digest
        self.args: dict[str, Any] = {}
        self.asked_args: dict[str, Any] | None = None
        """As the agent asked, where people changed some since; None: as they are."""
        self.edited: dict[str, str] = {}
        """Which arguments people changed, and who changed each."""
        self.edits = ""
        """Address of what made them so."""
        self.begun_us = 0
        self.tool: Tool | None = None
        self.invalid: Ring0Error | None = None
        self.asked: Asked | None = None
        """Counted towards the loop stop, however often it is judged."""
        self.notice = ""
        """What the kernel says with it about a loop, or about what failed before."""
        self.tried = ""
        """What is tried, the same in every run of the scope (`kernel/memory/warning.py`)."""
        self.warned: Label | None = None
        """Of the words that `notice` quotes: the run's label rises to it."""
        self.warned_by: tuple[str, ...] = ()
        """The records that it quotes: what the run does from here on may come of them."""
        self.retry: Call | None = None
        """The call as a crash left it: intended, not ended, and safe to run again."""
        self.within: Within | None = None
        """The tool's call in whose sandbox it was made."""
        self.scope: Scope | None = None
        """The token that it came with."""
        self.traceparent = ""  # The span that its client says it asks in.
        self.said: Said | None = None
        """What the door knows of it beside that."""
        self.scanned: dict[str, Any] | None = None
        """The arguments that `findings` are of."""
        self.findings: tuple[Found, ...] = ()
        """What scanners found in what goes out with it."""
        self.arrived: tuple[Found, ...] = ()
        """Likewise in what came back."""
        self.spotlight = ""
        """How models are shown what came back, where nobody vouches for it; empty: as it is."""


class LiveRun:
    """One run while it goes on (or while it is replayed: then `strict`)."""

    def __init__(
        self,
        row: Run,
        key: bytes,
        agent: Agent,
        tools: Iterable[Tool],
        handle: Handle,
        store: Store,
        *,
        records: Iterable[Call] = (),
        approvals: Iterable[Approval] = (),
        strict: bool = False,
    ) -> None:
        self.row = row
        self.key = key
        self.agent = agent
        self.tools = {tool.manifest.name: tool for tool in tools}
        self.models: frozenset[str] = frozenset(agent.manifest.models) | {"default"}
        """Names of the models that it may ask for; the operator's are added at the start."""
        self.handle = handle
        self.workspace = Workspace(store, row.id)
        self.seen = Seen()
        self.risks: dict[str, None] = {}
        """What it has read that looks like an order to a model: lines for whoever is asked."""
        self.records = {call.id: call for call in records}
        self.unmet = {
            call.id
            for call in self.records.values()
            if call.kind != CallKind.EGRESS and not came_with_token(call.id)
        }
        """Recorded calls that the process has not asked for again yet; what a tool's sandbox asked
        for is part of that tool's call, which is recalled as a whole, and what came with a token
        was never the process's."""
        self.all_met = asyncio.Event()
        """Set as soon as none of those is left, where there were any."""
        self.recorded = len(self.unmet)
        """How many those are in all."""
        self.approvals = newest(approvals)
        """The newest approval of each call."""
        self.watch: Watch | None = None
        """Its loop stop; None in a strict replay, which asks nothing anew."""
        self.leaving: list[Callable[[], Awaitable[None]]] = []
        """Told when the run is let go of, once."""
        self.strict = strict
        self.was_stopped = False
        """What a strict replay repeats was ended from outside, and not by its agent."""
        self.cut_off = False
        """A strict replay has come to the call in whose middle the run was stopped."""
        self.refusals = sum(call.state is CallState.REFUSED for call in self.records.values())
        self.diverged: ReplayDiverged | None = None
        self.diverged_at = ""
        """The call at which it did, as it was asked for."""
        self.waits: Counter[str] = Counter()
        """What its calls wait for, and how many of them for each."""
        self.alarms: list[int] = []
        """When those waits are over though nothing happened (microseconds since 1970)."""
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        """Set where the kernel stops its process in the middle: what that says then counts not."""
        self.process: asyncio.Task[Any] | None = None
        self.on_change: Callable[[LiveRun], None] = _nobody
        """Told when the run begins to wait with all that it has under way, or goes on."""
        self.waiting = False
        """As `on_change` was told last."""
        self.narrowed: Narrowed | None = Narrowed(row.only) if row.only else None
        """What grants leave of its manifest; None: all of it."""
        self.by_token = 0
        """Calls under way that came with a token: what asks for them is not its process."""
        self.watched = 0
        """The process that its sandbox began with; 0: it has none."""
        self.paused_by = row.paused_by
        self.resumed = asyncio.Event()
        self.pathless = any("/~" in call for call in self.records)
        """It asked for something without a path: it can't be put away and started again."""
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """What the agent's process gave as its result, or a Ring0Error."""
        self.undelivered: set[str] = set()
        """Calls without a path whose connection broke before their answer had gone out."""
        self._heard: set[str] = set()
        """Calls without a path whose answer went out whole."""
        self.listed: set[str] = set()
        """Tools of which its MCP door told it, as they are called there."""
        self._occurrences: Counter[str] = Counter()
        self._in_flight: dict[str, asyncio.Task[Outcome]] = {}
        self.weight = Weight()
        self.lists = MessageLists()
        """The parts of its questions to models that the store has."""
        self.rode = Riding()
        """Of its calls, all whose intents did not wait for the disk."""
        self.arrived = Riding()
        """Those of them that are there."""
        self.reserved_caps: dict[str, list[Taking]] = {}
        """Of each open call: what it reserved of caps and may use less of. What it doesn't use
        comes back; after a crash nobody knows how much that is, and none does."""
        self._places = asyncio.Semaphore(limits.CALLS_IN_FLIGHT_PER_RUN_MAX)
        self._digests: dict[str, str] = {}

    @property
    def id(self) -> str:
        return self.row.id

    def named(self, scope: Scope | None = None) -> tuple[list[ToolManifest], list[str], list[str]]:
        """Tools, models and agents that it may ask for, or whoever holds that token of it."""

        def may(kind: CallKind, name: str) -> bool:
            asked = narrowing.subject(kind, name)
            left = self.narrowed is None or self.narrowed.allows(asked)
            return left and (scope is None or scope.allows(asked))

        return (
            [tool.manifest for name, tool in self.tools.items() if may(CallKind.TOOL, name)],
            sorted(name for name in self.models if may(CallKind.MODEL, name)),
            [name for name in self.agent.manifest.agents if may(CallKind.SPAWN, name)],
        )

    # --- waiting ------------------------------------------------------------------------------

    def changed(self) -> None:
        """A call of it began, ended, or began or ceased to wait."""
        flight = len(self._in_flight)
        waiting = flight > 0 and self.waits.total() >= flight
        if waiting != self.waiting:
            self.waiting = waiting
            self.on_change(self)

    def may_be_put_away(self) -> bool:
        """All that it has under way waits, for what comes without it, and it can be replayed."""
        over = self.stopped.done() or self.result.done()
        over = over or self.process is None or self.process.done()
        over = over or self.pathless or self.by_token > 0
        return self.waiting and not over and not self.waits["lock"]

    def stop(self, why: Stop) -> None:
        """Stops it where it stands: from here on none of its calls gets any further."""
        if not self.stopped.done():
            self.stopped.set_result(why)
        for task in self._in_flight.values():
            task.cancel()

    def count_refusal(self) -> bool:
        """A run that is refused without end is ended: what is refused costs it nothing else.
        Whether this is its end."""
        self.refusals += 1
        if self.refusals > limits.REFUSALS_PER_RUN_MAX and not self.result.done():
            self.result.set_result(
                LimitReached(
                    f"{limits.REFUSALS_PER_RUN_MAX} calls of the run were refused.",
                    why="A run that hears no so often makes no progress, and each no is on record.",
                    todo="See `ring0 show` for what it asked.",
                )
            )
        return self.refusals > limits.REFUSALS_PER_RUN_MAX

    def name_call(
        self, request: Request, digest: str, scope: Scope | None = None, said: Said | None = None
    ) -> str:
        """The call id. A process that gives no path is known by what it asks, and how often; what
        comes with a token has names of its own, which no replay asks for. What is asked for again
        after an answer that never arrived is the same call."""
        start = f"{self.id}/{scope.mark(self.row.epoch)}" if scope else self.id
        if not request.path:
            self.pathless = self.pathless or scope is None
            number = self._asked_again(start, digest, said) if said and scope is None else 0
            if number:
                return f"{start}/~{digest[:24]}/{number}"
            self._occurrences[start + digest] += 1
            sign = "~" if scope is None else "+"
            return f"{start}/{sign}{digest[:24]}/{self._occurrences[start + digest]}"
        if len(request.path) > limits.CALL_PATH_CHARS_MAX or not _PATH.fullmatch(request.path):
            raise CallInvalid(
                f"{request.path[:40]!r} is no task path.",
                todo="Use numbers with dots, as the SDK does: `0.2.1`.",
            )
        if not 0 <= request.counter < 2**31:
            raise CallInvalid("The call's counter is out of bounds.", todo="Count from 0.")
        return f"{start}/{request.path}/{request.counter}"

    def _asked_again(self, start: str, digest: str, said: Said) -> int:
        """Which of the calls that were asked for in these words this one is once more; 0: none."""
        last = self._occurrences[start + digest]
        for number in range(1, last + 1 if self.undelivered else 1):
            if (call := f"{start}/~{digest[:24]}/{number}") in self.undelivered:
                self.undelivered.discard(call)
                return number
        return last if said.again else 0

    def heard(self, call: str) -> None:
        """The answer to a call has gone out whole, whoever else has asked for it in vain."""
        self.undelivered.discard(call)
        self._heard.add(call)

    def unheard(self, call: str) -> None:
        """An answer has not arrived: whoever asks for the same next asks for this one."""
        if call and call not in self._heard:
            self.undelivered.add(call)

    def digest_of(self, canonical: bytes) -> str:
        """Digest of a request, keyed so that it tells nothing once the key is gone."""
        return values.keyed_digest(self.key, canonical)

    async def once(
        self, held: Held, runtime: Runtime, go: Callable[[], Coroutine[Any, Any, Outcome]]
    ) -> Outcome:
        """Runs `go` for this call, or joins the identical call that is under way.

        The call goes on when whoever asked for it goes away: a retry finds it again.
        """
        task = self._in_flight.get(held.id)
        if task is None:
            most = limits.CALLS_IN_FLIGHT_PER_RUN_MAX + limits.CALLS_WAITING_PER_RUN_MAX
            if len(self._in_flight) >= most:
                raise LimitReached(
                    f"{most} calls of this run are under way or wait to be.",
                    why="A run can't ask for everything at once.",
                    todo="Await some of them first.",
                )
            self.by_token += held.scope is not None
            task = runtime.start(self._placed(held, go), name=held.id)
            self._in_flight[held.id] = task
            self._digests[held.id] = held.digest
            self.weight.add(size := len(held.canonical))
            task.add_done_callback(lambda _: self._forget(held))
            task.add_done_callback(lambda _: self.weight.drop(size))
            self.changed()
        elif self._digests[held.id] != held.digest:
            raise CallInvalid(
                f"Another call is under way as {held.id}.",
                why="A call id names one call for ever.",
                todo="Count each call of a path once.",
            )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # Whoever asked went away; the call goes on.
            raise RunDead(
                f"{self.id} was stopped in the middle of this call.",
                why="It was ended (killed, cancelled, its time over) or put away while it waits, or"
                " the kernel is stopping.",
                todo="`ring0 ps --all` says which. What was put away or kept is started again.",
            ) from None

    async def _placed(self, held: Held, go: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Waits for one of the run's places; what a tool's sandbox asks for has its tool's."""
        if held.within is not None:
            return await go()
        async with self._places:
            return await go()

    def _forget(self, held: Held) -> None:
        task = self._in_flight.pop(held.id, None)
        self._digests.pop(held.id, None)
        self.by_token -= held.scope is not None
        if task is not None and not task.cancelled():
            task.exception()  # Retrieved: whoever waited has it too.
        self.changed()

    async def close_tools(self) -> None:
        """Ends what its tools kept for it: connections, servers."""
        for tool in self.tools.values():
            await tool.close()

    async def stop_calls(self) -> None:
        """Cancels what is under way and waits until each has written how it ended."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        leaving, self.leaving = self.leaving, []
        for leave in leaving:
            await leave()
