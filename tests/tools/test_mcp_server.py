"""What a server does, however badly, harms only the call that is in flight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp_world import SERVER, World, world

from ring0 import limits
from ring0.errors import CallInvalid, EffectUnknown, ManifestInvalid, Ring0Error, ToolFailed
from ring0.types import Effect, Integrity

CONFIG: dict[str, Any] = {"use": "mcp", "command": ["python", "server.py"], "wall_s": 5}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.script()
        await made.approve(CONFIG)
        yield made


async def test_a_tool_answers_with_its_text_and_is_untrusted(here: World) -> None:
    result = await here.call("echo", text="hello")
    assert result.value == "hello"
    assert result.label.integrity is Integrity.UNTRUSTED
    assert result.label.sources == ("srv.echo@r-test/0/1",)


async def test_the_server_of_a_run_is_started_once_and_keeps_its_state(here: World) -> None:
    started = here.sandboxes.started
    assert [await here.value("count") for _ in range(3)] == ["1", "2", "3"]
    assert here.sandboxes.started == started + 1


async def test_nothing_of_a_server_runs_before_its_first_call(here: World) -> None:
    assert here.sandboxes.alive == []


async def test_a_server_sees_nothing_of_the_host(here: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANARY_API_KEY", "canary-in-env")
    seen = json.loads(await here.value("environ"))
    assert "canary-in-env" not in json.dumps(seen)
    assert set(seen["env"]) <= {
        "HOME", "PATH", "LANG", "LC_CTYPE", "NO_COLOR", "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED",
    }  # fmt: skip
    assert not {"home", "boot", "srv", "mnt", "media"} & set(seen["root"])


async def test_an_error_of_the_tool_is_a_failure_with_its_words_cleaned(here: World) -> None:
    with pytest.raises(ToolFailed, match="no luck at all") as failed:
        await here.call("fail")
    assert failed.value.tells_of_data
    assert "\x1b" not in str(failed.value)
    with pytest.raises(ToolFailed, match="bad args") as refused:
        await here.call("refuse")
    assert "\u202e" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("die", "my last words"),
        ("garbage", "no message"),
        ("other-id", "answers what nobody asked"),
        ("huge", "more than 2097152 bytes"),
        ("flood", "more than is taken"),
        ("half", "wrong form"),
        ("deep", "wrong form"),
        ("true-id", "answers what nobody asked"),
        ("heavy", "more than 16777216 bytes"),
    ],
)
async def test_a_server_that_breaks_the_rules_harms_only_its_call(
    here: World, name: str, why: str
) -> None:
    assert await here.value("echo", text="before") == "before"
    with pytest.raises(ToolFailed) as failed:
        await here.call(name.replace("-", "_"))
    assert why in str(failed.value)
    assert "\x1b" not in str(failed.value)
    assert await here.value("echo", text="after") == "after"


async def test_a_server_that_hangs_is_told_to_cancel_and_lives_on(here: World) -> None:
    here.load({**CONFIG, "wall_s": 1})
    assert await here.value("count") == "1"
    with pytest.raises(ToolFailed, match="longer than 1 s"):
        await here.call("hang")
    assert await here.value("count") == "3"  # the same one: it reacts
    assert len(json.loads(await here.value("environ"))["cancelled"]) == 1


async def test_a_server_that_does_not_react_to_a_cancel_is_killed(here: World) -> None:
    here.load({**CONFIG, "wall_s": 1})
    await here.call("count")
    killed = here.sandboxes.alive[0]
    with pytest.raises(ToolFailed, match="longer than 1 s"):
        await here.call("stubborn")
    assert here.sandboxes.alive == []
    assert (await killed.wait()).signal == 9
    assert await here.value("count") == "1"  # a new one


async def test_a_cancelled_call_reaches_the_server_and_the_next_call_works(here: World) -> None:
    await here.call("count")
    for name in ("hang", "stubborn"):
        task = asyncio.create_task(here.call(name))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await here.value("echo", text=name) == name
    assert await here.value("count") == "2"  # the stubborn one was killed


async def test_what_a_server_says_in_an_error_is_labelled_as_its_words(here: World) -> None:
    for name in ("die", "garbage", "fail", "refuse"):
        with pytest.raises(ToolFailed) as failed:
            await here.call(name)
        assert failed.value.tells_of_data, name


async def test_a_flood_of_errors_stalls_only_its_server(here: World) -> None:
    noise = 'sys.stderr.write("x" * 33_000_000)'
    text = SERVER.replace('if name == "echo":', f'if name == "echo":\n        {noise}')
    here.script(text)
    here.tools.clear()
    await here.approve({**CONFIG, "wall_s": 1})
    with pytest.raises(ToolFailed, match="longer than 1 s"):
        await here.call("echo", text="x")
    assert await here.value("count") == "1"


async def test_some_noise_and_progress_are_no_fault(here: World) -> None:
    assert await here.value("stray") == "after some noise"
    assert await here.value("notices") == "done"


async def test_sampling_elicitation_and_roots_are_refused(here: World) -> None:
    assert json.loads(await here.value("ask")) == [True, True, True]


async def test_a_server_of_the_new_era_that_asks_back_gets_nobody(here: World) -> None:
    """There, a result asks for a person's or a model's input."""
    discover = """elif method == "server/discover":
        send({"id": request, "result": {
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}})
    elif method == "ping":"""
    asks = """if name == "echo":
        send({"id": request, "result": {"resultType": "input_required", "inputRequests": {
            "who": {"method": "elicitation/create", "params": {
                "message": "password?", "mode": "form",
                "requestedSchema": {"type": "object", "properties": {}}}}}}})
    elif name == "count":
        send({"id": request, "result": {"resultType": "complete",
              "content": [{"type": "text", "text": str(counted)}]}})
    elif name == "never":"""
    text = SERVER.replace('elif method == "ping":', discover)
    text = text.replace(
        '{"tools": TOOLS}',
        '{"tools": TOOLS, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}',
    )
    here.script(text.replace('if name == "echo":', asks))
    pin = await here.approve(CONFIG)
    assert pin.offer.protocol == "2026-07-28"
    with pytest.raises(ToolFailed, match="asks for more"):
        await here.call("echo")
    assert await here.value("count") == "2"


async def test_a_server_that_ends_after_its_answer_is_started_anew(here: World) -> None:
    assert await here.value("error_late") == "fine"
    await asyncio.sleep(0.3)  # so that its end is seen
    assert await here.value("count") == "1"


async def test_parts_that_are_no_text_come_as_bounded_data_with_their_type(here: World) -> None:
    assert (await here.value("image"))["parts"] == [
        {"type": "text", "text": "a dot"},
        {"type": "image", "mime_type": "image/png", "base64": "iVBORw0KGgo="},
        {"type": "audio", "mime_type": "application/octet-stream", "base64": ""},
        {"type": "resource", "uri": "file:///x", "text": "words"},
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [("many", "parts"), ("big_number", "64 bits")],
)
async def test_a_result_out_of_bounds_is_refused(here: World, name: str, why: str) -> None:
    with pytest.raises(ToolFailed) as failed:
        await here.call(name)
    assert why in str(failed.value)
    assert await here.value("echo", text="after") == "after"


async def test_a_structured_result_is_held_to_its_promise(here: World) -> None:
    assert await here.value("promise") == {"n": 7}
    with pytest.raises(ToolFailed, match="output schema"):
        await here.call("lie")


async def test_arguments_are_held_to_the_pinned_schema(here: World) -> None:
    with pytest.raises(CallInvalid, match="number"):
        await here.call("echo", number="seven")
    with pytest.raises(CallInvalid, match="no argument"):
        await here.call("echo", anything=1)


async def test_calls_of_one_run_go_one_after_the_other(here: World) -> None:
    values = await asyncio.gather(*(here.value("echo", text=str(n)) for n in range(20)))
    assert values == [str(n) for n in range(20)]


async def test_the_end_of_a_runs_sandboxes_leaves_nothing_behind(here: World) -> None:
    await here.call("count")
    before = len(asyncio.all_tasks())
    await here.sandboxes.end_all()
    await asyncio.sleep(0.3)
    assert len(asyncio.all_tasks()) < before
    assert not any(t.get_name().startswith("mcp ") for t in asyncio.all_tasks())


# --- effects ------------------------------------------------------------------------------------


async def test_an_unknown_effect_is_once_and_an_unknown_output_untrusted(here: World) -> None:
    for tool in here.tools.values():
        assert tool.manifest.effect is Effect.ONCE
        assert tool.manifest.output is Integrity.UNTRUSTED
        assert tool.manifest.reversal == "irreversible"


async def test_what_a_contained_server_does_ends_with_its_sandbox(here: World) -> None:
    """So a crash in the middle of it leaves nothing to be settled by a human."""
    prepared = await here.tools["srv.echo"].prepare({}, here.context())
    assert (prepared.own, prepared.mutates, prepared.effect) == (True, False, Effect.IDEMPOTENT)
    said = {**CONFIG, "operations": {"echo": {"effect": "once"}}}
    here.load(said)
    prepared = await here.tools["srv.echo"].prepare({}, here.context())
    assert prepared.effect == ""


@pytest.mark.parametrize(
    "more",
    [
        {"workspace": True},
        {"egress": ["api.example.com"]},
        {"egress": ["api.example.com"], "secrets": ["key"]},
    ],
    ids=["writable files", "egress", "secrets"],
)
def test_pure_runs_without_egress_secrets_or_writable_mounts(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    from ring0.tools.mcp import settings

    said = {**CONFIG, "operations": {"echo": {"effect": "pure"}}}
    assert settings.read("srv", said).operations["echo"].effect is Effect.PURE
    with pytest.raises(ManifestInvalid, match="can't be used") as refused:
        settings.read("srv", {**said, **more})
    assert "a lie is harmless" in refused.value.todo


def test_idempotent_needs_a_declared_key_field() -> None:
    from ring0.tools.mcp import settings

    said = {**CONFIG, "operations": {"echo": {"effect": "idempotent"}}}
    with pytest.raises(ManifestInvalid) as refused:
        settings.read("srv", said)
    assert "no argument takes the key" in refused.value.why


async def test_the_key_is_the_call_id_and_the_agent_cannot_choose_it(here: World) -> None:
    said = {"echo": {"effect": "idempotent", "key": "request_id"}}
    here.load({**CONFIG, "operations": said})
    assert "request_id" not in here.tools["srv.echo"].manifest.schema["properties"]
    with pytest.raises(CallInvalid):
        await here.call("echo", request_id="mine")
    here.load({**CONFIG, "operations": {"echo": {"effect": "idempotent", "key": "text"}}})
    assert await here.value("echo", call="r-test/0/77") == "r-test/0/77"


async def test_a_once_effect_that_is_cut_off_outside_is_unknown(here: World) -> None:
    """Of a server that reaches out nobody knows; one that only reads may simply be asked again."""
    tool = here.tools["srv.echo"]
    reaching = {"use": "mcp", "url": "https://mcp.example.com"}
    from ring0.tools.mcp import settings

    tool._server.settings = settings.read("srv", reaching)
    assert isinstance(tool._cut_off("it died"), EffectUnknown)
    prepared = await tool.prepare({}, here.context())
    assert (prepared.own, prepared.mutates, prepared.effect) == (False, True, "")
    assert (prepared.host, prepared.method) == ("mcp.example.com", "POST")
    here.load({**CONFIG, "operations": {"echo": {"reads": True}}})
    tool = here.tools["srv.echo"]
    tool._server.settings = settings.read("srv", reaching)
    assert not isinstance(tool._cut_off("it died"), EffectUnknown)
    assert not (await tool.prepare({}, here.context())).mutates


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use": "mcp"}, "either `command` or `url`"),
        ({"use": "mcp", "command": ["npx", "x"]}, "fetches what it runs"),
        ({"use": "mcp", "command": ["uvx", "x"]}, "fetches what it runs"),
        ({"use": "mcp", "command": ["/usr/bin/docker", "run"]}, "fetches what it runs"),
        ({"use": "mcp", "command": ["a"], "env": {"GITHUB_TOKEN": "x"}}, "secret"),
        ({"use": "mcp", "command": ["a"], "enviroment": {}}, "unknown field"),
        ({"use": "mcp", "command": ["a"], "secrets": ["key"]}, "reaches nothing"),
        ({"use": "mcp", "url": "https://user:pw@example.com"}, "no address"),
        ({"use": "mcp", "url": "ftp://example.com"}, "no address"),
        ({"use": "mcp", "url": "https://example.com/mcp?api_key=1"}, "secret"),
        ({"use": "mcp", "url": "https://example.com", "workspace": True}, "runs here"),
        ({"use": "mcp", "command": ["a"], "operations": {"x": {"effect": "none"}}}, "effect"),
    ],
)
def test_settings_that_are_wrong_are_refused_with_the_reason(
    config: dict[str, Any], why: str
) -> None:
    from ring0.tools.mcp import settings

    with pytest.raises(ManifestInvalid) as refused:
        settings.read("srv", config)
    assert why.lower() in str(refused.value).lower()


async def test_an_override_of_a_tool_that_is_not_there_is_refused(here: World) -> None:
    for more in ({"operations": {"nope": {"reads": True}}}, {"only": ["nope"]}):
        with pytest.raises(ManifestInvalid, match="no tool of the server"):
            here.load({**CONFIG, **more})
    with pytest.raises(ManifestInvalid, match="critical"):
        here.load({**CONFIG, "operations": {"echo": {"critical": ["nope"]}}})


async def test_only_those_tools_are_offered_that_the_operator_names(here: World) -> None:
    here.tools.clear()
    here.load({**CONFIG, "only": ["echo", "list-changed"]})
    assert sorted(here.tools) == ["srv.echo", "srv.list_changed"]


async def test_a_server_that_does_not_speak_is_an_error_that_says_so(
    here: World, monkeypatch: Any
) -> None:
    monkeypatch.setattr(limits, "MCP_START_S_MAX", 2)
    for text, why in (
        ("import time; time.sleep(60)", "does not answer within 2 s"),
        ("import sys; sys.exit('no \\x1b[31mluck')", "no luck"),
        ("print('hello'); print('{}')", "ended"),
        ("while True: print('x' * 1000)", "no message"),
    ):
        here.script(text, "bad.py")
        with pytest.raises(ToolFailed) as failed:
            await here.inspect({**CONFIG, "command": ["python", "bad.py"]}, "bad")
        assert why in str(failed.value) and "\x1b" not in str(failed.value)
    assert here.sandboxes.alive == []


async def test_a_server_without_end_to_its_list_is_refused(here: World) -> None:
    for trick, why in (
        ('"nextCursor": "again", ', "does not end|twice"),
        ("", "twice"),
    ):
        twice = SERVER.replace('"result": {"tools": TOOLS}', f'"result": {{{trick}"tools": TOOLS}}')
        if not trick:
            twice = SERVER.replace("#TOOLS#", "TOOLS += TOOLS")
        here.script(twice, "bad.py")
        with pytest.raises(Ring0Error) as failed:
            await here.inspect({**CONFIG, "command": ["python", "bad.py"]}, "bad")
        assert any(part in str(failed.value) for part in why.split("|"))
