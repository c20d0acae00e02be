"""No answer to an ask arrives through a door of an agent's, and no GET changes anything anywhere:
whoever looks at a link before a person does has done nothing by it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_world import control, doors, post
from kernel_world import Doing, World, world

from ring0.gateway.calls import SOCKET, CallDoor
from ring0.gateway.hooks import Hooks
from ring0.gateway.operations import VERBS
from ring0.types import Approval, ApprovalState, CallKind, Effect, Operator, RunState

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ACT = {"kind": "tool", "name": "act", "args": {}, "path": "0", "counter": 1}


def paths(approval: Approval) -> list[str]:
    """Where an answer could be taken, if one was."""
    verbs = ["answer", "answers", "approve", "approvals", "undo", "settle", "kill", "reload"]
    found = [f"/v1/{verb}" for verb in verbs] + [f"/{verb}" for verb in verbs]
    found += [f"/v1/approvals/{approval.id}", f"/approve/{approval.id}?yes=true"]
    return [*found, f"/v1/call?approval={approval.id}&yes=true", "/v1/run?yes=true"]


def bodies(approval: Approval) -> list[dict[str, Any]]:
    """What an operator's socket takes for an answer; and the same as a call of each kind."""
    yes = {"approval": approval.id, "yes": True}
    called = {"name": approval.id, "args": yes, "path": "0"}
    return [
        yes,
        {"approvals": [approval.id], "yes": True},
        {**ACT, "approved": True, "approval": approval.id, "counter": 900},
        *({**called, "kind": kind, "counter": 901 + n} for n, kind in enumerate(CallKind)),
    ]


async def still_waits(w: World, approval: Approval, tool: Doing, call: asyncio.Task[Any]) -> None:
    await w.store.flush()
    kept = await w.store.approval(approval.id)
    assert kept.state is ApprovalState.PENDING and kept.yes_by == ()
    assert tool.done == 0 and not call.done()


LOOK = {"kind": "tool", "name": "look", "args": {}, "path": "0", "counter": 2}
"""A call that needs nobody."""


def act(w: World) -> Doing:
    made: Doing = w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
    return made


async def test_nothing_that_a_run_sends_to_its_own_door_is_an_answer_to_its_ask(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as d:
        tool = act(d.w)
        call = asyncio.create_task(d.ask("/v1/call", ACT))
        approval = await d.w.pending()
        for path in paths(approval):
            for method in METHODS:
                answer = await d.ask(path, {"approval": approval.id, "yes": True}, method=method)
                assert (
                    answer.status == 200
                    if path.startswith("/v1/run?") and method == "GET"
                    else (answer.status in (400, 404, 405, 422))
                ), (method, path)
        look = d.w.tool(Doing("look"))
        for method in set(METHODS) - {"POST"}:
            assert (await d.ask("/v1/call", LOOK, method=method)).status == 404 and not look.done
        for body in bodies(approval):
            answer = await d.ask("/v1/call", body)
            assert answer.status in (400, 403, 404, 422), body
        await still_waits(d.w, approval, tool, call)
        await d.w.kernel.answer(approval.id, yes=False, by=Operator(name="ann"))
        assert (await call).code == "denied"


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, body: Any
) -> tuple[int, bytes]:
    async with session.request(method, url, data=json.dumps(body)) as response:
        return response.status, await response.read()


async def test_nothing_that_is_sent_with_a_token_is_an_answer_to_an_ask(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        door, tool = CallDoor(w.kernel), act(w)
        await door.open()
        everything = ["*", "model:*", "agent:*", "kernel:*"]
        token = await w.kernel.granting.give(w.run.id, everything, 60, by="ann")
        await door.open_local()
        connector = aiohttp.UnixConnector(str(w.home / SOCKET))
        said = {"Authorization": f"Bearer {token}"}
        try:
            async with aiohttp.ClientSession(connector=connector, headers=said) as session:
                call = asyncio.create_task(ask(session, "POST", "http://ring0/v1/call", ACT))
                approval = await w.pending()
                for path in paths(approval):
                    for method in METHODS:
                        body = {"approval": approval.id, "yes": True}
                        status, _ = await ask(session, method, f"http://ring0{path}", body)
                        looks = path.startswith("/v1/run?") and method == "GET"
                        assert (status == 200) if looks else status in (400, 404, 422), path
                look = w.tool(Doing("look"))
                for method in set(METHODS) - {"POST"}:
                    status, _ = await ask(session, method, "http://ring0/v1/call", LOOK)
                    assert status == 404 and not look.done
                for body in bodies(approval):
                    status, _ = await ask(session, "POST", "http://ring0/v1/call", body)
                    assert status in (403, 404, 422), body
                await still_waits(w, approval, tool, call)
                await w.kernel.answer(approval.id, yes=False, by=Operator(name="ann"))
                assert (await call)[0] == 403
        finally:
            await door.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
async def test_a_get_answers_kills_and_changes_nothing_on_the_operators_socket(
    tmp_path: Path, method: str
) -> None:
    async with control(tmp_path) as w:
        call = w.start("act", {})
        approval = await w.pending()
        await w.until(RunState.WAITING, "approval")
        length = len([one async for one in w.store.entries()])
        given = {"approval": approval.id, "approvals": [approval.id], "yes": True, "scope": "all"}
        for verb in VERBS:
            for body in (given, {"approval": approval.id, "yes": True}, {"scope": "all"}):
                status, _ = await post(w, verb, body, method=method)
                assert status in (404, 405), (method, verb)
        await w.store.flush()
        assert len([one async for one in w.store.entries()]) == length
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        await w.kernel.kill("all", "", by="ann")
        await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
async def test_a_get_starts_no_run_at_the_address_of_a_hook(tmp_path: Path, method: str) -> None:
    async with world(tmp_path / "home", start=False) as w:
        hooks = Hooks(w.kernel, (), lambda what, run: None)
        hooks.bind("127.0.0.1", 0)
        await hooks.open()
        try:
            async with aiohttp.ClientSession() as session:
                status, _ = await ask(session, method, f"http://{hooks.address}/hooks/push", {})
                assert status == 405
                status, _ = await ask(session, "POST", f"http://{hooks.address}/hooks/push", {})
                assert status == 401
            assert await w.store.runs() == []
        finally:
            await hooks.close()
