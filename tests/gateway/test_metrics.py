"""Who is told the numbers: whoever shows the token at an address of this machine, and who may look
on the operators' socket. Nobody else, and no web page.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from gateway_world import control
from kernel_world import World, world

from ring0.errors import InvalidInput
from ring0.gateway.control import SOCKET
from ring0.gateway.metrics import MetricsDoor
from ring0.kernel.telemetry.measuring import Measures
from ring0.types import Operator

TOKEN = "0123456789abcdef"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def door(folder: Path) -> AsyncIterator[tuple[World, str]]:
    home = folder / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(
        f'[metrics]\nlisten = "127.0.0.1:{free_port()}"\ntoken = "SCRAPE"\n'
    )
    async with world(home, environment={"SCRAPE": TOKEN}) as w:
        measures = Measures(w.kernel)
        await measures.begin()
        made = MetricsDoor(w.kernel, measures)
        made.bind()
        await made.open()
        try:
            yield w, made.address
        finally:
            await made.close()


async def get(address: str, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}{path}", headers=headers) as found,
    ):
        return found.status, await found.text()


async def test_who_shows_the_token_is_told_the_numbers(tmp_path: Path) -> None:
    async with door(tmp_path) as (_, address):
        status, body = await get(address, Authorization=f"Bearer {TOKEN}")
        assert status == 200 and "ring0_info{version=" in body
        assert TOKEN not in body


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
     "Bearer \udcff"],
)  # fmt: skip
async def test_who_shows_another_is_told_nothing(tmp_path: Path, header: str) -> None:
    async with door(tmp_path) as (_, address):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as line:
            raw = f"GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
            raw += f"Authorization: {header}\r\n\r\n" if header else "\r\n"
            line.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(line, raw.encode("utf-8", "surrogateescape"))
            answer = b""
            while piece := await loop.sock_recv(line, 65_536):
                answer += piece
        assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))
        assert b"ring0_" not in answer


async def test_no_web_page_is_told_them_by_whatever_name(tmp_path: Path) -> None:
    async with door(tmp_path) as (_, address):
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert (await get(address, Host="evil.example", **right))[0] == 421
        assert (await get(address, Origin="http://evil.example", **right))[0] == 403
        assert (await get(address, **{**right, "Sec-Fetch-Site": "same-origin"}))[0] == 403
        assert (await get(address, "/other", **right))[0] == 404


async def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    async with door(tmp_path) as (w, address):
        again = MetricsDoor(w.kernel, Measures(w.kernel))
        with pytest.raises(InvalidInput, match="can't be listened at"):
            again.bind()
        assert address


async def on_the_socket(home: Path) -> tuple[int, str]:
    connector = aiohttp.UnixConnector(str(home / SOCKET))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://kernel/metrics") as found,
    ):
        return found.status, await found.text()


async def test_an_operator_who_may_look_is_told_them_on_the_socket(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        status, body = await on_the_socket(w.home)
        assert status == 200 and "ring0_info{version=" in body


async def test_who_may_not_look_is_told_nothing_on_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control(tmp_path) as w:

        async def nobody(uid: int, presented: str) -> Operator:
            return Operator(name="ada (uid 1)", roles=frozenset())

        monkeypatch.setattr(w.kernel.logins, "operator", nobody)
        status, body = await on_the_socket(w.home)
        assert status == 403 and "role_missing" in body and "ring0_info" not in body
