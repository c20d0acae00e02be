"""A live run as the kernel holds it: its row, its tools, what it has seen, what is on record.

Nothing here must survive a crash: all of it is made anew from the journal.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ring0 import limits
from ring0.errors import CallInvalid, LimitReached, ReplayDiverged, Ring0Error, RunDead
from ring0.guardrails import Seen
from ring0.identity import Handle
from ring0.kernel import values
from ring0.kernel.agents import Agent
from ring0.runtime import Runtime
from ring0.scheduler import Repeats
from ring0.store import Store
from ring0.tools.driver import Within
from ring0.tools.registry import Tool
from ring0.tools.workspace import Workspace
from ring0.types import Approval, Call, CallKind, CallState, Outcome, Request, Run

_PATH = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})*")


class Held:
    """A call on its way through the gate: parsed, named, validated; nothing decided yet."""

    __slots__ = (
        "args",
        "begun_us",
        "canonical",
        "counted",
        "digest",
        "id",
        "invalid",
        "kind",
        "name",
        "retry",
        "tool",
        "within",
    )

    def __init__(self, call: str, kind: CallKind, name: str, canonical: bytes, digest: str) -> None:
        self.id = call
        self.kind = kind
        self.name = name
        self.canonical = canonical
        """Of (kind, name, arguments), as it came in."""
        self.digest = digest
        self.args: dict[str, Any] = {}
        self.begun_us = 0
        self.tool: Tool | None = None
        self.invalid: Ring0Error | None = None
        self.counted = False
        """Counted towards the loop stop, however often it is judged."""
        self.retry: Call | None = None
        """The call as a crash left it: intended, not ended, and safe to run again."""
        self.within: Within | None = None
        """The tool's call in whose sandbox it was made."""


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
        self.records = {call.id: call for call in records}
        self.unmet = {call.id for call in self.records.values() if call.kind != CallKind.EGRESS}
        """Recorded calls that the process has not asked for again yet; what a tool's sandbox asked
        for is part of that tool's call, which is recalled as a whole."""
        self.recorded = len(self.unmet)
        """How many those are in all."""
        asked = sorted(approvals, key=lambda approval: approval.expires_us)
        self.approvals = {approval.call: approval for approval in asked}
        """The newest approval of each call."""
        self.repeats = Repeats(call.request_digest for call in self.records.values())
        self.strict = strict
        self.cut_off = False
        """A strict replay has come to the call in whose middle the run was stopped."""
        self.refusals = sum(call.state is CallState.REFUSED for call in self.records.values())
        self.diverged: ReplayDiverged | None = None
        self.waits: Counter[str] = Counter()
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """What the agent's process gave as its result, or a Ring0Error."""
        self._occurrences: Counter[str] = Counter()
        self._in_flight: dict[str, asyncio.Task[Outcome]] = {}
        self._digests: dict[str, str] = {}

    @property
    def id(self) -> str:
        return self.row.id

    def count_refusal(self) -> None:
        """A run that is refused without end is ended: what is refused costs it nothing else."""
        self.refusals += 1
        if self.refusals > limits.REFUSALS_PER_RUN_MAX and not self.result.done():
            self.result.set_result(
                LimitReached(
                    f"{limits.REFUSALS_PER_RUN_MAX} calls of the run were refused.",
                    why="A run that hears no so often makes no progress, and each no is on record.",
                    todo="See `ring0 show` for what it asked.",
                )
            )

    def name_call(self, request: Request, digest: str) -> str:
        """The call id. A process that gives no path is known by what it asks, and how often."""
        if not request.path:
            self._occurrences[digest] += 1
            return f"{self.id}/~{digest[:24]}/{self._occurrences[digest]}"
        if len(request.path) > limits.CALL_PATH_CHARS_MAX or not _PATH.fullmatch(request.path):
            raise CallInvalid(
                f"{request.path[:40]!r} is no task path.",
                todo="Use numbers with dots, as the SDK does: `0.2.1`.",
            )
        if not 0 <= request.counter < 2**31:
            raise CallInvalid("The call's counter is out of bounds.", todo="Count from 0.")
        return f"{self.id}/{request.path}/{request.counter}"

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
            if len(self._in_flight) >= limits.CALLS_IN_FLIGHT_PER_RUN_MAX:
                raise LimitReached(
                    f"{limits.CALLS_IN_FLIGHT_PER_RUN_MAX} calls of this run are under way.",
                    why="A run can't ask for everything at once.",
                    todo="Await some of them first.",
                )
            task = runtime.start(go(), name=held.id)
            self._in_flight[held.id] = task
            self._digests[held.id] = held.digest
            task.add_done_callback(lambda _: self._forget(held.id))
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
                why="It was killed, or the kernel is stopping.",
                todo="`ring0 ps` says which.",
            ) from None

    def _forget(self, call: str) -> None:
        task = self._in_flight.pop(call, None)
        self._digests.pop(call, None)
        if task is not None and not task.cancelled():
            task.exception()  # Retrieved: whoever waited has it too.

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
