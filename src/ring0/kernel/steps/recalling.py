"""Step 3 of the gate: what stands under a call's id, and what it means that nothing does.

Replay, retry and idempotency are this one step. Not here: what is done with the outcome.
"""

from __future__ import annotations

from ring0 import limits
from ring0.errors import CallInvalid, ReplayDiverged, RunDead
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps.judging import Judged
from ring0.runtime import Runtime
from ring0.types import Approval, ApprovalState, Call, CallKind, CallState, RunState


def check_live(run: LiveRun, held: Held) -> None:
    """A replay never goes live by itself; a recovery only at the end of what is on record. Raises
    ReplayDiverged, RunDead."""
    if run.strict and run.refusals >= limits.REFUSALS_PER_RUN_MAX:
        raise _at_the_end(run)  # What came after so many is not on record.
    if held.kind in (CallKind.PROPOSAL, CallKind.OBSERVED):
        # Part of another call, and the agent has heard nothing of it: its door asks before.
        if run.strict:
            raise _at_the_end(run)
        return
    if run.strict:
        raise _diverged(run, held, f"{held.id} ({held.kind} {held.name}) is not on record")
    if "/~" in held.id and run.unmet:
        raise _diverged(
            run,
            held,
            f"{held.kind} {held.name} fits nothing, and {len(run.unmet)} recorded calls"
            " were not asked for",
        )


def met(run: LiveRun, held: Held) -> None:
    """The process has asked for what is on record."""
    run.unmet.discard(held.id)
    if not run.unmet:
        run.all_met.set()


async def until_all_met(run: LiveRun, held: Held, runtime: Runtime) -> None:
    """Of a run that was stopped from outside, what came after the end of its record was under way
    or about to be. Once all that is on record was asked for, the replay ends there too. Raises
    RunDead then; nothing, where the run ended by itself."""
    if run.strict and run.cut_off:
        raise _at_the_end(run)  # What the agent still asks on its way out was never heard of.
    if not run.was_stopped or held.kind in (CallKind.PROPOSAL, CallKind.OBSERVED):
        return
    if run.unmet:
        try:
            await runtime.wait_for(run.all_met.wait(), limits.REPLAY_REST_S_MAX)
        except TimeoutError:
            return
    raise _at_the_end(run)


def check_same(run: LiveRun, held: Held, record: Call) -> None:
    """What is on record was asked in the same words, and has an outcome where nothing goes live.
    Raises ReplayDiverged, RunDead; CallInvalid for one that came with a token, or that a client
    came back to."""
    if record.request_digest != held.digest:
        polled = held.kind is CallKind.TOOL and held.said is not None and held.said.id != ""
        # Its holder's slip, or a client's that came back for a call with other words than it made
        # it with: the run itself asked for nothing else.
        if held.scope is not None or polled:
            raise CallInvalid(
                f"{held.id} was {record.kind} {record.name} with other arguments.",
                why="A call id names one call for ever.",
                todo="Count each call of a path once.",
            )
        raise _diverged(
            run, held, f"{held.id} was {record.kind} {record.name} with other arguments"
        )
    if record.state in (CallState.UNKNOWN, CallState.INTENDED) and run.strict:
        if run.row.state is RunState.DONE:
            raise _diverged(run, held, f"{held.id} has no outcome on record")
        raise _at_the_end(run)


def was_given(judged: Judged) -> bool:
    """Of an ask for more budget that a crash cut off: what it asked for came with its intent, and
    nothing more happens."""
    retry = judged.held.retry
    return retry is not None and retry.kind is CallKind.ASK and retry.approval != ""


def still_covers(judged: Judged, approval: Approval | None) -> bool:
    """Whether the yes with which a call began that a crash cut off is one to what it is now, by the
    policy of now: other rules, more people, another dry run or a worse label want another yes."""
    return (
        judged.held.retry is not None
        and approval is not None
        and approval.state is ApprovalState.CONSUMED
        and approval.bound_to == judged.bound_to
    )


def _at_the_end(run: LiveRun) -> RunDead:
    """A strict replay of a run that was stopped in the middle of a call ends there too."""
    error = RunDead(f"The record of {run.id} ends here.", todo="Nothing.")
    run.cut_off = True
    run.all_met.set()  # Whoever waits for the rest of the record waits no longer.
    if not run.result.done():
        run.result.set_result(error)
    return error


def _diverged(run: LiveRun, held: Held, why: str) -> ReplayDiverged:
    if run.diverged is not None:
        return run.diverged  # What the agent asks after the first counts no more.
    run.diverged_at = held.id
    run.diverged = ReplayDiverged(
        f"The replay of {run.id} diverged.",
        why=why,
        todo="Its code or its inputs are not what they were: see `ring0 show`. A recovered run"
        " waits as `diverged`; `ring0 kill` ends it.",
    )
    if not run.result.done():
        run.result.set_result(run.diverged)  # Whatever the agent makes of the error.
    return run.diverged
