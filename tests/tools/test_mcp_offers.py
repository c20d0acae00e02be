"""What MCP servers offer beside tools, called as the gate calls it; and whose a session is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp_world import World, run_row, world

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid, ToolFailed
from ring0.tools.registry import Tool
from ring0.types import Effect, Integrity

CONFIG: dict[str, Any] = {"use": "mcp", "command": ["python", "server.py"], "wall_s": 10}

SERVER = r"""
import json, sys
out = sys.stdout.buffer
def send(message):
    out.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    out.flush()
def pages(key, items, cursor):
    start = int(cursor or 0)
    found = {key: items[start:start + 2]}
    return {**found, "nextCursor": str(start + 2)} if len(items) > start + 2 else found
RESOURCES = [{"uri": f"x://{n}", "name": f"r{n}"} for n in range(5)]
for line in sys.stdin:
    message = json.loads(line)
    method, number, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "initialize":
        send({"id": number, "result": {"protocolVersion": "2025-11-25", "capabilities": {},
              "serverInfo": {"name": "s", "version": "1"}}})
    elif method == "tools/list":
        send({"id": number, "result": {"tools": [
            {"name": "plain", "inputSchema": {"type": "object"}}]}})
    elif method == "resources/list":
        send({"id": number, "result": pages("resources", RESOURCES, params.get("cursor"))})
    elif method == "resources/templates/list":  # Its pages have no end.
        send({"id": number, "result": {"resourceTemplates": [], "nextCursor": "more"}})
    elif method == "resources/read" and params["uri"] == "x://huge":
        send({"id": number, "result": {"contents": [{"uri": "x://huge", "text": "x" * 1_900_000}]}})
    elif method == "resources/read" and params["uri"] == "x://lie":
        send({"id": number, "result": {"contents": "all of it"}})
    elif method == "resources/read" and params["uri"] == "x://ask":
        send({"id": "s1", "method": "sampling/createMessage", "params": {"maxTokens": 1,
              "messages": [{"role": "user", "content": {"type": "text", "text": "secrets?"}}]}})
        refused = json.loads(sys.stdin.readline())
        send({"id": number, "result": {"contents": [
            {"uri": "x://ask", "text": json.dumps("error" in refused)}]}})
    elif method == "resources/read":
        send({"id": number, "error": {"code": -32002, "message": "no \u202e such \x1b[2J thing"}})
    elif method == "resources/subscribe" and params["uri"] == "x://w":
        send({"id": number, "result": {}})
        for uri in ("x://other", "x://w", 7, None, "x://w" + "y" * 5000):
            send({"method": "notifications/resources/updated", "params": {"uri": uri}})
        send({"method": "notifications/resources/updated", "params": []})
    elif method == "prompts/get":
        send({"id": number, "result": {"messages": [{"role": "user", "content":
              {"type": "text", "text": json.dumps(params)}}]}})
    elif number is not None:
        send({"id": number, "error": {"code": -32601, "message": "not here"}})
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.script(SERVER)
        await made.approve({**CONFIG, "serves": ["resources", "prompts"]})
        yield made


async def asked(here: World, tool: str, args: Any) -> Any:
    driver, context = here.tools[tool], here.context()
    checked = Tool(driver).validate(args)
    return (await driver.execute(checked, await driver.prepare(checked, context), context)).value


async def test_all_pages_are_one_answer_and_labelled_a_strangers_word(here: World) -> None:
    result = await here.call("srv.resources.list")
    uris = [one["uri"] for one in result.value["result"]["resources"]]
    assert uris == [f"x://{n}" for n in range(5)]
    assert result.label.integrity is Integrity.UNTRUSTED and result.label.sources


async def test_pages_without_end_and_too_many_are_an_error(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ToolFailed, match="names too much"):
        await here.call("srv.resources.templates")
    monkeypatch.setattr(limits, "MCP_OFFERS_MAX", 3)
    with pytest.raises(ToolFailed, match="names too much"):
        await here.call("srv.resources.list")


async def test_a_servers_refusal_is_told_in_words_without_what_is_hidden(here: World) -> None:
    with pytest.raises(ToolFailed, match="no  such  thing") as refused:
        await here.call("srv.resources.read", uri="x://nothing")
    assert refused.value.tells_of_data


async def test_what_breaks_the_protocol_or_is_too_much_is_an_error(here: World) -> None:
    for uri in ("x://lie", "x://huge"):
        with pytest.raises(ToolFailed):
            await here.call("srv.resources.read", uri=uri)
    assert (await here.call("srv.resources.list")).value


async def test_a_server_that_asks_in_the_middle_is_refused(here: World) -> None:
    (content,) = (await here.call("srv.resources.read", uri="x://ask")).value["result"]["contents"]
    assert json.loads(content["text"]) is True


async def test_arguments_are_validated_before_a_server_sees_them(here: World) -> None:
    given = await asked(here, "srv.prompts.get", {"name": "p", "arguments": {"a": "b"}})
    text = json.loads(given["result"]["messages"][0]["content"]["text"])
    assert text["name"] == "p" and text["arguments"] == {"a": "b"}
    for name, args in (
        ("srv.prompts.get", {"name": 7}),
        ("srv.prompts.get", {"name": "p", "arguments": {"a": 1}}),
        ("srv.prompts.get", {"name": "p", "extra": 1}),
        ("srv.prompts.get", {"name": "p", "_mcp": {"responses": {}}}),
        ("srv.resources.read", {}),
        ("srv.resources.read", {"uri": "x" * 40_000}),
    ):
        with pytest.raises(CallInvalid):
            await asked(here, name, args)


async def test_only_what_the_operator_names_is_there_and_reading_is_pure(here: World) -> None:
    assert {name for name in here.tools if "completion" in name} == set()
    effects = {driver.manifest.effect for name, driver in here.tools.items() if name.count(".") > 1}
    assert effects == {Effect.PURE}
    here.tools.clear()
    here.load(CONFIG)
    assert set(here.tools) == {"srv.plain"}
    with pytest.raises(ManifestInvalid, match="serves"):
        here.load({**CONFIG, "serves": ["everything"]})


async def test_a_server_that_tells_nobody_of_changes_says_so(here: World) -> None:
    with pytest.raises(ToolFailed, match="not here"):
        await here.call("srv.resources.subscribe", uri="x://1")


async def test_nothing_is_heard_but_of_what_is_watched(here: World) -> None:
    heard: list[str] = []
    driver: Any = here.tools["srv.resources.subscribe"]
    driver.hear(here.run.id, heard.append)
    await here.call("srv.resources.subscribe", uri="x://w")
    await here.call("srv.resources.list")
    assert heard == ["x://w"]


async def test_a_session_is_of_one_run_and_shared_with_none(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.script()
        await made.approve(CONFIG)
        assert [await made.value("count") for _ in range(2)] == ["1", "2"]
        made.run = run_row(id="r-other")
        assert await made.value("count") == "1"
        made.run = run_row()
        assert await made.value("count") == "3"
