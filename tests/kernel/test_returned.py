"""Whatever a tool's code gives back, the gate goes on: it is a result, or the tool's failure."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel_world import OPEN, World, world

from ring0 import Context, agent, limits, tool
from ring0.errors import ToolFailed
from ring0.runtime import Runtime
from ring0.sdk.embedded import embedded
from ring0.tools.functions import EmbeddedFunction, Function
from ring0.tools.registry import Tool
from ring0.types import CallState, Effect, Integrity, Label, Outcome, ToolManifest

CLEAN = Label(integrity=Integrity.USER)


class Unwritable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def cyclic() -> list[Any]:
    made: list[Any] = []
    made.append({"in": made})
    return made


def doubling() -> list[Any]:
    """Two to the power of 60 values, in 60 lists."""
    made: list[Any] = []
    for _ in range(60):
        made = [made, made]
    return made


def nested(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made]
    return made


BAD: dict[str, tuple[Any, str]] = {
    "a number of 5,000 digits": (10**5000, "64 bits"),
    "2**63": ({"n": [2**63]}, "at n[0]: an integer does not fit"),
    "NaN": (float("nan"), "NaN"),
    "infinity": ([1, float("-inf")], "at [1]: NaN and infinity"),
    "a list that holds itself": (cyclic(), "holds itself"),
    "lists that hold one list twice": (doubling(), "there are more than|nested deeper"),
    "100,000 levels": (nested(100_000), "nested deeper"),
    "half a surrogate pair": ({"text": "a\ud800"}, "surrogate"),
    "half a surrogate pair as a key": ({"\udfff": 1}, "surrogate"),
    "a key that is no text": ({1: "x"}, "a key is int"),
    "bytes": (b"x", "bytes is no JSON"),
    "an object": (object(), "object is no JSON"),
    "a set": ({1}, "set is no JSON"),
    "a million and one values": ([0] * (limits.RESULT_VALUES_MAX + 1), "more than 1,000,000"),
}


def gives(w: World, value: Any, effect: Effect = Effect.ONCE) -> None:
    async def call(*_: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    manifest = ToolManifest(name="odd", description="a test's", schema=OPEN, effect=effect)
    w.run.tools["odd"] = Tool(EmbeddedFunction(manifest, call))


async def goes_on(w: World) -> bool:
    """The run's next call is carried out, and what came of both is on record."""
    gives(w, {"all": "well"}, Effect.PURE)
    outcome = await w.call("odd", {"text": "next"})
    states = {call.state for call in await w.calls()}
    return outcome.value == {"all": "well"} and not states & {CallState.INTENDED, CallState.UNKNOWN}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_json_is_the_tools_failure_and_the_run_goes_on(
    tmp_path: Path, name: str
) -> None:
    value, why = BAD[name]
    async with world(tmp_path / "home") as w:
        gives(w, value, Effect.PURE)
        outcome: Outcome = await asyncio.wait_for(w.call("odd", {}), 20)
        assert outcome.state is CallState.ERROR and outcome.error is not None
        assert outcome.error["code"] == "tool_failed"
        assert outcome.error["what"] == "What odd returned can't be taken."
        assert any(part in outcome.error["why"] for part in why.split("|")), outcome.error
        assert outcome.error["todo"]
        assert await goes_on(w)


@pytest.mark.parametrize(
    "error",
    [
        Unwritable(),
        ValueError("\ud800"),
        ValueError("x" * 50_000_000),
        ValueError(10**5000),
        RecursionError(),
    ],
    ids=["unwritable", "surrogate", "huge", "digits", "recursion"],
)
async def test_whatever_is_raised_is_the_tools_failure_and_bounded(
    tmp_path: Path, error: Exception
) -> None:
    async with world(tmp_path / "home") as w:
        gives(w, error, Effect.PURE)
        outcome: Outcome = await asyncio.wait_for(w.call("odd", {}), 20)
        assert outcome.error is not None and outcome.error["code"] == "tool_failed"
        assert len(outcome.error["what"]) < limits.TOOL_ERROR_CHARS_MAX + 200
        assert await goes_on(w)


async def test_a_result_at_the_bounds_is_taken_as_it_is(tmp_path: Path) -> None:
    value = {"n": [2**63 - 1, -(2**63), 1.5e308], "é\U0001f600": nested(limits.CALL_DEPTH_MAX - 2)}
    async with world(tmp_path / "home") as w:
        gives(w, value, Effect.PURE)
        outcome = await w.call("odd", {})
        assert outcome.value == value and outcome.label.integrity is Integrity.UNTRUSTED


@pytest.mark.parametrize("value", [2**63, nested(900), [2**64]])
def test_what_a_function_in_a_sandbox_answers_is_held_against_the_same(value: Any) -> None:
    """The frame is the sandbox's own: JSON says numbers of any length, and any depth."""
    manifest = ToolManifest(name="odd", description="a test's", schema=OPEN, effect=Effect.ONCE)
    function: Any = Function(manifest, lambda: None, Runtime())  # type: ignore[arg-type, return-value]
    context = SimpleNamespace(call="r-1/0/1", run=SimpleNamespace(label=CLEAN))
    assert function._result({"value": [1]}, context).value == [1]
    with pytest.raises(ToolFailed, match="What odd returned can't be taken"):
        function._result({"value": value}, context)


@tool(effect="pure")
def odd(which: str) -> object:
    """Something odd."""
    return BAD[which][0]


@agent(tools=[odd])
async def curious(ctx: Context) -> dict[str, str]:
    found = {}
    for name in BAD:
        if name not in ("lists that hold one list twice", "100,000 levels", "bytes"):
            try:
                found[name] = repr(await ctx.tool("odd", which=name))[:60]
            except Exception as error:
                found[name] = type(error).__name__
    return found


async def test_an_embedded_agent_hears_of_each_as_a_failure(tmp_path: Path) -> None:
    async with embedded(tmp_path / "home", {}) as ring:
        with pytest.warns(UserWarning, match="not contained"):
            found = await asyncio.wait_for(ring.run(curious, "look"), 30)
    taken = {"a key that is no text": "{'1': 'x'}", "a set": "[1]"}  # As the SDK makes them plain.
    assert found == {name: taken.get(name, "ToolFailed") for name in found}
