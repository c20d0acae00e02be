"""What one sandbox may take of the kernel through its door: a bounded number of connections, of
bodies and of seconds, and no line of the operator's terminal; of the operator's socket, nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from gateway_world import NOW, Doors, Line, control, doors, post
from kernel_world import Doing

from ring0 import limits
from ring0.gateway.control import SOCKET, Remote
from ring0.sdk.door import HttpDoor
from ring0.types import CallKind, Request, RunState

HEAD = "POST /v1/call HTTP/1.1\r\nHost: r\r\nContent-Length: {}\r\n\r\n"


@contextlib.asynccontextmanager
async def lines(d: Doors, count: int) -> AsyncIterator[list[Line]]:
    opened = [await (d.tcp() if n % 2 else d.line()) for n in range(count)]
    try:
        yield opened
    finally:
        for line in opened:
            await line.close()


async def ended(line: Line) -> bool:
    """Whether the other side closed it (soon)."""
    try:
        async with asyncio.timeout(2):
            return await line.reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_connections_beyond_the_cap_are_closed_and_those_below_it_still_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_CONNECTIONS_MAX", 4)
    async with doors(tmp_path) as d, lines(d, 4) as first:
        # Across both listeners: the fifth would be accepted if each had a cap of its own.
        async with lines(d, 6) as beyond:
            assert all(await asyncio.gather(*map(ended, beyond)))
        for line in first:
            assert (await line.ask("/v1/call", NOW)).status == 200
        await first.pop().close()
        await asyncio.sleep(0.05)
        assert (await d.ask("/v1/call", NOW)).status == 200  # Its place is free again.


async def test_a_client_that_goes_away_from_a_held_call_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_CONNECTIONS_MAX", 4)
    async with doors(tmp_path) as d:
        act = d.w.tool(Doing("act"))
        go = act.hold()
        raw = b'{"kind":"tool","name":"act","args":{},"path":"0","counter":7}'
        for _ in range(12):
            line = await d.line()
            await line.send(HEAD.format(len(raw)).encode() + raw)
            await act.begun.wait()
            line.writer.transport.abort()
            await asyncio.sleep(0.02)
        assert len(d.door._listening._runner.server.connections) == 0  # type: ignore[union-attr]
        again = asyncio.create_task(d.call("act", counter=7))
        await asyncio.sleep(0.05)
        go.set()
        assert (await again).status == 200 and act.done == 1


async def test_as_many_calls_as_the_sdk_makes_at_once_all_go_through(tmp_path: Path) -> None:
    assert limits.DOOR_CONNECTIONS_MAX > limits.CALLS_IN_FLIGHT_PER_RUN_MAX
    async with doors(tmp_path) as d:
        act = d.w.tool(Doing("act", act=lambda args, _: args["x"]))
        go = act.hold()
        sdk = HttpDoor(str(d.path))
        many = range(limits.CALLS_IN_FLIGHT_PER_RUN_MAX)
        calls = [
            asyncio.create_task(
                sdk.call(
                    Request(kind=CallKind.TOOL, name="act", args={"x": n}, path="0", counter=n)
                )
            )
            for n in many
        ]
        async with asyncio.timeout(20):
            while len(d.w.run._in_flight) < len(many):
                await asyncio.sleep(0.01)
            go.set()
            assert [value for value, _ in await asyncio.gather(*calls)] == list(many)
        await sdk.close()


@pytest.mark.parametrize("head", ["Content-Length: 90\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_trickles_is_cut_off_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setattr(limits, "DOOR_BODY_S_MAX", 0.2)
    monkeypatch.setattr(limits, "DOOR_LINGER_S", 0.1)
    async with doors(tmp_path) as d:
        line = await d.line()
        await line.send(f"POST /v1/call HTTP/1.1\r\nHost: r\r\n{head}\r\n".encode())
        await line.send(b"1\r\n{\r\n" if "chunked" in head else b"{")
        answer = await line.answer()
        assert answer.status == 408 and answer.code == "call_invalid"
        assert await ended(line)
        await line.close()
        assert await d.w.calls() == []


async def test_a_call_is_held_for_longer_than_a_body_may_take_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_BODY_S_MAX", 0.1)
    monkeypatch.setattr(limits, "DOOR_IDLE_S_MAX", 0.1)
    async with doors(tmp_path) as d:
        go = d.w.tool(Doing("act")).hold()
        call = asyncio.create_task(d.call("act"))
        await asyncio.sleep(0.5)
        go.set()
        assert (await call).status == 200


@pytest.mark.parametrize("start", [b"", b"POST /v1/call HT", b"POST /v1/call HTTP/1.1\r\nA: b\r\n"])
async def test_headers_that_do_not_end_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(limits, "DOOR_IDLE_S_MAX", 0.2)
    async with doors(tmp_path) as d:
        line = await d.line()
        await line.send(start)
        assert await ended(line)
        await line.close()


async def test_of_many_half_sent_bodies_a_few_are_read_and_the_others_wait_in_their_sockets(
    tmp_path: Path,
) -> None:
    almost = b'"' + b"a" * (limits.CALL_BODY_SIZE_BYTES_MAX - 4_096)
    async with doors(tmp_path) as d:
        assert d.door is not None
        reading, most = 0, 0
        read = d.door._bodies._read

        async def counted(content: object) -> bytes:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            try:
                return await read(content)  # type: ignore[arg-type]
            finally:
                reading -= 1

        d.door._bodies._read = counted  # type: ignore[method-assign, assignment]
        before = _memory_bytes()
        async with lines(d, 64) as opened:
            for line in opened:  # In the client's memory (this process's) once, by reference.
                line.writer.write(HEAD.format(limits.CALL_BODY_SIZE_BYTES_MAX).encode())
            senders = [asyncio.create_task(_push(line, memoryview(almost))) for line in opened]
            await asyncio.sleep(2)
            fit = limits.CALLS_SIZE_PER_RUN_BYTES_MAX // limits.CALL_BODY_SIZE_BYTES_MAX
            assert most == reading == min(fit, limits.DOOR_BODIES_AT_ONCE_MAX)
            # 64 x 4 MiB were 256 MiB; 8 of them are 32, and as much again for growing buffers.
            assert _memory_bytes() - before < 150 * limits.MIB
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            for line in opened:
                line.writer.transport.abort()
        async with asyncio.timeout(5):  # Nobody is there any more: no slot waits for its deadline.
            while reading:
                await asyncio.sleep(0.02)
        assert (await d.ask("/v1/call", NOW)).status == 200


async def _push(line: Line, data: memoryview) -> None:
    """Sends piece by piece, so that what is unsent takes no memory here."""
    for start in range(0, len(data), 65_536):
        await line.send(bytes(data[start : start + 65_536]))


def _memory_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def test_broken_requests_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(7)
    raw = b'{"kind":"now","args":{},"path":"0","counter":1}'
    whole = HEAD.format(len(raw)).encode() + raw
    chunked = b"POST /v1/call HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n"
    broken = [
        b"\x00" * 64, b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"A" * 20_000,
        chunked + b"zz\r\n", chunked + b"5\r\nab", chunked + b"ffffffffffffffffff\r\n",
        b"GET /v1/run HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nxx",
        b"GET /v1/run HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"POST /v1/call HTTP/1.1\r\nHost: r\r\nExpect: everything\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/result HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
        b"GET http://[::1/v1 HTTP/1.1\r\n\r\n", b"GET /%ff%00 HTTP/1.1\r\nHost: \xff\r\n\r\n",
        *(whole[:cut] for cut in range(1, len(whole), 7)),
        *(bytes(b ^ chance.choice((0, 0, 0, 0, 255)) for b in whole) for _ in range(40)),
    ]  # fmt: skip
    (tmp_path / "other").mkdir()
    async with doors(tmp_path) as d, control(tmp_path / "other") as w:
        capfd.readouterr()
        for path in (str(d.path), str(w.home / SOCKET)):
            for data in broken:
                for way in ("abort", "close", "end"):
                    line = Line(*await asyncio.open_unix_connection(path))
                    with contextlib.suppress(ConnectionError):
                        await line.send(data)
                        await asyncio.sleep(0.001)
                        if way == "end":
                            line.writer.write_eof()
                    if way == "abort":
                        line.writer.transport.abort()
                    else:
                        await line.close()
        await asyncio.sleep(0.2)
        assert (await d.ask("/v1/call", NOW)).status == 200
        assert (await post(w, "kill", {"scope": "run", "target": w.run.id}))[0] == 200
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""  # pytest takes what a logger would print.


STRANGER = """
import socket, sys
body = b'{"scope":"all","target":""}'
head = b"POST /v1/kill HTTP/1.1\\r\\nHost: r\\r\\n"
head += b"Connection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
mine = []
for _ in range(int(sys.argv[2])):
    mine.append(socket.socket(socket.AF_UNIX))
    mine[-1].connect(sys.argv[1])
first = mine[0]
first.sendall(head % len(body) + body)
said = b""
while part := first.recv(65536):
    said += part
for _ in range(int(sys.argv[2])):
    mine.append(socket.socket(socket.AF_UNIX))
    mine[-1].connect(sys.argv[1])
print(said.decode(), "END", flush=True)
sys.stdin.readline()
"""


def _apart(*flags: str) -> list[str]:
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` here")
    command = ["unshare", *flags]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"`{' '.join(command)}` is not possible here")
    return command


@pytest.mark.parametrize("flags", [("-U",), ("-r",), ("-r", "--pid", "--fork")])
async def test_a_process_in_namespaces_of_its_own_kills_nothing_and_keeps_nobody_from_it(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    command = _apart(*flags)
    async with control(tmp_path) as w:
        path = w.home / SOCKET
        stranger = await asyncio.create_subprocess_exec(
            *command, sys.executable, "-c", STRANGER, str(path), "60",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert stranger.stdout is not None
        async with asyncio.timeout(10):
            said = await stranger.stdout.readuntil(b"END")
        assert b'"denied"' in said and b"namespaces" in said
        assert (await w.row()).state is RunState.RUNNING
        # It still has as many connections as it is given.
        assert await Remote(w.home).kill("all", "") == [w.run.id]
        await stranger.communicate(b"\n")


async def test_idle_connections_to_the_operators_socket_are_bounded_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONTROL_IDLE_S_MAX", 0.5)
    async with control(tmp_path) as w:
        many = limits.CONTROL_CONNECTIONS_MAX + 3
        opened = [
            Line(*await asyncio.open_unix_connection(str(w.home / SOCKET))) for _ in range(many)
        ]
        assert all(await asyncio.gather(*map(ended, opened)))
        for line in opened:
            await line.close()
        assert await Remote(w.home).kill("run", w.run.id) == [w.run.id]


def test_a_kernel_opens_as_many_files_as_it_may_up_to_a_bound() -> None:
    program = (
        "import resource; from ring0 import limits; from ring0.kernel import boot\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        "boot.raise_open_files()\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == ({wanted}, {hard})\n"
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    cases = [(1_000, 1_000)]
    if hard > limits.KERNEL_OPEN_FILES_MAX:
        cases.append((hard, limits.KERNEL_OPEN_FILES_MAX))
    for most, wanted in cases:
        code = program.format(hard=most, wanted=wanted)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# --- clients that do not read -------------------------------------------------------------------


async def asks_for_much(d: Doors) -> Line:
    """A connection on which more is written than its sockets hold."""
    d.w.tool(Doing("much", act=lambda *_: "x" * (limits.RESULT_SIZE_BYTES_MAX - 1_000)))
    raw = b'{"kind":"tool","name":"much","args":{},"path":"0","counter":7}'
    line = await d.line()
    await line.send(HEAD.format(len(raw)).encode() + raw)
    return line


async def test_who_does_not_read_what_is_written_loses_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_WRITE_S_MAX", 0.3)
    async with doors(tmp_path) as d:
        line = await asks_for_much(d)
        server = d.door._listening._runner.server  # type: ignore[union-attr]
        assert await until(lambda: any(one.writing_paused for one in server.connections))
        assert await until(lambda: not server.connections), "its answer is held for ever"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await line.answer()
        assert (await d.ask("/v1/call", NOW)).status == 200
        await line.close()


async def test_who_reads_late_but_reads_gets_its_answer_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOOR_WRITE_S_MAX", 0.5)
    async with doors(tmp_path) as d:
        line = await asks_for_much(d)
        server = d.door._listening._runner.server  # type: ignore[union-attr]
        assert await until(lambda: any(one.writing_paused for one in server.connections))
        found = await line.answer()
        assert found.status == 200 and len(found.body) > limits.RESULT_SIZE_BYTES_MAX - 1_000
        await asyncio.sleep(0.7)  # The time that it had is over, and nobody remembers it.
        assert (await line.ask("/v1/call", NOW)).status == 200
        await line.close()


async def until(holds: Callable[[], bool]) -> bool:
    """Whether it does soon."""
    for _ in range(500):
        if holds():
            return True
        await asyncio.sleep(0.01)
    return False
