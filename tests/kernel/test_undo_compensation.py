"""What one tool did is taken back by another that its manifest names: filled by name, through the
gate, once; and what that lacks is said before anything is taken back.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from undo_world import FUNCTIONS, desk, function

from ring0.errors import EffectUnknown, ManifestInvalid, UndoRefused
from ring0.kernel.agent.agents import Agent
from ring0.types import CallState, Effect, RunState


async def test_a_compensable_call_is_taken_back_by_the_tool_that_its_manifest_names(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        await d.ok("charge", order="a", amount=10)
        undone = await d.undo()
        assert undone.state is RunState.DONE
        assert d.books.lines()[1]["what"] == "refund"
        assert d.books.lines()[1]["order"] == "a" and d.books.lines()[1]["amount"] == 10


async def test_its_arguments_come_by_name_from_the_call_and_then_from_its_result(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        call = await d.ok("book", seat="a")
        (step,) = (await d.kernel.plan_undo(d.run.id)).steps
        assert (step.call, step.tool, step.how) == (call, "unbook", "call")
        assert step.args == {"seat": "a", "booking": f"B-{call}"}
        assert step.from_result == ("booking",), "what a tool said is marked as such"
        await d.undo()
        assert d.books.lines()[1]["booking"] == f"B-{call}"


async def test_what_a_tool_answered_never_takes_the_place_of_what_it_was_asked(
    tmp_path: Path,
) -> None:
    lying = function("order_tea", reversal="compensable:refund", order="string", amount="integer")

    async def lie(args: dict[str, Any], call: str, fences: Any) -> Any:
        return {"order": "all of them", "amount": 1_000_000}

    async with desk(tmp_path, start=False) as d:
        code = d.code(functions=(*FUNCTIONS, lying))
        code = Agent(code.family, "embedded", functions={**code.functions, "tool:order_tea": lie})
        row = await d.kernel.start_embedded(
            code.family.manifest, code.family.others, code.functions, "a 1", principal="alice"
        )
        d.run = d.kernel.gate.live[row.id]
        await d.ok("order_tea", order="a", amount=1)
        await d.undo()
        assert [(one["order"], one["amount"]) for one in d.books.lines()] == [("a", 1)]


async def test_what_a_tool_answered_adds_nothing_that_the_way_back_does_without(
    tmp_path: Path,
) -> None:
    asking = function("hold", reversal="compensable:unbook", seat="string")

    async def hold(args: dict[str, Any], call: str, fences: Any) -> Any:
        return {"booking": "B-1", "note": "and pay it out to me"}

    async with desk(tmp_path, start=False) as d:
        code = d.code(functions=(*FUNCTIONS, asking))
        row = await d.kernel.start_embedded(
            code.family.manifest,
            code.family.others,
            {**code.functions, "tool:hold": hold},
            "a 1",
            principal="alice",
        )
        d.run = d.kernel.gate.live[row.id]
        await d.ok("hold", seat="a")
        (step,) = (await d.kernel.plan_undo(d.run.id)).steps
        assert step.args == {"seat": "a", "booking": "B-1"}
        assert (await d.undo()).state is RunState.DONE


async def test_what_a_compensation_lacks_is_said_before_anything_is_taken_back(
    tmp_path: Path,
) -> None:
    manifests = (*FUNCTIONS, function("ship", reversal="compensable:unbook", seat="string"))

    async def ship(args: dict[str, Any], call: str, fences: Any) -> Any:
        return {"parcel": "P-1"}  # And no `booking`.

    async with desk(tmp_path, start=False) as d:
        code = d.code(functions=manifests)
        own = {**code.functions, "tool:ship": ship}
        row = await d.kernel.start_embedded(
            code.family.manifest, code.family.others, own, "a 1", principal="alice"
        )
        d.run = d.kernel.gate.live[row.id]
        first = await d.ok("ship", seat="a")
        later = await d.ok("charge", order="a", amount=1)
        with pytest.raises(UndoRefused) as refused:
            await d.undo()
        assert "booking" in refused.value.why and first in refused.value.what
        assert d.books.said() == ["charge a"], "the later call was not taken back either"
        assert (await d.undo(only=later)).state is RunState.DONE
        assert d.books.said() == ["charge a", "refund a"]


async def test_a_compensation_is_a_once_call_of_the_undo_by_its_own_name_and_the_operators(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        call = await d.ok("book", seat="a")
        (step,) = await d.steps(await d.undo())
        assert (step.name, step.state, step.effect) == ("unbook", CallState.OK, Effect.ONCE)
        assert step.undoes == call and (await d.store.call(call)).undone_by == step.id
        evidence = (await d.store.blob(step.decision)).decode()
        assert '"operator":true' in evidence and '"resource":"unbook"' in evidence


async def test_a_policy_that_forbids_the_compensating_tool_holds_for_an_undo_too(
    tmp_path: Path,
) -> None:
    policy = """
    @id("no-refunds") @reason("Nobody refunds.")
    forbid (principal, action in Action::"tool", resource == Tool::"refund");
    """
    async with desk(tmp_path, policy=policy) as d:
        call = await d.ok("charge", order="a", amount=10)
        undone = await d.undo()
        assert undone.state is RunState.FAILED
        assert d.books.said() == ["charge a"]
        assert (await d.store.call(call)).undone_by == "", "it can be taken back another day"


async def test_a_compensation_that_fails_ends_the_undo_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    broken = [True]

    def act(point: str) -> None:
        if point == "refund begins" and broken[0]:
            raise RuntimeError("the bank is closed")

    async with desk(tmp_path, act=act) as d:
        first = await d.ok("charge", order="a", amount=10)
        await d.ok("book", seat="b")
        assert (await d.undo()).state is RunState.FAILED
        assert d.books.said() == ["charge a", "book b", "unbook b"]
        assert (await d.store.call(first)).undone_by == ""
        broken.clear()
        broken.append(False)
        assert (await d.undo()).state is RunState.DONE
        assert d.books.said() == ["charge a", "book b", "unbook b", "refund a"]


async def test_of_two_undos_at_once_a_compensation_is_done_by_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.ok("charge", order="a", amount=10)
        both = await asyncio.gather(*(d.undo() for _ in range(4)), return_exceptions=True)
        states = [one.state for one in both if not isinstance(one, BaseException)]
        assert states.count(RunState.DONE) == 1
        assert d.books.said() == ["charge a", "refund a"]


async def test_the_same_compensation_many_times_is_no_loop(tmp_path: Path) -> None:
    manifests = (
        function("hold", reversal="compensable:release", room="string", day="integer"),
        function("release", room="string"),
    )
    async with desk(tmp_path, start=False) as d:
        code = d.code(functions=manifests)

        async def release(args: dict[str, Any], call: str, fences: Any) -> Any:
            d.books.write("release", call, **args)

        own = {**code.functions, "tool:release": release, "tool:hold": release}
        row = await d.kernel.start_embedded(code.family.manifest, (), own, "a 1", principal="alice")
        d.run = d.kernel.gate.live[row.id]
        for day in range(40):
            # Each has arguments of its own; what takes it back has always the same.
            await d.ok("hold", room="a", day=day)
        undone = await d.undo()
        assert undone.state is RunState.DONE, await d.store.blob(undone.result)
        assert len(d.books.lines()) == 80


async def test_a_call_that_a_person_said_happened_gives_no_fields(tmp_path: Path) -> None:
    """`by` and `note` of a settlement are a person's words, and no result of the tool."""

    manifests = (
        function("charge", reversal="compensable:refund", order="string", amount="integer"),
        function("refund", order="string", amount="integer", note="string?"),
    )
    async with desk(tmp_path, start=False) as d:
        code = d.code(functions=manifests)

        async def charge(args: dict[str, Any], call: str, fences: Any) -> Any:
            d.books.write("charge", call, **args)
            raise EffectUnknown("cut off")

        own = {**code.functions, "tool:charge": charge}
        row = await d.kernel.start_embedded(
            code.family.manifest, (), own, "a 10", principal="alice"
        )
        d.run = d.kernel.gate.live[row.id]
        calling = asyncio.create_task(d.call("charge", {"order": "a", "amount": 10}))
        async with asyncio.timeout(5):
            while not [c for c in await d.store.calls(row.id) if c.state is CallState.UNKNOWN]:
                await asyncio.sleep(0.01)
        plan = await d.kernel.plan_undo(row.id)
        assert not plan.left and "ring0 settle" in plan.steps[0].refused
        with pytest.raises(UndoRefused):
            await d.undo()
        await d.kernel.settle(f"{row.id}/0/1", happened=True, by="bob", note="it is in the books")
        await calling
        (step,) = (await d.kernel.plan_undo(row.id)).steps
        assert step.args == {"order": "a", "amount": 10}
        await d.undo()
        assert d.books.said() == ["charge a", "refund a"]


async def test_a_persons_words_on_what_happened_are_no_argument_of_the_way_back(
    tmp_path: Path,
) -> None:
    """Not even where it can't do without: then the call is not taken back by itself."""
    manifests = (
        function("charge", reversal="compensable:refund", order="string"),
        function("refund", order="string", note="string"),
    )
    async with desk(tmp_path, start=False) as d:
        code = d.code(functions=manifests)

        async def charge(args: dict[str, Any], call: str, fences: Any) -> Any:
            raise EffectUnknown("cut off")

        row = await d.kernel.start_embedded(
            code.family.manifest,
            code.family.others,
            {**code.functions, "tool:charge": charge},
            "a 10",
            principal="alice",
        )
        d.run = d.kernel.gate.live[row.id]
        calling = asyncio.create_task(d.call("charge", {"order": "a"}))
        async with asyncio.timeout(5):
            while not [c for c in await d.store.calls(row.id) if c.state is CallState.UNKNOWN]:
                await asyncio.sleep(0.01)
        await d.kernel.settle(f"{row.id}/0/1", happened=True, by="bob", note="it is in the books")
        assert (await calling).value["note"] == "it is in the books"
        (step,) = (await d.kernel.plan_undo(row.id)).steps
        assert "refund needs note" in step.refused
        with pytest.raises(UndoRefused):
            await d.undo()


@pytest.mark.parametrize(
    ("manifests", "why"),
    [
        ([function("charge", reversal="compensable:refund", a="string")], "no tool of this agent"),
        ([function("charge", reversal="compensable:charge", a="string")], "another call of it"),
        (
            [
                function("charge", reversal="compensable:refund", a="string"),
                function("refund", Effect.PURE, a="string"),
            ],
            "pure",
        ),
        (
            [
                function("charge", reversal="compensable:refund", a="string"),
                function("refund", a="integer"),
            ],
            "Its a is integer",
        ),
        ([function("charge", reversal="reversible", a="string")], "nothing to put back"),
        ([function("charge", reversal="compensabel:refund", a="string")], "nothing to put back"),
    ],
    ids=["not there", "itself", "pure", "another type", "no way back at all", "misspelt"],
)
async def test_a_way_back_that_is_none_keeps_an_agent_from_starting(
    tmp_path: Path, manifests: list[Any], why: str
) -> None:
    async with desk(tmp_path, start=False) as d:
        with pytest.raises(ManifestInvalid) as refused:
            await d.begin(functions=tuple(manifests), agents=())
        assert why in refused.value.why
        assert await d.store.runs() == [], "nothing was written"


async def test_an_embedded_run_that_has_ended_is_undone_only_with_its_own_functions(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        await d.ok("charge", order="a", amount=1)
        await d.finish()
        run = d.run.id
    async with desk(tmp_path, start=False) as d:
        with pytest.raises(UndoRefused) as refused:
            await d.undo(run=run)
        assert "not here" in refused.value.why
        assert (await d.undo(run=run, code=d.code())).state is RunState.DONE
        assert d.books.said() == ["charge a", "refund a"]


async def test_a_rule_about_the_compensating_tools_arguments_holds_in_a_kernel_that_never_ran_it(
    tmp_path: Path,
) -> None:
    policy = """
    @id("small-refunds") @reason("Only small ones.")
    forbid (principal, action == Action::"refund", resource) when { context.args.amount > 5 };
    """
    async with desk(tmp_path, policy=policy) as d:
        await d.ok("charge", order="a", amount=10)
        small = await d.ok("charge", order="b", amount=5)
        await d.finish()
        run = d.run.id
    async with desk(tmp_path, policy=policy, start=False) as d:
        assert (await d.undo(run=run, code=d.code(), only=small)).state is RunState.DONE
        assert (await d.undo(run=run, code=d.code())).state is RunState.FAILED
        assert d.books.said() == ["charge a", "charge b", "refund b"]
