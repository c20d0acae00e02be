"""The operator's socket: only its owner opens it, who asks is the peer's uid, and a request that
does not fit changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway_world import control, post
from kernel_world import Doing

from ring0.errors import CallDenied, KernelBusy, Ring0Error
from ring0.gateway.control import SOCKET, Control, Direct, Remote, operations
from ring0.identity import operator_name
from ring0.kernel.boot import open_kernel
from ring0.runtime import Runtime
from ring0.types import ApprovalState, CallState, Effect, RunState

ME = operator_name(os.getuid())


async def test_only_its_owner_opens_the_socket(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        found = (w.home / SOCKET).lstat()
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_uid == os.getuid()
    assert not (w.home / SOCKET).exists()


async def test_a_socket_left_by_a_kernel_that_was_killed_is_replaced(tmp_path: Path) -> None:
    import socket

    home = tmp_path / "home"
    home.mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(home / SOCKET))
    left.close()
    async with control(tmp_path) as w:
        assert (await post(w, "kill", {"scope": "run", "target": w.run.id}))[0] == 200


async def test_who_answers_is_the_uid_of_the_peer_and_never_a_name_in_the_request(
    tmp_path: Path,
) -> None:
    async with control(tmp_path) as w:
        call = w.start("act", {})
        approval = await w.pending()
        for name in ("by", "as", "answered_by", "uid", "principal"):
            body = {"approval": approval.id, "yes": True, name: "somebody else"}
            _, answer = await post(w, "answer", body)
            assert answer["error"]["code"] == "call_invalid", name
        assert not call.done()
        answered = await Remote(w.home).answer(approval.id, yes=True, note="by hand")
        assert answered.answered_by == ME
        assert (await call).state is CallState.OK
        assert (await w.store.approval(approval.id)).answered_by == ME


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", {}, {"approval": "A"}, {"yes": True},
     {"approval": "A", "yes": "true"}, {"approval": "A", "yes": 1}, {"approval": "A", "yes": None},
     {"approval": 7, "yes": True}, {"approval": "A", "yes": True, "note": 3},
     b'{"approval":"A","yes":false,"yes":true}', {"approval": "A", "yes": True, "quorum": 0}],
)  # fmt: skip
async def test_an_answer_that_does_not_fit_is_no_answer_neither_yes_nor_no(
    tmp_path: Path, body: Any
) -> None:
    async with control(tmp_path) as w:
        call = w.start("act", {})
        approval = await w.pending()
        if isinstance(body, bytes):
            body = body.replace(b'"A"', json.dumps(approval.id).encode())
        elif isinstance(body, dict) and body.get("approval") == "A":
            body = {**body, "approval": approval.id}
        _, answer = await post(w, "answer", body)
        assert answer["error"]["code"] == "call_invalid" and answer["error"]["todo"]
        assert (await w.store.approval(approval.id)).state is ApprovalState.PENDING
        await w.kernel.kill("run", w.run.id, by="alice")
        await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("happened", ["yes", "false", 1, 0, None, []])
async def test_an_unknown_effect_is_settled_by_a_plain_yes_or_no_only(
    tmp_path: Path, happened: Any
) -> None:
    from ring0.errors import EffectUnknown

    def lost(*_: object) -> None:
        raise EffectUnknown("cut off")

    async with control(tmp_path) as w:
        w.tool(Doing("pay", effect=Effect.ONCE, act=lost))
        call = w.start("pay", {}, counter=1)
        await w.until(RunState.WAITING, "unknown")
        name = f"{w.run.id}/0/1"
        for body in ({"call": name, "happened": happened}, {"call": name}):
            _, answer = await post(w, "settle", body)
            assert answer["error"]["code"] == "call_invalid"
        assert not call.done()
        settled = await Remote(w.home).settle(name, happened=True, note="I saw it")
        assert settled.state is CallState.OK
        assert (await call).value == {"settled": "it happened", "by": ME, "note": "I saw it"}


@pytest.mark.parametrize(
    ("verb", "method"),
    [("approve", "POST"), ("", "POST"), ("answer", "GET"), ("kill", "GET"), ("undo", "PUT"),
     ("call", "POST"), ("../v1/answer/x", "POST")],
)  # fmt: skip
async def test_a_verb_that_is_not_there_changes_nothing(
    tmp_path: Path, verb: str, method: str
) -> None:
    async with control(tmp_path) as w:
        before = (await w.row()).events
        status, _ = await post(w, verb, {"approval": "a", "yes": True}, method)
        assert status in (404, 405)
        assert (await w.row()).events == before


@pytest.mark.parametrize(
    "body",
    [{}, {"scope": "run"}, {"target": "x"}, {"scope": "everything", "target": ""},
     {"scope": "Run", "target": "r"}, {"scope": "run", "target": "r-none"},
     {"scope": None, "target": None}, {"scope": "all", "target": "", "really": True}],
)  # fmt: skip
async def test_a_kill_that_does_not_fit_kills_nothing_and_says_so(
    tmp_path: Path, body: dict
) -> None:
    async with control(tmp_path) as w:
        _, answer = await post(w, "kill", body)
        assert answer["error"]["code"] in ("call_invalid", "invalid_input", "not_found")
        assert (await w.row()).state is RunState.RUNNING


async def test_an_error_of_the_kernel_arrives_as_the_same_error(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        for asked in (
            Remote(w.home).kill("run", "r-none"), Remote(w.home).undo("r-none"),
            Remote(w.home).answer("a-none", yes=True), Remote(w.home).settle("c", happened=True),
        ):  # fmt: skip
            with pytest.raises(Ring0Error) as caught:
                await asked
            assert caught.value.code == "not_found" and caught.value.todo


async def test_of_two_processes_that_answer_at_the_same_time_one_counts(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from ring0.errors import Ring0Error
from ring0.gateway.control import Remote

async def main():
    try:
        await Remote(Path(sys.argv[1])).answer(sys.argv[2], yes=sys.argv[3] == "yes")
        print("counted", end="")
    except Ring0Error as error:
        print(error.code, end="")

sys.stdin.readline()
asyncio.run(main())
"""
    async with control(tmp_path) as w:
        call = w.start("act", {})
        approval = await w.pending()
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, str(w.home), approval.id, answer,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
            for answer in ("yes", "no")
        ]  # fmt: skip
        await asyncio.sleep(0.5)  # Both have imported what they need.
        said = [
            out.decode()
            for out, _ in await asyncio.gather(*(p.communicate(b"\n") for p in processes))
        ]
        assert sorted(said) == ["counted", "denied"]
        wanted = CallState.OK if said[0] == "counted" else CallState.REFUSED
        assert (await call).state is wanted


async def test_a_second_kernel_on_the_folder_is_refused_and_its_operator_uses_the_first(
    tmp_path: Path,
) -> None:
    async with control(tmp_path) as w:
        async with operations(w.home, Runtime(), {}) as remote:
            assert isinstance(remote, Remote)
            assert await remote.kill("run", w.run.id) == [w.run.id]
        assert (await w.row()).state is RunState.CANCELLED
    async with operations(w.home, Runtime(), {}) as direct:
        assert isinstance(direct, Direct)
        with pytest.raises(Ring0Error):
            await direct.kill("run", w.run.id)


async def test_a_socket_that_nobody_serves_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KernelBusy):
        await Remote(tmp_path).kill("all", "")


async def test_an_answer_after_a_kill_is_refused(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        call = w.start("act", {})
        approval = await w.pending()
        await Remote(w.home).kill("run", w.run.id)
        with pytest.raises(Ring0Error) as caught:
            await Remote(w.home).answer(approval.id, yes=True)
        assert caught.value.code == CallDenied.code
        await asyncio.gather(call, return_exceptions=True)
        assert w.run.tools["act"].driver.done == 0  # type: ignore[attr-defined]


async def test_a_data_folder_may_lie_deeper_than_a_sockets_name_is_long(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    kernel = await open_kernel(home, Runtime(), {})
    control = Control(kernel)
    try:
        await control.open()
        assert await Remote(home).kill("all", "") == []
    finally:
        await control.close()
        await kernel.close()
    assert not (home / SOCKET).exists()
