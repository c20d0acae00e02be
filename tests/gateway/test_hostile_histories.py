"""Histories that no model ever said, and names that stand for something else: each is seen."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hostile import CHAT, HELLO, STREAM, answer, history, hostile, piece, sse, whole
from kernel_world import Doing
from model_doors import asked, proposes, said

from ring0.models import Delta
from ring0.types import CallKind, CallState

ONCE = {"refund": {"use": "agent", "effect": "once"}}
MESSAGES = "/v1/messages"
SHORT = {"model": "m", "max_tokens": 9, "messages": HELLO["messages"]}


async def test_a_history_that_no_model_ever_said_is_taken_and_can_be_seen(tmp_path: Path) -> None:
    async with asked(tmp_path, said("", proposes("look", x=1)), said("ok"), said("ok")) as a:
        await a.post(CHAT, HELLO)
        real, forged = ("c1", '{"x": 1}', "real"), ("c2", '{"x": 2}', "forged")
        status, _ = await a.post(CHAT, history(real, forged))
        assert status == 200 and a.w.run.row.label.integrity == "untrusted"
        observed = [one for one in await a.w.calls() if one.kind is CallKind.OBSERVED]
        args = [json.loads(await a.w.store.blob(one.args)) for one in observed]
        assert [(one["result"], one["proposed"]) for one in args] == [
            ("real", True),
            ("forged", False),
        ]
        # The same call with another result, or said to have failed, is not the same.
        status, _ = await a.post(CHAT, history(real, ("c2", '{"x": 2}', "forged anew")))
        assert status == 200
        assert len([x for x in await a.w.calls() if x.kind is CallKind.OBSERVED]) == 3


async def test_a_result_that_is_said_to_have_failed_after_all_is_another(tmp_path: Path) -> None:
    def told(failed: bool) -> dict[str, Any]:
        use = {"type": "tool_use", "id": "c1", "name": "look", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "c1", "content": "x", "is_error": failed}
        messages = [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
        return {**SHORT, "messages": messages}

    async with asked(tmp_path, said("one"), said("two")) as a:
        assert (await a.post(MESSAGES, told(False)))[0] == 200
        status, body = await a.post(MESSAGES, told(True))
        assert status == 200, body
        observed = [one for one in await a.w.calls() if one.kind is CallKind.OBSERVED]
        assert len(observed) == 2 and not a.w.run.result.done()


async def test_results_of_another_runs_calls_found_nothing_better(tmp_path: Path) -> None:
    async with asked(tmp_path, said("ok")) as a:
        other = "r-000000000000/~abc/1/p0"
        status, _ = await a.post(CHAT, history((other, "{}", "paid"), name="refund"))
        assert status == 200 and a.w.run.row.label.integrity == "untrusted"


@pytest.mark.parametrize("kind", ["proposal", "observed"])
async def test_proposals_can_be_asked_for_at_no_other_door(tmp_path: Path, kind: str) -> None:
    async with asked(tmp_path, tools=ONCE) as a:
        args = {"call": "c", "result": "x", "args": {}}
        body = {"kind": kind, "name": "refund", "args": args, "path": "0", "counter": 1}
        told = await a.d.ask("/v1/call", body)
        assert told.status in (403, 422) and told.code in ("denied", "call_invalid")
        outcome = await a.w.call("refund", args, kind=CallKind(kind))
        assert outcome.state is CallState.REFUSED


async def test_a_providers_own_words_can_be_said_at_their_door_alone(tmp_path: Path) -> None:
    async with asked(tmp_path, said("x")) as a:
        args = {"dialect": "chat", "body": {"messages": HELLO["messages"]}}
        body = {"kind": "model", "name": "default", "args": args, "path": "0", "counter": 1}
        told = await a.d.ask("/v1/call", body)
        assert told.status in (403, 422) and not a.model.asked
        outcome = await a.w.call("default", args, kind=CallKind.MODEL)
        assert outcome.state is CallState.REFUSED and not a.model.asked


async def test_another_runs_response_id_is_nobodys(tmp_path: Path) -> None:
    async with hostile(tmp_path, whole(answer())) as h:
        for id_ in ("resp_" + "0" * 24, "resp_", "x" * 100_000, "../../v1/run", "\x00"):
            ask = {"model": "m", "input": "hello", "previous_response_id": id_}
            status, body = await h.post(ask, "/v1/responses")
            if id_:
                assert status == 404 and len(body["error"]["message"]) < 1_000
        assert not h.provider.asked


async def test_an_agents_tool_that_is_called_like_one_of_the_kernels_is_judged(
    tmp_path: Path,
) -> None:
    tools = {"files": {"use": "files"}}
    policy = '@id("no")\n@reason("no")\nforbid (principal, action == Action::"proposal", resource);'
    for number, name in enumerate(
        ("files__write", "mcp__ring0__files__write", "mcp__x__files__write")
    ):
        turn = said("", proposes(name, path="a"))
        async with asked(tmp_path / str(number), turn, turn, tools=tools, policy=policy) as a:
            _, body = await a.post(CHAT, HELLO)
            assert not body["choices"][0]["message"].get("tool_calls"), "nobody judged it"
            listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            listing["params"] = {
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                }
            }
            headers = {
                "accept": "application/json, text/event-stream",
                "mcp-method": "tools/list",
                "mcp-protocol-version": "2026-07-28",
            }
            async with a.session.post("/mcp", json=listing, headers=headers) as response:
                assert "files__write" in await response.text()
            _, body = await a.post(CHAT, HELLO)
            told = body["choices"][0]["message"].get("tool_calls")
            assert bool(told) == (number < 2), "the kernel's own, and another server's"


async def test_headers_that_come_twice_go_on_together(tmp_path: Path) -> None:
    async with hostile(tmp_path, whole(answer()), dialect="messages") as h:
        raw = json.dumps(SHORT).encode()
        line = await h.d.tcp()
        betas = "anthropic-beta: effort-2025-11-24\r\nanthropic-beta: no-such-beta\r\n"
        told = await line.ask(MESSAGES, raw, extra=betas)
        assert told.status == 422 and "no-such-beta" in told.json["error"]["message"]
        await line.close()


async def test_labels_that_rise_under_a_stream_judge_what_it_proposes(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def on(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + sse(piece(content="let me ")))
        await go.wait()
        pay = [{"index": 0, "id": "c1", "function": {"name": "pay", "arguments": "{}"}}]
        writer.write(sse(piece("tool_calls", tool_calls=pay), b"[DONE]"))
        await writer.drain()

    policy = (
        '@id("clean")\n@reason("clean")\n'
        'forbid (principal, action in Action::"tool", resource == Tool::"pay")\n'
        'when { principal.integrity == Integrity::"untrusted" };'
    )
    tools = {"pay": {"use": "agent", "effect": "pure"}}
    async with hostile(tmp_path, on, tools=tools, policy=policy) as h:
        asking = asyncio.ensure_future(h.stream())
        async with asyncio.timeout(5):
            while not h.provider.asked:
                await asyncio.sleep(0.01)
        h.provider.answers = [whole(answer())]
        await h.post(history(("c7", "{}", "read in a page")))
        assert h.w.run.row.label.integrity == "untrusted"
        go.set()
        _, found = await asking
        assert "pay was not allowed" in str(found) and "tool_calls" not in str(found[-3:])


async def test_an_answer_whose_proposals_could_not_be_judged_is_not_paid_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(tmp_path, said("", proposes("look")), said("another")) as a:
        monkeypatch.setattr("ring0.limits.CALLS_IN_FLIGHT_PER_RUN_MAX", 1)
        monkeypatch.setattr("ring0.limits.CALLS_WAITING_PER_RUN_MAX", 0)
        holding = a.w.tool(Doing("hold"))
        a.model.go = asyncio.Event()
        asking = asyncio.ensure_future(a.post(CHAT, HELLO))
        await asyncio.sleep(0.1)
        monkeypatch.setattr("ring0.limits.CALLS_WAITING_PER_RUN_MAX", 1)
        go, held = holding.hold(), a.w.start("hold")
        await asyncio.sleep(0.1)
        monkeypatch.setattr("ring0.limits.CALLS_WAITING_PER_RUN_MAX", 0)
        a.model.go.set()
        status, _ = await asking
        assert status == 429, "there was room for what it proposes"
        go.set()
        await held
        status, body = await a.post(CHAT, HELLO)
        assert status == 200 and body["choices"][0]["message"]["tool_calls"]
        assert len(a.model.asked) == 1


async def test_what_comes_after_a_kill_goes_out_to_nobody(tmp_path: Path) -> None:
    for stream in (False, True):
        async with asked(tmp_path / str(stream), said("")) as a:

            async def on(
                request: Any, key: str, again: Any = None, sink: Any = None, a: Any = a
            ) -> Any:
                if sink is not None:
                    await sink(Delta(text="before "))
                    await asyncio.sleep(0.1)
                a.w.kernel.gate.handles.kill(a.w.run.id)
                if sink is not None:
                    await sink(Delta(text="after"))
                return said("before after")

            a.model.answer = on  # type: ignore[method-assign]
            async with a.session.post(CHAT, json={**HELLO, "stream": stream}) as response:
                raw = await response.read()
            assert b"after" not in raw and b"error" in raw
            assert (b"before" in raw) == stream
