"""The native door, spoken to byte by byte: whatever a process sends, it is one run's call or one
clear error, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from gateway_world import NOW, Doors, doors
from kernel_world import Doing, begin

from ring0 import limits
from ring0.errors import RunFailed
from ring0.types import Budget, CallState, Effect, Operator


async def test_a_call_comes_back_with_its_value_and_its_label_on_either_listener(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as d:
        by_socket = await d.ask("/v1/call", NOW)
        line = await d.tcp()
        by_port = await line.ask("/v1/call", NOW)
        await line.close()
        assert by_socket.status == 200 and by_socket.json == by_port.json
        assert by_socket.json["label"]["integrity"] == "system"
        told = await d.ask("/v1/run", b"", method="GET")
        assert told.json["run"] == d.w.run.id and told.json["task"] == "the task"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"now"', b"\xff\xfe", b'{"kind":"now"}{}', b"NaN",
     b'{"kind":"now","kind":"random"}', b'{"kind":"now","args":{"a":1,"a":1}}',
     b'{"kind":"now","args":{"n":1e999}}', b'{"kind":"now","args":"\\ud800"}',
     b"[" * 10_000 + b"]" * 10_000],
)  # fmt: skip
async def test_what_is_no_plain_json_object_is_one_clear_error(tmp_path: Path, body: bytes) -> None:
    async with doors(tmp_path) as d:
        answer = await d.ask("/v1/call", body)
        assert answer.status == 422 and answer.code == "call_invalid"
        assert answer.json["error"]["todo"]
        assert (await d.ask("/v1/call", NOW)).status == 200
        assert len(await d.w.calls()) == 1


@pytest.mark.parametrize(
    "extra",
    [{"run": "r-another"}, {"handle": "x"}, {"epoch": 7}, {"approved": True}, {"principal": "root"},
     {"call_id": "r-another/0/1"}, {"counter": "1"}, {"counter": 1.0}, {"counter": True},
     {"counter": None}, {"path": 0}, {"path": None}, {"name": None}, {"name": ["now"]},
     {"kind": None}, {"kind": "Now"}, {"kind": "now "}, {"kind": "egress"}, {"kind": ""}],
)  # fmt: skip
async def test_a_field_that_is_unknown_or_of_the_wrong_type_is_refused(
    tmp_path: Path, extra: dict
) -> None:
    async with doors(tmp_path) as d:
        answer = await d.ask("/v1/call", {**NOW, **extra})
        assert answer.status == 422 and answer.code == "call_invalid"
        assert await d.w.calls() == []


async def test_a_body_that_is_too_large_is_413_and_says_so(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        large = b'"' + b"a" * limits.CALL_BODY_SIZE_BYTES_MAX + b'"'
        line = await d.line()
        head = f"POST /v1/call HTTP/1.1\r\nHost: r\r\nContent-Length: {len(large)}\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            await line.send(head.encode() + large)
        answer = await line.answer()
        await line.close()
        assert answer.status == 413 and answer.code == "call_invalid"
        assert str(limits.CALL_BODY_SIZE_BYTES_MAX) in answer.json["error"]["why"]
        squeezed = gzip.compress(b"[" + b" " * (8 * limits.CALL_BODY_SIZE_BYTES_MAX) + b"]")
        for path in ("/v1/call", "/v1/result"):
            bomb = await d.ask(path, squeezed, extra="Content-Encoding: gzip\r\n")
            assert bomb.status in (400, 413, 422)
        assert (await d.ask("/v1/call", NOW)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/call"), ("PUT", "/v1/call"), ("DELETE", "/v1/run"), ("POST", "/v1/run"),
     ("POST", "/"), ("POST", "/v1/answer"), ("POST", "/v1/kill"), ("POST", "/v1/settle"),
     ("POST", "/v1/undo"), ("POST", "/v1/call/../answer"), ("POST", "/v2/call"),
     ("OPTIONS", "/v1/call"), ("POST", "/v1/%63all/x"), ("HEAD", "/v1/call")],
)  # fmt: skip
async def test_there_is_nothing_behind_a_door_but_what_it_says(
    tmp_path: Path, method: str, path: str
) -> None:
    async with doors(tmp_path) as d:
        line = await d.line()
        await line.send(
            f"{method} {path} HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        if method == "HEAD":
            head = await line.reader.readuntil(b"\r\n\r\n")
            assert b" 404 " in head
        else:
            answer = await line.answer()
            assert answer.status in (400, 404)
            if answer.status == 404:
                assert answer.code == "not_found" and "/v1/call" in answer.json["error"]["todo"]
        await line.close()
        assert await d.w.calls() == []


async def test_no_header_makes_a_call_another_runs_or_an_approved_one(tmp_path: Path) -> None:
    headers = "".join(
        f"{name}: {value}\r\n"
        for name, value in {
            "Authorization": "Bearer r-another", "X-Run": "r-another", "X-Forwarded-For": "1.2.3.4",
            "X-HTTP-Method-Override": "GET", "Cookie": "run=r-another", "X-Approved": "true",
            "X-Ring0-Run": "r-another", "Forwarded": "for=kernel",
        }.items()
    )  # fmt: skip
    async with doors(tmp_path) as d:
        act = d.w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        body = {"kind": "tool", "name": "act", "args": {}, "path": "0", "counter": 1}
        asking = asyncio.create_task(d.ask("/v1/call", body, extra=headers))
        approval = await d.w.pending()
        assert approval.run == d.w.run.id and act.done == 0
        await d.w.kernel.answer(approval.id, yes=False, by=Operator(name="alice"))
        assert (await asking).code == "denied" and act.done == 0


async def test_two_lengths_or_a_length_beside_chunks_are_refused_and_smuggle_nothing(
    tmp_path: Path,
) -> None:
    inner = b"POST /v1/result HTTP/1.1\r\nHost: r\r\nContent-Length: 11\r\n\r\n"
    inner += b'{"value":1}'
    async with doors(tmp_path) as d:
        for head in (
            "Content-Length: 2\r\nContent-Length: 90\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content-Length: +2\r\n",
            "Content-Length: 0x2\r\n",
            "Content-Length: -1\r\n",
        ):
            line = await d.line()
            request = f"POST /v1/call HTTP/1.1\r\nHost: r\r\n{head}\r\n".encode() + b"{}"
            await line.send(request + inner)
            with contextlib.suppress(asyncio.IncompleteReadError):
                assert (await line.answer()).status == 400, head
            await line.close()
        assert not d.w.run.result.done() and await d.w.calls() == []


async def test_a_body_in_chunks_is_read_like_any_other(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        raw = json.dumps(NOW).encode()
        line = await d.line()
        await line.send(b"POST /v1/call HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in (raw[:1], raw[1:9], raw[9:]):
            await line.send(f"{len(byte):x}\r\n".encode() + byte + b"\r\n")
            await asyncio.sleep(0.005)
        await line.send(b"0\r\n\r\n")
        assert (await line.answer()).json == (await d.ask("/v1/call", NOW)).json
        await line.close()


async def test_requests_in_a_row_on_one_connection_are_answered_in_their_order(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as d:
        d.w.tool(Doing("echo", act=lambda args, _: args["x"]))
        line = await d.line()
        for n in range(20):
            body = {"kind": "tool", "name": "echo", "args": {"x": n}, "path": "0", "counter": n}
            raw = json.dumps(body).encode()
            line.writer.write(
                f"POST /v1/call HTTP/1.1\r\nHost: r\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
                + raw
            )
        await line.writer.drain()
        assert [(await line.answer()).json["value"] for _ in range(20)] == list(range(20))
        await line.close()


async def test_a_call_goes_on_when_its_client_goes_away_and_a_retry_gets_its_outcome(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as d:
        act = d.w.tool(Doing("act", effect=Effect.ONCE))
        go = act.hold()
        raw = json.dumps(
            {"kind": "tool", "name": "act", "args": {}, "path": "0", "counter": 1}
        ).encode()
        head = f"POST /v1/call HTTP/1.1\r\nHost: r\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        line = await d.line()
        await line.send(head + raw)
        await act.begun.wait()
        line.writer.transport.abort()
        joins = asyncio.create_task(d.call("act"))
        await asyncio.sleep(0.05)
        go.set()
        assert (await joins).json["value"] == {"done": 1}
        assert (await d.call("act")).json["value"] == {"done": 1}
        assert act.done == 1


@pytest.mark.parametrize("cut", [1, 20, 60, -1])
async def test_half_a_request_does_nothing(tmp_path: Path, cut: int) -> None:
    async with doors(tmp_path) as d:
        raw = json.dumps(NOW).encode()
        whole = f"POST /v1/call HTTP/1.1\r\nHost: r\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        line = await d.line()
        await line.send((whole + raw)[:cut])
        line.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert await d.w.calls() == []
        assert (await d.ask("/v1/call", NOW)).status == 200


async def test_the_first_result_counts_and_a_second_changes_nothing(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        assert (await d.ask("/v1/result", {"value": {"n": 1}})).status == 200
        assert (await d.ask("/v1/result", {"value": {"n": 2}})).status == 200
        assert (await d.ask("/v1/result", {"error": {"what": "no"}})).status == 200
        assert d.w.run.result.result() == {"n": 1}


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"value":1,"error":{}}', b'{"result":1}', b'{"value":NaN}', b""]
)
async def test_a_result_is_a_value_or_an_error_and_nothing_else(
    tmp_path: Path, body: bytes
) -> None:
    async with doors(tmp_path) as d:
        assert (await d.ask("/v1/result", body)).code == "call_invalid"
        assert not d.w.run.result.done()


@pytest.mark.parametrize("error", [{"what": "w" * 10_000, "code": "run_dead"}, "text", None, [1]])
async def test_an_error_of_an_agent_is_a_failure_of_the_agent_whatever_it_says(
    tmp_path: Path, error: Any
) -> None:
    async with doors(tmp_path) as d:
        assert (await d.ask("/v1/result", {"error": error})).status == 200
        failure = d.w.run.result.result()
        assert type(failure) is RunFailed and 0 < len(failure.what) <= 4_000


async def test_after_the_end_of_the_run_its_door_takes_nothing(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        line = await d.line()
        assert (await line.ask("/v1/call", NOW)).status == 200
        d.w.end.set_result("done")
        await d.w.kernel.runs.wait(d.w.run.id)
        for path, body in (
            ("/v1/call", {**NOW, "counter": 2}), ("/v1/call", NOW), ("/v1/result", {"value": 9}),
        ):  # fmt: skip
            answer = await line.ask(path, body)
            assert answer.status == 410 and answer.code == "run_dead", path
        told = await line.ask("/v1/run", b"", method="GET")
        assert told.status == 410
        await line.close()
        assert not d.w.run.result.done()
        assert len(await d.w.calls()) == 1
        assert d.door is not None
        await d.door.close()
        with pytest.raises(OSError):
            await d.line()
        with pytest.raises(OSError):
            await d.tcp()


async def test_a_door_belongs_to_the_process_of_its_sandbox_by_its_uid(tmp_path: Path) -> None:
    async with doors(tmp_path, uid=os.getuid() + 1) as d:
        for path in ("/v1/call", "/v1/result"):
            assert (await d.ask(path, NOW)).status == 410
        assert await d.w.calls() == [] and not d.w.run.result.done()


async def test_two_doors_lead_to_two_runs_with_the_same_bytes(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        first = d.w.run
        d.w.end = asyncio.get_running_loop().create_future()
        await begin(d.w, "the other task", Budget())
        other = Doors(d.w, tmp_path / "other.sock")
        await other.open()
        one, two = (
            await d.ask("/v1/run", b"", method="GET"),
            await other.ask("/v1/run", b"", method="GET"),
        )
        assert (one.json["run"], two.json["run"]) == (first.id, d.w.run.id)
        await d.ask("/v1/call", NOW)
        await other.ask("/v1/call", NOW)
        await d.w.store.flush()
        assert [len(await d.w.store.calls(run)) for run in (first.id, d.w.run.id)] == [1, 1]
        await other.door.close()  # type: ignore[union-attr]


async def test_a_fault_of_ours_is_an_answer_without_our_insides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with doors(tmp_path) as d:

        async def broken(*_: object) -> None:
            raise RuntimeError("secret insides")

        monkeypatch.setattr(d.w.kernel.gate, "call", broken)
        answer = await d.ask("/v1/call", NOW)
        assert answer.status == 500 and answer.json["error"]["whose"] == "ours"
        assert b"insides" not in answer.body


async def test_a_refusal_has_a_status_that_says_what_kind_of_no_it_is(tmp_path: Path) -> None:
    async with doors(tmp_path, budget=Budget(calls=1)) as d:
        d.w.tool(Doing("act"))
        statuses = [
            (await d.call("nothing", counter=1)).status,
            (await d.call("act", {"n": "unknown field"}, counter=2)).status,
            (await d.call("act", counter=3)).status,
            (await d.call("act", {"x": 1}, counter=4)).status,
            (await d.call("act", {"x": 2}, counter=3)).status,
        ]
        assert statuses == [403, 422, 200, 429, 409]
        states = [call.state for call in await d.w.calls()]
        assert states == [CallState.REFUSED, CallState.REFUSED, CallState.OK, CallState.REFUSED]
        assert (await d.w.row()).calls_used == 1


LARGE = {"x": ["y" * 1_000_000] * 3}


async def under_way(d: Doors, count: int) -> None:
    """Once so many calls are, and no more come in a while."""
    async with asyncio.timeout(10):
        while len(d.w.run._in_flight) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert len(d.w.run._in_flight) == count


async def test_large_bodies_wait_unread_until_there_is_room_and_small_ones_do_not(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as d:
        slow = d.w.tool(Doing("slow"))
        d.w.tool(Doing("quick"))
        held = slow.hold()
        large = [asyncio.create_task(d.call("slow", LARGE, counter=n)) for n in range(1, 7)]
        await under_way(d, limits.CALLS_SIZE_PER_RUN_BYTES_MAX // 3_000_000)
        for number in range(20):
            assert (await d.call("quick", {"x": number}, counter=100 + number)).status == 200
        held.set()
        assert [answer.status for answer in await asyncio.gather(*large)] == [200] * 6
        assert d.w.run.weight.bytes == 0


async def test_who_goes_away_makes_no_room_as_long_as_its_call_goes_on(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        slow = d.w.tool(Doing("slow"))
        held = slow.hold()
        for number in range(1, 7):
            body = {"kind": "tool", "name": "slow", "args": LARGE, "path": "0", "counter": number}
            raw = json.dumps(body).encode()
            line = await d.line()
            head = f"POST /v1/call HTTP/1.1\r\nHost: r\r\nContent-Length: {len(raw)}\r\n\r\n"
            line.writer.write(head.encode() + raw)
            await asyncio.sleep(0.3)
            line.writer.transport.abort()
        await under_way(d, limits.CALLS_SIZE_PER_RUN_BYTES_MAX // 3_000_000)
        held.set()
        await d.w.run.stop_calls()
        assert (await d.call("slow", LARGE, counter=10)).status == 200
