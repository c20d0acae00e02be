"""The door for tokens: calls of other processes, in a run's name and no further than its token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kernel_world import Doing, World, begin, world
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import InvalidInput, NotFound
from ring0.gateway.calls import SOCKET, CallDoor
from ring0.identity import operator_name
from ring0.identity.narrowing import exactly
from ring0.identity.tokens import narrow
from ring0.kernel.agent.agents import Agent
from ring0.store import events as ev
from ring0.types import ApprovalState, Budget, CallState, Effect, Operator, RunState

ADA = Operator(name="ada")


class Caller:
    """Another process that holds a token."""

    def __init__(self, w: World, door: CallDoor) -> None:
        self.w = w
        self.door = door

    async def give(self, *only: str, expires_s: int = 300) -> str:
        granting = self.w.kernel.granting
        text = await granting.give(self.w.run.id, only or None, expires_s, by="ada")
        await self.door.open_local()
        return text

    async def ask(
        self,
        token: str,
        name: str = "",
        *,
        kind: str = "tool",
        url: str = "http://ring0/v1/call",
        headers: dict[str, str] | None = None,
        tcp: bool = False,
        **more: Any,
    ) -> tuple[int, Any]:
        body = {"kind": kind, "name": name, "args": {}, **more}
        connector = None if tcp else aiohttp.UnixConnector(str(self.w.home / SOCKET))
        async with aiohttp.ClientSession(connector=connector) as session:
            said = {"Authorization": f"Bearer {token}", **(headers or {})}
            async with session.post(url, data=json.dumps(body), headers=said) as response:
                return response.status, await response.json()


@contextlib.asynccontextmanager
async def caller(home: Path, toml: str = "", **fields: Any) -> AsyncIterator[Caller]:
    home.mkdir()
    (home / "ring0.toml").write_text(toml)
    async with world(home, **fields) as w:
        door = CallDoor(w.kernel)
        await door.open()
        for name in ("crm.query", "crm.execute"):
            w.tool(Doing(name))
        try:
            yield Caller(w, door)
        finally:
            await door.close()


async def test_a_call_with_a_token_goes_through_the_gate_as_the_runs_own(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give("crm.query")
        status, said = await c.ask(token, "crm.query")
        assert status == 200 and said["value"] == {"done": 1} and said["label"]
        (call,) = await c.w.calls()
        assert call.run == c.w.run.id and "/@1." in call.id and call.state is CallState.OK
        assert (await c.w.row()).calls_used == 1


async def test_a_token_reaches_what_it_names_and_nothing_else_of_its_run(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give("crm.query")
        status, said = await c.ask(token, "crm.execute")
        assert status == 403 and "not in the token" in said["error"]["what"]
        for kind in ("now", "random", "memory.recall", "send", "lock", "wait", "ask"):
            status, said = await c.ask(token, kind=kind)
            assert status == 403, kind
        assert c.w.run.tools["crm.execute"].driver.done == 0  # type: ignore[attr-defined]


async def test_a_token_for_nothing_in_particular_is_for_the_runs_tools_alone(
    tmp_path: Path,
) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give()
        assert (await c.ask(token, "crm.execute"))[0] == 200
        assert (await c.ask(token, kind="now"))[0] == 403
        assert (await c.ask(token, "default", kind="model"))[0] == 403


async def test_a_token_never_reaches_more_than_its_run(tmp_path: Path) -> None:
    me = operator_name(os.getuid())
    toml = f'[principals."{me}"]\nonly = ["crm.query"]\n'
    async with caller(tmp_path / "home", toml, principal=me) as c:
        token = await c.give("crm.*", "other.tool")
        assert (await c.ask(token, "crm.query"))[0] == 200
        assert "this run's grant" in (await c.ask(token, "crm.execute"))[1]["error"]["what"]
        assert "There is no tool" in (await c.ask(token, "other.tool"))[1]["error"]["what"]


async def test_a_narrowed_token_is_taken_as_what_is_left_of_it(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        narrower = narrow(await c.give("crm.*"), exactly(["crm.query"]))
        assert (await c.ask(narrower, "crm.query"))[0] == 200
        assert (await c.ask(narrower, "crm.execute"))[0] == 403


async def test_a_policy_judges_a_call_with_a_token_as_any(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        c.w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        token = await c.give("act")
        asking = asyncio.create_task(c.ask(token, "act"))
        approval = await c.w.pending()
        assert "/@1." in approval.call
        await c.w.kernel.answer(approval.id, yes=True, by=ADA)
        assert (await asking)[0] == 200


async def test_a_token_that_dies_while_its_call_waits_for_a_person_carries_out_nothing(
    tmp_path: Path,
) -> None:
    async with caller(tmp_path / "home") as c:
        tool = c.w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        token = await c.give("act")
        asking = asyncio.create_task(c.ask(token, "act"))
        approval = await c.w.pending()
        (issued,) = c.w.kernel.granting.list(c.w.run.id)
        await c.w.kernel.granting.revoke(c.w.run.id, issued.id, by="ada")
        await c.w.kernel.answer(approval.id, yes=True, by=ADA)
        status, said = await asking
        assert status == 401 and said["error"]["code"] == "token_dead" and tool.done == 0
        (now,) = await c.w.store.approvals(run=c.w.run.id)
        assert now.state is not ApprovalState.CONSUMED


async def test_who_shows_no_token_or_a_wrong_one_learns_nothing(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        await c.give()
        for token in ("", "x", "r0.a.b"):
            status, said = await c.ask(token, "crm.query")
            assert (status, said["error"]["code"]) == (401, "token_invalid")
        status, _ = await c.ask("x", url="http://ring0/v1/other")
        assert status == 401
        assert await c.w.calls() == []


async def test_a_token_is_dead_the_moment_its_run_has_ended(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give()
        assert (await c.ask(token, "crm.query"))[0] == 200
        await c.w.kernel.kill("run", c.w.run.id, by="ada")
        status, said = await c.ask(token, "crm.query")
        assert status == 401 and said["error"]["code"] == "token_dead"
        assert c.w.kernel.granting.tokens.live(c.w.run.id) == []
        assert not c.w.kernel.granting.tokens._issued, "nothing of it is kept"


async def test_giving_and_taking_back_are_on_record_without_the_token(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give("crm.query")
        (issued,) = c.w.kernel.granting.list(c.w.run.id)
        await c.w.kernel.granting.revoke(c.w.run.id, issued.id, by="bob")
        found = [entry.body async for entry in c.w.store.entries(c.w.run.id)]
        given = [body for body in found if isinstance(body, ev.TokenIssued)]
        taken = [body for body in found if isinstance(body, ev.TokenRevoked)]
        assert [(one.token, one.only, one.by) for one in given] == [
            (issued.id, ("tool:crm.query",), "ada")
        ]
        assert [(one.token, one.by) for one in taken] == [(issued.id, "bob")]
        assert (await c.ask(token, "crm.query"))[0] == 401
        await c.w.forget()
        assert token.rpartition(".")[2].encode() not in c.w.on_disk()


async def test_there_is_no_token_of_a_run_that_is_not_at_work(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        await c.w.kernel.kill("run", c.w.run.id, by="ada")
        with pytest.raises(NotFound, match="not at work"):
            await c.give()
        with pytest.raises(NotFound):
            await c.w.kernel.granting.give("r-000000000000", None, 60, by="ada")


async def test_there_is_no_token_of_what_an_operator_has_the_kernel_do(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        agent = c.w.run.agent
        c.w.run.agent = Agent(replace(agent.family, operator=True), agent.digest)
        with pytest.raises(InvalidInput, match="operator's own"):
            await c.give()


async def test_a_retry_with_the_same_path_is_the_same_call(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give("crm.query")
        first = await c.ask(token, "crm.query", path="0", counter=1)
        again = await c.ask(token, "crm.query", path="0", counter=1)
        assert first == again and len(await c.w.calls()) == 1
        own = await c.w.call("crm.query", path="0", counter=1)
        assert own.value == {"done": 2}, "the run's own call of that place is another"


async def test_another_call_at_a_place_that_is_taken_is_no_divergence_of_the_run(
    tmp_path: Path,
) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give("crm.query", "crm.execute")
        assert (await c.ask(token, "crm.query", path="0", counter=1))[0] == 200
        status, said = await c.ask(token, "crm.execute", path="0", counter=1)
        assert (status, said["error"]["code"]) == (422, "call_invalid")
        assert not c.w.run.result.done() and c.w.run.diverged is None
        assert (await c.w.call("crm.query")).error is None


async def test_calls_with_tokens_keep_no_run_from_being_started_again(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give("crm.query")
        await c.ask(token, "crm.query")
        await c.w.call("crm.query")
        assert not c.w.run.pathless
        records = await c.w.calls()
        from ring0.kernel.live import LiveRun

        again = LiveRun(
            c.w.run.row, c.w.run.key, c.w.run.agent, [], c.w.run.handle, c.w.store, records=records
        )
        assert len(records) == 2 and len(again.unmet) == 1 and not again.pathless


async def test_a_run_whose_token_is_at_work_is_not_put_away(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        tool = c.w.tool(Doing("crm.query"))
        release = tool.hold()
        asking = asyncio.create_task(c.ask(await c.give("crm.query"), "crm.query"))
        await tool.begun.wait()
        c.w.run.waiting = True
        c.w.run.process = asyncio.ensure_future(asyncio.sleep(60))
        assert not c.w.run.may_be_put_away()
        release.set()
        await asking
        await asyncio.sleep(0)
        assert c.w.run.by_token == 0
        c.w.run.process.cancel()
        c.w.run.waiting = False


async def test_the_socket_is_its_owners_alone_and_there_only_once_a_token_was_given(
    tmp_path: Path,
) -> None:
    async with caller(tmp_path / "home") as c:
        path = c.w.home / SOCKET
        assert not path.exists()
        await c.give()
        assert path.stat().st_mode & 0o777 == 0o600
        await c.door.close()
        assert not path.exists()


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_the_port_answers_its_own_name_and_no_web_page(tmp_path: Path) -> None:
    port = _free()
    async with caller(tmp_path / "home", f'[identity]\nlisten = "127.0.0.1:{port}"\n') as c:
        token = await c.give("crm.query")
        url = f"http://127.0.0.1:{port}/v1/call"
        assert (await c.ask(token, "crm.query", url=url, tcp=True))[0] == 200
        for headers in (
            {"Host": "rebound.example.com"},
            {"Host": f"127.0.0.1:{port + 1}"},
            {"Host": f"127.0.0.1:{port}.example.com"},
            {"Origin": "http://localhost"},
            {"Sec-Fetch-Site": "same-origin"},
        ):
            status, _ = await c.ask(token, "crm.query", url=url, tcp=True, headers=headers)
            assert status == 403, headers


async def test_a_body_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    async with caller(tmp_path / "home") as c:
        token = await c.give()
        status, _ = await c.ask(token, "crm.query", path="x" * limits.CALL_BODY_SIZE_BYTES_MAX)
        assert status == 413
        for more in ({"run": "r-1"}, {"within": "x"}, {"scope": "x"}):
            assert (await c.ask(token, "crm.query", **more))[0] == 422
        assert (await c.ask(token, "x", kind="egress"))[0] == 422


async def test_who_shows_a_token_and_then_says_nothing_holds_up_no_token_of_another_run(
    tmp_path: Path,
) -> None:
    async with caller(tmp_path / "home") as c:
        slow = await c.give("crm.query")
        await begin(c.w, "another", Budget())
        c.w.tool(Doing("crm.query"))
        text = await c.give("crm.query")
        head = f"POST /v1/call HTTP/1.1\r\nHost: ring0\r\nAuthorization: Bearer {slow}\r\n"
        streams = []
        for _ in range(limits.TOKEN_REQUESTS_PER_RUN_MAX + 8):
            reader, writer = await asyncio.open_unix_connection(str(c.w.home / SOCKET))
            writer.write(f"{head}Content-Length: 50\r\n\r\n{{".encode())
            streams.append((reader, writer))
        async with asyncio.timeout(5):
            assert b" 429 " in await streams[-1][0].readline()
            assert (await c.ask(text, "crm.query"))[0] == 200
        for _, writer in streams:
            writer.close()


async def test_what_is_told_of_the_run_is_what_the_token_names(tmp_path: Path) -> None:
    async with caller(tmp_path / "home", task="a private matter") as c:
        token = await c.give("crm.query")
        connector = aiohttp.UnixConnector(str(c.w.home / SOCKET))
        said = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(connector=connector, headers=said) as session,
            session.get("http://ring0/v1/run") as response,
        ):
            told = await response.json()
        assert [tool["name"] for tool in told["tools"]] == ["crm.query"]
        assert told["models"] == [] and "private" not in json.dumps(told)
        assert os.path.exists(c.w.home / SOCKET) and (await c.w.row()).state is RunState.RUNNING


async def test_what_a_crash_leaves_open_of_calls_with_tokens_is_closed_at_boot(
    tmp_path: Path,
) -> None:
    """Their token is dead, and the run's own process never asks for them again."""
    async with caller(tmp_path / "home") as c:
        c.w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        slow = c.w.tool(Doing("slow"))
        slow.hold()
        token, run = await c.give("act", "slow"), c.w.run.id
        asking = [asyncio.create_task(c.ask(token, name)) for name in ("act", "slow")]
        await c.w.pending()
        await slow.begun.wait()
    await asyncio.gather(*asking, return_exceptions=True)
    async with world(tmp_path / "home", start=False) as w:
        (approval,) = await w.store.approvals(run=run)
        assert approval.state is ApprovalState.REVOKED
        (call,) = await w.store.calls(run)
        assert call.name == "slow" and call.state is CallState.ERROR
