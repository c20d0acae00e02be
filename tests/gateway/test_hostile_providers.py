"""Providers that lie, break off and never end: a clear error, nothing half-judged, others go on."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path

import pytest
from hostile import (
    HELLO,
    OTHERS_WAIT_S_MAX,
    STREAM,
    TOOL,
    answer,
    call,
    hostile,
    part,
    piece,
    sse,
    streamed,
    whole,
)

from ring0.types import CallKind, CallState, Operator

ONCE = {"refund": {"use": "agent", "effect": "once"}}
GOOD = json.dumps(answer()).encode()
DEEP = "[" * 70 + "]" * 70


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (whole(b"", "302 Found", location="http://127.0.0.1:1/"), "status 302"),
        (whole(gzip.compress(GOOD), content_encoding="gzip"), "compressed"),
        (whole(json.dumps(answer()).encode("utf-16")), "can't be read"),
        (whole(GOOD.replace(b"fine", b"f\xffne")), "can't be read"),
        (whole(GOOD.replace(b"fine", b"\\ud800")), "can't be read"),
        (whole({"error": {"message": "no credit left"}}), "no credit left"),
        (whole({"choices": []}), "0 choices"),
        (whole({**answer(), "choices": answer()["choices"] * 2}), "2 choices"),
        (whole(b"<html>"), "can't be read"),
        (whole(b""), "can't be read"),
        (whole(b"[" * 100_000), "can't be read"),
        (whole(GOOD, content_length=str(len(GOOD) + 9)), "did not answer"),
        (whole(GOOD, content_length=str(len(GOOD) - 9)), "did not answer"),
        (whole(GOOD, content_length="-5"), "did not answer"),
        (whole(answer(None, [call("refund", "{}")] * 65)), "more than 64 calls"),
        (whole(answer(None, [call("refund", '{"a":1,"a":2}')])), "a key comes twice"),
        (whole(answer(None, [call("refund", '{"a":NaN}')])), "NaN"),
        (whole(answer(None, [call("refund", '{"a":1e999}')])), "without end"),
        (whole(answer(None, [call("refund", '{"a":' + "9" * 40 + "}")])), "64 bits"),
        (whole(answer(None, [call("refund", '{"a":' + DEEP + "}")])), "deeper than 64"),
        (whole(answer(None, [call("refund", '{"a":"\\ud800"}')])), "surrogates"),
        (whole(answer(None, [call("refund", '["a"]')])), "not an object"),
        (whole(answer(None, [call("refund", '{"a":')])), "its call of refund"),
        (whole(answer(None, [call("x" * 1_000_000)])), "names no tool"),
        (whole(answer(None, [call("")])), "names no tool"),
        (whole(answer(None, [call("re\x1b[2Jfund")])), "nobody sees"),
        (whole(answer("x" * 1_500_000)), "larger"),
        (whole(answer("x" * 5_000_000)), "larger"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_that_says_so(
    tmp_path: Path, sent: bytes, named: str
) -> None:
    async with hostile(tmp_path, sent) as h:
        h.w.kernel.gate.runtime.sleep = _at_once  # Between attempts.
        told = await h.fails(stream=False)
        assert named in told and len(told) < 1_500 and "fault of ring0" not in told
        assert "\x1b" not in told


async def _at_once(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (streamed(piece(content="half an ans")), "cut short"),
        (STREAM + b'data: {"choices": [', "cut short"),
        (streamed(b"{nonsense"), "can't be read"),
        (streamed(b"\xff\xfe"), "can't be read"),
        (streamed(piece(content="a"), {"error": {"message": "no credit left"}}), "no credit"),
        (streamed({"choices": [{"index": 1, "delta": {"content": "b"}}]}), "several choices"),
        (streamed(part("{}", name="refund", id="c1")), "cut short"),
        (
            streamed(part('{"a": 1', name="refund"), piece("length"), b"[DONE]"),
            "its call of refund",
        ),
        (streamed(part("", name="refund"), piece("length"), b"[DONE]"), "cut short"),
        (streamed(*[part("{}", n, name="refund") for n in range(65)]), "more than 64 calls"),
        (streamed(part("{}", name="x" * 1_000_000), piece("stop"), b"[DONE]"), "names no tool"),
        (STREAM + b"data: " + b"x" * 5_000_000, "has no end"),
        (STREAM + b"data: x\n" * 3_000_000 + b"\n", "too large"),
        (STREAM + b"data:\n" * 5_000_000 + b"\n", "too large"),
        (streamed(*[piece(content="x" * 1_000_000)] * 5), "larger than"),
    ],
)
async def test_a_stream_that_is_none_breaks_off_and_says_so(
    tmp_path: Path, sent: bytes, named: str
) -> None:
    async with hostile(tmp_path, sent, tools=ONCE) as h:
        told = await h.fails(stream=True)
        assert named in told and "fault of ring0" not in told
        assert not await h.w.store.approvals(), "half a call was judged"
        (record,) = await h.w.calls()
        assert record.state is CallState.ERROR


async def test_a_stream_without_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ring0.limits.MODEL_STREAM_SIZE_BYTES_MAX", 300_000)
    endless = (b": ping\n\n", sse(piece(content="")), sse({"choices": []}), b"\n")
    for number, one in enumerate(endless):

        async def on(writer: asyncio.StreamWriter, one: bytes = one) -> None:
            writer.write(STREAM)
            while True:
                writer.write(one * 100)
                await writer.drain()

        async with hostile(tmp_path / str(number), on) as h:
            other = await h.other()
            assert "longer than" in await h.fails(stream=True)
            async with asyncio.timeout(5):
                await h.provider.left.wait()  # Its connection is closed, too.
            assert max(await other.close()) < OTHERS_WAIT_S_MAX


async def test_an_answer_without_end_is_ended(tmp_path: Path) -> None:
    for number, head in enumerate(
        (b"200 OK\r\ncontent-type: application/json", b"500 Oh\r\ncontent-type: text/html")
    ):

        async def on(writer: asyncio.StreamWriter, head: bytes = head) -> None:
            writer.write(b"HTTP/1.1 " + head + b"\r\nconnection: close\r\n\r\n")
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()

        async with hostile(tmp_path / str(number), on) as h:
            other = await h.other()
            assert "larger than" in await h.fails(stream=False)
            assert max(await other.close()) < OTHERS_WAIT_S_MAX


async def test_headers_without_end_are_ended(tmp_path: Path) -> None:
    async def on(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-more: " + b"y" * 4_000 + b"\r\n")
            await writer.drain()

    async with hostile(tmp_path, on) as h:
        h.w.kernel.gate.runtime.sleep = _at_once
        async with asyncio.timeout(20):
            assert "did not answer" in await h.fails(stream=True)


@pytest.mark.parametrize("usage", [-1, 10**18, 10**30, 0, None])
async def test_tokens_that_can_not_be_are_estimated_and_no_budget_falls_for_them(
    tmp_path: Path, usage: int | None
) -> None:
    said = {"prompt_tokens": usage, "completion_tokens": usage, "total_tokens": usage}
    async with hostile(tmp_path, whole(answer(usage=said))) as h:
        status, body = await h.post()
        assert status == 200 and 0 <= body["usage"]["total_tokens"] < 10_000
        assert 0 <= (await h.w.row()).tokens_used < 10_000


async def test_arguments_in_a_hundred_thousand_pieces_cost_no_more_than_their_length(
    tmp_path: Path,
) -> None:
    text = json.dumps({"text": "y" * 900_000})
    pieces = [part(text[place : place + 9]) for place in range(0, len(text), 9)]
    sent = streamed(part("", name="look", id="c1"), *pieces, piece("tool_calls"), b"[DONE]")
    async with hostile(tmp_path, sent) as h:
        other = await h.other()
        begun = time.process_time()
        status, found = await h.stream()
        took_s = time.process_time() - begun
        assert status == 200 and took_s < 8
        (proposed,) = [
            one["choices"][0]["delta"]["tool_calls"][0]
            for one in found[:-1]
            if one["choices"][0]["delta"].get("tool_calls")
        ]
        assert json.loads(proposed["function"]["arguments"]) == json.loads(text)
        assert max(await other.close()) < OTHERS_WAIT_S_MAX


async def test_what_is_said_after_the_end_is_not_heard(tmp_path: Path) -> None:
    sent = streamed(
        piece("stop", content="good day"), b"[DONE]", part('{"id":7}', name="refund"), b"[DONE]"
    )
    async with hostile(tmp_path, sent, tools=ONCE) as h:
        status, found = await h.stream()
        assert status == 200 and "refund" not in str(found)
        assert [one.kind for one in await h.w.calls()] == [CallKind.MODEL]


async def test_calls_whose_indexes_jump_come_in_their_order(tmp_path: Path) -> None:
    sent = streamed(
        part('{"n":3}', 10**9, name="look"),
        part('{"n":1}', -4, name="look"),
        part('{"n":2}', 7, name="look", id="x\n\x1b[2J"),
        piece("tool_calls"),
        b"[DONE]",
    )
    async with hostile(tmp_path, sent) as h:
        _, found = await h.stream()
        calls = [
            one["choices"][0]["delta"]["tool_calls"][0]
            for one in found[:-1]
            if one["choices"][0]["delta"].get("tool_calls")
        ]
        assert [json.loads(one["function"]["arguments"])["n"] for one in calls] == [1, 2, 3]
        assert [one["index"] for one in calls] == [0, 1, 2]
        ids = [one["id"] for one in calls]
        assert len(set(ids)) == 3 and all(one.isprintable() for one in ids)


async def test_ids_that_repeat_or_have_no_end_are_told_apart(tmp_path: Path) -> None:
    ids = ["c1", "c1", "", "c1_2", "z" * 1_000_000, "a b", "é"]
    calls = [call("look", f'{{"n":{n}}}', id_) for n, id_ in enumerate(ids)]
    async with hostile(tmp_path, whole(answer(None, calls))) as h:
        _, body = await h.post()
        told = [one["id"] for one in body["choices"][0]["message"]["tool_calls"]]
        assert len(set(told)) == len(ids) and told[0] == "c1" and max(map(len, told)) < 300


async def test_a_model_that_names_a_tool_of_the_kernels_has_it_carried_out_never(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("files.write", "files__write", "mcp__x__files__write")):
        calls = [call(name, '{"path": "a.txt", "text": "taken over"}')]
        async with hostile(
            tmp_path / str(number),
            whole(answer(None, calls)),
            tools={"files": {"use": "files"}},
        ) as h:
            status, body = await h.post()
            assert status == 200, body
            assert all(one.kind is not CallKind.TOOL for one in await h.w.calls())
            assert not await h.w.store.files(h.w.run.id)


async def test_a_tool_that_is_called_like_a_kind_of_call_is_judged_as_a_proposal(
    tmp_path: Path,
) -> None:
    policy = '@id("no")\n@reason("no")\nforbid (principal, action == Action::"proposal", resource);'
    for name in ("proposal", "observed", "tool", "refund"):
        sent = whole(answer(None, [call(name)]))
        async with hostile(tmp_path / name, sent, policy=policy) as h:
            _, body = await h.post()
            assert not body["choices"][0]["message"].get("tool_calls"), name


async def test_nothing_of_a_stream_that_policy_refuses_comes_before_the_refusal(
    tmp_path: Path,
) -> None:
    policy = '@id("no")\n@reason("no")\nforbid (principal, action == Action::"model", resource);'
    async with hostile(tmp_path, streamed(piece("stop", content="x")), policy=policy) as h:
        async with h.session.post("/v1/chat/completions", json={**HELLO, "stream": True}) as told:
            assert told.status == 403 and told.content_type == "application/json"
        assert not h.provider.asked


async def test_a_kill_in_the_middle_of_a_stream_is_its_end(tmp_path: Path) -> None:
    killed = asyncio.Event()

    async def on(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + sse(piece(content="before the kill, ")))
        await killed.wait()
        while True:
            writer.write(sse(piece(content="after ")))
            await writer.drain()
            await asyncio.sleep(0)

    async with hostile(tmp_path, on) as h:
        body = {**HELLO, "stream": True}
        async with h.session.post("/v1/chat/completions", json=body) as response:
            seen = b""
            while b"before the kill" not in seen:
                seen += await response.content.readany()
            killed.set()
            await asyncio.sleep(0.05)
            await h.w.kernel.kill("run", h.w.run.id, by="ada")
            rest = b""
            try:
                while chunk := await response.content.readany():
                    rest += chunk
            except Exception as broken:
                assert "Error" in type(broken).__name__
        assert b"[DONE]" not in rest or b"error" in rest
        async with asyncio.timeout(5):
            await h.provider.left.wait()


async def test_what_a_stream_reserved_that_breaks_counts_as_spent(tmp_path: Path) -> None:
    async with hostile(tmp_path, streamed(piece(content="half"))) as h:
        await h.fails(stream=True)
        row = await h.w.row()
        assert row.tokens_used > 2_000, "what may be paid for was given back"


async def test_proposals_are_judged_each_for_itself(tmp_path: Path) -> None:
    calls = [call("refund", f'{{"id":{n}}}', f"c{n}") for n in range(3)]
    calls.append(call("look", "{}", "c9"))
    async with hostile(tmp_path, whole(answer("so", calls)), tools=ONCE) as h:
        asking = asyncio.ensure_future(h.post({**HELLO, "tools": [TOOL]}))
        ada = Operator(name="ada")
        for approval in await h.w.all_pending(3):
            n = (await h.w.shown(approval))["arguments"]["id"]
            if n == 1:
                await h.w.kernel.answer(approval.id, yes=False, by=ada)
            else:
                await h.w.kernel.answer(approval.id, yes=True, by=ada)
        _, body = await asking
        message = body["choices"][0]["message"]
        assert [one["id"] for one in message["tool_calls"]] == ["c0", "c2", "c9"]
        assert "refund was not allowed" in message["content"]
