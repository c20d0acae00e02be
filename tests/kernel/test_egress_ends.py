"""Where a tool's call ends while its sandbox still asks: nothing goes out behind it, and what went
out is on record before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from egress_world import OK, Server
from kernel_world import World, world
from reaching_world import ASK
from rich.console import Console
from test_egress_gate import outside

from ring0.cli import tree
from ring0.errors import CallDenied, RunDead
from ring0.kernel.calls.egress import Outlet
from ring0.observability import verify
from ring0.tools.driver import CallContext
from ring0.tools.reach import AUTHORITY, with_way_out
from ring0.tools.sandbox import SandboxSpec
from ring0.types import ApprovalState, Call, CallKind, CallState, Effect, Operator, RunState

ASKS = """
@id("every-request") @reason("A person looks at each.")
forbid (principal, action == Action::"egress", resource) unless { context.approved };
"""

LEAVES = """
import threading, time
threading.Thread(target=ask, args=("/v1/late", "POST"), daemon=True).start()
time.sleep(SECONDS)
"""

TUNNEL = """
import os, socket, ssl, sys, time
from threading import Thread

def held():
    line = socket.create_connection(("127.0.0.1", 7421))
    line.sendall(b"CONNECT localhost:%d HTTP/1.1\\r\\n\\r\\n" % PORT)
    assert b" 200 " in line.recv(1000)
    trust = ssl.create_default_context(cadata=WORLD)
    tls = trust.wrap_socket(line, server_hostname="localhost")
    tls.sendall(b"POST / HTTP/1.1\\r\\nContent-Length: 1000000\\r\\n\\r\\n")
    while True:
        tls.sendall(b"x")
        time.sleep(0.02)

for line in sys.stdin:
    Thread(target=held, daemon=True).start()
"""


def ask_about_each(here: World) -> None:
    text = here.kernel.policies.text + ASKS
    here.kernel.gate.policies = type(here.kernel.policies).from_text(text)


async def test_a_request_that_nobody_had_approved_when_its_call_ended_never_goes_out(
    tmp_path: Path,
) -> None:
    async with outside(tmp_path, "POST HOST/v1/*") as (here, server):
        ask_about_each(here)
        code = f"PORT, SECONDS = {server.port}, 1\n{ASK}{LEAVES}"
        calling = here.start("py.run", {"code": code})
        approval = await here.pending(20)
        outcome = await calling
        assert outcome.value["exit_code"] == 0, outcome.value
        with pytest.raises(CallDenied):
            await here.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        approvals = await here.store.approvals(states=list(ApprovalState))
        _, request = await here.calls()
        row = await here.row()
    assert [each.state for each in approvals] == [ApprovalState.REVOKED]
    assert request.state is CallState.REFUSED
    assert (row.state, row.waiting_for) == ("running", ""), "nothing waits for that answer"
    assert server.heard == []


async def test_what_a_tools_call_sent_is_on_record_before_its_own_end(tmp_path: Path) -> None:
    async def slowly(request: bytes) -> bytes:
        await asyncio.sleep(2)
        return OK

    async with outside(tmp_path, "POST HOST/v1/*") as (here, server):
        server._says = slowly
        code = f"PORT, SECONDS = {server.port}, 1\n{ASK}{LEAVES}"
        outcome = await here.call("py.run", {"code": code})
        assert outcome.value["exit_code"] == 0, outcome.value
        program, request = await here.calls()
    assert len(server.heard) == 1
    assert (program.state, request.state) == (CallState.OK, CallState.OK)
    assert request.ended_us <= program.ended_us


async def test_a_request_whose_fate_a_person_tells_brings_an_error_and_no_broken_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with outside(tmp_path, "POST HOST/v1/*") as (here, server):
        server._says = lambda request: b""  # Cut off: nobody knows whether it was done.
        code = f"PORT = {server.port}\n{ASK}print(ask('/v1/a', 'POST')[0])"
        calling = here.start("py.run", {"code": code})
        await here.until(RunState.WAITING, "unknown")
        request = (await here.calls())[-1]
        await here.kernel.settle(request.id, happened=True, by="alice")
        outcome = await calling
    assert outcome.value["stdout"] == "502\n", outcome.value
    assert "never retrieved" not in caplog.text


async def test_an_approver_is_told_in_whose_name_a_request_goes_out(tmp_path: Path) -> None:
    async with outside(tmp_path, "HOST/v1/*", "HOST/open") as (here, server):
        ask_about_each(here)
        code = f"PORT = {server.port}\n{ASK}print(ask('/v1/a')[0], ask('/open')[0])"
        calling = here.start("py.run", {"code": code})
        told = []
        for _ in range(2):
            approval = await here.pending(20)
            told.append((await here.shown(approval))["dry_run"][1:])
            await here.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
        outcome = await calling
    assert told == [["with the credential api"], []]
    assert outcome.value["stdout"] == "200 200\n", outcome.value


async def test_a_way_out_whose_certificate_cannot_be_laid_out_is_closed_again(
    tmp_path: Path,
) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, _):
        reach, opened = here.kernel.runs.means.reach, []

        async def noting(sandbox: Any, rules: tuple[str, ...]) -> Outlet:
            sandbox.files.close()
            opened.append(await reach(sandbox, rules))
            return opened[0]

        here.run.tools["py.run"].driver._reach = noting
        outcome = await here.call("py.run", {"code": "print(1)"})
    assert outcome.state is not CallState.OK
    assert [outlet._proxy for outlet in opened] == [None]


async def never(request: bytes) -> bytes:
    await asyncio.sleep(60)
    return OK


async def heard(server: Server) -> None:
    async with asyncio.timeout(20):
        while not server.heard:
            await asyncio.sleep(0.01)


async def error_of(here: World, call: Call) -> dict[str, str]:
    return dict(msgspec.json.decode(await here.store.blob(call.outcome))["error"])


@contextlib.asynccontextmanager
async def after_a_crash(here: World, tmp_path: Path) -> AsyncIterator[World]:
    """The next kernel, on the disk as it is at this moment."""
    await here.forget()
    shutil.copytree(here.home, tmp_path / "later")
    async with world(tmp_path / "later", start=False) as later:
        later.run = here.run
        yield later


async def test_what_was_asked_about_a_request_is_revoked_after_a_crash(tmp_path: Path) -> None:
    async with outside(tmp_path, "POST HOST/v1/*") as (here, server):
        ask_about_each(here)
        code = f"PORT = {server.port}\n{ASK}"
        two = "import threading\nthreading.Thread(target=ask, args=('/v1/a', 'POST')).start()\n"
        calling = here.start("py.run", {"code": f"{code}{two}ask('/v1/b', 'POST')"})
        waiting, approved = await here.all_pending(2, 20)
        here.kernel.gate.admit = lambda *_: asyncio.sleep(60)  # type: ignore[method-assign]
        await here.kernel.answer(approved.id, yes=True, by=Operator(name="alice"))
        async with after_a_crash(here, tmp_path) as later:
            found = await later.store.approvals(states=list(ApprovalState))
            assert [each.state for each in found] == [ApprovalState.REVOKED] * 2
            with pytest.raises(CallDenied):
                await later.kernel.answer(waiting.id, yes=True, by=Operator(name="alice"))
            assert (await verify(later.store)).problems == ()
        calling.cancel()
    assert server.heard == []


async def test_what_was_asked_about_a_tools_own_call_still_waits_after_a_crash(
    tmp_path: Path,
) -> None:
    async with outside(tmp_path, "POST HOST/v1/*") as (here, _):
        text = here.kernel.policies.text + ASKS.replace('== Action::"egress"', 'in Action::"tool"')
        here.kernel.gate.policies = type(here.kernel.policies).from_text(text)
        calling = here.start("py.run", {"code": "print(1)"})
        approval = await here.pending(20)
        async with after_a_crash(here, tmp_path) as later:
            assert (await later.pending()).id == approval.id
        calling.cancel()


async def test_a_request_that_a_crash_cut_off_has_ended(tmp_path: Path) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        server._says = never
        calling = here.start("py.run", {"code": f"PORT = {server.port}\n{ASK}ask('/v1/a')"})
        await heard(server)
        async with after_a_crash(here, tmp_path) as later:
            program, request = await later.calls()
            assert (program.effect, program.state) == (Effect.ONCE, CallState.UNKNOWN)
            assert (request.effect, request.state) == (Effect.IDEMPOTENT, CallState.ERROR)
            assert "The kernel ended" in (await error_of(later, request))["why"]
        calling.cancel()


async def test_a_post_that_a_crash_cut_off_is_unknown(tmp_path: Path) -> None:
    async with outside(tmp_path, "POST HOST/v1/*") as (here, server):
        server._says = never
        code = f"PORT = {server.port}\n{ASK}ask('/v1/a', 'POST')"
        calling = here.start("py.run", {"code": code})
        await heard(server)
        async with after_a_crash(here, tmp_path) as later:
            assert [call.state for call in await later.calls()] == [CallState.UNKNOWN] * 2
        calling.cancel()


async def test_a_request_that_a_stop_cut_off_has_ended_when_its_run_goes_on_in_the_same_kernel(
    tmp_path: Path,
) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        server._says = never
        calling = here.start("py.run", {"code": f"PORT = {server.port}\n{ASK}ask('/v1/a')"})
        await heard(server)
        agent = here.run.agent
        await here.kernel.runs.stop()
        calling.cancel()
        assert await here.kernel.recover(agent) == [here.run.id]
        _, request = await here.calls()
    assert (request.effect, request.state) == (Effect.IDEMPOTENT, CallState.ERROR)


async def test_what_a_kill_cut_off_is_not_shown_as_going_on(tmp_path: Path) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        server._says = never
        calling = here.start("py.run", {"code": f"PORT = {server.port}\n{ASK}ask('/v1/a')"})
        await heard(server)
        await here.kernel.kill("run", here.run.id, by="alice")
        with pytest.raises(RunDead):
            await calling
        _, request = await here.calls()
        assert (request.effect, request.state) == (Effect.IDEMPOTENT, CallState.ERROR)
        assert "Its run ended" in (await error_of(here, request))["why"]
        drawn = io.StringIO()
        seen = await tree.gather(here.store, await here.row())
        Console(file=drawn, width=200).print(tree.draw(seen, here.kernel.runtime.now_us()))
    assert "goes on" not in drawn.getvalue() and "was cut off" in drawn.getvalue()


class Live:
    """A sandbox that lives on from call to call, as an MCP server's does."""

    def __init__(self, here: World, port: int, world: str) -> None:
        self.here = here
        self._code = f"PORT, WORLD = {port}, {world!r}\n{TUNNEL}"
        self._rule = f"https://localhost:{port} tunnel"
        self.outlet: Outlet = None  # type: ignore[assignment]
        self.sandbox: Any = None

    async def open(self) -> None:
        async def before_go(sandbox: Any) -> None:
            self.outlet = await self.here.kernel.runs.means.reach(sandbox, (self._rule,))
            sandbox.files.write(AUTHORITY, self.outlet.authority, 0o444)

        spec = with_way_out(SandboxSpec(code=self._code), ())
        start = self.here.kernel.sandboxes.start
        self.sandbox = await start(self.here.run.id, spec, "a server", before_go)

    def during(self, number: int) -> Any:
        run = self.here.run
        context = CallContext(
            call=f"{run.id}/0/{number}", name="py.run", begun_us=0, run=run.row,
            workspace=run.workspace, sandboxes=self.here.kernel.sandboxes,
        )  # fmt: skip
        return self.outlet.during(run.tools["py.run"].manifest, context)


async def test_an_opaque_tunnel_ends_with_the_call_that_it_was_opened_in(tmp_path: Path) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        world = (tmp_path / "world.pem").read_text()
        lines = asyncio.Semaphore(0)
        cut = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(100):
                    lines.release()
            except OSError:
                pass
            cut.set()
            writer.close()

        server._serve = serve
        server.close()
        await server.open()
        live = Live(here, server.port, world)
        await live.open()
        async with asyncio.timeout(20), live.during(1):
            live.sandbox.stdin.write(b"go\n")
            for _ in range(5):
                await lines.acquire()
        await asyncio.wait_for(cut.wait(), 2)
        assert live.outlet._proxy is not None and live.outlet._proxy.tunnels == set()
        await live.outlet.close()


async def test_a_call_that_is_carried_out_again_takes_no_earlier_request_for_its_own(
    tmp_path: Path,
) -> None:
    async with outside(tmp_path, "HOST/v1/*") as (here, server):
        code = f"PORT = {server.port}\n{ASK}print(ask('/v1/a')[0])"
        first = await here.call("py.run", {"code": code})
        assert first.value["stdout"] == "200\n", first.value
        program = here.run.tools["py.run"].driver
        call = (await here.calls())[0].id
        context = CallContext(
            call=call, name="py.run", begun_us=0, run=here.run.row, workspace=here.run.workspace,
            sandboxes=here.kernel.sandboxes,
        )  # fmt: skip
        again = {"code": code.replace("/v1/a", "/v1/b")}
        result = await program.execute(again, await program.prepare(again, context), context)
        ids = [each.id for each in await here.calls() if each.kind is CallKind.EGRESS]
    assert result.value["stdout"] == "200\n", result.value
    assert ids == [f"{call}/e1.1", f"{call}/e1.2"]
    assert here.run.diverged is None
