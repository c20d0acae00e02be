"""The gate: the one way in. Every call, from every door, goes through `Gate.call`, top to bottom.

There is no second way to reach a model, a tool, a memory, a network or a secret. Each step asks the
primitive that knows; what decides does not also do, and what does has been decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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
)
from ring0.governance import Policies, approvals
from ring0.guardrails import Secrets
from ring0.identity import Handle, Handles
from ring0.identity.tokens import Scope
from ring0.kernel import values
from ring0.kernel.answers import Answers
from ring0.kernel.calls import asking
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.sandboxes import Sandboxes
from ring0.kernel.steps import executing, intending, judging, looping, recalling, recording
from ring0.kernel.steps.judging import Judged
from ring0.kernel.steps.recording import Taken
from ring0.kernel.steps.refusing import Refusals
from ring0.kernel.steps.scanning import arriving, leaving, refusing
from ring0.kernel.steps.spending import Spending
from ring0.kernel.steps.turns import Turns
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.scheduler.budgets import check_deadline
from ring0.scheduler.caps import Cap
from ring0.store import GuardFailed, Store, base
from ring0.tools.driver import Result, Said, Within
from ring0.tools.registry import Tool
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Effect,
    Outcome,
    Request,
    VerdictKind,
)


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
        turns: Turns,
        caps: Sequence[Cap] = (),
    ) -> None:
        self.store = store
        self.runtime = runtime
        self.handles = handles
        self.policies = policies
        self.secrets = secrets
        self.waiting = waiting
        self.sandboxes = sandboxes
        self.turns = turns
        self.kinds: dict[CallKind, Tool] = {}
        """The kernel's own drivers: every kind but `tool`."""
        self.live: dict[str, LiveRun] = {}
        self.trees = looping.Trees(store, runtime)
        self.refusals = Refusals(store, runtime)
        self.spending = Spending(store, runtime, self.live, caps)
        self.answers = Answers(lambda: self.policies.profile)

    async def call(
        self,
        handle: Handle,
        request: Request,
        within: Within | None = None,
        scope: Scope | None = None,
        said: Said | None = None,
    ) -> Outcome:
        """One call, from the door to its recorded outcome.

        `within`: the tool's call in whose sandbox it was made; no door can give one. `scope`: the
        token that it came with, which narrows it and has to be live for as long as it waits.
        `said`: what the door itself knows of it.
        Refusals and failures are outcomes. Raised is only what ends the caller: RunDead,
        ReplayDiverged, StoreFull, StoreFailed; and CallInvalid for what can't even be named.
        """
        run = self.authenticate(handle)  # 1
        held = self.resolve(run, request, within, scope, said)  # 2
        self.runtime.reached("call.resolved")
        return await run.once(held, self.runtime, lambda: self._pass(run, held))

    async def _pass(self, run: LiveRun, held: Held) -> Outcome:
        try:
            return await self._steps(run, held)
        finally:
            self.turns.give_back(held)

    async def _steps(self, run: LiveRun, held: Held) -> Outcome:
        if (outcome := await self.recall(run, held)) is not None:  # 3
            return outcome
        try:
            for _ in range(limits.STALE_DECISIONS_MAX):
                await self.scan(run, held)  # 4
                judged = await self.decide(run, held)  # 5
                self.runtime.reached("call.judged")
                approval = await self.ask(run, judged)  # 6
                if approval is not None and approval.state is ApprovalState.EDITED:
                    continue
                admitted = await self.admit(run, judged, approval)  # 7
                if admitted is not None:
                    break
            else:
                raise LimitReached(
                    "The run's labels rose under this call, or people changed it, again and again.",
                    why="It was judged anew each time.",
                    todo="Await the calls that read before you act.",
                )
        except (RunDead, ReplayDiverged, StoreFull, StoreFailed):
            raise
        except Ring0Error as error:
            self.turns.give_back(held)  # A refusal may have to wait: it holds nothing meanwhile.
            return await self.refuse(run, held, error)
        self.runtime.reached("effect.begins")
        result = await self.execute(run, admitted)  # 8
        self.runtime.reached("effect.over")
        self.turns.carried_out(held, result)
        taken = self.take_in(run, admitted, result)  # 9
        return await self.record(run, admitted, taken)  # 10

    # 1 ----------------------------------------------------------------------------------------

    def authenticate(self, handle: Handle) -> LiveRun:
        """The listener gave the handle; the handle names the run and is live, or RunDead."""
        self.handles.check(handle)
        return self.live[handle.run]

    # 2 ----------------------------------------------------------------------------------------

    def resolve(
        self,
        run: LiveRun,
        request: Request,
        within: Within | None = None,
        scope: Scope | None = None,
        said: Said | None = None,
    ) -> Held:
        """Names the call, finds its manifest, validates and canonicalises its arguments.

        What does not fit is kept in `invalid`: it is refused, on record, after recall.
        """
        if len(request.name) > limits.CALL_NAME_CHARS_MAX:
            raise CallInvalid(
                f"A name has at most {limits.CALL_NAME_CHARS_MAX} characters.",
                todo="Use the name that the agent's manifest gives.",
            )
        canonical = values.canonical([request.kind, request.name, request.args])
        digest = run.digest_of(values.normal(request, canonical, said))
        call = within.id if within else ""
        call = call or (said.id if said else "") or run.name_call(request, digest, scope, said)
        # The name goes on record as it is, whether or not there is such a tool.
        name = self.secrets.redact_text(request.name)
        held = Held(call, request.kind, name, canonical, digest)
        held.within, held.scope, held.traceparent = within, scope, request.traceparent
        if said is not None:
            held.said, said.call = said, call
        asked = run.approvals.get(call)
        held.begun_us = asked.asked_us if asked else self.runtime.now_us()
        try:
            held.tool = judging.find(run, request, self.kinds, within, scope, said)
            held.args = held.tool.validate({} if request.args is None else request.args)
        except Ring0Error as error:
            held.invalid = error
        return held

    # 3 ----------------------------------------------------------------------------------------

    async def recall(self, run: LiveRun, held: Held) -> Outcome | None:
        """What stands under this call id. One step is replay, retry and idempotency."""
        record = run.records.get(held.id)
        if record is None:
            await recalling.until_all_met(run, held, self.runtime)
            recalling.check_live(run, held)
            return None
        recalling.check_same(run, held, record)
        if record.state is CallState.INTENDED and record.effect is Effect.ONCE:
            # Begun here, and what came of it was never written: it is not begun again.
            record = await self._cut_off(run, held, "its outcome could not be recorded")
        recalling.met(run, held)
        if record.state is CallState.UNKNOWN:
            record = await self.waiting.settled(run, record)
        if record.state is CallState.INTENDED:
            held.retry = record
            held.begun_us = record.begun_us
            return None
        outcome = await recording.load(self.store, record)
        recording.learn(run, held, outcome)
        return outcome

    # 4 ----------------------------------------------------------------------------------------

    async def scan(self, run: LiveRun, held: Held) -> None:
        """Known secrets never leave: they are replaced before anybody sees the arguments. What is
        found in the rest, as people have left it, the policy is told."""
        if held.invalid is not None:
            raise held.invalid
        if held.scanned is None:
            held.args, _ = self.secrets.redact(held.args)
        await leaving(run, held, self.store, self.secrets, self.runtime)

    # 5 ----------------------------------------------------------------------------------------

    async def decide(self, run: LiveRun, held: Held) -> Judged:
        """Liveness, deadline and loop by host code; then the driver's dry run; then Cedar, once."""
        self.handles.check(run.handle)
        check_deadline(run.row, self.runtime.now_us())
        await looping.check(run, held, self.store)
        return await self._judged(run, held)

    # 6 ----------------------------------------------------------------------------------------

    async def ask(self, run: LiveRun, judged: Judged) -> Approval | None:
        """Where the verdict is `ask`: a durable approval, bound to exactly this; waits as a row.

        One that is `edited` says that a person changed arguments: the call is judged anew.
        """
        if judged.verdict.kind is not VerdictKind.ASK or recalling.was_given(judged):
            return None
        approval = run.approvals.get(judged.held.id)
        if recalling.still_covers(judged, approval):
            return approval
        edited = approval is not None and approval.state is ApprovalState.EDITED
        if approval is None or edited or approval.bound_to != judged.bound_to:
            await self.turns.passed(run)  # Who is paused asks nobody meanwhile.
            await self.spending.look(run, judged)
            approval = await self.waiting.open(run, judged, approval)
        within = judged.held.within
        over, reason = within.over if within else None, asking.reason(judged)
        answered = await self.waiting.answered(run, approval, over, reason)
        if answered.state is ApprovalState.EDITED:
            return answered
        try:
            approvals.check(answered, judged.bound_to, self.runtime.now_us())
        except CallDenied as no:
            raise judging.Denied(judged, no, answered) from None
        return answered

    # 7 ----------------------------------------------------------------------------------------

    async def admit(self, run: LiveRun, judged: Judged, approval: Approval | None) -> Judged | None:
        """Waits for its turn, decides again with what holds now, and writes the intent.

        None: ask and decide anew; nothing is held meanwhile. One transaction: liveness, kill,
        label, locks, budget and approval are checked, the approval is consumed, the budget
        reserved. A `once` intent is on disk before its effect begins.
        """
        await self.refusals.flush(run)
        waited = await self.turns.take(run, judged)
        if approval is not None or waited or self._is_old(judged):
            judged = await self._judged(run, judged.held)
            asks = approval is None and judged.verdict.kind is VerdictKind.ASK
            changed = approval is not None and judged.bound_to != approval.bound_to
            if asks or changed or not self.turns.covers(judged):
                self.turns.give_back(judged.held)
                return None
        held = judged.held
        if held.retry is None:
            self.runtime.reached("call.admitted")
            taken, now_us = self.spending.reserve(run, judged, approval), self.runtime.now_us()
            locks = self.turns.guards(run, judged)
            write = intending.first(run, judged, approval, taken, locks, now_us)
        else:
            taken = self.spending.again(run, held.kind, held.name, judged.prepared)
            write = intending.again(run, judged, approval, taken, self.turns.guards(run, judged))
        try:
            await self.store.append(write)
        except GuardFailed as failure:
            stale = isinstance(failure.guard, base.LabelUnmoved)
            if stale or self.turns.may_try_again(run, failure):
                self.turns.give_back(held)
                return None
            raise await self.spending.refusal(run, failure, taken) from None
        if held.retry is not None:
            self.runtime.reached("call.retried")
        else:
            self.runtime.reached("call.intended" if approval is None else "approval.consumed")
        recording.admitted(run, judged, write)
        self.spending.reserved(run, held.id, taken, durable=write.durable)
        return judged

    async def _judged(self, run: LiveRun, held: Held) -> Judged:
        """By the driver's dry run and by Cedar, as they are now. Raises Denied, TokenDead."""
        if held.scope is not None:
            held.scope.check()
        context = executing.context(run, held, self.sandboxes, self.turns)
        judged = await judging.judge(run, held, context, self.policies, self.secrets)
        while self._is_old(judged):  # A dry run takes its time.
            judged = await judging.judge(run, held, context, self.policies, self.secrets)
        if judged.verdict.kind is VerdictKind.DENY:
            raise judging.denied(judged)
        return judged

    def _is_old(self, judged: Judged) -> bool:
        """Other policies were taken up since."""
        return judged.verdict.policy_digest != self.policies.digest

    # 8 ----------------------------------------------------------------------------------------

    async def execute(self, run: LiveRun, judged: Judged) -> Result | Ring0Error:
        """The driver does what it prepared. A `once` effect that is cut off here is unknown: it is
        on record as such, and the run waits until somebody says what became of it."""
        held = judged.held
        try:
            context = executing.context(run, held, self.sandboxes, self.turns)
            result = await executing.carried_out(judged, context)
            await arriving(held, result, self.secrets, self.answers, self.runtime)
        except asyncio.CancelledError:
            self.turns.carried_out(held)  # It was begun: what it may have used is used.
            if judged.effect is Effect.ONCE:
                await self._cut_off(run, held, "the run was stopped in the middle of it")
            raise
        if not isinstance(result, EffectUnknown):
            return result
        record = await self._cut_off(run, held, result.what)
        self.turns.carried_out(held)  # Nothing is held while a person is asked.
        await self.waiting.settled(run, record)
        return recording.Settled(held.id)

    async def _cut_off(self, run: LiveRun, held: Held, why: str) -> Call:
        await asyncio.shield(self.store.append(recording.cutting_off(run, held, why)))
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
        self.runtime.reached("call.ends")
        try:
            event = self.spending.settled(run, taken.event)
            await self.store.append(recording.ending(run, judged, taken, event))
        except GuardFailed as failure:
            raise RunDead(
                f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
            ) from None
        self.runtime.reached("call.ended")
        recording.ended(run, judged, taken)
        self.turns.recorded(run, taken)
        return taken.outcome

    async def refuse(self, run: LiveRun, held: Held, error: Ring0Error) -> Outcome:
        """A no is an outcome too: on record, so that a replay hears the same no."""
        try:
            await self.refusals.turn(run)
        except RunDead:
            self.handles.kill(run.id)  # It is over: what it still asks goes no further than this.
            raise
        await refusing(held, error, self.secrets, self.answers, self.runtime)
        refused = recording.refused(run, held, error, self.secrets, self.runtime.now_us())
        recording.raise_label(run, refused)
        try:
            await self.refusals.write(run, refused)
        except GuardFailed as failure:
            raise RunDead(
                f"{run.id} goes on no more.", why=failure.detail, todo="Start a new run."
            ) from None
        self.runtime.reached("call.refused")
        run.records[held.id] = refused.call
        return refused.outcome
