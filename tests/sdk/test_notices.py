"""What the kernel says beside a result reaches the model, where it reads the result."""

from __future__ import annotations

from typing import Any

import pytest
from sdk_fakes import LABEL, FakeDoor, info, manifest

from ring0 import agent, errors
from ring0.sdk import context, door
from ring0.sdk.runner import run_agent
from ring0.types import CallKind, Request

NOTICE = "ring0: look gave the same answer 3 times"


class TellingDoor(FakeDoor):
    """Gives a notice with the second call of a tool."""

    async def call(self, request: Request) -> tuple[Any, Any]:
        value, label = await super().call(request)
        tools = [one for one in self.seen if one.kind is CallKind.TOOL]
        told = request.kind is CallKind.TOOL and len(tools) == 2
        return door.Given.of(value, label, NOTICE if told else "")


def answer(request: Request) -> Any:
    if request.kind is CallKind.TOOL:
        return {"status": "pending"}
    turns = sum(one["role"] == "tool" for one in request.args["messages"])
    calls = [{"id": f"c{turns}", "name": "look", "args": {}}] if turns < 3 else []
    return {"text": "", "tool_calls": calls, "tokens_in": 1, "tokens_out": 1, "model": "m"}


@agent(name="desk")
async def looper(ctx: context.Context, task: str) -> list[str]:
    """The results as the model read them."""
    ended = await ctx.loop(user="go")
    return [one["content"] for one in ended.messages if one["role"] == "tool"]


async def test_the_tool_loop_shows_the_model_what_the_kernel_says_of_a_result() -> None:
    here = TellingDoor(answer)
    results = await run_agent(looper, here, info(tools=(manifest("look"),)))
    plain = '{"status":"pending"}'
    assert results == [plain, f"{plain}\n[{NOTICE}]", plain]


async def test_an_agent_that_calls_a_tool_itself_gets_its_value_and_nothing_else() -> None:
    @agent(name="desk")
    async def desk(ctx: context.Context, task: str) -> list[Any]:
        return [await ctx.tool("look"), await ctx.tool("look")]

    assert await run_agent(desk, TellingDoor(answer), info()) == [{"status": "pending"}] * 2


async def test_a_notice_beside_an_error_reaches_the_model_too() -> None:
    def refuse(request: Request) -> Any:
        if request.kind is not CallKind.TOOL:
            return answer(request)
        return door.error_of({"code": "denied", "what": "No."}, NOTICE)

    results = await run_agent(looper, FakeDoor(refuse), info(tools=(manifest("look"),)))
    assert results and all(
        text.endswith(f"\n[{NOTICE}]") and '"denied"' in text for text in results
    )


@pytest.mark.parametrize(
    ("body", "notice"),
    [(b'{"value":1,"label":{"integrity":"user"},"notice":"n"}', "n"),
     (b'{"value":1,"label":{"integrity":"user"}}', "")],
)  # fmt: skip
async def test_the_http_door_hands_the_notice_on(
    monkeypatch: pytest.MonkeyPatch, body: bytes, notice: str
) -> None:
    here = door.HttpDoor("/nowhere")

    async def send(method: str, route: str, sent: bytes | None) -> bytes:
        return body

    monkeypatch.setattr(here, "_send", send)
    given = await here.call(Request(kind=CallKind.NOW))
    value, label = given
    assert (value, label.integrity, given.notice) == (1, "user", notice)  # type: ignore[attr-defined]


async def test_the_http_door_hands_the_notice_of_an_error_on() -> None:
    with pytest.raises(errors.CallDenied) as caught:
        door._read(b'{"error":{"code":"denied","what":"No."},"notice":"n"}', door._Answer)
    assert caught.value.notice == "n" and LABEL
