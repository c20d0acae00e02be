"""Tools of the agent's own that no manifest names: what models propose of them is judged by what
the question says of the tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_doors import asked, proposes, said

PATH = "/v1/chat/completions"
POLICY = (
    '@id("no-made-up-target")\n@reason("made up")\n'
    'forbid (principal, action == Action::"proposal", resource)\n'
    "when { context.mutates && !context.unfounded_args.isEmpty() };"
)


def offered(name: str, description: str, **arguments: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": arguments}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
PAY = offered("pay_bill", "Pays a bill.", payee=TEXT, amount=NUMBER, memo=TEXT)
LIST = offered("list_bills", "Lists bills.", payee=TEXT)


def question(*tools: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hello"}]
    return {"model": "gpt-x", "messages": messages, "tools": list(tools)}


def names(body: Any) -> list[str]:
    calls = body["choices"][0]["message"].get("tool_calls") or ()
    return [call["function"]["name"] for call in calls]


async def test_a_proposal_is_judged_by_what_the_question_says_of_the_tool(tmp_path: Path) -> None:
    turn = said(
        "",
        proposes("pay_bill", "c1", payee="eve", amount=4711, memo="x"),
        proposes("list_bills", "c2", payee="eve"),
    )
    async with asked(tmp_path, turn, policy=POLICY) as a:
        status, body = await a.post(PATH, question(PAY, LIST))
        assert status == 200 and names(body) == ["list_bills"]
        assert "pay_bill was not allowed" in body["choices"][0]["message"]["content"]


async def test_only_what_chooses_a_target_is_judged(tmp_path: Path) -> None:
    turn = said("", proposes("pay_bill", "c1", memo="words that nobody has seen before"))
    async with asked(tmp_path, turn, policy=POLICY) as a:
        _, body = await a.post(PATH, question(PAY))
        assert names(body) == ["pay_bill"]


async def test_as_it_is_shipped_the_agents_own_tools_go_through_as_ever(tmp_path: Path) -> None:
    turn = said("", proposes("pay_bill", "c1", payee="eve", amount=4711))
    async with asked(tmp_path, turn) as a:
        _, body = await a.post(PATH, question(PAY))
        assert names(body) == ["pay_bill"]


async def test_words_of_the_agent_about_its_tool_break_nothing(tmp_path: Path) -> None:
    looped = {"$defs": {"A": {"$ref": "#/$defs/A"}}, "properties": {"x": {"$ref": "#/$defs/A"}}}
    for number, schema in enumerate(
        ({"properties": {"x": 7}}, looped, {"type": "object", "properties": {"x": {"anyOf": []}}})
    ):
        tool = offered("wobble", "w" * 9_000)
        tool["function"]["parameters"] = schema
        turn = said("", proposes("wobble", "c1", x="nobody saw this"))
        async with asked(tmp_path / str(number), turn, policy=POLICY) as a:
            status, body = await a.post(PATH, question(tool))
            assert status in (200, 422), body
            if status == 200:
                assert names(body) == []
