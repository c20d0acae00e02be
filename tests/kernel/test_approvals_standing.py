"""A yes in advance: for one run or for a time, for arguments that fit, and for nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from approvals_world import (
    ADA,
    ALICE,
    CAROL,
    PAY,
    PAY_SCHEMA,
    TWO_PEOPLE,
    UNTRUSTED,
    VIEWER,
    payer,
)
from kernel_world import Doing, JumpingRuntime, World, begin, world
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, LimitReached, NotFound
from ring0.kernel.live import LiveRun
from ring0.store import events as ev
from ring0.types import (
    AgentManifest,
    ApprovalState,
    Budget,
    CallKind,
    CallState,
    Effect,
    Outcome,
    RunState,
    Standing,
    Terms,
)

FOR_RUN = Terms(match={"amount": "*", "note": "*", "any": "*"})


async def give(w: World, terms: Terms, args: Any = PAY) -> Standing:
    call = w.start("pay", args)
    await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL, terms=terms)
    assert (await call).state is CallState.OK
    return (await w.store.standings())[-1]  # type: ignore[no-any-return]


async def asks(w: World, args: Any, **more: Any) -> bool:
    """Whether this call is held for a person; it is denied then."""
    call = w.start("pay", args, **more)
    async with asyncio.timeout(5):
        while not call.done():
            pending = await w.store.approvals(states=[ApprovalState.PENDING])
            if pending:
                # A yes and then no harm: three noes in a row would pause the run.
                await w.kernel.answer(pending[0].id, yes=True, by=ALICE)
                await call
                return True
            await asyncio.sleep(0.005)
    assert call.result().state is CallState.OK, call.result().error
    return False


async def test_a_yes_for_the_run_covers_what_fits_its_pattern_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        standing = await give(w, FOR_RUN)
        assert (standing.run, standing.everywhere, standing.given_by) == (
            w.run.id, False, CAROL.name,
        )  # fmt: skip
        for args in (PAY, {**PAY, "amount": 9}, {**PAY, "note": "x", "any": [1]}):
            assert not await asks(w, args), args
        for args in ({**PAY, "to": "Mallory"}, {**PAY, "to": "mallory "}, {"to": "m", "amount": 5}):
            assert await asks(w, args), args
        uses = [one for one in await w.store.approvals(run=w.run.id) if one.under]
        assert len(uses) == 3 and {one.under for one in uses} == {standing.id}
        assert {one.state for one in uses} == {ApprovalState.CONSUMED}, (
            "each has its own, used once"
        )
        assert {one.answered_by for one in uses} == {CAROL.name}
        assert (await w.store.standing(standing.id)).uses == 3


async def test_every_other_argument_has_to_be_equal_as_json(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        await give(w, Terms(match={"amount": "*"}), {**PAY, "any": 1})
        assert not await asks(w, {**PAY, "amount": 6, "any": 1})
        for other in (True, "1", [1], {"a": 1}, None):
            assert await asks(w, {**PAY, "any": other}), other
        assert await asks(w, PAY), "one that is left out is not equal"
        assert await asks(w, {**PAY, "any": 1, "note": "more"}), "nor is one that is added"


async def test_patterns_do_not_reach_across_slashes_and_parents(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        await give(w, Terms(match={"to": "reports/*.md"}), {"to": "reports/a.md", "amount": 1})
        for name, fits in (
            ("reports/b.md", True), ("reports/.md", True), ("reports/b/c.md", False),
            ("reports/../x.md", False), ("reports/b.mdx", False), ("xreports/b.md", False),
            ("reports/b\n.md", False), ("Reports/b.md", False), ("reports/..", False),
        ):  # fmt: skip
            assert await asks(w, {"to": name, "amount": 1}) is not fits, name


async def test_two_stars_reach_across_slashes_and_never_up(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        await give(w, Terms(match={"to": "reports/**"}), {"to": "reports/a", "amount": 1})
        for name, fits in (
            ("reports/b/c.md", True), ("reports/../x.md", False), ("reports/b/..", False),
            ("reports/a..b", True), ("reports/..\\x", False), ("other/reports/a", False),
        ):  # fmt: skip
            assert await asks(w, {"to": name, "amount": 1}) is not fits, name


async def test_a_child_a_cron_or_another_agent_inherits_no_yes(tmp_path: Path) -> None:
    """`Fork, spawn and cron never carry approvals along`: each run asks for itself."""
    manifest = AgentManifest(name="clerk", agents=("clerk",))
    home = tmp_path / "home"
    async with world(home, manifest=manifest) as w:
        payer(w)
        standing = await give(w, FOR_RUN)
        whole = await give(w, Terms(until_s=600, match={"amount": "*"}), {**PAY, "to": "bob"})
        first = w.run
        rows = w.store
        # Another run of the same agent and person: the one for a time covers it, the other not.
        await begin(w, "again", Budget(), manifest)
        payer(w)
        assert await asks(w, PAY), "the yes was for the run that asked"
        assert not await asks(w, {**PAY, "to": "bob", "amount": 8})
        # The same, as a child, and as started by an order.
        row = w.run.row
        w.run.row = replace(row, parent=first.id)
        assert await asks(w, {**PAY, "to": "bob", "amount": 8}), "a child has it not"
        w.run.row = row
        covering = w.kernel.waiting.standings
        found = covering._by_person

        async def by_order(run: LiveRun) -> bool:
            return not await found(run)

        covering._by_person = by_order  # type: ignore[method-assign]
        assert await asks(w, {**PAY, "to": "bob", "amount": 8}), "nor has what an order started"
        covering._by_person = found  # type: ignore[method-assign]
        # Another agent, and another person.
        for change in ({"agent": "other"}, {"principal": "bob"}, {"agent_digest": "0" * 64}):
            w.run.row = replace(row, **change)
            assert await asks(w, {**PAY, "to": "bob", "amount": 8}), change
        w.run.row = row
        assert not await asks(w, {**PAY, "to": "bob", "amount": 8})
        assert (await rows.standing(standing.id)).uses == 0
        assert (await rows.standing(whole.id)).uses == 2


async def test_a_run_that_an_order_has_started_is_known_by_its_first_events(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        by_person = w.kernel.waiting.standings._by_person
        assert await by_person(w.run)
        entries = [entry async for entry in w.store.entries(w.run.id)]
        for fired in (
            ev.CronFired(cron="nightly", version=1),
            ev.HookFired(hook="push", version=1, delivery="d"),
        ):

            async def begun(run: str, event: ev.AnyEvent = fired) -> Any:
                yield entries[0]
                yield replace(entries[1], body=event)

            w.store.entries = begun
            assert not await by_person(w.run)
        del w.store.entries


async def test_no_yes_in_advance_to_what_nothing_takes_back(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w, reversal="irreversible")
        call = w.start("pay", PAY)
        approval = await w.pending()
        for terms in (FOR_RUN, Terms(until_s=60)):
            with pytest.raises(InvalidInput, match="once only"):
                await w.kernel.answer(approval.id, yes=True, by=CAROL, terms=terms)
        assert not await w.store.standings()
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        call.cancel()


async def test_what_becomes_irreversible_is_asked_about_again(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        await give(w, FOR_RUN)
        tool.prepared["reversal"] = "irreversible"
        assert await asks(w, PAY)


async def test_no_yes_in_advance_where_two_people_have_to_say_it(tmp_path: Path) -> None:
    async with world(tmp_path / "home", policy=TWO_PEOPLE) as w:
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        with pytest.raises(InvalidInput, match="once only"):
            await w.kernel.answer(approval.id, yes=True, by=ADA, terms=FOR_RUN)
        call.cancel()


async def test_a_yes_in_advance_covers_no_more_than_the_person_saw(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = payer(w, rows=2, tables=("a", "b"))
        await give(w, FOR_RUN)
        for change, covered in (
            ({"rows": 1}, True), ({"rows": 3}, False), ({"rows": 2, "tables": ("a",)}, True),
            ({"tables": ("a", "c")}, False), ({"tables": ("a", "b")}, True),
        ):  # fmt: skip
            tool.prepared.update(change)
            assert await asks(w, PAY) is not covered, change


async def test_a_yes_in_advance_ends_when_the_run_has_read_worse(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        w.tool(Doing("mail", label=UNTRUSTED))
        await give(w, FOR_RUN)
        assert not await asks(w, PAY)
        await w.call("mail", {})
        assert await asks(w, PAY)


async def test_a_yes_in_advance_ends_with_the_tool_and_the_policy_that_asked(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        await give(w, FOR_RUN)
        digest = w.kernel.policies.digest
        payer(w, schema={**PAY_SCHEMA, "title": "another"})
        assert await asks(w, PAY), "it is another tool"
        payer(w)
        assert not await asks(w, PAY)
        known = w.kernel.waiting.standings._known["local", "pay"]
        ((standing, pattern),) = known.values()
        assert standing.policy_digest == digest
        known[standing.id] = replace(standing, policy_digest="0" * 64), pattern
        assert await asks(w, PAY), "the policies that asked then are not those that ask now"


async def test_what_another_rule_asks_about_is_asked(tmp_path: Path) -> None:
    policy = """
        @id("vip") @reason("Somebody important.")
        forbid (principal, action in Action::"tool", resource == Tool::"pay")
        when { context.tables.contains("vip") } unless { context.approved };
    """
    async with world(tmp_path / "home", policy=policy) as w:
        tool = payer(w, tables=("vip", "all"))
        tool.prepared["tables"] = ("all",)
        await give(w, FOR_RUN)
        assert not await asks(w, PAY)
        standing = (await w.store.standings())[-1]
        assert "vip" not in standing.rules
        w.kernel.waiting.standings._known[("local", "pay")][standing.id] = (
            replace(standing, tables=("all", "vip")),
            w.kernel.waiting.standings._known[("local", "pay")][standing.id][1],
        )
        tool.prepared["tables"] = ("vip",)
        assert await asks(w, PAY), "whatever else fits, this rule was not answered"


async def test_a_yes_for_a_time_ends_by_itself(tmp_path: Path) -> None:
    clock = JumpingRuntime()
    async with world(tmp_path / "home", runtime=clock, budget=Budget(wall_s=36_000)) as w:
        payer(w)
        await give(w, Terms(until_s=600, match={"amount": "*"}))
        assert not await asks(w, PAY)
        clock.jump(590)
        assert not await asks(w, PAY)
        clock.jump(11)
        assert await asks(w, PAY)
        call = w.start("pay", {**PAY, "to": "bob"})
        approval = await w.pending()
        with pytest.raises(InvalidInput, match="too long"):
            await w.kernel.answer(
                approval.id, yes=True, by=CAROL, terms=Terms(until_s=limits.STANDING_S_MAX + 1)
            )
        call.cancel()


async def test_a_revoked_yes_covers_nothing_not_even_what_waits_for_its_turn(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        tool = payer(w)
        standing = await give(w, FOR_RUN)
        # One that it has answered already, and that has not begun: a person pauses the run.
        await w.kernel.pause(w.run.id, by="alice")
        held = w.start("pay", PAY)
        await w.until(RunState.WAITING, "pause")
        done = tool.done
        with pytest.raises(CallDenied, match="role"):
            await w.kernel.waiting.standings.revoke(standing.id, VIEWER)
        revoked = await w.kernel.waiting.standings.revoke(standing.id, ALICE)
        assert revoked.revoked_by == "alice"
        await w.kernel.resume(w.run.id, by="alice")
        outcome: Outcome | None = None
        async with asyncio.timeout(5):
            while outcome is None:
                for one in await w.store.approvals(states=[ApprovalState.PENDING]):
                    await w.kernel.answer(one.id, yes=False, by=ALICE)
                if held.done():
                    outcome = held.result()
                await asyncio.sleep(0.005)
        assert outcome.state is CallState.REFUSED and tool.done == done
        assert await asks(w, PAY)
        with pytest.raises(InvalidInput):
            await w.kernel.waiting.standings.revoke(standing.id, ALICE)
        with pytest.raises(NotFound):
            await w.kernel.waiting.standings.revoke("s-none", ALICE)


async def test_a_kill_ends_what_was_said_yes_to_for_a_time(tmp_path: Path) -> None:
    for scope, target in (("all", ""), ("agent", "clerk"), ("tenant", "local")):
        async with world(tmp_path / scope) as w:
            payer(w)
            await give(w, Terms(until_s=600))
            await w.kernel.kill(scope, target, by="alice")
            w.end = asyncio.get_running_loop().create_future()
            await begin(w, "again", Budget())
            payer(w)
            assert await asks(w, PAY), scope


async def test_a_yes_in_advance_outlives_the_kernel_that_took_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        payer(w)
        kept = await give(w, Terms(until_s=600))
        gone = await give(w, Terms(until_s=600), {**PAY, "to": "bob"})
        await w.kernel.waiting.standings.revoke(gone.id, ALICE)
        w.end.set_result(1)
        await w.kernel.runs.wait(w.run.id)
    async with world(home) as w:
        payer(w)
        assert not await asks(w, PAY) and await asks(w, {**PAY, "to": "bob"})
        assert (await w.store.standing(kept.id)).uses == 1


async def test_there_are_caps_on_standing_approvals_and_on_their_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STANDING_USES_MAX", 3)
    monkeypatch.setattr(limits, "STANDING_PER_TENANT_MAX", 1)
    async with world(tmp_path / "home") as w:
        payer(w)
        await give(w, FOR_RUN)
        assert [await asks(w, PAY) for _ in range(5)] == [False, False, False, True, True]
        first = await give(w, Terms(), {**PAY, "to": "bob"})
        assert first
        call = w.start("pay", {**PAY, "to": "cy"})
        approval = await w.pending()
        with pytest.raises(LimitReached):
            await w.kernel.answer(approval.id, yes=True, by=CAROL, terms=FOR_RUN)
        call.cancel()


async def test_what_came_with_an_edit_or_is_no_tools_call_gets_no_yes_in_advance(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", task="pay mallory") as w:
        payer(w)
        await give(w, FOR_RUN)
        call = w.start("pay", {**PAY, "to": "bob"})
        first = await w.pending()
        await w.kernel.answer(first.id, yes=True, by=CAROL, edits={"to": "mallory"})
        await call
        assert not [one for one in await w.store.approvals() if one.under]
        ask = w.start("", {"calls": 5, "why": "more"}, kind=CallKind.ASK)
        approval = await w.pending()
        with pytest.raises(InvalidInput, match="once only"):
            await w.kernel.answer(approval.id, yes=True, by=CAROL, terms=Terms())
        ask.cancel()


async def test_a_pattern_has_to_fit_the_call_that_it_is_given_to(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        for match in ({"to": "bob*"}, {"who": "a*"}, {"to": ""}, {"to": "x" * 300},
                      {"amount": "5*"}):  # fmt: skip
            with pytest.raises(InvalidInput):
                await w.kernel.answer(approval.id, yes=True, by=CAROL, terms=Terms(match=match))
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        call.cancel()


async def test_a_once_effect_under_a_yes_in_advance_is_still_done_once(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        tool = payer(w, effect=Effect.ONCE)
        await give(w, FOR_RUN)
        outcomes = [await w.call("pay", PAY, counter=77) for _ in range(3)]
        assert outcomes[0] == outcomes[1] == outcomes[2] and tool.done == 2
