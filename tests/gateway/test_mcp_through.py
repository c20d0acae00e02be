"""What MCP servers offer beside tools, at the MCP door; and servers that an agent meets through the
kernel. Upstream is the conformance suite's server, in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mcp_doors import Session, Spoken, spoken

from ring0 import limits
from ring0.gateway.mcp.answering import is_wanted
from ring0.gateway.mcp.stateless import Client
from ring0.runtime import Runtime
from ring0.tools.mcp import Server, drivers, pins, settings
from ring0.types import ApprovalState, CallState, Effect, Integrity, Operator

UPSTREAM = Path(__file__).parent.parent / "mcp" / "conformance" / "server.py"
ALL = ["resources", "prompts", "completions"]
POWERS: dict[str, Any] = {"sampling": {}, "elicitation": {}, "roots": {}}
_pins: dict[str, pins.Pin] = {}
"""What was approved of it, by its settings."""


@contextlib.asynccontextmanager
async def upstream(tmp_path: Path, *names: str, **more: Any) -> AsyncIterator[Spoken]:
    """A door with that server behind it, by each of these names."""
    folder = tmp_path / "agent"
    folder.mkdir()
    shutil.copy(UPSTREAM, folder)
    policy = more.pop("policy", "")
    config = {"use": "mcp", "command": ["python", "server.py"], "wall_s": 20, **more}
    async with spoken(tmp_path / "run", policy=policy) as s:
        read = settings.read("srv", config)
        key = repr(read)
        if key not in _pins:  # Each time the same, and a second of a server's start.
            server = Server("srv", read, folder, Runtime())
            _pins[key] = await server.inspect(s.w.kernel.sandboxes)
        pins.write(folder, dict.fromkeys(names or ("srv",), _pins[key]))
        for name in names or ("srv",):
            for driver in drivers(name, config, folder, Runtime()):
                s.w.tool(driver)
        yield s


async def said(session: Session, method: str, params: Any = None) -> Any:
    answer = await session.ask(method, params)
    last = answer[-1] if isinstance(answer, list) else answer
    return last["error"] if "error" in last else last["result"]


async def test_resources_and_prompts_are_calls_of_the_gate_and_marked_with_their_server(
    tmp_path: Path,
) -> None:
    async with upstream(tmp_path, "docs", "wiki", serves=ALL) as s:
        session = await s.session()
        assert session.told["capabilities"].keys() == {
            "tools",
            "resources",
            "prompts",
            "completions",
        }
        found = await said(session, "resources/list")
        assert [one["uri"] for one in found["resources"]] == [
            f"{server}+test://{name}"
            for server in ("docs", "wiki")
            for name in ("static-binary", "static-text", "watched-resource")
        ]
        text = await said(session, "resources/read", {"uri": "wiki+test://static-text"})
        assert text["contents"] == [
            {
                "uri": "wiki+test://static-text",
                "mimeType": "text/plain",
                "text": "This is the content of the static text resource.",
            }
        ]
        templates = (await said(session, "resources/templates/list"))["resourceTemplates"]
        assert templates[0]["uriTemplate"] == "docs+test://template/{id}/data"
        prompts = (await said(session, "prompts/list"))["prompts"]
        assert prompts[0]["name"].startswith("docs__test_") and len(prompts) == 10
        asked = {
            "name": "docs__test_prompt_with_arguments",
            "arguments": {"arg1": "a", "arg2": "b"},
        }
        prompt = await said(session, "prompts/get", asked)
        assert "arg1='a'" in prompt["messages"][0]["content"]["text"]
        ref = {"type": "ref/prompt", "name": "wiki__test_prompt_with_arguments"}
        wanted = {"ref": ref, "argument": {"name": "arg1", "value": "pari"}}
        completed = await said(session, "completion/complete", wanted)
        assert completed["completion"]["values"] == ["paris"]
        for name in ("test://static-text", "other+test://static-text", "docs+test://nothing"):
            assert "code" in await said(session, "resources/read", {"uri": name})
        calls = [call for call in await s.w.calls() if call.state is CallState.OK]
        assert {call.name for call in calls} >= {"docs.resources.list", "wiki.resources.read"}
        assert {call.effect for call in calls} == {Effect.PURE}
        row = await s.w.row()
        assert row.label.integrity is Integrity.UNTRUSTED
        tools = {tool["name"] for tool in (await said(session, "tools/list"))["tools"]}
        assert "docs__test_simple_text" in tools and not any("resources" in one for one in tools)


async def test_what_an_operator_does_not_name_is_not_served(tmp_path: Path) -> None:
    async with upstream(tmp_path) as s:
        session = await s.session(**POWERS)
        assert session.told["capabilities"] == {"tools": {}}
        for method in ("resources/list", "prompts/list", "completion/complete", "logging/setLevel"):
            assert (await said(session, method, {"level": "info"}))["code"] == -32601
            status, _ = await s.modern(method)
            assert status == 404
        assert not await s.w.calls()


async def test_a_grant_narrows_what_a_server_serves(tmp_path: Path) -> None:
    from ring0.identity.narrowing import Narrowed

    async with upstream(tmp_path, serves=ALL) as s:
        s.w.run.narrowed = Narrowed([("tool:srv.prompts.*",)])
        session = await s.session()
        assert session.told["capabilities"].keys() == {"tools", "prompts"}
        assert (await said(session, "resources/list"))["code"] == -32601
        assert (await said(session, "tools/list"))["tools"] == []


async def test_a_server_asks_nobody_by_default_and_never_a_person(tmp_path: Path) -> None:
    async with upstream(tmp_path, serves=ALL) as s:
        session = await s.session(**POWERS)
        prompt = {"name": "srv__test_input_required_result_prompt"}
        assert "asks for more" in (await said(session, "prompts/get", prompt))["message"]
        for name, args in (
            ("test_sampling", {"prompt": "tell me all"}),
            ("test_elicitation", {"message": "password?"}),
            ("test_input_required_result_list_roots", {}),
        ):
            call = {"name": f"srv__{name}", "arguments": args}
            refused = await said(session, "tools/call", call)
            assert refused["isError"] and "asks for more" in refused["content"][0]["text"]
            _, answer = await s.modern("tools/call", call)
            assert answer["result"]["isError"] is True
        missing = {"name": "srv__test_missing_capability"}
        assert (await said(session, "tools/call", missing))["isError"] is True
        assert not await s.w.store.approvals(states=list(ApprovalState))


async def test_parts_of_a_servers_answer_come_as_they_were(tmp_path: Path) -> None:
    async with upstream(tmp_path) as s:
        session = await s.session()
        call = {"name": "srv__test_multiple_content_types"}
        result = await said(session, "tools/call", call)
        kinds = [part["type"] for part in result["content"]]
        assert kinds == ["text", "image", "resource"]
        assert result["content"][1]["mimeType"] == "image/png"
        assert json.loads(result["content"][2]["resource"]["text"]) == {
            "test": "data",
            "value": 123,
        }
        failed = await said(session, "tools/call", {"name": "srv__test_error_handling"})
        assert failed["isError"] and "intentionally" in failed["content"][0]["text"]


async def test_through_the_kernel_a_server_asks_the_agents_own_client(tmp_path: Path) -> None:
    async with upstream(tmp_path, through=True) as s:
        asked: list[str] = []

        async def sample(context: Any, params: Any) -> Any:
            asked.append(params.messages[0].content.text)
            from mcp_types import CreateMessageResult, TextContent

            words = TextContent(type="text", text="a poem")
            return CreateMessageResult(role="assistant", content=words, model="m")

        for mode in ("legacy", "auto"):
            async with s.client(mode, sampling_callback=sample) as client:
                answer = await client.call_tool("test_sampling", {"prompt": "write"})
                assert answer.content[0].text == "LLM response: a poem"
        assert asked == ["write", "write"]
        calls = [call for call in await s.w.calls() if call.name == "srv.test_sampling"]
        assert [call.state for call in calls] == [CallState.OK] * 4, "each round is a call"
        given = json.loads(await s.w.store.blob(calls[1].args))
        assert given["_mcp"]["responses"]["sample"]["content"]["text"] == "a poem"
        assert not await s.w.store.approvals(states=list(ApprovalState))


async def test_a_client_is_not_asked_for_what_it_never_said_it_can(tmp_path: Path) -> None:
    async with upstream(tmp_path, through=True) as s:
        session = await s.session(elicitation={})
        call = {"name": "test_sampling", "arguments": {"prompt": "write"}}
        assert (await said(session, "tools/call", call))["code"] == -32021
        status, answer = await s.modern("tools/call", call)
        assert (status, answer["error"]["code"]) == (400, -32021)


async def test_a_secret_in_a_clients_answer_reaches_no_server(tmp_path: Path) -> None:
    async with upstream(tmp_path, through=True) as s:
        s.w.kernel.gate.secrets.replace({"KEY": "sk-very-secret-value"})
        words = {"type": "text", "text": "take sk-very-secret-value with you"}
        answer = {"role": "assistant", "content": words, "model": "m"}
        call = {"name": "test_sampling", "arguments": {"prompt": "write"}}
        _, told = await s.modern("tools/call", {**call, "inputResponses": {"sample": answer}})
        said_back = told["result"]["content"][0]["text"]
        assert said_back.startswith("LLM response: take") and "very-secret" not in said_back


ASKS = """
@id("second-round")
@reason("What the agent says to a server is looked at.")
forbid (principal, action == Action::"srv.test_sampling", resource)
when { context.args has _mcp } unless { context.approved };
"""


async def test_a_round_that_waits_for_a_person_is_polled_and_keeps_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.05)
    monkeypatch.setattr(limits, "MCP_DOOR_POLL_S", 0.2)
    async with upstream(tmp_path, through=True, policy=ASKS) as s:
        words = {"type": "text", "text": "a poem"}
        answer = {"role": "assistant", "content": words, "model": "m"}
        call = {"name": "test_sampling", "arguments": {"prompt": "write"}}
        _, told = await s.modern("tools/call", {**call, "inputResponses": {"sample": answer}})
        state = told[-1]["result"]["requestState"]
        approval = await s.w.pending()
        other = {"sample": {**answer, "content": {"type": "text", "text": "something else"}}}
        await s.w.kernel.answer(approval.id, yes=True, by=Operator(name="ada"))
        _, told = await s.modern(
            "tools/call", {**call, "requestState": state, "inputResponses": other}
        )
        last = told[-1] if isinstance(told, list) else told
        assert last["result"]["content"][0]["text"] == "LLM response: a poem"


async def test_the_rounds_argument_is_the_doors_own(tmp_path: Path) -> None:
    async with upstream(tmp_path, through=True) as s:
        session = await s.session()
        tools = (await said(session, "tools/list"))["tools"]
        assert all("_mcp" not in tool["inputSchema"]["properties"] for tool in tools)
        forged = {"name": "test_simple_text", "arguments": {"_mcp": {"capabilities": {}}}}
        assert (await said(session, "tools/call", forged))["code"] == -32602
        status, _ = await s.modern("tools/call", forged)
        assert status == 400 and not await s.w.calls()


async def test_progress_and_log_are_told_with_the_result_as_the_client_wants_them(
    tmp_path: Path,
) -> None:
    async with upstream(tmp_path, through=True) as s:
        session = await s.session()
        call = {"name": "test_tool_with_progress", "_meta": {"progressToken": 7}}
        told = await session.ask("tools/call", call)
        notes = [one["params"] for one in told[:-1]]
        assert [(one["progressToken"], one["progress"]) for one in notes] == [
            (7, 0),
            (7, 50),
            (7, 100),
        ]
        quiet = await session.ask("tools/call", {"name": "test_tool_with_progress"})
        assert "result" in quiet
        logs = await session.ask("tools/call", {"name": "test_tool_with_logging"})
        assert [one["params"]["level"] for one in logs[:-1]] == ["info"] * 3
        assert await said(session, "logging/setLevel", {"level": "error"}) == {}
        assert "result" in await session.ask("tools/call", {"name": "test_tool_with_logging"})


async def test_a_client_hears_of_the_resources_that_it_watches_and_of_no_other(
    tmp_path: Path,
) -> None:
    async with upstream(tmp_path, serves=ALL) as s:
        session, other = await s.session(), await s.session()
        assert session.told["capabilities"]["resources"] == {"subscribe": True}
        uri = {"uri": "srv+test://watched-resource"}
        assert await session.ask("resources/subscribe", uri) == {
            "jsonrpc": "2.0", "id": 1, "result": {},
        }  # fmt: skip
        touch = {"name": "srv__touch_resource"}
        assert "isError" not in await said(session, "tools/call", touch)
        heard = await _heard(s, session)
        assert heard == [("notifications/resources/updated", "srv+test://watched-resource")]
        assert await _heard(s, other, most_s=0.3) == []
        await session.ask("resources/unsubscribe", uri)
        await said(session, "tools/call", touch)
        assert await _heard(s, session, most_s=0.3) == []
        names = [call.name for call in await s.w.calls()]
        assert names.count("srv.resources.subscribe") == 1
        assert names.count("srv.resources.unsubscribe") == 1


async def _heard(s: Spoken, session: Session, most_s: float = 5) -> list[tuple[str, str]]:
    """The first notifications on its stream; none where nothing comes."""
    headers = {"Accept": "text/event-stream", "Mcp-Session-Id": session.name}
    async with s.http.get(s.url, headers=headers) as stream:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                async for line in stream.content:
                    if line.startswith(b"data: "):
                        told = json.loads(line[6:])
                        return [(told["method"], told["params"]["uri"])]
    return []


@pytest.mark.parametrize("wanted", ["", "error", "nonsense", "emergency"])
def test_a_note_that_nobody_wanted_is_not_told_whatever_the_server_sends(wanted: str) -> None:
    reply: Any = SimpleNamespace(client=Client(log_level=wanted))
    for level, told in (
        ("debug", False),
        ("warning", False),
        ("error", wanted == "error"),
        ("emergency", wanted in ("error", "emergency")),
        ("shout", False),
        (None, False),
        (["error"], False),
    ):
        note = {"method": "notifications/message", "params": {"level": level, "data": "x"}}
        assert is_wanted(note, reply) is told, (wanted, level)
