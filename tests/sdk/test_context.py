"""What a Context sends through the door, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sdk_fakes import FakeDoor, info, manifest

from ring0 import Context, agent, errors
from ring0.sdk.runner import run_agent
from ring0.types import CallKind, Request


def run(body: Callable[[Context], Any], answer: Callable[[Request], Any], **more: Any) -> Any:
    door = FakeDoor(answer)

    @agent
    async def desk(ctx: Context, task: str) -> Any:
        return await body(ctx)

    return asyncio.run(run_agent(desk, door, info(**more))), door


def model(*answers: dict[str, Any]) -> Callable[[Request], Any]:
    """A door whose model gives these answers in turn, and whose tools echo."""
    left = list(answers)
    return lambda request: left.pop(0) if request.kind is CallKind.MODEL else {"did": request.name}


def calls(*names: str, **args: Any) -> dict[str, Any]:
    made = [{"id": f"c{i}", "name": name, "args": args} for i, name in enumerate(names)]
    return {"text": "", "tool_calls": made}


def test_each_method_is_one_call_of_its_kind() -> None:
    async def body(ctx: Context) -> Any:
        assert (ctx.run, ctx.agent, ctx.task) == ("r-1", "desk", "do it")
        await ctx.tool("crm.query", name="x", sql="y")
        await ctx.memory.append("note")
        found = await ctx.memory.recall("what", k=2)
        child = await ctx.spawn("helper", "help")
        waited = await child.wait()
        await ctx.sleep(1.5)
        return [found, waited, (await ctx.now()).isoformat(), await ctx.random()]

    answers = {
        CallKind.MEMORY_RECALL: [{"text": "t"}], CallKind.SPAWN: {"run": "r-2"},
        CallKind.WAIT: "helped", CallKind.NOW: 1_000_000, CallKind.RANDOM: 0.25,
    }  # fmt: skip
    value, door = run(body, lambda request: answers.get(request.kind))
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC).isoformat()
    assert value == [[{"text": "t"}], "helped", at, 0.25]
    assert [(one.kind.value, one.name, one.args) for one in door.seen] == [
        ("tool", "crm.query", {"name": "x", "sql": "y"}),
        ("memory.append", "", {"text": "note"}),
        ("memory.recall", "", {"query": "what", "k": 2}),
        ("spawn", "helper", {"task": "help"}),
        ("wait", "", {"run": "r-2"}),
        ("sleep", "", {"seconds": 1.5}),
        ("now", "", {}),
        ("random", "", {}),
    ]


def test_arguments_are_what_they_were_when_the_call_was_made() -> None:
    async def body(ctx: Context) -> None:
        rows = [1]
        call = ctx.tool("x", rows=rows)
        rows.append(2)
        await call

    assert run(body, lambda request: None)[1].seen[0].args == {"rows": [1]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object(), {"\udfff": 1}])
def test_what_json_cannot_say_is_refused_before_it_is_sent(value: Any) -> None:
    async def body(ctx: Context) -> None:
        with pytest.raises(errors.CallInvalid):
            ctx.tool("x", value=value)

    assert run(body, lambda request: None)[1].seen == []


def test_nesting_is_bounded() -> None:
    async def body(ctx: Context) -> None:
        deep: list[Any] = []
        for _ in range(10_000):
            deep = [deep]
        with pytest.raises(errors.CallInvalid):
            ctx.tool("x", value=deep)

    run(body, lambda request: None)


def test_the_loop_gives_results_to_the_model_until_it_is_done() -> None:
    async def body(ctx: Context) -> Any:
        return await ctx.loop(system="be", user="hi", context=[{"text": "old", "role": "note"}])

    value, door = run(body, model(calls("a.x", "a.y", n=1), {"text": "done"}),
                      tools=(manifest("a.x"), manifest("a.y")))  # fmt: skip
    assert (value["text"], value["turns"]) == ("done", 2)
    assert [one.name for one in door.seen] == ["default", "a.x", "a.y", "default"]
    said = door.seen[-1].args["messages"]
    assert [one["role"] for one in said] == ["system", "user", "user", "assistant", "tool", "tool"]
    assert "old" in said[1]["content"]
    assert (said[4]["content"], said[4]["tool_call_id"]) == ('{"did":"a.x"}', "c0")
    assert value["messages"][-1] == {"role": "assistant", "content": "done"}
    assert [one["name"] for one in door.seen[0].args["tools"]] == ["a.x", "a.y"]


@pytest.mark.parametrize(
    "error", [errors.CallDenied("no"), errors.ToolFailed("broke"), errors.CallInvalid("odd")]
)
def test_a_refused_or_failed_call_is_told_to_the_model(error: Exception) -> None:
    answers = iter([calls("a.x"), error, {"text": "I see"}])

    async def body(ctx: Context) -> Any:
        return (await ctx.loop(user="hi")).messages

    value, _ = run(body, lambda request: next(answers), tools=(manifest("a.x"),))
    assert value[2]["role"] == "tool"
    assert str(error) in value[2]["content"] and '"error"' in value[2]["content"]


@pytest.mark.parametrize(
    "error",
    [errors.RunDead("x"), errors.LimitReached("x"), errors.LoopStopped("x"),
     errors.ReplayDiverged("x")],
)  # fmt: skip
def test_the_end_of_the_run_ends_the_loop(error: Exception) -> None:
    answers = iter([calls("a.x"), error])

    async def body(ctx: Context) -> Any:
        await ctx.loop(user="hi")

    with pytest.raises(type(error)):
        run(body, lambda request: next(answers), tools=(manifest("a.x"),))


def test_local_functions_run_here_and_their_faults_are_told_to_the_model() -> None:
    async def add(ctx: Context, a: int, b: int = 1) -> int:
        """Adds."""
        await ctx.tool("a.x")
        return a + b

    def broken() -> None:
        raise ValueError("oh no")

    async def body(ctx: Context) -> Any:
        return (await ctx.loop(user="hi", local=[add, broken], tools=[])).messages

    value, door = run(
        body,
        model(
            calls("add", a=2), calls("add", a="two"), calls("broken"), calls("a.x"), {"text": ""}
        ),
        tools=(manifest("a.x"),),
    )
    results = [one["content"] for one in value if one["role"] == "tool"]
    assert results[0] == "3"
    assert "call_invalid" in results[1] and "Expected `int`" in results[1]
    assert "ValueError: oh no" in results[2]
    assert "There is no tool called 'a.x'" in results[3]
    offered = door.seen[0].args["tools"]
    assert [one["name"] for one in offered] == ["add", "broken"]
    assert offered[0]["schema"]["required"] == ["a"]


def test_the_loop_offers_only_what_was_granted_and_each_name_once() -> None:
    def x() -> None: ...

    async def body(ctx: Context) -> None:
        with pytest.raises(errors.CallInvalid):
            await ctx.loop(user="hi", tools=["b.y"])
        with pytest.raises(errors.CallInvalid):
            await ctx.loop(user="hi", local=[x])

    assert run(body, lambda request: None, tools=(manifest("x"),))[1].seen == []


def test_a_loop_that_does_not_end_meets_its_bound() -> None:
    async def body(ctx: Context) -> None:
        await ctx.loop(user="hi", turns_max=3)

    with pytest.raises(errors.LimitReached):
        run(body, model(*[calls("a.x")] * 4), tools=(manifest("a.x"),))


def test_the_agents_own_model_is_asked_where_none_is_named() -> None:
    door = FakeDoor(model({"text": "hi"}))

    @agent(model="small")
    async def desk(ctx: Context) -> str:
        return (await ctx.model([{"role": "user", "content": "?"}])).text

    assert asyncio.run(run_agent(desk, door, info())) == "hi"
    assert door.seen[0].name == "small"


def test_an_agents_own_fault_is_told_with_its_place() -> None:
    async def body(ctx: Context) -> None:
        raise KeyError("missing")

    with pytest.raises(errors.RunFailed) as caught:
        run(body, lambda request: None)
    assert "KeyError: 'missing'" in caught.value.what
    assert caught.value.why.startswith("test_context.py, line ")


def test_a_refusal_that_an_agent_does_not_catch_keeps_its_code() -> None:
    async def body(ctx: Context) -> None:
        await ctx.tool("x")

    with pytest.raises(errors.CallDenied):
        run(body, lambda request: errors.CallDenied("no"))


def test_a_result_that_is_not_json_fails_the_run() -> None:
    async def body(ctx: Context) -> Any:
        return float("nan")

    with pytest.raises(errors.CallInvalid, match="result of desk"):
        run(body, lambda request: None)


def test_a_plain_function_can_be_an_agent() -> None:
    @agent
    def desk(ctx: Context, task: str) -> str:
        return task.upper()

    door = FakeDoor(lambda request: None)
    assert asyncio.run(run_agent(desk, door, info())) == "DO IT"


def test_asking_for_more_is_one_call_in_whole_numbers() -> None:
    async def body(ctx: Context) -> Any:
        return await ctx.ask_for_more(calls=3, usd="0.5", tokens=10, why="two are left")

    given = {"given": {"calls": 3}, "left": {"calls": 3}}
    value, door = run(body, lambda request: given)
    assert value == given
    (asked,) = door.seen
    assert asked.kind is CallKind.ASK and asked.name == ""
    assert asked.args == {
        "calls": 3, "tokens": 10, "cost_microusd": 500_000, "why": "two are left"
    }  # fmt: skip


@pytest.mark.parametrize("usd", ["much", "-1", float("nan"), "inf"])
def test_what_is_no_amount_of_dollars_is_not_asked_for(usd: Any) -> None:
    async def body(ctx: Context) -> Any:
        with pytest.raises(errors.CallInvalid):
            ctx.ask_for_more(usd=usd, why="so")

    _, door = run(body, lambda request: None)
    assert door.seen == []
