"""The gate: the one way in. Every call, from every door, goes through `Gate.call`, top to bottom.

There is no second way to reach a model, a tool, a memory, a network or a secret. Each step asks the
primitive that knows; what decides does not also do, and what does has been decided.
"""

from __future__ import annotations

import asyncio

from ring0 import limits
from ring0.errors import (
    CallDenied,
    CallInvalid,
    EffectUnknown,
    LimitReached,
    ReplayDiverged,
    Ring0Error,
    RunDead,
    StoreFailed,
    StoreFull,
    ToolFailed,
)
from ring0.governance import Policies, approvals
from ring0.guardrails import Secrets
from ring0.identity import Handle, Handles
from ring0.kernel import judging, recording, values
from ring0.kernel.judging import Judged
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.recording import Taken
from ring0.kernel.sandboxes import Sandboxes
from ring0.kernel.waiting import Waiting
from ring0.runtime import Runtime
from ring0.scheduler import check_deadline, refusal
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.tools.driver import CallContext, Result, Within
from ring0.tools.registry import Tool
from ring0.types import (
    Approval,
    Call,
    CallKind,
    CallState,
    Effect,
    Outcome,
    Request,
    RunState,
    VerdictKind,
)

UNCOUNTED = frozenset({CallKind.NOW, CallKind.RANDOM, CallKind.SLEEP, CallKind.WAIT})
"""Kinds that the loop stop leaves to the budget: they take no arguments, or wait."""


class Gate:
    """Holds what the ten steps need; the state of a run is in its LiveRun."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        handles: Handles,
        policies: Policies,
        secrets: Secrets,
        waiting: Waiting,
        sandboxes: Sandboxes,
    ) -> None:
        self.store = store
        self.runtime = runtime
        self.handles = handles
        self.policies = policies
        self.secrets = secrets
        self.waiting = waiting
        self.sandboxes = sandboxes
        self.kinds: dict[CallKind, Tool] = {}
        """The kernel's own drivers: every kind but `tool`."""
        self.live: dict[str, LiveRun] = {}

    async def call(self, handle: Handle, request: Request, within: Within | None = None) -> Outcome:
        """One call, from the door to its recorded outcome.

        `within`: the tool's call in whose sandbox it was made; no door can give one.
        Refusals and failures are outcomes. Raised is only what ends the caller: RunDead,
        ReplayDiverged, StoreFull, StoreFailed; and CallInvalid for what can't even be named.
        """
        run = self.authenticate(handle)  # 1
        held = self.resolve(run, request, within)  # 2
        return await run.once(held, self.runtime, lambda: self._pass(run, held))

    async def _pass(self, run: LiveRun, held: Held) -> Outcome:
        if (outcome := await self.recall(run, held)) is not None:  # 3
            return outcome
        try:
            self.scan(run, held)  # 4
            for _ in range(limits.STALE_DECISIONS_MAX):
                judged = await self.decide(run, held)  # 5
                approval = await self.ask(run, judged)  # 6
                admitted = await self.admit(run, judged, approval)  # 7
                if admitted is not None:
                    break
            else:
                raise LimitReached(
                    "The run's labels rose under this call again and again.",
                    why="It was judged anew each time.",
                    todo="Await the calls that read before you act.",
                )
        except (RunDead, ReplayDiverged, StoreFull, StoreFailed):
            raise
        except Ring0Error as error:
            return await self.refuse(run, held, error)
        result = await self.execute(run, admitted)  # 8
        taken = self.take_in(run, admitted, result)  # 9
        return await self.record(run, admitted, taken)  # 10

    # 1 ----------------------------------------------------------------------------------------

    def authenticate(self, handle: Handle) -> LiveRun:
        """The listener gave the handle; the handle names the run and is live, or RunDead."""
        self.handles.check(handle)
        return self.live[handle.run]

    # 2 ----------------------------------------------------------------------------------------

    def resolve(self, run: LiveRun, request: Request, within: Within | None = None) -> Held:
        """Names the call, finds its manifest, validates and canonicalises its arguments.

        What does not fit is kept in `invalid`: it is refused, on record, after recall.
        """
        if len(request.name) > limits.CALL_NAME_CHARS_MAX:
            raise CallInvalid(
                f"A name has at most {limits.CALL_NAME_CHARS_MAX} characters.",
                todo="Use the name that the agent's manifest gives.",
            )
        canonical = values.canonical([request.kind, request.name, request.args])
        digest = run.digest_of(canonical)
        call = within.id if within else run.name_call(request, digest)
        # The name goes on record as it is, whether or not there is such a tool.
        name = self.secrets.redact_text(request.name)
        held = Held(call, request.kind, name, canonical, digest)
        held.within = within
        asked = run.approvals.get(call)
        held.begun_us = asked.asked_us if asked else self.runtime.now_us()
        try:
            held.tool = judging.find(run, request, self.kinds, within)
            held.args = held.tool.validate({} if request.args is None else request.args)
        except Ring0Error as error:
            held.invalid = error
        return held

    # 3 ----------------------------------------------------------------------------------------

    async def recall(self, run: LiveRun, held: Held) -> Outcome | None:
        """What stands under this call id. One step is replay, retry and idempotency."""
        record = run.records.get(held.id)
        if record is None:
            self._may_go_live(run, held)
            return None
        if record.request_digest != held.digest:
            raise self._diverge(
                run, f"{held.id} was {record.kind} {record.name} with other arguments"
            )
        if record.state in (CallState.UNKNOWN, CallState.INTENDED) and run.strict:
            if run.row.state is RunState.DONE:
                raise self._diverge(run, f"{held.id} has no outcome on record")
            raise self._stop_at_the_end(run)
        if record.state is CallState.INTENDED and record.effect is Effect.ONCE:
            # Begun here, and what came of it was never written: it is not begun again.
            record = await self._cut_off(run, held, "its outcome could not be recorded")
        run.unmet.discard(held.id)
        if record.state is CallState.UNKNOWN:
            record = await self.waiting.settled(run, record)
        if record.state is CallState.INTENDED:
            held.retry = record
            held.begun_us = record.begun_us
            return None
        outcome = await recording.load(self.store, record)
        recording.learn(run, held, outcome)
        return outcome

    def _stop_at_the_end(self, run: LiveRun) -> RunDead:
        """A strict replay of a run that was stopped in the middle of a call ends there too."""
        error = RunDead(f"The record of {run.id} ends here.", todo="Nothing.")
        run.cut_off = True
        if not run.result.done():
            run.result.set_result(error)
        return error

    def _may_go_live(self, run: LiveRun, held: Held) -> None:
        """A replay never goes live by itself; a recovery only at the end of what is on record."""
        if run.strict:
            raise self._diverge(run, f"{held.id} ({held.kind} {held.name}) is not on record")
        if "/~" in held.id and run.unmet:
            raise self._diverge(
                run,
                f"{held.kind} {held.name} fits nothing, and {len(run.unmet)} recorded calls"
                " were not asked for",
            )

    def _diverge(self, run: LiveRun, why: str) -> ReplayDiverged:
        run.diverged = ReplayDiverged(
            f"The replay of {run.id} diverged.",
            why=why,
            todo="Its code or its inputs are not what they were: see `ring0 show`. A recovered run"
            " waits as `diverged`; `ring0 kill` ends it.",
        )
        if not run.result.done():
            run.result.set_result(run.diverged)  # Whatever the agent makes of the error.
        return run.diverged

    # 4 ----------------------------------------------------------------------------------------

    def scan(self, run: LiveRun, held: Held) -> None:
        """Known secrets never leave: they are replaced before anybody sees the arguments."""
        if held.invalid is not None:
            raise held.invalid
        held.args, _ = self.secrets.redact(held.args)

    # 5 ----------------------------------------------------------------------------------------

    async def decide(self, run: LiveRun, held: Held) -> Judged:
        """Liveness, deadline and loop by host code; then the driver's dry run; then Cedar, once."""
        self.handles.check(run.handle)
        check_deadline(run.row, self.runtime.now_us())
        if held.retry is None and not held.counted and held.kind not in UNCOUNTED:
            held.counted = True
            run.repeats.add(held.digest)
        judged = await judging.judge(
            run, held, self._context(run, held), self.policies, self.secrets
        )
        if judged.verdict.kind is VerdictKind.DENY:
            raise judging.denied(judged)
        return judged

    # 6 ----------------------------------------------------------------------------------------

    async def ask(self, run: LiveRun, judged: Judged) -> Approval | None:
        """Where the verdict is `ask`: a durable approval, bound to exactly this; waits as a row."""
        retry = judged.held.retry
        if judged.verdict.kind is not VerdictKind.ASK or (retry is not None and retry.approval):
            return None
        approval = run.approvals.get(judged.held.id)
        if approval is None or approval.bound_to != judged.bound_to:
            approval = await self.waiting.open(run, judged, approval)
        within = judged.held.within
        answered = await self.waiting.answered(run, approval, within.over if within else None)
        try:
            approvals.check(answered, judged.bound_to, self.runtime.now_us())
        except CallDenied as no:
            raise judging.Denied(judged, no, answered) from None
        return answered

    # 7 ----------------------------------------------------------------------------------------

    async def admit(self, run: LiveRun, judged: Judged, approval: Approval | None) -> Judged | None:
        """Decides again with what holds now, and writes the intent. None: ask and decide anew.

        One transaction: liveness, kill, label, budget and approval are checked, the approval is
        consumed, the budget reserved. A `once` intent is on disk before its effect begins.
        """
        if approval is not None:
            judged = await judging.judge(
                run, judged.held, self._context(run, judged.held), self.policies, self.secrets
            )
            if judged.verdict.kind is VerdictKind.DENY:
                raise judging.denied(judged)
            if judged.bound_to != approval.bound_to:
                return None
        if judged.held.retry is not None:
            return await self._admit_again(run, judged)
        call = judging.call_row(run, judged, approval, CallState.INTENDED, self.runtime.now_us())
        guards: list[base.Guard] = [
            base.RunLive(run=run.id, epoch=run.row.epoch),
            base.NotKilled(run=run.id),
            base.LabelUnmoved(run=run.id, version=run.row.label_version),
            base.Room(run=run.id, reserve_microusd=judged.prepared.reserve_microusd),
            base.CallFresh(call=call.id),
        ]
        if approval is not None:
            guards.append(base.ApprovalGood(approval=approval.id, bound_to=approval.bound_to))
        try:
            await self.store.append(
                Write(
                    run=run.id,
                    guards=guards,
                    blobs=judged.blobs,
                    events=[
                        ev.CallIntended(
                            call=call, reserve_microusd=judged.prepared.reserve_microusd
                        )
                    ],
                    durable=call.effect is Effect.ONCE or judged.prepared.reserve_microusd > 0,
                )
            )
        except GuardFailed as failure:
            if isinstance(failure.guard, base.LabelUnmoved):
                return None
            raise self._not_admitted(run, failure) from None
        run.records[call.id] = call
        run.row = recording.admitted(run.row, judged.prepared.reserve_microusd)
        return judged

    async def _admit_again(self, run: LiveRun, judged: Judged) -> Judged:
        """After a crash: the intent stands already; a pure or idempotent call runs again."""
        await self.store.append(
            Write(
                run=run.id,
                events=[ev.CallRetried(call=judged.held.id, epoch=run.row.epoch)],
                guards=[base.RunLive(run=run.id, epoch=run.row.epoch), base.NotKilled(run=run.id)],
            )
        )
        return judged

    def _not_admitted(self, run: LiveRun, failure: GuardFailed) -> Ring0Error:
        match failure.guard:
            case base.Room():
                return refusal(run.row, failure.detail)
            case base.RunLive() | base.NotKilled():
                return RunDead(
                    f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
                )
            case _:
                return CallDenied(
                    "The call was not admitted.",
                    why=failure.detail,
                    todo="Ask again with a new call.",
                )

    # 8 ----------------------------------------------------------------------------------------

    async def execute(self, run: LiveRun, judged: Judged) -> Result | Ring0Error:
        """The driver does what it prepared. A `once` effect that is cut off here is unknown."""
        held, tool = judged.held, judged.tool
        try:
            return await tool.driver.execute(held.args, judged.prepared, self._context(run, held))
        except asyncio.CancelledError:
            if judged.effect is Effect.ONCE:
                await self._cut_off(run, held, "the run was stopped in the middle of it")
            raise
        except EffectUnknown as error:
            return await self._settle(run, held, error)
        except Ring0Error as error:
            return error
        except Exception as error:
            if judged.effect is Effect.ONCE:
                unknown = EffectUnknown(f"{held.name or held.kind} broke: {type(error).__name__}.")
                return await self._settle(run, held, unknown)
            return ToolFailed(
                f"{held.name or held.kind} broke: {type(error).__name__}.",
                why="A fault of ring0 or of the driver.",
                todo="Report it.",
            )

    async def _settle(self, run: LiveRun, held: Held, error: EffectUnknown) -> Ring0Error:
        """Nobody knows: on record as unknown, and the run waits until somebody says."""
        record = await self._cut_off(run, held, error.what)
        await self.waiting.settled(run, record)
        return recording.Settled(held.id)

    async def _cut_off(self, run: LiveRun, held: Held, why: str) -> Call:
        await asyncio.shield(
            self.store.append(
                Write(
                    run=run.id,
                    events=[ev.CallCutOff(call=held.id, why=why[:500])],
                    durable=True,
                    guards=[base.CallOpen(call=held.id)],
                )
            )
        )
        record = run.records[held.id] = recording.cut_off(run.records[held.id])
        return record

    # 9 ----------------------------------------------------------------------------------------

    def take_in(self, run: LiveRun, judged: Judged, result: Result | Ring0Error) -> Taken:
        """The result gets its label, and the run's own rises, before a byte of it goes back."""
        taken = recording.take_in(run, judged, result, self.secrets)
        recording.raise_label(run, taken)
        recording.learn(run, judged.held, taken.outcome)
        return taken

    # 10 ---------------------------------------------------------------------------------------

    async def record(self, run: LiveRun, judged: Judged, taken: Taken) -> Outcome:
        """The outcome with label, cost and digests; the budget settles."""
        if taken.settled:
            return await recording.load(self.store, run.records[judged.held.id])
        try:
            await self.store.append(
                Write(
                    run=run.id,
                    events=[taken.event],
                    blobs=taken.blobs,
                    guards=[
                        base.RunLive(run=run.id, epoch=run.row.epoch),
                        base.CallOpen(call=judged.held.id),
                    ],
                    durable=judged.effect is Effect.ONCE or taken.event.cost_microusd > 0,
                )
            )
        except GuardFailed as failure:
            raise RunDead(
                f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
            ) from None
        recording.ended(run, judged, taken)
        return taken.outcome

    async def refuse(self, run: LiveRun, held: Held, error: Ring0Error) -> Outcome:
        """A no is an outcome too: on record, so that a replay hears the same no."""
        refused = recording.refused(run, held, error, self.secrets, self.runtime.now_us())
        recording.raise_label(run, refused)
        run.count_refusal()
        try:
            await self.store.append(
                Write(
                    run=run.id,
                    events=[refused.event],
                    blobs=refused.blobs,
                    guards=[base.RunLive(run=run.id, epoch=run.row.epoch)],
                )
            )
        except GuardFailed as failure:
            raise RunDead(
                f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
            ) from None
        run.records[held.id] = refused.call
        return refused.outcome

    def _context(self, run: LiveRun, held: Held) -> CallContext:
        return CallContext(
            call=held.id,
            name=held.name,
            begun_us=held.begun_us,
            run=run.row,
            workspace=run.workspace,
            sandboxes=self.sandboxes,
            operator=run.agent.operator,
            within=held.within,
        )
