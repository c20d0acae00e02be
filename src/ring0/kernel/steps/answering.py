"""What people answer: yes, no, yes to something else, yes to more than this; on record at once.

Answers come from operators alone: no door of an agent leads here. Not here: who waits for them
(waiting.py), and what an answer is good for (governance/approvals.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallDenied, CallInvalid, InvalidInput, NotFound
from ring0.governance import Question, approvals
from ring0.governance import standing as rules
from ring0.kernel import values
from ring0.kernel.life.pausing import Pausing
from ring0.kernel.live import LiveRun
from ring0.kernel.steps import choices, editing
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.tools.registry import Tool
from ring0.types import (
    Approval,
    ApprovalState,
    CallKind,
    Operator,
    Run,
    Shown,
    Standing,
    Terms,
)


class _Evidence(msgspec.Struct):
    """As far as it matters here."""

    question: Question


class Answering:
    """Takes answers for the asks of one kernel."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        waiting: Waiting,
        pausing: Pausing,
        live: Mapping[str, LiveRun],
        kinds: Mapping[CallKind, Tool],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._waiting = waiting
        self._pausing = pausing
        self._live = live
        self._kinds = kinds
        self._turn = asyncio.Lock()
        """Of answers that say more than yes or no: what they begin from stands until they end."""

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
        """One person's answer. `edits`: arguments that it changes. `terms`: what else it says yes
        to. Raises NotFound, CallDenied, CallInvalid, InvalidInput, LimitReached."""
        if (edits or terms) and not yes:
            raise InvalidInput("A no changes nothing, and lets nothing else.", todo="Only deny it.")
        if edits and terms:
            raise InvalidInput(
                "A yes to a changed call is for that call alone.",
                todo="Answer with changes, or with what it is to reach further to.",
            )
        async with self._turn:
            found, run = await self._asked(approval)
            approvals.check_person(found, run.principal, by, yes=yes)
            if edits:
                return await self._edit(found, edits, by, note)
            if terms is not None:
                return await self._stand(found, run, terms, by, note)
            return (await self._write([found], yes=yes, by=by, note=note))[0]

    async def answer_all(
        self, wanted: Sequence[str], *, yes: bool, by: Operator, note: str = "", like: bool = False
    ) -> list[Approval]:
        """One answer to several asks of a run, all or none; `like`: to all that wait and are like
        the first. Raises as `answer`, InvalidInput where they are not alike."""
        names = list(dict.fromkeys(wanted))
        if not names or len(names) > limits.APPROVAL_BATCH_MAX:
            raise InvalidInput(
                f"{len(names)} asks can't be answered at once.",
                todo=f"Name 1 to {limits.APPROVAL_BATCH_MAX}.",
            )
        async with self._turn:
            first, run = await self._asked(names[0])
            shown = await self._shown(first)
            found = [first]
            if like:
                pending = await self._store.approvals(states=[ApprovalState.PENDING], run=run.id)
                others = [one for one in pending if one.id != first.id]
                found += [
                    one
                    for one in others
                    if not approvals.unlike(first, shown, one, await self._shown(one))
                    and (not yes or await self._is_within(one, first))
                ]
            for name in names[1:]:
                other = (await self._asked(name))[0]
                if differs := approvals.unlike(first, shown, other, await self._shown(other)):
                    raise InvalidInput(
                        f"{first.id} and {other.id} can't have one answer.",
                        why=f"They differ in {differs}.",
                        todo="Look at each (`ring0 approvals`), and answer it for itself.",
                    )
                found.append(other)
            found = list({one.id: one for one in found}.values())
            for one in found:
                approvals.check_person(one, run.principal, by, yes=yes)
            return await self._write(found, yes=yes, by=by, note=note)

    # --- what is written ------------------------------------------------------------------------

    async def _write(
        self,
        asked: Sequence[Approval],
        *,
        yes: bool,
        by: Operator,
        note: str,
        beside: Sequence[ev.AnyEvent] = (),
        blobs: Mapping[str, bytes] | None = None,
    ) -> list[Approval]:
        state = ApprovalState.APPROVED if yes else ApprovalState.DENIED
        note = values.note(note)
        answers = [
            ev.ApprovalAnswered(approval=one.id, state=state, by=by.name, note=note)
            for one in asked
        ]
        unless_by = by.name if yes else ""
        return await self._append(asked, [*answers, *beside], unless_by, blobs or {})

    async def _append(
        self,
        asked: Sequence[Approval],
        events: Sequence[ev.AnyEvent],
        unless_by: str,
        blobs: Mapping[str, bytes],
    ) -> list[Approval]:
        guards = [base.ApprovalPending(approval=one.id, unless_by=unless_by) for one in asked]
        run = asked[0].run
        try:
            await self._store.append(
                Write(run=run, durable=True, guards=guards, events=events, blobs=blobs)
            )
        except GuardFailed as failure:
            which = getattr(failure.guard, "approval", asked[0].id)
            raise CallDenied(
                f"{which} can't be answered any more.",
                why=failure.detail + ".",
                todo="`ring0 approvals` lists those that wait.",
            ) from None
        self._runtime.reached("approval.answered")
        await self._pause(run)
        answered = []
        for one in asked:
            row = await self._store.approval(one.id)
            assert row is not None
            answered.append(row)
            if row.state is not ApprovalState.PENDING:
                self._waiting.answered_by_person(row)
        return answered

    async def _pause(self, run: str) -> None:
        """It and all of its tree, where they were told no too often: each waits at its next
        call."""
        row = await self._store.run(run)
        assert row is not None, "whose ask it was"
        live = self._live.get(run)
        if live is not None and row.paused_by:
            live.paused_by = row.paused_by
        await self._pausing.told_no(row.root)

    async def _edit(
        self, found: Approval, changes: Mapping[str, str], by: Operator, note: str
    ) -> Approval:
        if found.kind not in editing.KINDS:
            raise editing.unfit(found.kind)
        before = await self._store.blob(found.edits) if found.edits else b"[]"
        edits = editing.merged(approvals.edits_of(before), changes, by.name, by.login)
        if (tool := self._tool(found, shown := await self._shown(found))) is not None:
            args = {**shown.arguments, **choices.explained(tool, edits)}
            choices.check(tool, args, edits)
            if rules.same(args, shown.arguments):
                raise CallInvalid(
                    "That changes nothing.", why="It says so already.", todo="Approve it as it is."
                )
        stored = msgspec.json.encode(edits)
        where = address(await self._store.run_key(found.run), stored)
        event = ev.ApprovalEdited(
            approval=found.id, by=by.name, edits=where, note=values.note(note)
        )
        return (await self._append([found], [event], "", {where: stored}))[0]

    async def _stand(
        self, found: Approval, run: Run, terms: Terms, by: Operator, note: str
    ) -> Approval:
        standing, pattern, stored = await self._standing(found, run, terms, by)
        written = await self._write(
            [found],
            yes=True,
            by=by,
            note=note,
            beside=[ev.StandingGiven(standing=standing)],
            blobs={standing.pattern: stored},
        )
        self._waiting.standings.add(standing, pattern)
        return written[0]

    async def _standing(
        self, found: Approval, run: Run, terms: Terms, by: Operator
    ) -> tuple[Standing, rules.Pattern, bytes]:
        """Raises InvalidInput where no yes in advance is possible, LimitReached."""
        shown = await self._shown(found)
        question = await self._question(found)
        why = rules.why_not(shown.reversal, found.needs)
        if found.kind is not CallKind.TOOL:
            why = f"Only tools' calls can be said yes to in advance, and this is a {found.kind}."
        if found.edits:
            why = "People changed it: whoever asks for more of them asks with other arguments."
        if why:
            raise InvalidInput(
                f"{found.id} can be approved once only.", why=why, todo="Leave the rest out."
            )
        if terms.until_s > limits.STANDING_S_MAX:
            raise InvalidInput(
                "That is too long a time.",
                why=f"A yes in advance is for {limits.STANDING_S_MAX // 3_600} hours at the most.",
                todo="Give a shorter one.",
            )
        self._waiting.standings.check_room(run.tenant)
        pattern = rules.pattern_of(shown.arguments, terms.match)
        stored = msgspec.json.encode(pattern)
        now_us = self._store.now_us()
        standing = Standing(
            id=self._runtime.new_id("s"),
            run=run.id,
            everywhere=terms.until_s > 0,
            tenant=run.tenant,
            principal=run.principal,
            agent=run.agent,
            agent_digest=run.agent_digest,
            tool=shown.tool,
            tool_digest=found.tool_digest,
            policy_digest=found.policy_digest,
            rules=tuple(reason.rule for reason in shown.reasons),
            pattern=address(await self._store.run_key(run.id), stored),
            rows=question.rows,
            tables=tuple(question.tables),
            label=replace(shown.run_label, sources=()),
            kill_seen=await self._store.kill_generation(),
            given_by=by.name,
            given_us=now_us,
            expires_us=now_us + terms.until_s * 1_000_000 if terms.until_s else run.deadline_us,
        )
        return standing, pattern, stored

    # --- what is there --------------------------------------------------------------------------

    async def _asked(self, approval: str) -> tuple[Approval, Run]:
        found = await self._store.approval(approval)
        run = await self._store.run(found.run) if found is not None else None
        if found is None or run is None:
            raise NotFound(
                f"There is no approval {approval[:40]!r}.",
                todo="`ring0 approvals` lists those that wait.",
            )
        return found, run

    async def _is_within(self, one: Approval, seen: Approval) -> bool:
        """Whether it would change no more rows and no other tables than the ask that was seen, and
        goes to the same host: who says yes to all that are alike has looked at that one only."""
        its, known = await self._question(one), await self._question(seen)
        same_place = (its.host, its.method) == (known.host, known.method)
        return same_place and its.rows <= known.rows and set(its.tables) <= set(known.tables)

    async def _question(self, approval: Approval) -> Question:
        stored = await self._store.blob(approval.decision)
        return msgspec.json.decode(stored, type=_Evidence).question

    async def _shown(self, approval: Approval) -> Shown:
        return msgspec.json.decode(await self._store.blob(approval.shown), type=Shown)

    def _tool(self, approval: Approval, shown: Shown) -> Tool | None:
        """The tool whose call it is, where its run goes on here; else the gate looks later."""
        live = self._live.get(approval.run)
        if live is None:
            return None
        if approval.kind is CallKind.TOOL:
            return live.tools.get(shown.tool)
        proposed = live.tools.get(shown.tool) if approval.kind is CallKind.PROPOSAL else None
        if proposed is not None and proposed.manifest.where == "agent":
            return proposed
        return self._kinds.get(approval.kind)
