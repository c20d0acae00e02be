"""What a run may use: reserved before, settled after, asked for, given, the same after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from kernel_world import Doing, JumpingRuntime, World, world
from spoken import Spoken, priced, said

from ring0 import limits
from ring0.errors import ModelFailed
from ring0.kernel.agent.agents import Agent, family_of
from ring0.kernel.boot import open_kernel
from ring0.kernel.steps.spending import Reservation
from ring0.runtime import Runtime
from ring0.scheduler.budgets import Riding
from ring0.store import Write
from ring0.store import events as ev
from ring0.tools.driver import Prepared
from ring0.types import (
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
    Operator,
    Outcome,
    RunState,
)

ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
BYTES = len(msgspec.json.encode(ASKED))
RESERVED_TOKENS = BYTES + 100
RESERVED_MICROUSD = BYTES + 200


async def ask_model(w: World, **more: Any) -> Outcome:
    return await w.call("default", ASKED, kind=CallKind.MODEL, **more)


def used(w: World) -> tuple[int, int, int]:
    row = w.run.row
    return row.calls_used, row.tokens_used, row.cost_used_microusd


async def used_on_record(w: World) -> tuple[int, int, int]:
    row = await w.row()
    return row.calls_used, row.tokens_used, row.cost_used_microusd


def code(outcome: Outcome) -> str:
    return outcome.error["code"] if outcome.error else "ok"


BUDGET = Budget(calls=100, tokens=10_000, cost_microusd=10_000)


# --- models -------------------------------------------------------------------------------------


async def test_a_model_call_reserves_what_it_may_take_and_settles_at_what_the_provider_says(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        provider = Spoken(w, said(7, 3))
        provider.gate = asyncio.Event()
        asking = asyncio.create_task(ask_model(w))
        await provider.begun.wait()
        assert await used_on_record(w) == (1, RESERVED_TOKENS, RESERVED_MICROUSD) == used(w)
        provider.gate.set()
        assert (await asking).state is CallState.OK
        assert await used_on_record(w) == (1, 10, 13) == used(w)


async def test_a_provider_that_counts_nothing_counts_as_all_that_was_reserved(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, said(1, 1, estimated=True))
        await ask_model(w)
        assert await used_on_record(w) == (1, RESERVED_TOKENS, RESERVED_MICROUSD) == used(w)


async def test_a_failed_model_call_keeps_what_may_have_been_spent(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, ModelFailed("It broke off."))
        assert code(await ask_model(w)) == "model_failed"
        assert await used_on_record(w) == (1, RESERVED_TOKENS, RESERVED_MICROUSD) == used(w)


async def test_a_model_call_that_was_turned_away_costs_nothing(tmp_path: Path) -> None:
    refused = ModelFailed("status 401")
    refused.unspent = True
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, refused)
        await ask_model(w)
        assert await used_on_record(w) == (1, 0, 0) == used(w)


async def test_each_further_attempt_within_a_call_is_reserved_and_stays_spent(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, "again", "again", said(7, 3))
        assert code(await ask_model(w)) == "ok"
        two = (2 * RESERVED_TOKENS + 10, 2 * RESERVED_MICROUSD + 13)
        assert await used_on_record(w) == (1, *two) == used(w)


async def test_an_attempt_for_which_there_is_no_money_is_not_made(tmp_path: Path) -> None:
    budget = Budget(cost_microusd=RESERVED_MICROUSD + 1)
    async with world(tmp_path / "home", manifest=priced(budget)) as w:
        provider = Spoken(w, "again", said(7, 3))
        assert code(await ask_model(w)) == "limit_reached"
        assert provider.turns, "the second attempt was never made"
        assert (await used_on_record(w))[2] == RESERVED_MICROUSD


async def test_tokens_that_are_not_there_are_not_asked_for(tmp_path: Path) -> None:
    async with world(
        tmp_path / "home", manifest=priced(Budget(tokens=50, cost_microusd=10**6))
    ) as w:
        provider = Spoken(w, said(1, 1))
        outcome = await ask_model(w)
        assert code(outcome) == "limit_reached" and "of 50 tokens" in outcome.error["what"]
        assert provider.turns and await used_on_record(w) == (0, 0, 0)


async def test_a_provider_that_takes_more_than_was_reserved_stops_the_next_call(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, said(9_990, 10), said(1, 1))
        await ask_model(w)
        assert (await used_on_record(w))[1] == 10_000
        assert code(await ask_model(w)) == "limit_reached"


async def test_nothing_that_has_a_price_is_asked_for_without_a_money_budget(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=priced(Budget())) as w:
        Spoken(w, said(1, 1))
        outcome = await ask_model(w)
        assert code(outcome) == "limit_reached" and "0.000000 USD" in outcome.error["what"]


# --- crashes ------------------------------------------------------------------------------------


async def test_a_cut_off_model_call_that_is_made_again_is_reserved_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    manifest = priced(BUDGET)
    async with world(home, manifest=manifest) as w:
        provider = Spoken(w)
        provider.gate = asyncio.Event()
        asking = asyncio.create_task(ask_model(w, counter=1))
        await provider.begun.wait()
        run = w.run.id
        await w.kernel.runs.stop()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    async with world(home, start=False) as w:
        await recovered(w, run)
        Spoken(w, said(7, 3))
        assert code(await ask_model(w, counter=1)) == "ok"
        spent = (1, RESERVED_TOKENS + 10, RESERVED_MICROUSD + 13)
        assert await used_on_record(w) == spent == used(w)


def watched(w: World, monkeypatch: pytest.MonkeyPatch) -> list[Write]:
    """What is written from now on."""
    writes: list[Write] = []
    append = w.store.append

    def write(one: Write) -> Any:
        writes.append(one)
        return append(one)

    monkeypatch.setattr(w.store, "append", write)
    return writes


def intents(writes: list[Write]) -> list[Write]:
    return [one for one in writes if isinstance(one.events[-1], ev.CallIntended)]


@pytest.mark.parametrize(
    "budget",
    [
        BUDGET,
        Budget(calls=1_000, tokens=40 * 163, cost_microusd=10**6),
        Budget(calls=1_000, tokens=10**6, cost_microusd=40 * 263),
        Budget(calls=1_000, tokens=15 * RESERVED_TOKENS, cost_microusd=10**6),
        Budget(calls=31, tokens=10**6, cost_microusd=10**6),
    ],
    ids=["by calls", "by tokens", "by money", "a chunk smaller than a call", "small"],
)
async def test_no_more_money_and_tokens_ride_to_the_disk_than_count_as_used_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget
) -> None:
    """The journal may end at every write that nobody waited for."""
    from ring0.scheduler import budgets

    async with world(tmp_path / "home", manifest=priced(budget)) as w:
        writes = watched(w, monkeypatch)
        Spoken(w, *[said(1, 1)] * 12)
        for _ in range(12):
            assert code(await ask_model(w)) == "ok"
        riding, rode, most = budgets.Riding(), 0, budgets.most_riding(budget)
        for write in intents(writes):
            event = write.events[-1]
            assert isinstance(event, ev.CallIntended)
            own = budgets.Riding(
                calls=1, tokens=event.reserve_tokens, cost_microusd=event.reserve_microusd
            )
            assert event.reserve_tokens > 0 and event.reserve_microusd > 0
            riding = budgets.Riding() if write.durable else riding + own
            rode += not write.durable
            assert riding.fits(most)
        assert (rode > 0) == budgets.Riding(
            calls=1, tokens=RESERVED_TOKENS, cost_microusd=RESERVED_MICROUSD
        ).fits(most)


async def test_after_a_crash_the_money_and_tokens_that_may_have_been_spent_count_as_used(
    tmp_path: Path,
) -> None:
    home, again = tmp_path / "home", tmp_path / "again"
    async with world(
        home, manifest=priced(Budget(calls=160, tokens=8_000, cost_microusd=9_600))
    ) as w:
        Spoken(w, said(7, 3))
        await ask_model(w)
        await w.forget()
        again.mkdir()
        for path in home.iterdir():  # As a kill -9 leaves it.
            if path.is_file():
                (again / path.name).write_bytes(path.read_bytes())
        run = w.run.id
    kernel = await open_kernel(again, Runtime(), {})
    try:
        await kernel.store.flush()
        row = await kernel.store.run(run)
        assert row is not None
        assert (row.calls_used, row.tokens_used, row.cost_used_microusd) == (
            1 + 9, 10 + 500, 13 + 600,
        ), "a sixteenth of each, and no call less"  # fmt: skip
    finally:
        await kernel.close()


async def test_a_paid_answer_is_put_on_disk_at_once_and_its_run_hears_it_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        writes = watched(w, monkeypatch)
        Spoken(w, said(1, 1))
        await ask_model(w)
        (end,) = [one for one in writes if isinstance(one.events[0], ev.CallEnded)]
        assert (end.durable, end.soon) == (False, True)


@pytest.mark.parametrize("who", ["a token", "a yes"])
async def test_what_outlives_the_process_is_on_disk_before_it_is_paid_for(
    tmp_path: Path, who: str
) -> None:
    """Who holds a token goes on after a crash; a person's yes is used up."""
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        reserved = await reservation(w, token=who == "a token", yes=who == "a yes")
        assert reserved.durable
        assert not (await reservation(w, token=False, yes=False)).durable


async def test_what_rides_is_counted_once_where_two_wait_for_the_disk_at_the_same_time(
    tmp_path: Path,
) -> None:
    """What began to ride after both of them is not there when the second has arrived."""
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        spending = w.kernel.gate.spending
        for _ in range(3):
            assert not (await reservation(w, token=False, yes=False)).durable
        one, two = [await reservation(w, token=True, yes=False) for _ in range(2)]
        spending.reserved(w.run, "c-1", one, durable=True)
        assert w.run.rode == w.run.arrived
        for _ in range(2):
            assert not (await reservation(w, token=False, yes=False)).durable
        spending.reserved(w.run, "c-2", two, durable=True)
        assert w.run.rode.less(w.run.arrived) == Riding(calls=2, tokens=20, cost_microusd=20)


async def reservation(w: World, *, token: bool, yes: bool) -> Reservation:
    prepared = Prepared(driver_bytes=b"", reserve_tokens=10, reserve_microusd=10)
    held: Any = SimpleNamespace(
        kind=CallKind.MODEL, name="default", scope=object() if token else None, within=None
    )
    judged: Any = SimpleNamespace(held=held, prepared=prepared)
    approval: Any = object() if yes else None
    return w.kernel.gate.spending.reserve(w.run, judged, approval)


@pytest.mark.parametrize("calls", [8, 64, 1_000])
async def test_no_more_calls_ride_to_the_disk_than_count_as_lost_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """The journal may end at every write that nobody waited for: after each prefix, what was made
    is no more than what is on record and what counts as lost."""
    from ring0.scheduler import budgets

    budget = Budget(calls=calls)
    async with world(tmp_path / "home", budget=budget) as w:
        w.tool(Doing("look"))
        writes: list[tuple[bool, bool]] = []
        append = w.store.append

        def watched(write: Write) -> Any:
            intent = any(isinstance(event, ev.CallIntended) for event in write.events)
            writes.append((intent, write.durable))
            return append(write)

        monkeypatch.setattr(w.store, "append", watched)
        for number in range(min(calls, 200)):
            assert code(await w.call("look", {"x": number})) == "ok"
        riding = most = 0
        for intent, durable in writes:
            riding = 0 if durable else riding + intent
            most = max(most, riding)
        assert most == min(calls, budgets.chunk_calls(budget) - 1)


async def test_after_a_crash_each_call_is_on_disk_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=1_000)) as w:
        w.tool(Doing("look"))
        w.run.row = msgspec.structs.replace(w.run.row, calls_lost=1)
        durable = []
        append = w.store.append

        def watched(write: Write) -> Any:
            if any(isinstance(event, ev.CallIntended) for event in write.events):
                durable.append(write.durable)
            return append(write)

        monkeypatch.setattr(w.store, "append", watched)
        for number in range(3):
            assert code(await w.call("look", {"x": number})) == "ok"
        assert durable == [True] * 3


async def test_after_a_crash_what_may_have_been_lost_counts_as_made(tmp_path: Path) -> None:
    home, again = tmp_path / "home", tmp_path / "again"
    async with world(home, budget=Budget(calls=160)) as w:
        w.tool(Doing("look"))
        await w.call("look", {"x": 1})
        await w.forget()
        again.mkdir()
        for path in home.iterdir():  # As a kill -9 leaves it.
            if path.is_file():
                (again / path.name).write_bytes(path.read_bytes())
        run = w.run.id
    kernel = await open_kernel(again, Runtime(), {})
    try:
        await kernel.store.flush()
        row = await kernel.store.run(run)
        assert row is not None and row.calls_used == 1 + 9, "a chunk of 160 // 16, less one"
    finally:
        await kernel.close()


async def test_a_kernel_that_stopped_in_order_has_lost_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, budget=Budget(calls=160)) as w:
        w.tool(Doing("look"))
        await w.call("look", {"x": 1})
        run = w.run.id
        await w.kernel.runs.stop()
    async with world(home, start=False) as w:
        assert (await w.row(run)).calls_used == 1


# --- exhausted ----------------------------------------------------------------------------------


async def test_a_run_that_has_used_all_hears_on_what_and_how_to_get_more(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=3)) as w:
        w.tool(Doing("look"))
        for number in range(3):
            await w.call("look", {"x": number})
        outcome = await w.call("look", {"x": 9})
        assert code(outcome) == "limit_reached"
        assert "3 of 3 calls" in outcome.error["what"] and "3 × tool look" in outcome.error["why"]
        assert "ask_for_more" in outcome.error["todo"]


async def test_nobody_is_asked_about_a_call_for_which_there_is_no_room(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=1)) as w:
        w.tool(Doing("look"))
        w.tool(Doing("wipe", effect=Effect.ONCE, mutates=True, own=False))
        await w.call("look", {"x": 1})
        assert code(await w.call("wipe", {"x": 1})) == "limit_reached"
        assert await w.store.approvals() == []


# --- asking for more ----------------------------------------------------------------------------


async def ask(w: World, **more: Any) -> Outcome:
    return await w.kind(CallKind.ASK, {"why": "nine are left", **more})


async def test_a_run_with_nothing_left_asks_a_person_and_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=2)) as w:
        w.tool(Doing("look"))
        for number in range(2):
            await w.call("look", {"x": number})
        assert code(await w.call("look", {"x": 9})) == "limit_reached"
        asking = asyncio.create_task(ask(w, calls=5, cost_microusd=500_000))
        approval = await w.pending()
        await w.until(RunState.WAITING, "budget")
        shown = await w.shown(approval)
        text = "\n".join([shown["title"], *shown["dry_run"]])
        assert "asks for 5 calls, 0.500000 USD more" in shown["title"]
        assert "0 of 2 calls" in text and "2 × tool look" in text
        assert shown["arguments"]["why"] == "nine are left"
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="ann"))
        outcome = await asking
        assert outcome.value["left"]["calls"] == 5
        row = await w.row()
        assert (row.budget.calls, row.calls_used) == (8, 3), "the ask itself costs it nothing"
        assert row.budget.cost_microusd == 500_000
        assert (w.run.row.budget, w.run.row.calls_used) == (row.budget, row.calls_used)
        for number in range(5):
            assert code(await w.call("look", {"x": 10 + number})) == "ok"
        assert code(await w.call("look", {"x": 99})) == "limit_reached"
        events = [entry.body async for entry in w.store.entries(w.run.id)]
        (raised,) = [event for event in events if isinstance(event, ev.BudgetRaised)]
        assert (raised.by, raised.approval) == ("ann", approval.id)
        assert (await w.store.approval(approval.id)).state is ApprovalState.CONSUMED


async def test_a_no_gives_nothing(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=2)) as w:
        asking = asyncio.create_task(ask(w, calls=5))
        await w.kernel.answer((await w.pending()).id, yes=False, by=Operator(name="ann"))
        assert code(await asking) == "denied"
        assert (await w.row()).budget.calls == 2


async def test_an_ask_that_nobody_answers_gives_nothing(tmp_path: Path) -> None:
    clock = JumpingRuntime()
    budget = Budget(calls=2, wall_s=30 * 24 * 3_600)
    async with world(tmp_path / "home", runtime=clock, budget=budget) as w:
        asking = asyncio.create_task(ask(w, calls=5))
        await w.pending()
        await w.until(RunState.WAITING, "budget")
        clock.jump(limits.APPROVAL_EXPIRY_S + 1)
        assert code(await asking) == "denied"
        assert (await w.row()).budget.calls == 2


async def test_a_run_cannot_wear_people_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, budget=Budget(calls=2)) as w:
        for number in range(limits.ASKS_FOR_MORE_PER_TREE_MAX):
            asking = asyncio.create_task(ask(w, calls=number + 1))
            await w.kernel.answer((await w.pending()).id, yes=False, by=Operator(name="ann"))
            assert code(await asking) == "denied"
            if (await w.row()).paused_by:  # It was told no too often in a row.
                await w.kernel.resume(w.run.id, by="ann")
        assert code(await ask(w, calls=99)) == "limit_reached"
        driver: Any = w.kernel.gate.kinds[CallKind.ASK].driver
        driver._asked.clear()  # As after a start of the kernel.
        assert code(await ask(w, calls=98)) == "limit_reached"
        assert len(await w.store.approvals()) == limits.ASKS_FOR_MORE_PER_TREE_MAX


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"calls": 0},
        {"calls": 5, "tokens": 0},
        {"calls": -1},
        {"calls": True},
        {"depth": 1},
        {"calls": 10**9},
        {"usd": 1},
    ],
)
async def test_an_ask_for_what_cannot_be_given_is_refused(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    async with world(tmp_path / "home") as w:
        assert code(await ask(w, **more)) == "call_invalid"


async def test_a_policy_may_forbid_asking(tmp_path: Path) -> None:
    no = (
        '@id("no-asks") @reason("Not here.") forbid (principal, action == Action::"ask", resource);'
    )
    async with world(tmp_path / "home", policy=no) as w:
        assert code(await ask(w, calls=1)) == "denied"


# --- an operator gives more ---------------------------------------------------------------------


async def test_an_operator_gives_more_to_a_run_that_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=1, wall_s=60)) as w:
        w.tool(Doing("look"))
        await w.call("look", {"x": 1})
        assert code(await w.call("look", {"x": 2})) == "limit_reached"
        deadline = w.run.row.deadline_us
        row = await w.kernel.raise_budget(w.run.id, {"calls": 1, "wall_s": 600}, by="ann")
        assert row.budget.calls == 2 and row.deadline_us == deadline + 600_000_000
        assert w.run.row.deadline_us == row.deadline_us
        assert code(await w.call("look", {"x": 3})) == "ok"


async def test_nothing_is_given_to_a_run_that_has_ended(tmp_path: Path) -> None:
    from ring0.errors import InvalidInput

    async with world(tmp_path / "home") as w:
        w.end.set_result("done")
        await w.kernel.runs.wait(w.run.id)
        with pytest.raises(InvalidInput, match="has ended"):
            await w.kernel.raise_budget(w.run.id, {"calls": 1}, by="ann")


async def test_more_time_moves_the_deadline_of_a_run_at_work(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(wall_s=1)) as w:
        await w.kernel.raise_budget(w.run.id, {"wall_s": 600}, by="ann")
        await asyncio.sleep(1.3)
        assert (await w.row()).state is RunState.RUNNING
        w.tool(Doing("look"))
        assert code(await w.call("look", {"x": 3})) == "ok"


# --- asks and crashes ---------------------------------------------------------------------------


async def recovered(w: World, run: str) -> None:
    """The run of an earlier kernel goes on here."""
    family = await family_of(w.store, run)

    async def agent(live: Any) -> Any:
        return await w.end

    await w.kernel.recover(Agent(family, "embedded", functions={"agent:clerk": agent}))
    w.run = w.kernel.gate.live[run]


async def test_an_ask_that_was_cut_off_while_it_waited_is_answered_later(tmp_path: Path) -> None:
    home, args = tmp_path / "home", {"why": "so", "calls": 5}
    async with world(home, budget=Budget(calls=2)) as w:
        asking = asyncio.create_task(w.kind(CallKind.ASK, args, counter=1))
        approval = await w.pending()
        run = w.run.id
        await w.kernel.runs.stop()
        await asyncio.gather(asking, return_exceptions=True)
    async with world(home, start=False) as w:
        await w.kernel.answer(approval.id, yes=True, by=Operator(name="ann"))
        await recovered(w, run)
        assert code(await w.kind(CallKind.ASK, args, counter=1)) == "ok"
        assert (await w.row()).budget.calls == 2 + 6 == w.run.row.budget.calls


async def test_an_ask_that_was_cut_off_after_its_raise_is_raised_once(tmp_path: Path) -> None:
    home, args = tmp_path / "home", {"why": "so", "calls": 5}
    async with world(home, budget=Budget(calls=2)) as w:
        driver: Any = w.kernel.gate.kinds[CallKind.ASK].driver
        begun = asyncio.Event()

        async def hangs(*_: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        driver.execute = hangs
        asking = asyncio.create_task(w.kind(CallKind.ASK, args, counter=1))
        await w.kernel.answer((await w.pending()).id, yes=True, by=Operator(name="ann"))
        await begun.wait()
        run = w.run.id
        await w.kernel.runs.stop()
        await asyncio.gather(asking, return_exceptions=True)
    async with world(home, start=False) as w:
        await recovered(w, run)
        assert code(await w.kind(CallKind.ASK, args, counter=1)) == "ok"
        row = await w.row()
        assert (row.budget.calls, row.calls_used) == (2 + 6, 1)
        assert (w.run.row.budget.calls, w.run.row.calls_used) == (2 + 6, 1)


async def test_a_try_for_which_nothing_is_left_keeps_what_the_one_before_reserved(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    manifest = priced(Budget(cost_microusd=RESERVED_MICROUSD + 1))
    async with world(home, manifest=manifest) as w:
        provider = Spoken(w)
        provider.gate = asyncio.Event()
        asking = asyncio.create_task(ask_model(w, counter=1))
        await provider.begun.wait()
        run = w.run.id
        await w.kernel.runs.stop()
        await asyncio.gather(asking, return_exceptions=True)
    async with world(home, start=False) as w:
        await recovered(w, run)
        Spoken(w, said(1, 1))
        assert code(await ask_model(w, counter=1)) == "limit_reached"
        spent = (1, RESERVED_TOKENS, RESERVED_MICROUSD)
        assert await used_on_record(w) == spent == used(w)
