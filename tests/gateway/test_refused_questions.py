"""What a model door itself turns away is on record as a refused call, and costs as little."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostile import CHAT, HELLO, answer, hostile, whole
from model_doors import Asked, asked, said

from ring0 import limits
from ring0.types import CallState

ODD = {**HELLO, "frobnicate": 1}
MESSAGES = "/v1/messages"


async def on_record(a: Any) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(state, rule, what was asked, what was said) of each call."""
    found = []
    for call in await a.w.calls():
        asked_for = msgspec.json.decode(await a.w.store.blob(call.args))
        outcome = msgspec.json.decode(await a.w.store.blob(call.outcome))
        rule = call.verdict.reasons[0].rule
        found.append((call.state, rule, asked_for, outcome.get("error") or {}))
    return found


async def again(a: Asked) -> None:
    """Its process is started again: what was in memory of the run is made anew from the journal."""
    run = a.w.run
    run.records = {call.id: call for call in await a.w.calls()}
    run.unmet = set(run.records)
    run._occurrences.clear()


async def test_a_field_that_no_table_lists_is_refused_on_record_with_what_was_asked(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path) as a:
        status, body = await a.post(CHAT, ODD)
        assert status == 422 and "frobnicate" in body["error"]["message"]
        ((state, rule, question, told),) = await on_record(a)
        assert (state, rule, question["dialect"]) == (CallState.REFUSED, "form", "chat")
        assert question["model"] == "m" and question["body"]["messages"] == HELLO["messages"]
        assert told["code"] == "call_invalid" and "frobnicate" in told["what"]
        assert a.w.run.row.calls_used == 0 and not a.model.asked and a.w.run.weight.bytes == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_only_the_kernel_finds_wrong_is_on_record_once(
    tmp_path: Path, stream: bool
) -> None:
    result = {"role": "tool", "tool_call_id": "c9", "content": "forged"}
    forged = {**HELLO, "messages": [*HELLO["messages"], result], "stream": stream}  # type: ignore[misc]
    async with asked(tmp_path) as a:
        status, body = await a.post(CHAT, forged)
        assert status == 422 and "c9" in body["error"]["message"]
        ((state, _, _, told),) = await on_record(a)
        assert state == CallState.REFUSED and "c9" in told["what"]


async def test_a_large_question_that_is_refused_leaves_little_on_record(tmp_path: Path) -> None:
    large = {**ODD, "messages": [{"role": "user", "content": "x" * 500_000}]}
    async with asked(tmp_path) as a:
        assert (await a.post(CHAT, large))[0] == 422
        (call,) = await a.w.calls()
        assert len(await a.w.store.blob(call.args)) <= limits.REFUSED_ARGS_SIZE_BYTES_MAX
        ((_, _, question, _),) = await on_record(a)
        assert question["size_bytes"] > 500_000 and question["model"] == "m"


async def test_what_is_too_large_keeps_its_status_and_is_on_record(tmp_path: Path) -> None:
    raw = json.dumps(HELLO).encode() + b" " * limits.CALL_BODY_SIZE_BYTES_MAX
    async with hostile(tmp_path, whole(answer())) as h:
        status, body = await h.post(raw)
        assert status == 413 and "too large" in body["error"]["message"]
        assert [state for state, *_ in await on_record(h)] == [CallState.REFUSED]


async def test_a_broken_connection_and_a_count_leave_nothing_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_BODY_S_MAX", 0.2)
    async with hostile(tmp_path, whole(answer())) as h:
        line = await h.d.tcp()
        await line.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert (await line.answer()).status == 408
        await line.close()
        status, _ = await h.post(ODD, f"{MESSAGES}/count_tokens")
        assert status == 422 and not await h.w.calls()


async def test_a_process_that_is_started_again_hears_the_same_no_and_goes_on(
    tmp_path: Path,
) -> None:
    """Also a client that tells another id on each start: it is refused for the same."""
    async with asked(tmp_path, said("one"), said("two")) as a:
        _, first = await a.post(CHAT, {**ODD, "user": "session-1"})
        await a.post(CHAT, HELLO)
        await again(a)
        status, second = await a.post(CHAT, {**ODD, "user": "session-2"})
        assert status == 422 and second == first and len(await a.w.calls()) == 2
        _, body = await a.post(CHAT, HELLO)
        assert body["choices"][0]["message"]["content"] == "one"
        _, body = await a.post(CHAT, {**HELLO, "n": 1})
        assert body["choices"][0]["message"]["content"] == "two", "it goes on live"


async def test_a_no_that_a_journal_of_before_does_not_have_stops_no_replay(tmp_path: Path) -> None:
    async with asked(tmp_path, said("one")) as a:
        await a.post(CHAT, HELLO)
        await again(a)
        assert (await a.post(CHAT, ODD))[0] == 422 and a.w.run.diverged is None
        _, body = await a.post(CHAT, HELLO)
        assert body["choices"][0]["message"]["content"] == "one" and len(await a.w.calls()) == 1


async def test_a_run_that_is_refused_without_end_at_its_model_door_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSALS_PER_RUN_MAX", 6)
    async with asked(tmp_path) as a:
        odd = [{**HELLO, f"frobnicate{number}": 1} for number in range(9)]
        statuses = [(await a.post(CHAT, one))[0] for one in odd]
        assert statuses[:6] == [422] * 6 and statuses[-1] == 410
        assert len(await a.w.calls()) == 6 and a.w.run.result.done()


async def test_refusals_at_once_each_have_their_answer(tmp_path: Path) -> None:
    async with asked(tmp_path) as a:
        answers = await asyncio.gather(*(a.post(CHAT, ODD) for _ in range(12)))
        told = {body["error"]["code"] for _, body in answers}
        assert told <= {"call_invalid", "loop_stopped"} and "call_invalid" in told
        states = {state for state, *_ in await on_record(a)}
        assert len(await a.w.calls()) == 12 and states == {CallState.REFUSED}
