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
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from approvals_crashes import POINTS, Crash, Points, is_crash, started_again
from approvals_oracle import NEEDS, SILENT, Oracle, Said
from approvals_world import ADA, ALICE, BOB, CAROL, EVE, PAY_SCHEMA, UNTRUSTED, VIEWER
from kernel_world import Doing, World, begin, world

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.types import (
    AgentManifest,
    Approval,
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
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
PEOPLE = (ALICE, ADA, BOB, CAROL, EVE, VIEWER)
TARGETS = ("mallory", "bob", "cy")
KERNEL_SEQUENCES = 100
END_S_MAX = 20


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
            prepared,
            digest=now,
            title=f"the world is {now}",
            lines=() if self.manifest.name in SILENT else (f"it would find {now}",),
            reversal="reversible",
        )

    async def execute(self, args: dict[str, Any], prepared: Any, context: Any) -> Any:
        self._machine.executed(self.manifest.name, context.call, args)
        return await super().execute(args, prepared, context)


class Machine(Oracle):
    """One sequence."""

    def __init__(self, w: World, runtime: Points, seed: int) -> None:
        super().__init__(w, runtime.now_us)
        self.runtime, self.dice = runtime, random.Random(seed)
        self.world_is = "w0"
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.asked: dict[str, tuple[str, dict[str, Any]]] = {}
        """By call: its tool and the arguments that the agent asks with."""
        self.seen: dict[str, tuple[Approval, Shown]] = {}

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
        self.covered["crash"] += 1
        await started_again(self.w, list(self.tasks.values()))
        if self.dice.random() < 0.3:  # Nobody was at work for a while.
            self.runtime.jump(self.dice.choice((60, 1_900, limits.APPROVAL_EXPIRY_S + 1)))
        if self.dice.random() < 0.3:
            await self._change_world()
        for call in self.asked:
            self._make(call)

    def _admitted(self, call: str) -> None:
        if call in self.asked:
            self.admitted(call)

    # --- looking --------------------------------------------------------------------------------

    async def _quiet(self) -> None:
        """Until all that is under way waits for people, or a crash has come."""
        for _ in range(4_000):
            crashed = [t for t in self.tasks.values() if t.done() and is_crash(t)]
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
