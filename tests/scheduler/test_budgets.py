"""A budget is shared down a tree of runs and never passed, whatever happens and wherever it stops.

The histories are made as the kernel makes them: an event is written only where the guard that the
kernel writes with it holds. After every event, that is: in every prefix that a crash can leave, the
tree's own use is within what its root was given.
"""

from __future__ import annotations

import random

import pytest
from conforming import InMemory
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ring0 import limits
from ring0.scheduler import budgets
from ring0.store import events as ev
from ring0.store.project import SHARED, project
from ring0.types import (
    ENDED,
    Budget,
    Call,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    Mode,
    Run,
    RunState,
    Verdict,
    VerdictKind,
)

LABEL = Label(integrity=Integrity.USER)
VERDICT = Verdict(kind=VerdictKind.ALLOW, reasons=())


class Journal(InMemory):
    """A history as it grows, with its rows."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.given = {name: getattr(budget, name) for name in SHARED}
        """What the root was given, raises included."""
        self.count = 0
        self.queue("r-0", budget)

    def run(self, run: str) -> Run:
        found = self.get("run", run)
        assert isinstance(found, Run)
        return found

    def write(self, run: str, *events: ev.AnyEvent) -> None:
        for event in events:
            seq = 1 if isinstance(event, ev.RunQueued) else self.run(run).events + 1
            project(ev.Entry(run=run, seq=seq, at_us=1, body=event), self)
            self.check()

    def queue(self, run: str, budget: Budget, parent: Run | None = None) -> None:
        row = Run(
            id=run,
            state=RunState.QUEUED,
            parent=parent.id if parent else "",
            root=parent.root if parent else run,
            depth=parent.depth + 1 if parent else 0,
            agent="a",
            agent_digest="",
            mode=Mode.EMBEDDED,
            tenant="t",
            principal="p",
            task="",
            label=LABEL,
            budget=budget,
            started_us=1,
            deadline_us=100,
        )
        self.write(run, ev.RunQueued(run=row, manifest=""))
        self.write(run, ev.RunMoved(state=RunState.RUNNING, epoch=1))

    def own(self, run: Run, name: str) -> int:
        """What its own calls used: all that is used, but what was moved to children."""
        used = int(getattr(run, SHARED[name]))
        for child in self.of("run"):
            if child.parent == run.id:
                part = getattr(child, SHARED[name]) if child.state in ENDED else None
                used -= getattr(child.budget, name) if part is None else part
                used -= 1 if name == "children" else 0
        return used

    def check(self) -> None:
        runs = self.of("run")
        for name, field in SHARED.items():
            for run in runs:
                used = getattr(run, field)
                assert 0 <= used <= getattr(run.budget, name), f"{run.id}: {name} {used}"
                if name != "children":
                    assert self.own(run, name) >= 0, f"{run.id} got more {name} back than it moved"
            total = sum(self.own(run, name) for run in runs)
            if name == "children":
                total = len(runs) - 1
            assert total <= self.given[name], f"{total} {name} of {self.given[name]} are spent"
        calls = [call for call in self.of("call") if call.state is not CallState.REFUSED]
        assert len(calls) <= self.given["calls"]
        assert sum(call.tokens for call in calls) <= self.given["tokens"]
        assert sum(call.cost_microusd for call in calls) <= self.given["cost_microusd"]


def call_of(run: str, number: int) -> Call:
    return Call(
        id=f"{run}/0/{number}",
        run=run,
        seq=0,
        kind=CallKind.MODEL,
        name="default",
        state=CallState.INTENDED,
        request_digest="",
        args="",
        effect=Effect.IDEMPOTENT,
        verdict=VERDICT,
        decision="",
        begun_us=1,
    )


def room(run: Run, **amounts: int) -> bool:
    """The guard `Room`."""
    return all(
        getattr(run, SHARED[name]) + amount <= getattr(run.budget, name)
        for name, amount in amounts.items()
    )


def step(journal: Journal, dice: random.Random) -> None:
    """One thing that the kernel may write."""
    live = [run for run in journal.of("run") if run.state not in ENDED]
    if not live:
        return
    run = dice.choice(live)
    journal.count += 1
    match dice.randrange(8):
        case 0 | 1:
            cost, tokens = dice.randrange(0, 400), dice.randrange(0, 400)
            if room(run, calls=1, tokens=tokens, cost_microusd=cost):
                call = call_of(run.id, journal.count)
                event = ev.CallIntended(call=call, reserve_microusd=cost, reserve_tokens=tokens)
                journal.write(run.id, event)
        case 2:
            if held := [c for c in journal.of("call") if c.run == run.id and c.state == "intended"]:
                call = dice.choice(held)
                event = ev.CallEnded(
                    call=call.id,
                    state=dice.choice([CallState.OK, CallState.ERROR]),
                    outcome="",
                    cost_microusd=dice.randint(0, call.cost_microusd),
                    tokens=dice.randint(0, call.tokens),
                )
                journal.write(run.id, event)
        case 3:
            if held := [c for c in journal.of("call") if c.run == run.id and c.state == "intended"]:
                call, cost, tokens = dice.choice(held), dice.randrange(200), dice.randrange(200)
                if room(run, tokens=tokens, cost_microusd=cost):
                    event = ev.CallRetried(
                        call=call.id, epoch=1, reserve_microusd=cost, reserve_tokens=tokens
                    )
                    journal.write(run.id, event)
        case 4:
            budget = Budget(
                calls=dice.randint(1, 20),
                tokens=dice.randrange(0, 800),
                cost_microusd=dice.randrange(0, 800),
                children=dice.randrange(0, 4),
            )
            wanted = {name: getattr(budget, name) for name in SHARED}
            wanted["children"] += 1
            if room(run, **wanted):
                journal.queue(f"r-{journal.count}", budget, run)
        case 5:
            beneath = [r for r in live if r.parent == run.id]
            if run.parent and not beneath:
                end = ev.RunEnded(state=RunState.DONE, result="", epoch=run.epoch + 1)
                journal.write(run.id, end)
        case 6:
            more = {name: dice.randrange(0, 5) for name in SHARED}
            for name, amount in more.items():
                journal.given[name] += amount
            journal.write(run.id, ev.BudgetRaised(by="ann", wall_s=7, **more))
        case 7:
            left = run.budget.calls - run.calls_used
            lost = min(budgets.chunk_calls(run.budget) - 1, left)
            if lost > 0:
                journal.write(run.id, ev.CallsLost(calls=lost))


@given(st.randoms(use_true_random=False), st.integers(1, 120))
@settings(max_examples=150, deadline=None)
def test_at_every_prefix_a_tree_has_spent_no_more_than_its_root_was_given(
    dice: random.Random, steps: int
) -> None:
    journal = Journal(Budget(calls=60, tokens=3_000, cost_microusd=3_000, children=12))
    for _ in range(steps):
        step(journal, dice)


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_when_all_children_have_ended_what_they_left_is_back_exactly_once(
    dice: random.Random,
) -> None:
    journal = Journal(Budget(calls=60, tokens=3_000, cost_microusd=3_000, children=12))
    for _ in range(80):
        step(journal, dice)
    for run in sorted(journal.of("run"), key=lambda row: -row.depth):
        if run.parent and run.state not in ENDED:
            end = ev.RunEnded(state=RunState.CANCELLED, result="", epoch=run.epoch + 1)
            journal.write(run.id, end)
    root = journal.run("r-0")
    calls = journal.of("call")
    assert root.cost_used_microusd == sum(call.cost_microusd for call in calls)
    assert root.tokens_used == sum(call.tokens for call in calls)
    assert root.children_used == len(journal.of("run")) - 1
    lost = root.calls_used - len(calls)
    assert lost >= 0, "what was lost in crashes stays spent"


def test_a_raise_goes_up_the_tree_and_is_moved_down() -> None:
    journal = Journal(Budget(calls=10, tokens=100))
    journal.queue("r-1", Budget(calls=5, tokens=50, children=3), journal.run("r-0"))
    journal.queue("r-2", Budget(calls=2, tokens=20, children=0), journal.run("r-1"))
    before = {run: journal.run(run) for run in ("r-0", "r-1", "r-2")}
    journal.given["calls"] += 100
    journal.write("r-2", ev.BudgetRaised(by="ann", calls=100, wall_s=60))
    for run, old in before.items():
        row = journal.run(run)
        assert row.budget.calls == old.budget.calls + 100
        moved = 0 if run == "r-2" else 100
        assert row.calls_used == old.calls_used + moved, "what is given is for the one beneath"
        assert row.deadline_us == old.deadline_us + 60_000_000
        assert row.budget.wall_s == old.budget.wall_s + 60


def test_a_budget_is_never_lowered_by_a_raise() -> None:
    journal = Journal(Budget(calls=10))
    with pytest.raises(AssertionError):
        journal.write("r-0", ev.BudgetRaised(by="mallory", calls=-5))


def test_a_crash_never_counts_more_calls_as_lost_than_there_are() -> None:
    journal = Journal(Budget(calls=10))
    with pytest.raises(AssertionError):
        journal.write("r-0", ev.CallsLost(calls=11))


# --- the words --------------------------------------------------------------------------------


def spent_run(**used: int) -> Run:
    return replace(
        Journal(Budget(calls=20, tokens=1_000, cost_microusd=500_000)).run("r-0"), **used
    )


def test_a_refusal_says_what_the_budget_went_to_and_how_to_get_more() -> None:
    calls = [
        replace(call_of("r-0", n), state=CallState.OK, tokens=100, cost_microusd=1_500)
        for n in range(3)
    ]
    calls += [
        replace(call_of("r-0", n), kind=CallKind.TOOL, name="crm.query") for n in range(3, 15)
    ]
    run = spent_run(calls_used=20, tokens_used=300, cost_used_microusd=4_500)
    told = budgets.refusal(run, "20 of 20 calls are used or reserved, and this takes 1", calls)
    assert "20 of 20 calls" in told.what
    assert "3 × model default (300 tokens, 0.004500 USD)" in told.why
    assert "12 × tool crm.query" in told.why
    assert "5 × moved to children" in told.why, "20 less the 15 of its own"
    assert "ask_for_more" in told.todo and "ring0 budget r-0" in told.todo


def test_what_was_refused_took_nothing() -> None:
    refused = replace(call_of("r-0", 1), state=CallState.REFUSED, cost_microusd=5, tokens=5)
    assert budgets.spent(spent_run(), [refused]) == []


def test_a_refusal_names_only_the_kinds_that_took_most() -> None:
    calls = [replace(call_of("r-0", n), name=f"m{n:02}", tokens=n + 1) for n in range(20)]
    run = spent_run(calls_used=20, tokens_used=sum(c.tokens for c in calls))
    told = budgets.refusal(run, "no room", calls)
    assert "model m19" in told.why and "model m00" not in told.why
    assert f"{20 - limits.BUDGET_SPENT_SHOWN_MAX} more kinds" in told.why


def test_calls_reach_the_disk_in_small_parts_of_the_budget() -> None:
    assert budgets.chunk_calls(Budget(calls=1)) == 1, "a small budget loses nothing in a crash"
    assert budgets.chunk_calls(Budget(calls=31)) == 1
    assert budgets.chunk_calls(Budget(calls=1_000)) == 62
    assert budgets.chunk_calls(Budget(calls=10**6)) == limits.BUDGET_CHUNK_CALLS_MAX


def test_an_amount_in_words_is_the_amount_to_the_micro_dollar() -> None:
    given = {"cost_microusd": 1_234_567_890_001, "tokens": 0, "calls": 1_000, "wall_s": 60}
    assert budgets.amounts(given) == "1,000 calls, 60 s, 1234567.890001 USD"
