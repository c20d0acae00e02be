"""What happened since a kernel came to work, as counters: a fold over the journal as it grows.

It begins at the journal's end, so it is all 0 after each start, which Prometheus knows of counters.
Not here: how things stand now (kernel/telemetry/measuring.py).
"""

from __future__ import annotations

from ring0 import limits
from ring0.observability.telemetry.prometheus import OTHER, Family
from ring0.store import Store
from ring0.store import events as ev
from ring0.types import Call, CallKind


class Counts:
    """Of one kernel's journal. `begin` it, then `read` before each look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index = -1
        self.runs = Family(
            name="ring0_runs_ended_total",
            help="Runs that have ended, by agent and state.",
            kind="counter",
        )
        self.calls = Family(
            name="ring0_calls_total",
            help="Calls that have ended or were refused, by kind and state.",
            kind="counter",
        )
        self.tools = Family(
            name="ring0_tool_calls_total",
            help="The same of tools, by tool and state.",
            kind="counter",
        )
        self.rules = Family(
            name="ring0_refusals_total",
            help="Calls that were refused, by the rule that decided.",
            kind="counter",
        )
        self.took = Family(
            name="ring0_call_seconds",
            help="From a call's intent to its outcome, by kind.",
            kind="histogram",
        )
        self.tokens = Family(
            name="ring0_tokens_total", help="Tokens of models, by model.", kind="counter"
        )
        self.cost = Family(
            name="ring0_cost_usd_total", help="What calls have cost, by kind.", kind="counter"
        )
        self.asks = Family(
            name="ring0_approvals_total",
            help="Approvals that were asked for or answered, by what became of them.",
            kind="counter",
        )
        self.unknown = Family(
            name="ring0_calls_unknown_total",
            help="Effects that were cut off: nobody knows whether they happened.",
            kind="counter",
        )
        self.kills = Family(name="ring0_kills_total", help="Kills, by scope.", kind="counter")
        self.unknown.set(0)

    @property
    def families(self) -> list[Family]:
        return [
            self.runs, self.calls, self.tools, self.rules, self.took, self.tokens, self.cost,
            self.asks, self.unknown, self.kills,
        ]  # fmt: skip

    async def begin(self) -> None:
        """From here on it counts."""
        self._index = (await self._store.head()).size - 1

    async def read(self) -> int:
        """Counts what is new, up to a bound; how many entries are left to the next look."""
        for _ in range(limits.METRICS_ENTRIES_PER_SCRAPE_MAX // limits.METRICS_PAGE_ENTRIES):
            page = self._store.stored_after(self._index, limits.METRICS_PAGE_ENTRIES)
            for index, _, entry in page:
                await self._count(entry)
                self._index = index
            if len(page) < limits.METRICS_PAGE_ENTRIES:
                break
        return max(0, (await self._store.head()).size - 1 - self._index)

    async def _count(self, entry: ev.Entry) -> None:
        match entry.body:
            case ev.CallRefused(call=refused):
                self._refused(refused, 1)
            case ev.CallsRefusedAlike() as alike:
                if (call := await self._store.call(alike.like)) is not None:
                    self._refused(call, len(alike.calls))
            case ev.CallEnded() as ended:
                if (call := await self._store.call(ended.call)) is not None:
                    self._ended(call, ended, entry.at_us)
            case ev.CallCutOff():
                self.unknown.add(1)
            case ev.RunEnded(state=state):
                row = await self._store.run(entry.run)
                self.runs.add(1, agent=row.agent if row else "", state=str(state))
            case ev.ApprovalAsked():
                self.asks.add(1, state="asked")
            case ev.ApprovalAnswered(state=state):
                self.asks.add(1, state=str(state))
            case ev.Killed(scope=scope):
                self.kills.add(1, scope=scope)
            case _:
                pass

    def _refused(self, call: Call, count: int) -> None:
        self.calls.add(count, kind=str(call.kind), state="refused")
        if call.kind is CallKind.TOOL:
            # A name that no tool has is the agent's own word: many would hide those of ours.
            self.tools.add(count, tool=call.name if call.tool_digest else OTHER, state="refused")
        for reason in call.verdict.reasons[:1]:
            self.rules.add(count, rule=reason.rule)

    def _ended(self, call: Call, body: ev.CallEnded, at_us: int) -> None:
        kind, state = str(call.kind), str(body.state)
        self.calls.add(1, kind=kind, state=state)
        self.took.observe(max(0, at_us - call.begun_us) / 1_000_000, kind=kind)
        if call.kind is CallKind.TOOL:
            self.tools.add(1, tool=call.name, state=state)
        if body.cost_microusd:
            self.cost.add(body.cost_microusd / 1_000_000, kind=kind)
        if body.tokens:
            self.tokens.add(body.tokens, model=call.name)
