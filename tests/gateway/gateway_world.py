"""A run with its door open, spoken to byte by byte, and a kernel with its operator's socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from kernel_world import Doing, World, world

from ring0.gateway.control import SOCKET, Control
from ring0.gateway.door import Door
from ring0.types import Effect

NOW = {"kind": "now", "args": {}, "path": "0", "counter": 1}


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        error = self.json["error"]
        assert error["what"] and "Traceback" not in self.body.decode()
        return str(error["code"])


class Line:
    """One connection, raw."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            length = int(headers.get("content-length", 0))
            return Answer(int(head[0].split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, path: str, body: Any, *, method: str = "POST", extra: str = "") -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: ring0\r\nContent-Length: {len(raw)}\r\n"
        await self.send((head + extra + "\r\n").encode() + raw)
        return await self.answer()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Doors:
    """A world with the door of its run open on a unix socket and on a port."""

    def __init__(self, w: World, path: Path) -> None:
        self.w = w
        self.path = path
        self.port = 0
        self.door: Door | None = None

    async def open(self, uid: int | None = None) -> None:
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(self.path))
        tcp = socket.socket(socket.AF_INET)
        tcp.bind(("127.0.0.1", 0))
        for one in (unix, tcp):
            one.listen()
            one.setblocking(False)
        self.port = tcp.getsockname()[1]
        self.door = Door(self.w.kernel.gate, self.w.run, uid)
        await self.door.open(tcp, unix)

    async def line(self) -> Line:
        return Line(*await asyncio.open_unix_connection(str(self.path)))

    async def tcp(self) -> Line:
        return Line(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, path: str, body: Any, **more: Any) -> Answer:
        line = await self.line()
        try:
            return await line.ask(path, body, **more)
        finally:
            await line.close()

    async def call(self, name: str, args: Any = None, counter: int = 1, **more: Any) -> Answer:
        body = {"kind": "tool", "name": name, "args": args or {}, "path": "0", "counter": counter}
        return await self.ask("/v1/call", {**body, **more})


@contextlib.asynccontextmanager
async def doors(folder: Path, uid: int | None = None, **fields: Any) -> AsyncIterator[Doors]:
    async with world(folder / "home", **fields) as w:
        d = Doors(w, folder / "door.sock")
        await d.open(uid)
        try:
            yield d
        finally:
            assert d.door is not None
            await d.door.close()


@contextlib.asynccontextmanager
async def control(folder: Path) -> AsyncIterator[World]:
    async with world(folder / "home") as w:
        w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        served = Control(w.kernel)
        await served.open()
        try:
            yield w
        finally:
            await served.close()


async def post(w: World, verb: str, body: Any, method: str = "POST") -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connector = aiohttp.UnixConnector(str(w.home / SOCKET))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://kernel/v1/{verb}", data=raw) as response,
    ):
        text = await response.text()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text
