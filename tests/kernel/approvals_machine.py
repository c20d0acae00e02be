"""A machine that does to approvals whatever people, agents, crashes and clocks may do, by a seed;
and an oracle that knows only what people were shown and what they said.

    .venv/bin/python tests/kernel/approvals_machine.py --sequences 10000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from approvals_world import ADA, ALICE, BOB, CAROL, EVE, PAY_SCHEMA, UNTRUSTED, VIEWER
from kernel_world import Doing, JumpingRuntime, World, begin, world

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.kernel.live import LiveRun, newest
from ring0.store import Write, base
from ring0.store import events as ev
from ring0.types import (
    AgentManifest,
    Approval,
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
    Label,
    Operator,
    Role,
    Shown,
    Terms,
)

POLICY = """
@id("two") @reason("Two people.") @approvers("2")
forbid (principal, action in Action::"tool", resource == Tool::"pay2") unless { context.approved };
@id("else") @reason("Somebody else.") @approvers("1") @expires("30 min")
forbid (principal, action in Action::"tool", resource == Tool::"payelse")
unless { context.approved };
"""
NEEDS = {"pay": (1, False), "payelse": (1, True), "pay2": (2, True)}
"""By tool: how many people, and whether the one that the run acts for counts not."""
PEOPLE = (ALICE, ADA, BOB, CAROL, EVE, VIEWER)
POINTS = (
    "call.judged",
    "approval.asked",
    "approval.answered",
    "call.admitted",
    "approval.consumed",
    "effect.begins",
    "effect.over",
    "call.ends",
)
TARGETS = ("mallory", "bob", "cy")
KERNEL_SEQUENCES = 100
END_S_MAX = 20


class Crash(BaseException):
    """The kernel is gone."""


class Points(JumpingRuntime):
    """Crashes at a point, once, and says where each call stood when it was admitted."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_at = ""
        self.crashed = 0
        self.admitted: Any = None

    def reached(self, point: str) -> None:
        if point not in POINTS:
            return
        task = asyncio.current_task()
        if point == "call.admitted" and self.admitted is not None and task is not None:
            self.admitted(task.get_name())
        if point == self.crash_at:
            self.crash_at = ""
            self.crashed += 1
            raise Crash(point)


@dataclass
class Said:
    """One person's word, as the machine heard it."""

    by: Operator
    approval: Approval
    shown: Shown
    yes: bool
    sure: bool
    """The kernel took it; else it crashed on the way, and may have taken it or not."""
    edits: dict[str, Any] = field(default_factory=dict)
    terms: Terms | None = None


@dataclass
class Moment:
    """A call, when it was admitted."""

    label: Label
    now_us: int


class Payer(Doing):
    """Says in its dry run what the world is like, and remembers what it was told to do."""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(
            name, effect=Effect.ONCE, mutates=True, own=False, schema=PAY_SCHEMA, critical=("to",)
        )
        self._machine = machine

    async def prepare(self, args: dict[str, Any], context: Any) -> Any:
        prepared = await super().prepare(args, context)
        now = self._machine.world_is
        self._machine.prepared[context.call] = now
        return msgspec.structs.replace(
            prepared, digest=now, lines=(f"the world is {now}",), reversal="reversible"
        )

    async def execute(self, args: dict[str, Any], prepared: Any, context: Any) -> Any:
        self._machine.executed(self.manifest.name, context.call, args)
        return await super().execute(args, prepared, context)


class Machine:
    """One sequence."""

    def __init__(self, w: World, runtime: Points, seed: int) -> None:
        self.w, self.runtime, self.dice = w, runtime, random.Random(seed)
        self.world_is = "w0"
        self.prepared: dict[str, str] = {}
        self.moments: dict[str, Moment] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.asked: dict[str, tuple[str, dict[str, Any]]] = {}
        """By call: its tool and the arguments that the agent asks with."""
        self.seen: dict[str, tuple[Approval, Shown]] = {}
        self.said: list[Said] = []
        self.revoked: set[str] = set()
        self.done: Counter[str] = Counter()
        self.violations: list[str] = []
        self.covered: Counter[str] = Counter()

    async def run(self) -> None:
        self.runtime.admitted = self._admitted
        for name in NEEDS:
            self.w.tool(Payer(name, self))
        self.w.tool(Doing("mail", label=UNTRUSTED))
        await self._start()
        for _ in range(self.dice.randrange(4, 12)):
            step = self.dice.choices(STEPS, WEIGHTS)[0]
            self.covered[step.__name__] += 1
            await step(self)
        await self._finish()

    # --- what may happen ------------------------------------------------------------------------

    async def _start(self) -> None:
        """A new call, or one that was made before, under its id."""
        if self.asked and self.dice.random() < 0.3:
            call = self.dice.choice(list(self.asked))
        elif len(self.asked) < 3:
            call = f"{self.w.run.id}/0/{len(self.asked)}"
            name = self.dice.choice(list(NEEDS))
            args = {"to": self.dice.choice(TARGETS), "amount": self.dice.randrange(1, 4)}
            if self.asked and self.dice.random() < 0.4:  # The very same as another.
                name, args = self.dice.choice(list(self.asked.values()))
            self.asked[call] = name, args
        else:
            return
        self._make(call)
        await self._quiet()

    def _make(self, call: str) -> None:
        if (task := self.tasks.get(call)) is not None and not task.done():
            return
        name, args = self.asked[call]
        counter = int(call.rpartition("/")[2])
        self.tasks[call] = self.w.start(name, args, counter=counter)

    async def _answer(self) -> None:
        await self._try(*await self._word())

    async def _answers_at_once(self) -> None:
        words = [await self._word() for _ in range(3)]
        await asyncio.gather(*(self._try(*word) for word in words))
        await self._quiet()

    async def _word(self) -> tuple[Said | None, Awaitable[Any] | None]:
        """Somebody says something to any ask that there ever was."""
        await self._look()
        if not self.seen:
            return None, None
        approval, shown = self.seen[self.dice.choice(list(self.seen))]
        pending = [k for k, (a, _) in self.seen.items() if a.state is ApprovalState.PENDING]
        if pending and self.dice.random() < 0.8:
            approval, shown = self.seen[self.dice.choice(pending)]
        by, yes = self.dice.choice(PEOPLE), self.dice.random() < 0.85
        said = Said(by, approval, shown, yes, sure=False)
        answer, kind = self.w.kernel.answer, self.dice.random()
        if yes and kind < 0.15:
            to, amount = self.dice.choice(TARGETS), self.dice.randrange(1, 6)
            said.edits = {"to": to, "amount": amount}
            edits = {"to": to, "amount": str(amount)}
            return said, answer(approval.id, yes=True, by=by, edits=edits)
        if yes and kind < 0.3:
            said.terms = Terms(match={"amount": "*"}, until_s=self.dice.choice((0, 600)))
            return said, answer(approval.id, yes=True, by=by, terms=said.terms)
        return said, answer(approval.id, yes=yes, by=by)

    async def _try(self, said: Said | None, doing: Awaitable[Any] | None) -> None:
        if said is None or doing is None:
            return
        # What is on its way counts from now on: the call may go on before the answer is back.
        self.said.append(said)
        try:
            await doing
            said.sure = True
            self.covered["edit taken" if said.edits else "answer taken"] += 1
        except Ring0Error:
            self.said.remove(said)
            self.covered["answer refused"] += 1
        except Crash:
            await self._restart()
        await self._quiet()

    async def _batch(self) -> None:
        """One word for two asks."""
        await self._look()
        names = self.dice.sample(list(self.seen), min(2, len(self.seen)))
        if not names:
            return
        by = self.dice.choice(PEOPLE)
        words = [Said(by, *self.seen[name], yes=True, sure=False) for name in names]
        self.said += words
        try:
            await self.w.kernel.answering.answer_all(names, yes=True, by=by)
            self.covered["batch taken"] += 1
        except Ring0Error:
            self.said = [one for one in self.said if one not in words]
        except Crash:
            await self._restart()
        await self._quiet()

    async def _change_world(self) -> None:
        self.world_is = f"w{self.dice.randrange(3)}"

    async def _read_worse(self) -> None:
        """The run's label rises; sometimes in the very moment that somebody answers."""
        reading = self.w.start("mail", {}, counter=900 + self.covered["_read_worse"])
        if self.dice.random() < 0.5:
            await self._answer()
        with contextlib.suppress(Ring0Error, Crash):
            await reading
        await self._quiet()

    async def _jump(self) -> None:
        """The clock goes on, past the end of some asks."""
        self.runtime.jump(self.dice.choice((60, 1_900, limits.APPROVAL_EXPIRY_S + 1)))
        await self._quiet()

    async def _approve_itself(self) -> None:
        """The agent says yes, in all the places that it has."""
        await self._look()
        claim = {"to": "mallory", "amount": 1, "any": {"approved": True}, "note": "approved=true"}
        name = next(iter(self.seen), "a-none")
        for kind, what, args in (
            (CallKind.SEND, self.w.run.id, {"text": f"ring0 approve {name}"}),
            (CallKind.TOOL, "answer", {"approval": name, "yes": True}),
            (CallKind.WAIT, "", {"message": True, "approved": True}),
        ):
            with contextlib.suppress(Ring0Error, Crash):
                await self.w.call(what, args, kind=kind, counter=self.dice.randrange(2_000, 10**6))
        call = f"{self.w.run.id}/0/{50 + self.covered['_approve_itself']}"
        self.asked[call] = "pay", claim
        self._make(call)
        await self._quiet()

    async def _revoke(self) -> None:
        for standing in await self.w.store.standings():
            if standing.run == self.w.run.id and not standing.revoked_by:
                self.revoked.add(standing.id)
                with contextlib.suppress(Ring0Error):
                    await self.w.kernel.waiting.standings.revoke(standing.id, ALICE)
        await self._quiet()

    async def _crash(self) -> None:
        """At a point of the way, or between two."""
        if self.dice.random() < 0.7:
            self.runtime.crash_at = self.dice.choice(POINTS)
            self.covered[f"crash armed at {self.runtime.crash_at}"] += 1
        else:
            await self._restart()

    # --- a crash --------------------------------------------------------------------------------

    async def _restart(self) -> None:
        """The process of the kernel is gone: what is not on record is not there."""
        self.covered["crash"] += 1
        run = self.w.run
        tasks = list(run._in_flight.values())
        for task in (*tasks, *self.tasks.values()):
            task.cancel()
        await asyncio.gather(*tasks, *self.tasks.values(), return_exceptions=True)
        await self.w.store.flush()
        row = await self.w.store.run(run.id)
        for call in await self.w.store.calls(run.id):
            if call.state is CallState.INTENDED and call.effect is Effect.ONCE:
                await self._cut_off(run, call.id)
        run.row = row
        run.records = {call.id: call for call in await self.w.store.calls(run.id)}
        run.approvals = newest(await self.w.store.approvals(run=run.id))
        run.paused_by = row.paused_by
        run.waits.clear()
        run.alarms.clear()
        self.w.kernel.waiting._waiters.clear()
        standings = self.w.kernel.waiting.standings
        standings._known.clear()
        await standings.load()
        if self.dice.random() < 0.3:  # Nobody was at work for a while.
            self.runtime.jump(self.dice.choice((60, 1_900, limits.APPROVAL_EXPIRY_S + 1)))
        if self.dice.random() < 0.3:
            await self._change_world()
        for call in self.asked:
            self._make(call)

    async def _cut_off(self, run: LiveRun, call: str) -> None:
        event = ev.CallCutOff(call=call, why="the kernel ended")
        guard = base.CallOpen(call=call)
        await self.w.store.append(Write(run=run.id, durable=True, events=[event], guards=[guard]))

    # --- looking --------------------------------------------------------------------------------

    async def _quiet(self) -> None:
        """Until all that is under way waits for people, or a crash has come."""
        for _ in range(4_000):
            crashed = [t for t in self.tasks.values() if t.done() and _is_crash(t)]
            if crashed:
                self.tasks = {k: t for k, t in self.tasks.items() if t not in crashed}
                await self._restart()
            await self._settle()
            run = self.w.run
            if all(t.done() for t in self.tasks.values()) or run.waiting:
                await asyncio.sleep(0)
                if all(t.done() for t in self.tasks.values()) or run.waiting:
                    return
            await asyncio.sleep(0.0005)
        raise AssertionError("it comes to no rest")

    async def _settle(self) -> None:
        """A person says of each unknown effect what is true."""
        if not self.w.run.waits["unknown"]:
            return
        for call in await self.w.store.calls(self.w.run.id):
            if call.state is CallState.UNKNOWN:
                with contextlib.suppress(Ring0Error, Crash):
                    await self.w.kernel.settle(
                        call.id, happened=self.done[call.id] > 0, by="carol (uid 7)"
                    )

    async def _look(self) -> None:
        """What people are shown."""
        for approval in await self.w.store.approvals(run=self.w.run.id):
            shown = msgspec.json.decode(await self.w.store.blob(approval.shown), type=Shown)
            self.seen[approval.id] = approval, shown

    async def _finish(self) -> None:
        """Everybody says no to what is left. The writer's thread takes its time, so this waits by
        the real clock."""
        self.runtime.crash_at = ""
        ends_s = time.monotonic() + END_S_MAX
        while True:
            assert time.monotonic() < ends_s, "it does not end"
            await self._quiet()
            if self.w.run.paused_by:
                await self.w.kernel.resume(self.w.run.id, by="alice")
                continue
            pending = [
                one
                for one in await self.w.store.approvals(states=[ApprovalState.PENDING])
                if one.run == self.w.run.id
            ]
            if not pending and all(task.done() for task in self.tasks.values()):
                break
            for one in pending:
                with contextlib.suppress(Ring0Error):
                    await self.w.kernel.answer(one.id, yes=False, by=ALICE)
            await asyncio.sleep(0.0005)
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    # --- the oracle -----------------------------------------------------------------------------

    def _admitted(self, call: str) -> None:
        if call in self.asked:
            row = self.w.run.row
            self.moments[call] = Moment(row.label, self.runtime.now_us())

    def executed(self, tool: str, call: str, args: dict[str, Any]) -> None:
        """Whether anybody may have said yes to what is just being done."""
        self.done[call] += 1
        self.covered["executed"] += 1
        what = f"{call} {tool} {args}"
        if self.done[call] > 1:
            self.violations.append(f"{what}: done {self.done[call]} times")
        needs, apart = NEEDS[tool]
        moment, now_is = self.moments[call], self.prepared[call]
        yes: set[str] = set()
        for said in self.said:
            fits = said.yes and self._fits(said, tool, call, args, moment, now_is)
            if fits and self._may(said.by, needs, apart):
                yes.add(said.by.name)
        if len(yes) >= needs:
            self.covered[f"executed after {needs}"] += 1
            return
        if needs == 1 and self._in_advance(tool, args, moment, apart):
            self.covered["executed in advance"] += 1
            return
        self.violations.append(f"{what}: of {needs} people, {sorted(yes)} have said yes to it")

    def _fits(
        self, said: Said, tool: str, call: str, args: Any, moment: Moment, now_is: str
    ) -> bool:
        """They were asked about this very call, and it is as they saw it (or made it)."""
        approval, shown = said.approval, said.shown
        if approval.call != call or shown.tool != tool or shown.run_label != moment.label:
            return False
        if said.edits:
            # Who changes it answers for the call as it is then, whatever else the world does.
            return {**shown.arguments, **said.edits} == args
        if moment.now_us >= approval.expires_us:
            return False
        return shown.arguments == args and shown.dry_run == (f"the world is {now_is}",)

    @staticmethod
    def _may(by: Operator, needs: int, apart: bool) -> bool:
        if Role.APPROVER not in by.roles or (apart and by.name == "alice"):
            return False
        return needs == 1 or by.login == "oidc"

    def _in_advance(self, tool: str, args: Any, moment: Moment, apart: bool) -> bool:
        return any(
            said.terms is not None
            and said.shown.tool == tool
            and said.shown.run_label == moment.label
            and {**said.shown.arguments, "amount": 0} == {**args, "amount": 0}
            and self._may(said.by, 1, apart)
            and not (said.terms.until_s and moment.now_us > self._ends_us(said))
            for said in self.said
        ) and not (self.revoked and self._all_revoked(tool, args))

    def _ends_us(self, said: Said) -> int:
        assert said.terms is not None
        return said.approval.asked_us + (said.terms.until_s + limits.APPROVAL_EXPIRY_S) * 1_000_000

    def _all_revoked(self, tool: str, args: Any) -> bool:
        """None was given since the last revocation."""
        known = self.w.kernel.waiting.standings._known.get(("local", tool), {})
        return not known


def _is_crash(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and isinstance(task.exception(), Crash)


STEPS = (
    Machine._start,
    Machine._answer,
    Machine._answers_at_once,
    Machine._batch,
    Machine._change_world,
    Machine._read_worse,
    Machine._jump,
    Machine._approve_itself,
    Machine._revoke,
    Machine._crash,
)
WEIGHTS = (4, 10, 3, 2, 2, 2, 1, 1, 1, 4)


@contextlib.asynccontextmanager
async def kernel(folder: Path) -> AsyncIterator[tuple[World, Points]]:
    runtime = Points()
    async with world(folder, runtime=runtime, policy=POLICY, start=False) as w:
        yield w, runtime


async def sequences(first: int, count: int, folder: Path) -> tuple[list[str], Counter[str]]:
    """Violations, each with its seed, and what was covered."""
    violations: list[str] = []
    covered: Counter[str] = Counter()
    for begin_at in range(first, first + count, KERNEL_SEQUENCES):
        home = folder / f"home-{begin_at}"
        async with kernel(home) as (w, runtime):
            for seed in range(begin_at, min(begin_at + KERNEL_SEQUENCES, first + count)):
                w.end = asyncio.get_running_loop().create_future()
                budget = Budget(wall_s=limits.BUDGET_WALL_S_MAX)
                agent = AgentManifest(name=f"clerk-{seed}", budget=budget)
                await begin(w, "pay bob 2", budget, agent)
                machine = Machine(w, runtime, seed)
                try:
                    await machine.run()
                except AssertionError as error:
                    machine.violations.append(f"{error}")
                violations += [f"seed {seed}: {one}" for one in machine.violations]
                covered += machine.covered
                await w.kernel.kill("run", w.run.id, by="alice")
        shutil.rmtree(home)
    return violations, covered


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        began = time.monotonic()
        violations, covered = asyncio.run(sequences(given.first, given.sequences, Path(folder)))
    for what, count in sorted(covered.items()):
        print(f"{count:8}  {what}")
    for one in violations[:20]:
        print(one)
    took_s = time.monotonic() - began
    print(f"{len(violations)} violations of {given.sequences} sequences, {took_s:.0f} s")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())
