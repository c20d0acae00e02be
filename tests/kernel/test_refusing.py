"""What refused calls may cost others: a run that is refused without end harms nobody but itself."""

from __future__ import annotations

import asyncio
import statistics
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, World, world

import journals
from ring0 import limits
from ring0.errors import RunDead
from ring0.store import events as ev
from ring0.types import AgentManifest, Budget, CallKind, CallState, Request


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the time that refusals wait for had passed."""
    for name in ("REFUSALS_PER_S_MAX", "TENANT_REFUSALS_PER_S_MAX"):
        monkeypatch.setattr(limits, name, 1_000_000)


async def refused(w: World, times: int, name: str = "no_such_tool", args: Any = None) -> list[Any]:
    outcomes = [await w.call(name, args or {"x": 1}) for _ in range(times)]
    assert {one.state for one in outcomes} == {CallState.REFUSED}
    return outcomes


async def events(w: World, kind: type) -> int:
    await w.store.flush()
    return sum([isinstance(entry.body, kind) async for entry in w.store.entries(w.run.id)])


async def settle() -> None:
    await asyncio.sleep(2 * limits.REFUSALS_DELAY_MS / 1_000)


async def test_equal_refusals_share_lines_and_each_call_has_its_outcome(
    tmp_path: Path, quick: None
) -> None:
    async with world(tmp_path / "home") as w:
        outcomes = await refused(w, 900)
        await settle()
        calls = {call.id: call for call in await w.calls()}
        assert len(calls) == 900
        assert {call.state for call in calls.values()} == {CallState.REFUSED}
        alone, shared = await events(w, ev.CallRefused), await events(w, ev.CallsRefusedAlike)
        assert alone <= 4 + 2 * limits.REFUSALS_ALONE_MAX and 1 <= shared < 90
        # A retry, a replay, a recovery: each hears what it heard.
        for number in (1, 3, 5, 20, 900):
            again = await w.call("no_such_tool", {"x": 1}, counter=number)
            assert again == outcomes[number - 1]


async def test_refusals_that_differ_share_nothing(tmp_path: Path, quick: None) -> None:
    async with world(tmp_path / "home") as w:
        for number in range(40):
            await refused(w, 1, args={"x": number})
        assert await events(w, ev.CallRefused) == 40


async def test_what_comes_after_a_refusal_is_never_on_record_without_it(
    tmp_path: Path, quick: None
) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("act"))
        await refused(w, 30)
        await w.call("act", {"x": 1})
        await w.store.flush()
        kinds = [entry.body async for entry in w.store.entries(w.run.id)]
        found = [type(one) for one in kinds]
        assert found.index(ev.CallsRefusedAlike) < found.index(ev.CallIntended)
        assert len(await w.calls()) == 31


async def test_what_was_put_off_is_on_record_when_the_run_is_let_go_of(
    tmp_path: Path, quick: None
) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        await refused(w, 50)
        run = w.run.id
    async with world(home, start=False) as w:
        assert len(await w.store.calls(run)) == 50
        assert not w.kernel.gate.refusals._alike


async def test_refusals_that_can_not_be_written_any_more_keep_no_run_from_being_let_go_of(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSALS_DELAY_MS", 60_000)
    async with world(tmp_path / "home") as w:
        await refused(w, 30)
        assert w.kernel.gate.refusals._alike[w.run.id].calls, "some are not on record yet"
        # Somebody else has started it again: what this one writes is refused from here on.
        await w.store.append(journals.moved(w.run.id, epoch=(await w.row()).epoch + 1))
        left = asyncio.Event()

        async def leave() -> None:
            left.set()

        w.run.leaving.append(leave)
        await w.run.stop_calls()
        assert left.is_set(), "who comes after them is told, too"
        assert not w.kernel.gate.refusals._alike


async def test_refusals_that_come_too_quickly_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSALS_PER_S_MAX", 50)
    monkeypatch.setattr(limits, "REFUSALS_BURST_MAX", 10)
    async with world(tmp_path / "home") as w:
        begun = w.kernel.runtime.monotonic_us()
        await asyncio.gather(*(w.call("no_such_tool", {"x": n}) for n in range(30)))
        assert w.kernel.runtime.monotonic_us() - begun >= 390_000
        assert len(await w.calls()) == 30, "none is dropped"


async def test_the_runs_of_a_tenant_share_a_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TENANT_REFUSALS_PER_S_MAX", 50)
    monkeypatch.setattr(limits, "TENANT_REFUSALS_BURST_MAX", 10)
    async with world(tmp_path / "home") as w:
        others = [await another(w, f"other{n}") for n in range(3)]
        begun = w.kernel.runtime.monotonic_us()
        asked = [Request(kind=CallKind.TOOL, name="none", args={}, path="0", counter=n)
                 for n in range(8)]  # fmt: skip
        await asyncio.gather(
            *(w.kernel.gate.call(run.handle, one) for run in others for one in asked)
        )
        assert w.kernel.runtime.monotonic_us() - begun >= 250_000


async def another(w: World, name: str) -> Any:
    async def agent(run: Any) -> Any:
        return await w.end

    row = await w.kernel.start_embedded(
        AgentManifest(name=name), (), {f"agent:{name}": agent}, "task", principal="alice"
    )
    return w.kernel.gate.live[row.id]


async def test_while_one_run_is_refused_as_quickly_as_it_can_another_is_served(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        victim = await another(w, "victim")
        victim.tools.update(w.run.tools)
        driver = Doing("act")
        w.run = victim
        w.tool(driver)
        attacker = await another(w, "attacker")
        alone = await served(w, 0, 300)
        size = journal_bytes(w)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        attack = asyncio.create_task(denied(w, attacker, 100_000))
        besides = await served(w, 300, 300)
        assert not attack.done(), "the attack went on all the time"
        attack.cancel()
        await asyncio.gather(attack, return_exceptions=True)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        p95 = [statistics.quantiles(times, n=20)[-1] for times in (alone, besides)]
        # Far above what is seen (see `ring0 bench loops`), far below what an unbounded queue does.
        assert p95[1] < 20 * p95[0] + 0.25, p95
        assert grown < 64 * limits.MIB
        assert journal_bytes(w) - size < 16 * limits.MIB


async def test_of_a_hundred_thousand_denied_calls_a_thousand_are_on_record(
    tmp_path: Path, quick: None
) -> None:
    async with world(tmp_path / "home") as w:
        size = journal_bytes(w)
        await denied(w, w.run, 100_000)
        await settle()
        calls = await w.calls()
        assert len(calls) == limits.REFUSALS_PER_RUN_MAX
        assert journal_bytes(w) - size < 8 * limits.MIB
        with pytest.raises(RunDead):
            await w.call("act", {"x": 1})


async def served(w: World, first: int, count: int) -> list[float]:
    """How long each call of the victim took, in seconds."""
    runtime, times = w.kernel.runtime, []
    for number in range(first, first + count):
        begun = runtime.monotonic_us()
        outcome = await w.call("act", {"x": number}, path="1", counter=number)
        assert outcome.state is CallState.OK
        times.append((runtime.monotonic_us() - begun) / 1e6)
    return times


async def denied(w: World, run: Any, count: int) -> None:
    """As many as it can, as many at once as it may."""
    numbers = iter(range(count))

    async def one_after_another() -> None:
        for number in numbers:
            asked = Request(
                kind=CallKind.TOOL, name="drop", args={"x": number % 7}, path="0", counter=number
            )
            try:
                await w.kernel.gate.call(run.handle, asked)
            except RunDead:
                await asyncio.sleep(0)

    await asyncio.gather(*(one_after_another() for _ in range(200)))


def journal_bytes(w: World) -> int:
    return sum(path.stat().st_size for path in w.home.glob("*") if path.is_file())


async def test_a_run_that_was_refused_a_thousand_times_ends(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSALS_PER_RUN_MAX", 60)
    async with world(tmp_path / "home") as w:
        await refused(w, 60)
        with pytest.raises(RunDead, match="60 of its calls were refused"):
            await w.call("no_such_tool", {"x": 1})
        await settle()
        assert len(await w.calls()) == 60


async def test_who_is_refused_once_does_not_stand_behind_those_who_are_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TENANT_REFUSALS_PER_S_MAX", 5)
    monkeypatch.setattr(limits, "TENANT_REFUSALS_BURST_MAX", 10)
    async with world(tmp_path / "home") as w:
        attacker = await another(w, "attacker")
        attack = asyncio.create_task(denied(w, attacker, 500))
        await asyncio.sleep(0.2)
        begun = w.kernel.runtime.monotonic_us()
        await refused(w, 1)
        assert w.kernel.runtime.monotonic_us() - begun < 1_000_000, "it owed what others were told"
        assert not attack.done()
        attack.cancel()
        await asyncio.gather(attack, return_exceptions=True)


async def test_a_call_without_budget_holds_no_slot_while_its_refusal_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSALS_PER_S_MAX", 1)
    monkeypatch.setattr(limits, "REFUSALS_BURST_MAX", 2)
    async with world(tmp_path / "home", budget=Budget(calls=1)) as w:
        w.tool(Doing("act", slots=("sandbox",)))
        assert (await w.call("act", {"x": 0})).error is None
        flood = [w.start("act", {"x": n}) for n in range(1, 41)]
        async with asyncio.timeout(10):
            while w.run.refusals < 40:  # All were told no by the budget, and most wait to be told.
                await asyncio.sleep(0.01)
        assert sum(one.done() for one in flood) < 10
        load = w.kernel.load()
        assert load.queued == 0 and {one.in_use for one in load.resources} == {0}
        for one in flood:
            one.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
