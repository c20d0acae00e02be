"""How a run looks in a terminal while it goes on: the journal, followed as it grows.

Shows what is on record and nothing else, so what one sees is what `ring0 show` tells afterwards.
Not here: asking the human (running.py gives a callback), the finished trace (tree.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

import msgspec
from rich.console import Console, RenderableType
from rich.text import Text

from ring0.cli import output
from ring0.cli.listing import OBSERVED, observes
from ring0.cli.output import line, text
from ring0.cli.parts import asking, brief, head, held, outcome_of, place, reasons
from ring0.cli.relay import Relay
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.store.approving import DENIED_IN_A_ROW
from ring0.store.events import Entry, decode_entry
from ring0.store.sqlite import SqliteStore
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    Mode,
    Run,
    RunState,
    Shown,
)

T = TypeVar("T")

Answer = Callable[[Approval, Shown], Awaitable[None]]
"""Gets an answer to an ask from somebody, and gives it to the kernel. Cancelled where another was
quicker, or the run has ended."""
POLL_S: Final = 0.05
LATER_MAX: Final = 2_000
"""So many things are told after an answer; the rest is on record."""
_STATE_STYLE: Final = {
    RunState.DONE: "green",
    RunState.FAILED: "red",
    RunState.CANCELLED: "red",
    RunState.UNKNOWN: "yellow",
    RunState.WAITING: "yellow",
}


class View:
    """Follows runs and all beneath them, and prints what happens as it goes on record."""

    def __init__(
        self,
        store: SqliteStore,
        runtime: Runtime,
        console: Console,
        *,
        answer: Answer | None = None,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._out = console
        self._answer = answer
        self._seen: dict[str, int] = {}
        """Of each run: the seq of the last entry that was shown."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """By approval: who gets its answer."""
        self._relay = Relay(console)
        self._turn = asyncio.Lock()
        """One question at a time."""
        self._is_asking = False
        self._later: list[Callable[[], None]] = []
        """What is told once the question is answered."""
        self._left_out = 0
        self._resumed: dict[str, Run] = {}
        """Runs whose open asks have not been shown yet."""

    async def follow(self, roots: Collection[str], until: Awaitable[T]) -> T:
        """Shows what happens until `until` is done, and what is left then. Returns what it gave."""
        ending = asyncio.ensure_future(until)
        try:
            while not ending.done():
                await self.look(roots)
                pause = self._runtime.start(self._runtime.sleep(POLL_S), name="view")
                await asyncio.wait({ending, pause}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
            await self.look(roots)
            return await ending
        finally:
            ending.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._tasks.clear()

    async def resume(self, run: Run) -> None:
        """Begins where a run stands: what went before is told in a line, what waits is shown."""
        self._seen[run.id] = run.events
        await self._queued(run)
        calls = len(await self._store.calls(run.id))
        before = f"{output.count(calls, 'call')} before this: ring0 show {run.id}"
        self._under(run, text((before, "dim")))
        self._resumed[run.id] = run

    async def ask_left(self, run: str = "") -> None:
        """Shows what waits in resumed runs, or in this one: once it goes on, or can't."""
        for name in [run] if run else list(self._resumed):
            row = self._resumed.pop(name, None)
            if row is not None:
                for asked in await self._store.approvals(
                    states=[ApprovalState.PENDING], run=row.id
                ):
                    await self._asked(row, asked)

    async def look(self, roots: Collection[str]) -> None:
        """Shows what has come on record since the last look."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                task.result()  # What kept the answer from being given ends the view.
        for root in roots:
            for row in reversed(await self._store.runs(root=root, most=1_000)):
                if row.events <= self._seen.get(row.id, 0):
                    continue
                for _, _, seq, _, body in self._store.stored(row.id):
                    if seq > self._seen.get(row.id, 0):
                        self._seen[row.id] = seq
                        await self._show(row, decode_entry(body))

    def heard(self, run: str, said: str) -> None:
        """What an agent's process prints. At once: one that prints a great deal must not keep the
        kernel waiting."""
        if lines := self._relay.lines(run, said):
            self._say(lambda: self._out.print(Text("\n".join(lines), style="dim"), soft_wrap=True))

    # --- what may be said now -----------------------------------------------------------------

    def _say(self, print_it: Callable[[], None]) -> None:
        """Prints it; while a human is asked, after the answer: nothing comes between the two."""
        if not self._is_asking:
            print_it()
        elif len(self._later) < LATER_MAX:
            self._later.append(print_it)
        else:
            self._left_out += 1

    def _put(self, what: Text, columns: int) -> None:
        self._say(lambda: output.put(self._out, what, columns, mark="┆ "))

    def _answered_now(self) -> None:
        """The question is over: what happened meanwhile is told."""
        self._is_asking = False
        later, self._later = self._later, []
        for print_it in later:
            print_it()
        if self._left_out:
            self._put(text((f"{self._left_out} more: `ring0 show` tells them", "dim")), 2)
            self._left_out = 0

    # --- one entry ----------------------------------------------------------------------------

    async def _show(self, run: Run, entry: Entry) -> None:
        match entry.body:
            case ev.RunQueued():
                await self._queued(entry.body.run)
            case ev.RunMoved(state=RunState.RUNNING, epoch=epoch) if epoch > 1:
                self._line(run, text(("goes on", "bold"), f" (start {epoch})"))
                await self.ask_left(run.id)
            case ev.CronFired(cron=name, by=by):
                who = f", as {by} asked" if by else ""
                self._line(run, text(("started by cron ", "dim"), name, (who, "dim")))
            case ev.HookFired(hook=name, delivery=delivery):
                what = (f", delivery {line(delivery, 80)}", "dim")
                self._line(run, text(("started by hook ", "dim"), name, what))
            case ev.RunPaused(by=by, note=note):
                self._line(run, text(("paused", "yellow"), f" by {by}  ", (line(note), "dim")))
            case ev.RunResumed(by=by):
                self._line(run, text(("resumed", "bold"), f" by {by}"))
            case ev.RunMoved(state=RunState.WAITING, waiting_for="diverged", note=note):
                self._line(run, text(("waits: its replay diverged. ", "yellow"), line(note)))
            case ev.CallRefused(call=call):
                await self._refused(run, call)
            case ev.CallIntended(call=call):
                await self._intended(run, call)
            case ev.CallRetried(call=call):
                self._line(run, text(f"{place(call)}  ", ("runs again after the crash", "yellow")))
            case ev.CallEnded():
                await self._ended(run, entry.body)
            case ev.CallCutOff(call=call, why=why):
                self._unknown(run, call, why)
            case ev.CallSettled():
                self._settled(run, entry.body)
            case ev.ApprovalAsked(approval=approval):
                await self._asked(run, approval)
            case ev.ApprovalAnswered():
                await self._answered(run, entry.body)
            case ev.ApprovalEdited():
                self._edited(run, entry.body)
            case ev.RunEnded():
                await self._run_ended(run, entry.body)
            case _:
                pass

    def _line(self, run: Run, what: Text) -> None:
        """A line of this run; a child's is set in and begins with its id."""
        if run.parent:
            self._put(text((run.id, "dim cyan")), 2 * run.depth)
        self._put(what, 2 + 2 * run.depth)

    def _under(self, run: Run, what: Text) -> None:
        self._put(what, 8 + 2 * run.depth)

    async def _queued(self, run: Run) -> None:
        task = (await self._store.blob(run.task)).decode()
        kind = "child of " + run.parent if run.parent else "agent"
        self._put(
            text(
                (run.id, "bold cyan"),
                f"  {kind} ",
                (run.agent, "bold"),
                "  ",
                (line(task), "italic"),
            ),
            2 * run.depth,
        )
        if run.mode is Mode.EMBEDDED:
            self._under(run, text(("not contained: it runs in the kernel's own process", "yellow")))
        if not run.parent and await observes(self._store):
            self._under(run, text((OBSERVED, "bold yellow")))

    async def _intended(self, run: Run, call: Call) -> None:
        args = msgspec.json.decode(await self._store.blob(call.args))
        self._line(run, head(call, args, "allowed", "green"))
        if call.approval:
            approval = await self._store.approval(call.approval)
            who = approval.answered_by if approval else "?"
            self._under(
                run, text(("approved by ", "dim"), (who, ""), (f" ({call.approval})", "dim"))
            )
        self._under(run, reasons(call.verdict))

    async def _refused(self, run: Run, call: Call) -> None:
        args = msgspec.json.decode(await self._store.blob(call.args))
        error = (await outcome_of(self._store, call)).error or {}
        self._line(run, head(call, args, "refused", "red"))
        self._under(run, text((error.get("what", ""), "red")))
        self._told(run, call, error)

    def _told(self, run: Run, call: Call, error: dict[str, str]) -> None:
        """Why; and of models, what to do: most likely it is for whoever looks on here to do."""
        if error.get("why"):
            self._under(run, text((line(error["why"], 600), "dim")))
        if call.kind is CallKind.MODEL and error.get("todo"):
            self._under(run, text(("Do: ", "bold"), line(error["todo"], 400)))

    async def _ended(self, run: Run, body: ev.CallEnded) -> None:
        call = await self._store.call(body.call)
        assert call is not None
        outcome = await outcome_of(self._store, call)
        if outcome.error is not None:
            self._under(
                run,
                text(f"{place(call.id)} ", ("failed: ", "red"), line(outcome.error["what"], 400)),
            )
            if call.kind is CallKind.MODEL:
                self._told(run, call, outcome.error)
            return
        marks = [
            mark
            for mark in (
                str(outcome.label.integrity),
                *([output.money(body.cost_microusd)] if body.cost_microusd else []),
            )
            if mark != "system"
        ]
        self._under(
            run,
            text(
                f"{place(call.id)} → ",
                brief(call, outcome.value),
                (f"  [{', '.join(marks)}]" if marks else "", "dim"),
            ),
        )

    def _unknown(self, run: Run, call: str, why: str) -> None:
        self._line(run, text(f"{place(call)}  ", ("unknown", "bold yellow"), f"  {line(why)}"))
        self._under(
            run, text("Nobody knows whether it happened, and it is not run again by itself.")
        )
        self._under(
            run,
            text(
                ("Find out, then: ", "dim"),
                f"ring0 settle {call} happened",
                ("  or  ", "dim"),
                f"ring0 settle {call} did-not-happen",
            ),
        )

    def _settled(self, run: Run, body: ev.CallSettled) -> None:
        said = "it happened" if body.happened else "it did not happen"
        self._line(
            run,
            text(
                f"{place(body.call)}  ",
                (said, "bold"),
                f", says {body.by}",
                (f": {line(body.note)}" if body.note else "", "dim"),
            ),
        )

    async def _asked(self, run: Run, approval: Approval) -> None:
        shown = msgspec.json.decode(await self._store.blob(approval.shown), type=Shown)
        box = held(approval, shown, await asking(self._store, approval))
        now = await self._store.approval(approval.id)
        if self._answer is None or now is None or now.state != "pending":
            self._say(lambda: self._out.print(box))
        elif approval.id not in self._tasks:
            self._tasks[approval.id] = self._runtime.start(
                self._in_turn(self._answer, approval, shown, box), name=f"answer {approval.id}"
            )
            await self._runtime.sleep(
                0
            )  # Where nobody else is asked, the box stands before we go on.

    async def _in_turn(
        self, answer: Answer, approval: Approval, shown: Shown, box: RenderableType
    ) -> None:
        async with self._turn:
            self._out.print(box)
            self._is_asking = True
            try:
                await answer(approval, shown)
            except asyncio.CancelledError:
                if self._out.is_terminal:
                    self._out.print()  # The question stands open.
                raise
            finally:
                self._answered_now()

    def _edited(self, run: Run, body: ev.ApprovalEdited) -> None:
        if (task := self._tasks.pop(body.approval, None)) is not None:
            task.cancel()
        said = text(f"{body.approval}  ", ("changed", "yellow"), f" by {body.by}, and judged anew")
        self._line(run, said)

    async def _answered(self, run: Run, body: ev.ApprovalAnswered) -> None:
        now = await self._store.approval(body.approval)
        if now is not None and now.state == "pending":
            said = f" from {body.by}; {now.needs - len(now.yes_by)} more have to say so"
            self._line(run, text(f"{body.approval}  ", ("a yes", "green"), said))
            return
        if (task := self._tasks.pop(body.approval, None)) is not None:
            task.cancel()
        style = "green" if body.state == "approved" else "red"
        self._line(
            run,
            text(
                f"{body.approval}  ",
                (str(body.state), style),
                f" by {body.by}",
                (f": {line(body.note)}" if body.note else "", "dim"),
            ),
        )
        row = await self._store.run(run.id) if body.state == "denied" else None
        if row is not None and row.paused_by == DENIED_IN_A_ROW:
            what = f" by {row.paused_by}; `ring0 resume {row.root} --tree` lets them go on"
            self._line(run, text(("paused, with all of its tree", "yellow"), what))

    async def _run_ended(self, run: Run, body: ev.RunEnded) -> None:
        if self._relay.has_begun_a_line(run.id):
            self.heard(run.id, "\n")
        row = await self._store.run(run.id)
        assert row is not None
        style = _STATE_STYLE.get(body.state, "")
        took = output.lasted(row.started_us, row.ended_us)
        used = f"{output.count(row.calls_used, 'call')}, {output.money(row.cost_used_microusd)}"
        self._put(
            text(
                (row.id, "bold cyan"),
                "  ",
                (str(body.state), f"bold {style}"),
                (f" by {body.by}" if body.by else ""),
                (
                    f"  {used}, {took}; its handle is dead",
                    "dim",
                ),
            ),
            2 * run.depth,
        )
