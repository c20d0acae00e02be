"""Calls at the MCP door that wait for a person: held in one era, polled in the other."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing
from mcp_doors import Session, Spoken, spoken

from ring0 import limits
from ring0.types import ApprovalState, Effect, Operator

PAY = {"name": "pay", "arguments": {"x": 7}}
ADA = Operator(name="ada")


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Spoken]:
    monkeypatch.setattr(limits, "DOOR_PING_S", 0.05)
    monkeypatch.setattr(limits, "MCP_DOOR_POLL_S", 0.2)
    async with spoken(tmp_path) as s:
        s.w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
        s.w.tool(Doing("other", effect=Effect.ONCE, mutates=True, own=False))
        yield s


def paid(s: Spoken) -> int:
    driver: Any = s.w.run.tools["pay"].driver
    return int(driver.done)


def call(number: int, params: Any = PAY) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


async def asks(s: Spoken) -> list[Any]:
    return list(await s.w.store.approvals(states=list(ApprovalState)))


async def test_a_held_call_is_kept_alive_and_answered_when_a_person_has(here: Spoken) -> None:
    session = await here.session()
    wanted = {**PAY, "_meta": {"progressToken": "p7"}}
    asking = asyncio.ensure_future(session.send(call(5, wanted)))
    approval = await here.w.pending()
    await asyncio.sleep(0.3)
    assert not asking.done() and paid(here) == 0
    await here.w.kernel.answer(approval.id, yes=True, by=ADA)
    status, headers, messages = await asking
    assert status == 200 and headers["Content-Type"] == "text/event-stream"
    signs = [m["params"]["progress"] for m in messages if m.get("method")]
    assert len(signs) > 1 and signs == sorted(set(signs))
    assert {m["params"]["progressToken"] for m in messages[:-1]} == {"p7"}
    assert messages[-1]["id"] == 5 and messages[-1]["result"]["structuredContent"] == {"done": 1}


async def test_a_no_is_told_to_the_model_and_nothing_happens(here: Spoken) -> None:
    session = await here.session()
    asking = asyncio.ensure_future(session.send(call(5)))
    approval = await here.w.pending()
    await here.w.kernel.answer(approval.id, yes=False, by=ADA, note="too much")
    _, _, answer = await asking
    last = answer[-1] if isinstance(answer, list) else answer
    assert last["result"]["isError"] is True and paid(here) == 0
    assert last["result"]["_meta"]["ring0/error"]["code"] == "denied"


async def test_a_broken_connection_finds_its_ask_again(here: Spoken) -> None:
    session = await here.session()
    first = asyncio.ensure_future(session.send(call(5)))
    approval = await here.w.pending()
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.wait({first})
    await _until(lambda: bool(here.w.run.undelivered))
    second = asyncio.ensure_future(session.send(call(6)))
    await asyncio.sleep(0.2)
    assert [one.id for one in await asks(here)] == [approval.id]
    await here.w.kernel.answer(approval.id, yes=True, by=ADA)
    _, _, messages = await second
    assert messages[-1]["result"]["structuredContent"] == {"done": 1} and paid(here) == 1


async def test_a_cancel_ends_the_wait_and_not_the_ask(here: Spoken) -> None:
    session = await here.session()
    first = asyncio.ensure_future(session.send(call(5)))
    approval = await here.w.pending()
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    assert (await session.send(note))[0] == 202
    _, _, messages = await first
    assert messages == []
    second = asyncio.ensure_future(session.send(call(6)))
    await here.w.kernel.answer(approval.id, yes=True, by=ADA)
    answer = (await second)[2]
    last = answer[-1] if isinstance(answer, list) else answer
    assert last["result"]["structuredContent"] == {"done": 1}
    assert len(await asks(here)) == 1 and paid(here) == 1


async def polled(s: Spoken, **more: Any) -> Any:
    _, answer = await s.modern("tools/call", {**PAY, **more})
    return answer[-1] if isinstance(answer, list) else answer


async def test_a_stateless_client_is_told_to_come_back_and_finds_its_call(here: Spoken) -> None:
    first = await polled(here)
    assert first["result"]["resultType"] == "input_required"
    assert "inputRequests" not in first["result"], "nothing is asked of the agent"
    approval = await here.w.pending()
    state = first["result"]["requestState"]
    assert (await polled(here, requestState=state))["result"]["resultType"] == "input_required"
    await here.w.kernel.answer(approval.id, yes=True, by=ADA)
    last = await polled(here, requestState=state)
    assert last["result"]["structuredContent"] == {"done": 1}
    # And again: what is on record is told, and nothing happens twice.
    assert (await polled(here, requestState=state))["result"]["structuredContent"] == {"done": 1}
    assert paid(here) == 1 and len(await asks(here)) == 1


async def test_an_mrtr_response_is_at_most_a_poll_and_answers_no_ask(here: Spoken) -> None:
    state = (await polled(here))["result"]["requestState"]
    approval = await here.w.pending()
    yes = {"action": "accept", "content": {"approved": True, "answer": "yes", "ok": True}}
    for responses in (
        {"approval": yes},
        {approval.id: yes},
        {"pay": yes, "requestState": state},
        {"": True},
        yes,
    ):
        answer = await polled(here, requestState=state, inputResponses=responses)
        assert answer["result"]["resultType"] == "input_required"
        assert (await asks(here))[0].state is ApprovalState.PENDING and paid(here) == 0
    for method in ("elicitation/create", "sampling/createMessage", "approval/answer", "approve"):
        status, answer = await here.modern(method, {"id": approval.id, "action": "accept"})
        assert status == 404 and answer["error"]["code"] == -32601
    session = await here.session(elicitation={})
    for number in (approval.id, "ring0-1", 1):
        status, _, _ = await session.send({"jsonrpc": "2.0", "id": number, "result": yes})
        assert status == 400
    assert (await asks(here))[0].state is ApprovalState.PENDING and paid(here) == 0


async def test_a_client_that_lost_its_state_finds_its_call_all_the_same(here: Spoken) -> None:
    await polled(here)
    approval = await here.w.pending()
    await polled(here)
    assert [one.id for one in await asks(here)] == [approval.id]


async def test_what_was_told_is_over_and_the_same_asked_anew_is_a_call_of_its_own(
    here: Spoken,
) -> None:
    state = (await polled(here))["result"]["requestState"]
    approval = await here.w.pending()
    await here.w.kernel.answer(approval.id, yes=True, by=ADA)
    assert (await polled(here, requestState=state))["result"]["structuredContent"] == {"done": 1}
    again = await polled(here)
    assert again["result"]["resultType"] == "input_required"
    assert again["result"]["requestState"] != state
    assert len(await asks(here)) == 2 and paid(here) == 1


async def test_the_librarys_client_comes_back_by_itself(here: Spoken) -> None:
    async with here.client("auto") as client:
        asking = asyncio.ensure_future(client.call_tool("pay", {"x": 1}))
        approval = await here.w.pending()
        await asyncio.sleep(0.5)
        await here.w.kernel.answer(approval.id, yes=True, by=ADA)
        answer = await asking
    assert answer.structured_content == {"done": 1} and paid(here) == 1


async def test_a_state_that_was_not_given_here_is_refused(here: Spoken, tmp_path: Path) -> None:
    state = (await polled(here))["result"]["requestState"]
    coded, mac = state.split(".")
    forged = json.loads(base64.urlsafe_b64decode(coded))
    forged["call"] = "~" + "0" * 24 + "/1"
    other = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode()
    bad: list[Any] = [state + "x", "x" + state, f"{other}.{mac}", "", ".", "a.b", 7, "é." + mac]
    bad += [coded, f"{coded}.", "x" * (limits.MCP_DOOR_STATE_CHARS_MAX + 1)]
    for one in bad:
        status, answer = await here.modern("tools/call", {**PAY, "requestState": one})
        assert (status, answer["error"]["code"]) == (400, -32602), one
    status, answer = await here.modern("tools/call", {"name": "other", "requestState": state})
    assert (status, answer["error"]["code"]) == (400, -32602)
    async with spoken(tmp_path / "another") as another:
        another.w.tool(Doing("pay", effect=Effect.ONCE, mutates=True, own=False))
        status, answer = await another.modern("tools/call", {**PAY, "requestState": state})
        assert (status, answer["error"]["code"]) == (400, -32602)
    assert len(await asks(here)) == 1


async def test_a_poll_with_other_arguments_is_no_way_to_another_call(here: Spoken) -> None:
    state = (await polled(here))["result"]["requestState"]
    await here.w.pending()
    _, answer = await here.modern(
        "tools/call", {"name": "pay", "arguments": {"x": 8_000}, "requestState": state}
    )
    assert "result" not in answer and "names one call" in answer["error"]["message"]
    assert paid(here) == 0 and len(await asks(here)) == 1


async def test_a_slow_tool_is_held_and_its_client_never_told_to_come_back(here: Spoken) -> None:
    slow = here.w.tool(Doing("slow"))
    go = slow.hold()
    asking = asyncio.ensure_future(here.modern("tools/call", {"name": "slow"}))
    await asyncio.sleep(0.6)
    assert not asking.done()
    go.set()
    _, answer = await asking
    assert answer[-1]["result"]["structuredContent"] == {"done": 1}


async def test_other_calls_go_on_while_one_waits(here: Spoken) -> None:
    session: Session = await here.session()
    here.w.tool(Doing("look"))
    asking = asyncio.ensure_future(session.send(call(5)))
    await here.w.pending()
    answer = await session.ask("tools/call", {"name": "look"}, number=6)
    assert answer["result"]["structuredContent"] == {"done": 1}
    asking.cancel()
    await asyncio.wait({asking})


async def _until(true: Any, most_s: float = 5) -> None:
    async with asyncio.timeout(most_s):
        while not true():
            await asyncio.sleep(0.01)
