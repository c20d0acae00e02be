"""What must always hold, whatever a seed does. `Checks.violations` is what did not."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ring0 import limits
from ring0.errors import StoreFailed, StoreFull
from ring0.observability.verify import verify
from ring0.store import events as ev
from ring0.tools.driver import CallContext, Prepared
from ring0.types import (
    ENDED,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Effect,
    LockMode,
    Run,
    RunState,
    ToolManifest,
)
from sim.liveness import Liveness

if TYPE_CHECKING:
    from ring0.store.sqlite.store import SqliteStore
    from sim.outside import Doing
    from sim.world import World

JUMP_NOTICED_S = limits.ALARMS_SLEEP_S_MAX + 10
"""After a clock was set: when all that this made due has been looked at."""
SLACK_S = 60.0
"""How long after its deadline a run may take to end, while a kernel is there."""


class Checks:
    """What is looked at while a seed runs, and all that is looked at when it is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[str] = []
        self.killed: dict[str, float] = {}
        """Runs whose kill has been confirmed, and when."""

    def found(self, invariant: str, detail: str) -> None:
        if (violation := f"{invariant}: {detail}") in self.violations:
            return
        self.violations.append(violation)
        self._world.tell(f"VIOLATION {invariant}: {detail}")

    # --- while it runs --------------------------------------------------------------------------

    def begins(
        self, context: CallContext, manifest: ToolManifest, doing: Doing, prepared: Prepared
    ) -> None:
        """A tool's driver is about to act."""
        world, call, run = self._world, context.call, context.run.id
        if run in self.killed:
            self.found("nothing begins after a confirmed kill", f"{call} of {run}")
        if world.life_number in doing.under_way:
            self.found("a call is carried out once at a time", call)
        if manifest.effect is Effect.ONCE:
            if doing.begun:
                self.found("a once effect begins once", f"{call}: {doing.begun}")
            row = world.on_disk("call", call)
            if row is None or row.state is not CallState.INTENDED:
                self.found("a once intent is on disk before its effect", f"{call}: {row}")
        for resource in prepared.touches:
            tenant = context.run.tenant
            fence = context.fences.get(resource, 0)
            self._alone(call, run, tenant, resource, fence)

    def _alone(self, call: str, run: str, tenant: str, resource: str, fence: int) -> None:
        """Nobody else holds what an effect changes, and no newer fence has been there before."""
        world = self._world
        before = world.outside.fences[tenant, resource]
        newest = max((one for _, one, _ in before), default=0)
        if fence and fence < newest:
            self.found(
                "no effect with an older fence after a newer one", f"{call}: {fence} {newest}"
            )
        before.append((world.clock.now_s, fence, run))
        for lock in world.locks_on(tenant, resource):
            if lock.run != run and lock.expires_us > max(world.clock.wall_us(), world.latest_us()):
                self.found("a lock keeps the effects of others away", f"{call} {resource} {lock}")

    def confirmed(self, runs: Iterable[Run], rows: dict[str, Run], asked: list[Any]) -> None:
        """A kill has returned: all of these and all beneath them have ended."""
        dead = {run.id for run in runs}
        beneath = set(dead)
        for row in sorted(rows.values(), key=lambda row: row.depth):
            if row.parent in beneath:
                beneath.add(row.id)
        for run in sorted(beneath):
            self.killed[run] = self._world.clock.now_s
            if rows[run].state not in ENDED:
                self.found("a kill reaches all beneath", f"{run} is {rows[run].state}")
        for approval in asked:
            if approval.run in beneath:
                self.found("a kill takes away what was asked", f"{approval.id} of {approval.run}")

    async def moment(self, kernel: Any) -> None:
        """Now and then, while a kernel is at work."""
        now_us = self._world.clock.monotonic_us()
        queue = kernel.admission._queue
        for ticket in queue.waiting():
            if queue._free(ticket, now_us):
                self.found("no call waits while what it needs is free", f"{ticket.run}")
        table = kernel.locking.leases.table
        for ask in table.waiting():
            if table._may(ask):
                self.found("no call waits for a lock that is free", str(ask))
        if self._world.clock.now_s < self._world.jumped_s + JUMP_NOTICED_S:
            return
        try:
            stuck = await kernel.runs.stuck()
        except (StoreFull, StoreFailed):
            return
        for run, why in stuck.items():
            self.found("no run is stuck", f"{run}: {why}")

    def idle(self, kernel: Any) -> None:
        """All runs have ended: nothing is held for them any more."""
        load = kernel.admission.load()
        taken = {one.name: one.in_use for one in load.resources if one.in_use}
        if taken or load.queued:
            self.found("what ended gives back its slots", f"{taken}, {load.queued} queued")
        for place in sorted(kept_of_runs(kernel)):
            self.found("nothing is kept of runs that have ended", place)

    # --- when it is over ------------------------------------------------------------------------

    async def final(self, store: SqliteStore) -> None:
        """All that must hold of the journal, the tables and the ledger together."""
        entries = [entry async for entry in store.entries()]
        runs = {row.id: row for row in await store.runs(most=100_000)}
        calls = {call.id: call for run in runs for call in await store.calls(run)}
        report = await verify(store)
        for problem in report.problems:
            self.found("the tables say what the journal says", problem)
        for row in runs.values():
            if row.state not in ENDED:
                self.found("every run ends", f"{row.id} is {row.state} {row.waiting_for}")
        for approval in await store.approvals(states=[ApprovalState.PENDING]):
            self.found("no ask outlives its run", f"{approval.id} of {approval.run}")
        said = {e.body.call: e.body.happened for e in entries if isinstance(e.body, ev.CallSettled)}
        self._ledger(calls, runs, said)
        await self._faults(store, runs, calls)
        _Budgets(self).follow(entries, runs)
        self._money(runs, calls, entries)
        _Locks(self).follow(entries)
        self._order(entries, runs)
        if self._world.plan.at_work_max >= len(runs):  # Otherwise it may wait for its turn.
            Liveness(self, runs).follow(entries)
        self._cover(entries, runs, calls)

    async def _faults(
        self, store: SqliteStore, runs: dict[str, Run], calls: dict[str, Call]
    ) -> None:
        """No run and no call ever hears of a fault of ring0, nor does a program fail."""
        for row in runs.values():
            text = (await store.blob(row.result)).decode() if row.result else ""
            if "A fault of ring0" in text or "The agent " in text:
                self.found("no fault of ring0", f"{row.id}: {text[:600]}")
        for call in calls.values():
            if call.outcome and call.state is CallState.ERROR and call.kind is not CallKind.TOOL:
                text = (await store.blob(call.outcome)).decode()
                if "A fault of ring0" in text:
                    self.found("no fault of ring0", f"{call.id}: {text[:600]}")

    def _ledger(self, calls: dict[str, Call], runs: dict[str, Run], said: dict[str, bool]) -> None:
        """What was done outside, against what is on record."""
        for doing in self._world.outside.doings.values():
            call, count = calls.get(doing.call), len(doing.landed)
            if call is None and doing.effect is not Effect.ONCE:
                continue  # Its intent rode, and was lost with the kernel: counted as made.
            if call is None:
                self.found("what is done is on record", f"{doing.call} landed {count} times")
                continue
            if doing.effect is Effect.ONCE and count > 1:
                self.found("a once effect happens once", f"{call.id} landed {count} times")
            if doing.effect is not Effect.ONCE:
                continue
            if call.state is CallState.INTENDED:
                self.found("no once call is left open", f"{call.id} of {runs[call.run].state}")
            if call.state is CallState.REFUSED:
                self.found("what is refused is not begun", call.id)
            settled, happened = call.id in said, said.get(call.id)
            if call.state is CallState.OK and count != 1 and not (settled and happened):
                self.found("an outcome of ok means that it happened", f"{call.id}: {count}")
            if call.state is CallState.ERROR and count and not settled:
                self.found("a clean error means that nothing happened", f"{call.id}: {count}")

    def _money(self, runs: dict[str, Run], calls: dict[str, Call], entries: list[ev.Entry]) -> None:
        """What models charged was reserved and is on record, in every tree: with its call, or as
        what a crash may have taken."""
        recorded: Counter[str] = Counter()
        for entry in entries:
            if isinstance(entry.body, ev.CallsLost):
                recorded[entry.run] += entry.body.cost_microusd
        for call in calls.values():
            if call.kind is CallKind.MODEL:
                recorded[call.run] += call.cost_microusd
        for run, billed in self._world.outside.billed.items():
            if billed > recorded[run]:
                self.found("what was charged is on record", f"{run}: {billed} > {recorded[run]}")
        by_root: Counter[str] = Counter()
        for run, billed in self._world.outside.billed.items():
            by_root[runs[run].root] += billed
        for root, billed in by_root.items():
            if billed > runs[root].budget.cost_microusd:
                self.found("a tree never spends more than its budget", f"{root}: {billed}")

    def _order(self, entries: list[ev.Entry], runs: dict[str, Run]) -> None:
        """Children end before their parents, and nothing is begun by what has ended; a child holds
        every grant that its parent does."""
        for row in runs.values():
            above = runs.get(row.parent)
            if above is not None and not set(above.only) <= set(row.only):
                self.found("a child is as narrow as its parent", f"{row.id} {row.parent}")
        ended: set[str] = set()
        unknown: dict[str, set[str]] = defaultdict(set)
        for entry in entries:
            body = entry.body
            if isinstance(body, ev.CallCutOff):
                unknown[entry.run].add(body.call)
            if isinstance(body, ev.CallSettled):
                unknown[entry.run].discard(body.call)
            if isinstance(body, ev.RunEnded):
                if body.state in (RunState.DONE, RunState.FAILED) and unknown[entry.run]:
                    what = f"{entry.run} ended {body.state}: {sorted(unknown[entry.run])}"
                    self.found("a run that leaves an unknown effect ends unknown", what)
                for row in runs.values():
                    if row.parent == entry.run and row.id not in ended:
                        self.found("children end before their parents", f"{row.id} {entry.run}")
                ended.add(entry.run)
            elif entry.run in ended and isinstance(
                body, ev.CallIntended | ev.CallRetried | ev.ApprovalAsked | ev.RunMoved
            ):
                self.found("what has ended begins nothing", f"{entry.run}: {body}")

    def _cover(self, entries: list[ev.Entry], runs: dict[str, Run], calls: dict[str, Call]) -> None:
        seen = self._world.seen
        for entry in entries:
            seen(f"event {type(entry.body).__name__}")
            if isinstance(entry.body, ev.RunMoved) and entry.body.waiting_for:
                seen(f"waiting for {entry.body.waiting_for}")
            if isinstance(entry.body, ev.ApprovalAnswered):
                seen(f"approval {entry.body.state}")
        for call in calls.values():
            seen(f"call {call.kind} {call.state}")
        for run in runs.values():
            seen(f"run {run.state}")
            if run.state is RunState.FAILED and run.ended_us >= run.deadline_us:
                seen("run at its deadline")


class _Budgets:
    """Recomputes from the journal alone what each run and all beneath it have used, at every
    prefix; it shares nothing with the projection."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._parent: dict[str, str] = {}
        self._budget: dict[str, dict[str, int]] = {}
        self._used: dict[str, Counter[str]] = defaultdict(Counter)
        self._open: dict[str, tuple[int, int]] = {}
        self._told: set[tuple[str, str]] = set()

    def follow(self, entries: list[ev.Entry], runs: dict[str, Run]) -> None:
        for entry in entries:
            body = entry.body
            match body:
                case ev.RunQueued():
                    self._parent[entry.run] = body.run.parent
                    budget = body.run.budget
                    self._budget[entry.run] = {
                        "calls": budget.calls, "tokens": budget.tokens,
                        "money": budget.cost_microusd, "children": budget.children,
                    }  # fmt: skip
                    if body.run.parent:
                        self._use(body.run.parent, "children", 1)
                case ev.BudgetRaised():
                    above = entry.run
                    while above:
                        mine = self._budget[above]
                        mine["calls"] += body.calls
                        mine["tokens"] += body.tokens
                        mine["money"] += body.cost_microusd
                        mine["children"] += body.children
                        above = self._parent[above]
                case ev.CallIntended():
                    if not body.uncounted:
                        self._use(entry.run, "calls", 1)
                    elif body.call.kind is not CallKind.LOCK:
                        self._checks.found("only a lock's end costs nothing", body.call.id)
                    self._reserve(
                        entry.run, body.call.id, body.reserve_microusd, body.reserve_tokens
                    )
                case ev.CallRetried():
                    self._reserve(entry.run, body.call, body.reserve_microusd, body.reserve_tokens)
                case ev.CallEnded():
                    money, tokens = self._open.pop(body.call)
                    self._use(entry.run, "money", body.cost_microusd - money)
                    self._use(entry.run, "tokens", body.tokens - tokens)
                case ev.CallsLost():
                    self._use(entry.run, "calls", body.calls)
                    self._use(entry.run, "money", body.cost_microusd)
                    self._use(entry.run, "tokens", body.tokens)
                case _:
                    pass
        for run, row in runs.items():
            if self._used[run]["calls"] > row.calls_used:
                self._checks.found("a row counts its calls", f"{run}: {self._used[run]} {row}")

    def _reserve(self, run: str, call: str, money: int, tokens: int) -> None:
        before = self._open.get(call, (0, 0))
        self._open[call] = before[0] + money, before[1] + tokens
        self._use(run, "money", money)
        self._use(run, "tokens", tokens)

    def _use(self, run: str, what: str, amount: int) -> None:
        while run:
            used = self._used[run]
            used[what] += amount
            if used[what] > self._budget[run][what] and (run, what) not in self._told:
                self._told.add((run, what))
                self._checks.found(
                    "no budget is overspent at any moment",
                    f"{run}: {used[what]} of {self._budget[run][what]} {what}",
                )
            run = self._parent[run]


class _Locks:
    """Who held what when, by the journal."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._held: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        self._newest = 0

    def follow(self, entries: list[ev.Entry]) -> None:
        now_us = 0
        for entry in entries:
            now_us = max(now_us, entry.at_us)  # A clock that was set back revives no lease.
            body = entry.body
            if isinstance(body, ev.LockTaken):
                self._taken(body.lock, now_us)
            elif isinstance(body, ev.LockFreed):
                self._held[body.tenant, body.resource].pop(entry.run, None)

    def _taken(self, lock: Any, now_us: int) -> None:
        holders = self._held[lock.tenant, lock.resource]
        for other in holders.values():
            both_read = lock.mode is LockMode.SHARED and other.mode is LockMode.SHARED
            if other.run != lock.run and not both_read and other.expires_us > now_us:
                self._checks.found("a lock shuts others out", f"{lock} while {other}")
        mine = holders.get(lock.run)
        if mine is None or mine.fence != lock.fence:
            if lock.fence <= self._newest:
                self._checks.found("fences only grow", f"{lock.fence} after {self._newest}")
            self._newest = lock.fence
        holders[lock.run] = lock


MAY_REMEMBER = frozenset({
    "Attained._had",  # What runs have had: bounded, the oldest forgotten first.
    "Alarms._heap",  # What is void in it is cleared out now and then.
    "Ask._asked",  # How often trees asked: bounded likewise.
    "Columns.ids",  # Records of a scope, each named after its run: bounded by bytes (`Indexes`).
    "Names.names",  # Runs as the sessions of records: likewise.
    "Names.numbers",
})  # fmt: skip


def kept_of_runs(kernel: Any) -> set[str]:
    """Where, in all that a kernel holds, the id of a run is still a key."""
    found: set[str] = set()
    seen: set[int] = set()
    rest: list[Any] = [kernel]
    while rest:
        one = rest.pop()
        if id(one) in seen or not type(one).__module__.startswith("ring0."):
            continue
        seen.add(id(one))
        for name, value in _fields(one):
            place = f"{type(one).__name__}.{name}"
            if isinstance(value, dict | set | list | deque | OrderedDict):
                if any(_names_run(key) for key in value) and place not in MAY_REMEMBER:
                    found.add(place)
                rest += value.values() if isinstance(value, dict) else value
            else:
                rest.append(value)
    return found


def _fields(one: Any) -> list[tuple[str, Any]]:
    if hasattr(one, "__dict__"):
        return list(vars(one).items())
    slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
    return [(name, getattr(one, name, None)) for name in slots]


def _names_run(key: Any) -> bool:
    if isinstance(key, tuple):
        return any(_names_run(part) for part in key)
    return isinstance(key, str) and key.startswith(("r-", "a-"))
