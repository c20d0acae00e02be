"""What @agent and @tool declare, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pytest

from ring0 import Context, agent, errors, tool
from ring0.sdk.budget import parse_budget
from ring0.sdk.declare import agent_of, tool_of
from ring0.types import Budget, Effect


@dataclass
class Line:
    item: str
    count: int = 1


@tool(effect="once", reversal="compensable:cancel_refund", critical=["amount"])
async def refund(ctx: Context, order_id: str, amount: int, note: str = "") -> str:
    """Pays back an order."""
    return f"{order_id} {amount} {note}"


@tool
def cancel_refund(order_id: str) -> None:
    pass


def test_a_bare_tool_is_the_worst_that_it_can_be() -> None:
    found = tool_of(cancel_refund)
    assert found is not None
    assert (found.manifest.effect, found.manifest.reversal) == (Effect.ONCE, "irreversible")
    assert found.parameters.takes_context is False


def test_a_tools_manifest_comes_from_its_signature_without_the_context() -> None:
    found = tool_of(refund)
    assert found is not None
    manifest = found.manifest
    assert (manifest.name, manifest.description) == ("refund", "Pays back an order.")
    assert manifest.schema == {
        "type": "object",
        "properties": {
            "order_id": {"type": "string"},
            "amount": {"type": "integer"},
            "note": {"type": "string", "default": ""},
        },
        "required": ["order_id", "amount"],
        "additionalProperties": False,
    }
    assert manifest.critical == ("amount",)


def test_nested_types_refuse_unknown_fields_too() -> None:
    @tool
    def order(
        lines: list[Line],
        speed: Literal["slow", "fast"],
        code: Annotated[str, msgspec.Meta(max_length=3)],
        extra: dict[str, int] | None = None,
    ) -> None: ...

    found = tool_of(order)
    assert found is not None
    schema = found.manifest.schema
    assert schema["$defs"]["Line"]["additionalProperties"] is False
    assert schema["properties"]["code"] == {"type": "string", "maxLength": 3}
    given = found.parameters.convert(
        {"lines": [{"item": "x"}], "speed": "slow", "code": "abc"}, "order"
    )
    assert given == {"lines": [Line("x")], "speed": "slow", "code": "abc"}
    for bad in ({}, {"lines": [], "speed": "x", "code": ""}, {"lines": [], "more": 1}, []):
        with pytest.raises(errors.CallInvalid):
            found.parameters.convert(bad, "order")


def test_a_declared_function_stays_callable() -> None:
    assert cancel_refund("7") is None


def no_hint(order_id) -> None: ...  # type: ignore[no-untyped-def]
def many(*orders: str) -> None: ...
def any_of(**orders: str) -> None: ...
def nameless(order: str, /) -> None: ...
def unknown_type(order: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821
def no_schema(order: type[int]) -> None: ...


@pytest.mark.parametrize("function", [no_hint, many, any_of, nameless, unknown_type, no_schema])
def test_a_parameter_without_a_schema_is_refused(function: Any) -> None:
    with pytest.raises(errors.ManifestInvalid) as caught:
        tool(function)
    assert caught.value.why and caught.value.todo


@pytest.mark.parametrize(
    "options",
    [
        {"effect": "twice"},
        {"reversal": "maybe"},
        {"reversal": "compensable:"},
        {"critical": ["nobody"]},
        {"critical": "order_id"},
        {"egress": "example.com"},
        {"wall_s": 0},
        {"wall_s": True},
        {"effect": "pure", "egress": ["example.com"]},
        {"effect": "pure", "secrets": ["key"]},
    ],
)
def test_a_contradictory_tool_is_refused(options: dict[str, Any]) -> None:
    def fine(order_id: str) -> None: ...

    with pytest.raises(errors.ManifestInvalid) as caught:
        tool(**options)(fine)
    assert caught.value.why and caught.value.todo


def test_a_bare_agent_has_the_default_budget_and_nothing_else() -> None:
    @agent
    def idle(ctx: Context) -> None: ...

    found = agent_of(idle)
    assert found is not None
    assert (found.manifest.name, found.manifest.budget, found.model) == (
        "idle",
        Budget(),
        "default",
    )
    assert found.takes_task is False


def test_an_agents_manifest_holds_what_was_declared() -> None:
    @agent(
        name="front-desk",
        model="small",
        models={"small": {"provider": "scripted", "script": "rules.toml"}},
        tools=[refund, cancel_refund],
        builtins={"crm": {"use": "sql", "database": "x.db"}},
        budget="0.50 USD, 200 calls, 10 min",
        agents=["helper"],
        imports=["tickets"],
    )
    async def desk(ctx: Context, ticket: str) -> str:
        return ticket

    found = agent_of(desk)
    assert found is not None
    manifest = found.manifest
    assert manifest.name == "front-desk"
    assert [one.name for one in manifest.functions] == ["refund", "cancel_refund"]
    assert manifest.tools == {"crm": {"use": "sql", "database": "x.db"}}
    assert manifest.models["small"].script == "rules.toml"
    assert manifest.budget == Budget(calls=200, cost_microusd=500_000, wall_s=600)
    assert (manifest.agents, manifest.imports) == (("helper",), ("tickets",))
    assert found.takes_task


@pytest.mark.parametrize(
    "options",
    [
        {"name": "../x"},
        {"tools": [print]},
        {"tools": ["crm.query"]},
        {"tools": [refund, refund]},
        {"builtins": {"crm": {"database": "x"}}},
        {"builtins": {"c.m": {"use": "sql"}}},
        {"builtins": {"crm": {"use": "sql", "x": float("nan")}}},
        {"models": {"other": {"provider": "openai"}}},
        {"models": {"default": {"provider": "openai", "keyy": "x"}}},
        {"agents": [print]},
        {"imports": ["/etc"]},
        {"imports": ["a/../.."]},
        {"budget": "lots"},
    ],
)
def test_an_agent_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    async def desk(ctx: Context, ticket: str) -> None: ...

    with pytest.raises(errors.InvalidInput) as caught:
        agent(**options)(desk)
    assert caught.value.todo


def test_an_agent_function_takes_a_context_and_at_most_a_task() -> None:
    def nothing() -> None: ...
    def three(ctx: Context, task: str, more: str) -> None: ...
    def keyword(ctx: Context, *, more: str) -> None: ...

    for function in (nothing, three, keyword):
        with pytest.raises(errors.AgentInvalid):
            agent(function)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0.50 USD", Budget(cost_microusd=500_000)),
        ("0.000001USD, 1 call", Budget(cost_microusd=1, calls=1)),
        ("90 s", Budget(wall_s=90)),
        ("1.5 h", Budget(wall_s=5_400)),
        ("0 USD", Budget(cost_microusd=0)),
        ("100k tokens", Budget(tokens=100_000)),
        ("1.5M tokens, 0 children", Budget(tokens=1_500_000, children=0)),
        (
            "0.50 USD, 200 calls, 10 min, 100k tokens, 5 children, depth 2",
            Budget(
                cost_microusd=500_000, calls=200, wall_s=600, tokens=100_000, children=5, depth=2
            ),
        ),
        ("1 child, depth 0", Budget(children=1, depth=0)),
    ],
)
def test_a_budget_says_money_calls_tokens_time_and_children(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text",
    ["", "5", "5 EUR", "1 USD, 2 USD", "1 s, 1 min", "0 calls", "1.5 calls", "-1 USD", "1e3 calls",
     "1 USD,", "1,5 USD", "200k calls", "1k USD", "0.5 tokens", "1 token, 2 tokens", "depth",
     "depth 4", "2 depth", "1.5 children", "0.0000001 USD", "٣ calls", "1 usd", "0.5 s", "inf h"],
)  # fmt: skip
def test_a_budget_that_can_be_misread_is_refused(text: str) -> None:
    with pytest.raises(errors.ManifestInvalid) as caught:
        parse_budget(text)
    assert caught.value.why and caught.value.todo
