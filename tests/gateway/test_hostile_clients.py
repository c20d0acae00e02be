"""Clients that flood, lie, hang and go away: a clear error, nothing twice, others go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hostile import (
    CHAT,
    HELLO,
    OTHERS_WAIT_S_MAX,
    STREAM,
    TOOL,
    answer,
    call,
    history,
    hostile,
    piece,
    sse,
    whole,
)
from model_doors import asked, proposes, said

from ring0 import limits
from ring0.errors import RunDead
from ring0.types import CallKind, CallState, Operator, Request

ONCE = {"refund": {"use": "agent", "effect": "once"}}
ADA = Operator(name="ada")
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ASKS = {
    CHAT: HELLO,
    RESPONSES: {"model": "m", "input": "hello"},
    MESSAGES: {"model": "m", "max_tokens": 9, "messages": HELLO["messages"]},
}


# --- what can't be read ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda raw: raw[:-1] + b',"model":"x"}', "twice"),
        (lambda raw: raw[:-1] + b',"temperature":NaN}', "NaN"),
        (lambda raw: raw[:-1] + b',"temperature":1e999}', "infinity"),
        (lambda raw: raw.replace(b"hello", b"h\xffllo"), "UTF-8"),
        (lambda raw: raw.replace(b"hello", b"\\ud800"), "surrogate"),
        (lambda raw: raw[:-1] + b',"tools":' + b"[" * 70 + b"]" * 70 + b"}", "deeper"),
        (lambda raw: raw[:-1] + b',"tools":' + b"[" * 90_000 + b"]" * 90_000 + b"}", "deeper"),
        (lambda raw: raw[:-1] + b',"top_p":' + b"9" * 30 + b"}", "64 bits"),
        (lambda raw: raw[: len(raw) // 2], "can't be taken"),
        (lambda raw: b"", "can't be taken"),
        (lambda raw: b"[]", "object"),
        (lambda raw: raw + b" " * limits.CALL_BODY_SIZE_BYTES_MAX, "too large"),
        (lambda raw: raw.replace(b'"m"', b'"' + b"m" * 200 + b'"'), "model's name"),
        (lambda raw: raw.replace(b'"m"', b'"\\u001b[2J"'), "model's name"),
    ],
)
async def test_a_question_that_is_none_is_an_error_that_says_so(
    tmp_path: Path, path: str, change: Any, named: str
) -> None:
    async with hostile(tmp_path, whole(answer())) as h:
        status, body = await h.post(change(json.dumps(ASKS[path]).encode()), path)
        message = body["error"]["message"]
        assert 400 <= status < 500 and named in message and len(message) < 3_000, body
        assert not h.provider.asked and h.w.run.weight.bytes == 0
        assert [call.state for call in await h.w.calls()] == [CallState.REFUSED]


async def test_ten_thousand_tool_calls_in_one_message_are_refused_at_once(tmp_path: Path) -> None:
    calls = [call("look", "{}", f"c{n}") for n in range(10_000)]
    many = {**HELLO, "messages": [{"role": "assistant", "tool_calls": calls}]}
    results = [("c1", "{}", "x")] + [("c1", "{}", "y")] * 3_000
    async with hostile(tmp_path, whole(answer())) as h:
        other = await h.other()
        status, body = await h.post(many)
        assert status == 422 and "4,096 tool calls" in body["error"]["message"]
        status, body = await h.post(history(*results))
        assert status == 422 and "messages" in body["error"]["message"]
        assert {call.state for call in await h.w.calls()} == {CallState.REFUSED}
        assert max(await other.close()) < OTHERS_WAIT_S_MAX


async def test_a_list_without_end_is_refused(tmp_path: Path) -> None:
    small = {"role": "user", "content": "x"}
    async with hostile(tmp_path, whole(answer())) as h:
        status, body = await h.post({**HELLO, "messages": [small] * 20_000})
        assert status == 422 and "16,384" in body["error"]["message"]
        status, body = await h.post({**HELLO, "messages": [[]] * 1_000_000})
        assert status == 422 and "100,000" in body["error"]["message"]


# --- sockets -----------------------------------------------------------------------------------


async def test_bodies_that_trickle_or_lie_about_their_length_keep_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_BODY_S_MAX", 1)
    raw = json.dumps(HELLO).encode()
    async with hostile(tmp_path, whole(answer())) as h:
        lines = [await h.d.tcp() for _ in range(6)]
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw) + 50}\r\n\r\n"
        for line in lines:
            await line.send(head.encode() + raw)  # The rest never comes.
        status, _ = await h.post()
        assert status == 200
        told = await lines[0].answer()
        assert told.status == 408 and "too slowly" in told.json["error"]["message"]
        for line in lines:
            await line.close()
        assert h.w.run.weight.bytes == 0


async def test_a_body_that_is_longer_than_it_says_is_not_another_question(tmp_path: Path) -> None:
    raw = json.dumps(HELLO).encode()
    async with hostile(tmp_path, whole(answer())) as h:
        line = await h.d.tcp()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
        await line.send(head.encode() + raw + raw)
        statuses = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                statuses.append((await line.answer()).status)
        await line.close()
        assert statuses in ([400], [200, 400]) and len(h.provider.asked) == statuses.count(200)


async def test_a_chunked_body_without_end_is_refused(tmp_path: Path) -> None:
    async with hostile(tmp_path, whole(answer())) as h:
        line = await h.d.tcp()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await line.send(head.encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await line.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        told = await line.answer()
        assert told.status == 413
        await line.close()
        assert h.w.run.weight.bytes == 0


async def test_whoever_closes_half_of_the_connection_loses_nothing(tmp_path: Path) -> None:
    raw = json.dumps(HELLO).encode()
    async with hostile(tmp_path, whole(answer("first")), whole(answer("second"))) as h:
        line = await h.d.tcp()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
        await line.send(head.encode() + raw)
        line.writer.write_eof()
        with contextlib.suppress(asyncio.IncompleteReadError):
            assert (await line.answer()).status == 200
        await line.close()
        _, body = await h.post()
        assert body["choices"][0]["message"]["content"] in ("first", "second")


async def test_a_client_that_never_reads_holds_up_nobody(tmp_path: Path) -> None:
    async def on(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for _ in range(40):
            writer.write(sse(*[piece(content="é")] * 3_000))
            await writer.drain()
        writer.write(sse(piece("stop"), b"[DONE]"))

    raw = json.dumps({**HELLO, "stream": True}).encode()
    async with hostile(tmp_path, on) as h:
        other = await h.other()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", h.d.port))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
        connection.send(head.encode() + raw)
        async with asyncio.timeout(60):
            while not any(one.outcome for one in await h.w.calls()):
                await asyncio.sleep(0.05)
        (record,) = await h.w.calls()
        assert record.state is CallState.OK, "the model was not waited for"
        assert max(await other.close()) < OTHERS_WAIT_S_MAX
        connection.close()


async def test_thousands_of_requests_at_once_leave_the_others_their_turn(tmp_path: Path) -> None:
    async with hostile(tmp_path, whole(answer())) as h:
        other = await h.other()

        async def one(number: int) -> int:
            body = {**HELLO, "messages": [{"role": "user", "content": f"{number} " + "x" * 20_000}]}
            try:
                async with h.session.post(CHAT, json=body) as response:
                    return response.status
            except aiohttp.ClientError:
                return 0

        found = await asyncio.gather(*(one(number) for number in range(600)))
        assert set(found) <= {200, 429, 0} and found.count(200) > 100
        assert h.w.run.weight.bytes == 0
        assert max(await other.close()) < OTHERS_WAIT_S_MAX


async def test_what_a_door_holds_of_questions_is_bounded_while_they_wait(tmp_path: Path) -> None:
    """Bodies that wait for a person, or for the model, are as large as while they are read."""
    async with asked(tmp_path, *[said("", proposes("refund")) for _ in range(8)], tools=ONCE) as a:
        body = {**HELLO, "tools": [TOOL]}
        big = [{"role": "user", "content": "x" * 200_000}] * 3
        waiting = [
            asyncio.ensure_future(a.post(CHAT, {**body, "messages": big[: n + 1], "seed": n}))
            for n in range(3)
        ]
        await a.w.all_pending(2)
        await asyncio.sleep(0.2)
        assert a.w.run.weight.bytes > 600_000, "what waits was not counted"
        assert a.w.run.weight.bytes < 2 * limits.CALLS_SIZE_PER_RUN_BYTES_MAX
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


# --- going away --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_goes_away_at_any_stage_and_asks_again_pays_no_model_twice(
    tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.2)

    def chunk(finish: str | None, **delta: Any) -> bytes:
        return sse(piece(finish, **delta))

    go, begun = asyncio.Event(), asyncio.Event()

    async def on(writer: asyncio.StreamWriter) -> None:
        begun.set()
        if stream:
            writer.write(STREAM + chunk(None, content="wait "))
            await go.wait()
            refund = [{"index": 0, "id": "c1", "function": {"name": "refund", "arguments": "{}"}}]
            writer.write(chunk("tool_calls", tool_calls=refund) + sse(b"[DONE]"))
        else:
            await go.wait()
            writer.write(whole(answer("wait ", [call("refund")])))
        await writer.drain()

    body = {**HELLO, "tools": [TOOL], "stream": stream}
    async with hostile(tmp_path, on, tools=ONCE) as h:

        async def give_up(when: Any) -> None:
            asking = asyncio.ensure_future(h.session.post(CHAT, json=body))
            await when()
            if stream:
                async with asyncio.timeout(5):
                    (await asking).close()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.sleep(0.1)

        await give_up(begun.wait)  # While the model answers; then while a person is asked.
        go.set()
        await give_up(h.w.pending)
        await give_up(h.w.pending)
        answering = asyncio.ensure_future(h.stream(body) if stream else h.post(body))
        approval = await h.w.pending()
        assert len(await h.w.store.approvals()) == 1, "one proposal, one ask"
        await h.w.kernel.answer(approval.id, yes=True, by=ADA)
        status, told = await answering
        assert status == 200 and "refund" in str(told)
        assert len(h.provider.asked) == 1
        kinds = [one.kind for one in await h.w.calls()]
        assert kinds == [CallKind.MODEL, CallKind.PROPOSAL]


async def test_a_connection_that_breaks_late_gives_nobody_an_old_answer(tmp_path: Path) -> None:
    async with asked(tmp_path, said("one"), said("two")) as a:
        a.model.go = asyncio.Event()
        first = asyncio.ensure_future(a.session.post(CHAT, json=HELLO))
        await asyncio.sleep(0.1)
        again = asyncio.ensure_future(a.post(CHAT, HELLO, **{"x-stainless-retry-count": "1"}))
        await asyncio.sleep(0.1)
        first.cancel()  # The client has long given it up; that is only now to be seen.
        await asyncio.gather(first, return_exceptions=True)
        await asyncio.sleep(0.1)
        a.model.go.set()
        _, body = await again
        assert body["choices"][0]["message"]["content"] == "one" and len(a.model.asked) == 1
        a.w.run.unheard((await a.w.calls())[0].id)  # And later still, of another connection.
        _, body = await a.post(CHAT, HELLO)
        assert body["choices"][0]["message"]["content"] == "two"


async def test_a_run_that_is_killed_while_a_person_is_asked_hears_of_its_end_alone(
    tmp_path: Path,
) -> None:
    for stream in (False, True):
        turn = said("sure", proposes("refund"))
        async with asked(tmp_path / str(stream), turn, tools=ONCE) as a:
            body = {**HELLO, "tools": [TOOL], "stream": stream}
            asking = asyncio.ensure_future(a.session.post(CHAT, json=body))
            await a.w.pending()
            await a.w.kernel.kill("run", a.w.run.id, by="ada")
            async with await asking as response:
                raw = await response.read()
            assert b"refund" not in raw and (b"error" in raw) and b"tool_calls" not in raw
            assert stream or response.status == 410
            with pytest.raises(RunDead):
                request = Request(kind=CallKind.NOW, name="", args={})
                await a.w.kernel.gate.call(a.w.run.handle, request)


async def test_an_approval_that_is_edited_gives_the_agent_what_the_person_wrote(
    tmp_path: Path,
) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
    tools = {"refund": {"use": "agent", "effect": "once", "schema": schema}}
    async with asked(tmp_path, said("", proposes("refund", id=7)), tools=tools) as a:
        asking = asyncio.ensure_future(a.post(CHAT, {**HELLO, "tools": [TOOL]}))
        approval = await a.w.pending()
        await a.w.kernel.answer(approval.id, yes=True, by=ADA, edits={"id": "8"})
        async with asyncio.timeout(5):
            _, body = await asking
        (told,) = body["choices"][0]["message"]["tool_calls"]
        assert told["function"]["arguments"] == '{"id":8}'
