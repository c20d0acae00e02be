"""An agent's process, an upstream MCP server and a model's provider as enemies of the doors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing
from mcp_doors import META, MODERN, Spoken, spoken
from mcp_world import world as mcp_world
from model_doors import asked, proposes, said

from ring0 import limits
from ring0.errors import EffectUnknown, ToolFailed
from ring0.gateway.mcp import content
from ring0.models.base import Part
from ring0.tools.mcp.http import HttpAnswer
from ring0.tools.mcp.results import value_of
from ring0.tools.mcp.session import Answer
from ring0.types import Effect, Operator, RunState

CHAT = "/v1/chat/completions"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
JUNK: list[Any] = [[] for _ in range(10_000)]
NO_PROPOSALS = (
    '@id("no")\n@reason("no")\nforbid (principal, action == Action::"proposal", resource);'
)


async def lists(session: Any) -> set[str]:
    """The tools that the run's MCP door tells of, asked once."""
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers = {"Mcp-Protocol-Version": MODERN, "Mcp-Method": "tools/list"}
    async with session.post("/mcp", json=body, headers=headers) as answer:
        return {tool["name"] for tool in (await answer.json())["result"]["tools"]}


# --- tools that are called alike ----------------------------------------------------------------


async def test_a_tool_that_the_manifest_says_is_the_agents_is_judged_though_one_of_the_kernels_is_called_alike(  # noqa: E501
    tmp_path: Path,
) -> None:
    tools = {"crm__query": {"use": "agent", "effect": "once"}}
    async with asked(tmp_path, said("", proposes("crm__query", x=1)), tools=tools) as a:
        a.w.tool(Doing("crm.query"))
        (there,) = await lists(a.session)
        assert there != "crm__query", "two tools by one name"
        answering = asyncio.ensure_future(a.post(CHAT, HELLO))
        approval = await a.w.pending()
        await a.w.kernel.answer(approval.id, yes=False, by=Operator(name="ada"))
        _, body = await answering
        assert not body["choices"][0]["message"].get("tool_calls")


async def test_a_tool_of_the_kernels_that_the_door_never_listed_is_judged(tmp_path: Path) -> None:
    turn = said("", proposes("crm__query"))
    async with asked(tmp_path, turn, turn, policy=NO_PROPOSALS) as a:
        # Whoever only connects has been told of no tool.
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"capabilities": {}}}
        assert (await a.post("/mcp", hello))[0] == 200
        a.w.tool(Doing("crm.query"))
        for listed in (False, True):
            if listed:
                assert await lists(a.session) == {"crm__query"}
            _, body = await a.post(CHAT, {**HELLO, "seed": int(listed)})
            assert bool(body["choices"][0]["message"].get("tool_calls")) is listed


async def test_another_servers_tool_that_is_called_as_one_of_the_kernels_is_judged(
    tmp_path: Path,
) -> None:
    for server, passes in (("shop", False), ("ring0", True)):
        turn = said("", proposes(f"mcp__{server}__crm__query"))
        async with asked(tmp_path / server, turn, policy=NO_PROPOSALS) as a:
            a.w.tool(Doing("crm.query"))
            await lists(a.session)
            _, body = await a.post(CHAT, HELLO)
            assert bool(body["choices"][0]["message"].get("tool_calls")) is passes


async def calls(s: Spoken, **params: Any) -> Any:
    """What `tools/call` comes to, without the signs of life before it."""
    _, told = await s.modern("tools/call", params)
    return told[-1] if isinstance(told, list) else told


# --- memory of the kernel -----------------------------------------------------------------------


async def test_sessions_keep_no_megabytes_that_a_client_says_it_can(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        params = {"protocolVersion": "2025-11-25", "capabilities": {"a": JUNK}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        _, headers, answer = await s.post(body)
        assert answer["error"]["code"] == -32602 and "Mcp-Session-Id" not in headers
        meta = {META + "clientCapabilities": {"a": JUNK}}
        status, answer = await s.modern("tools/list", {"_meta": meta})
        assert (status, answer["error"]["code"]) == (400, -32602)
        assert "result" in (await s.modern("tools/list"))[1]


async def test_a_held_mcp_request_weighs_all_that_it_brought(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        slow = s.w.tool(Doing("slow"))
        go = slow.hold()
        session = await s.session()
        params = {"name": "slow", "_meta": {"junk": JUNK}}
        calling = asyncio.ensure_future(session.ask("tools/call", params))
        await slow.begun.wait()
        assert s.w.run.weight.bytes > len(json.dumps(JUNK))
        go.set()
        await calling
        assert s.w.run.weight.bytes == 0


async def test_a_conversation_that_an_id_names_takes_its_room_while_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_BODY_S_MAX", 0.2)
    long = {"model": "m", "input": "x" * 200_000}
    async with asked(tmp_path, said("one"), said("two"), said("three")) as a:
        _, first = await a.post("/v1/responses", long)
        monkeypatch.setattr(limits, "CALLS_SIZE_PER_RUN_BYTES_MAX", 300_000)
        a.model.go = asyncio.Event()
        on = {"model": "m", "input": "on", "previous_response_id": first["id"]}
        held = asyncio.ensure_future(a.post("/v1/responses", on))
        async with asyncio.timeout(5):
            while len(a.model.asked) < 2:
                await asyncio.sleep(0.005)
        assert a.w.run.weight.bytes > 200_000
        async with asyncio.timeout(10):
            status, told = await a.post("/v1/responses", {**on, "input": "another"})
        assert status == 429 and "no room" in told["error"]["message"]
        a.model.go.set()
        assert (await held)[0] == 200
        assert a.w.run.weight.bytes == 0
        assert (await a.post("/v1/responses", {**on, "input": "another"}))[0] == 200


async def test_news_that_nobody_reads_are_kept_once(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        assert s.d.door is not None
        session = s.d.door._mcp._sessions.open({})
        for _ in range(limits.MCP_DOOR_NEWS_MAX):
            session.tell(b"a changed")
        session.tell(b"b changed")
        assert session.told() == [b"a changed", b"b changed"]
        session.tell(b"a changed")
        assert session.told() == [b"a changed"]


async def test_a_sign_of_life_repeats_no_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.02)
    async with spoken(tmp_path) as s:
        slow = s.w.tool(Doing("slow"))
        go = slow.hold()
        session = await s.session()
        params = {"name": "slow", "_meta": {"progressToken": "t" * 100_000}}
        calling = asyncio.ensure_future(session.ask("tools/call", params))
        await slow.begun.wait()
        await asyncio.sleep(0.1)
        go.set()
        assert "ttt" not in json.dumps(await calling)


# --- a client that comes back -------------------------------------------------------------------


async def test_a_client_that_comes_back_with_other_words_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.05)
    monkeypatch.setattr(limits, "MCP_DOOR_POLL_S", 0.1)
    async with spoken(tmp_path) as s:
        pay = s.w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
        call: dict[str, Any] = {"name": "pay", "arguments": {"x": 7}}
        state = (await calls(s, **call))["result"]["requestState"]
        approval = await s.w.pending()
        await s.w.kernel.answer(approval.id, yes=True, by=Operator(name="ada"))
        back = {**call, "requestState": state}
        assert (await calls(s, **back))["result"]["structuredContent"] == {"done": 1}
        assert "error" in await calls(s, **{**back, "arguments": {"x": 8}})
        assert pay.args == [{"x": 7}]
        assert s.w.run.diverged is None and (await s.w.row()).state is RunState.RUNNING
        # The state is good for as often as somebody asks, and for one outcome.
        assert (await calls(s, **back))["result"]["structuredContent"] == {"done": 1}


async def test_what_a_client_says_with_its_state_answers_no_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.05)
    monkeypatch.setattr(limits, "MCP_DOOR_POLL_S", 0.1)
    async with spoken(tmp_path) as s:
        pay = s.w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
        s.w.tool(Doing("look"))
        state = (await calls(s, name="pay"))["result"]["requestState"]
        yes = {"inputResponses": {"approve": {"action": "accept", "content": {"yes": True}}}}
        told = await calls(s, name="pay", requestState=state, **yes)
        assert told["result"]["resultType"] == "input_required"
        told = await calls(s, name="look", requestState=state)
        assert told["error"]["code"] == -32602
        coded, _, mac = state.partition(".")
        for forged in (coded + ".", f"{coded}.{'0' * len(mac)}", f"{coded[:-4]}AAAA.{mac}", "x"):
            told = await calls(s, name="pay", requestState=forged)
            assert told["error"]["code"] == -32602, forged
        assert pay.done == 0


# --- retries ------------------------------------------------------------------------------------


async def test_a_question_that_says_it_is_a_retry_and_is_none_is_asked_and_counted(
    tmp_path: Path,
) -> None:
    again = {"x-stainless-retry-count": "1"}
    async with asked(tmp_path, said("one"), said("two"), said("three")) as a:
        for text in ("a", "b"):
            body = {"messages": [{"role": "user", "content": text}]}
            assert (await a.post(CHAT, body, **again))[0] == 200
        assert len(a.model.asked) == 2 and a.w.run.row.calls_used == 2
        # Twenty times said again, it is one answer: nothing new is learnt by it.
        told = [(await a.post(CHAT, body, **again))[1] for _ in range(20)]
        assert len(a.model.asked) == 2 and {one["id"] for one in told} == {told[0]["id"]}


async def test_an_answer_that_nobody_heard_is_given_to_its_own_question_alone(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, said("one"), said("two")) as a:
        a.model.go = asyncio.Event()
        first = asyncio.ensure_future(a.post(CHAT, HELLO))
        while not a.model.asked:
            await asyncio.sleep(0.005)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        while not a.w.run.undelivered:
            await asyncio.sleep(0.005)
        a.model.go.set()
        _, other = await a.post(CHAT, {**HELLO, "seed": 1})
        assert other["choices"][0]["message"]["content"] == "two"
        _, same = await a.post(CHAT, HELLO)
        assert same["choices"][0]["message"]["content"] == "one" and len(a.model.asked) == 2


# --- labels -------------------------------------------------------------------------------------


async def test_what_a_citation_was_found_by_is_taken_from_no_other_run(tmp_path: Path) -> None:
    cited = {"type": "web_search_result_location", "encrypted_index": "E1", "cited_text": "x"}
    part = Part(kind="text", text="found", name="messages", native={"citations": [cited]})
    question: dict[str, Any] = {"max_tokens": 9, "messages": [{"role": "user", "content": "q"}]}
    block = {"type": "text", "text": "found", "citations": [cited]}
    async with asked(tmp_path, said("found", parts=(part,)), said("on")) as a:
        for role in ("assistant", "user"):
            history = [*question["messages"], {"role": role, "content": [block]}]
            status, told = await a.post("/v1/messages", {**question, "messages": history})
            assert status == 403, told
        assert not a.model.asked
        assert (await a.post("/v1/messages", question))[0] == 200
        history = [*question["messages"], {"role": "assistant", "content": [block]}]
        status, told = await a.post("/v1/messages", {**question, "messages": history})
        assert status == 200, told


async def test_a_dead_run_hears_no_earlier_answer(tmp_path: Path) -> None:
    async with asked(tmp_path, said("one")) as a:
        _, told = await a.post("/v1/responses", {"model": "m", "input": "x"})
        async with a.session.get(f"/v1/responses/{told['id']}") as answer:
            assert answer.status == 200
        a.w.kernel.gate.handles.kill(a.w.run.id)
        async with a.session.get(f"/v1/responses/{told['id']}") as answer:
            assert answer.status == 410


# --- upstream servers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [{"parts": [{"type": "image"}]}, {"parts": []}, {"parts": [7]}, {"value": 1}]
)
def test_a_structured_answer_that_looks_like_parts_is_a_value(value: dict[str, Any]) -> None:
    kept = value_of("srv.tool", Answer(parts=[], structured=value, failed=False), None)
    told = content.result_of(kept, "", parts_of=True, stateless=True)
    assert told["structuredContent"] == value
    assert [part["type"] for part in told["content"]] == ["text"]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"content": [{"type": "text", "text": "x" * 1_100_000}]}, EffectUnknown),
        ({"content": [{"type": "text", "text": ""}] * 300}, EffectUnknown),
        ({"content": [{"type": "text", "text": "no"}], "isError": True}, ToolFailed),
    ],
)
async def test_a_once_effect_through_the_kernel_without_a_usable_answer_is_unknown(
    tmp_path: Path, result: dict[str, Any], error: type[Exception]
) -> None:
    told: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        },
        "tools/list": {"tools": [{"name": "act", "inputSchema": {"type": "object"}}]},
        "tools/call": result,
        "ping": {},
    }

    async def send(
        method: str, url: str, headers: dict[str, str], body: bytes, **_: Any
    ) -> HttpAnswer:
        value = json.loads(body) if body else {}
        if value.get("method") not in told:
            return HttpAnswer(status=404 if "id" in value else 202, headers={}, body=b"")
        answer = {"jsonrpc": "2.0", "id": value["id"], "result": told[value["method"]]}
        kind = {"content-type": "application/json"}
        return HttpAnswer(status=200, headers=kind, body=json.dumps(answer).encode())

    config = {"use": "mcp", "url": "https://mcp.example.com/mcp", "wall_s": 5, "through": True}
    async with mcp_world(tmp_path) as here:
        await here.approve(config, send=send)
        with pytest.raises(error) as failed:
            await here.call("act")
        assert type(failed.value) is error
