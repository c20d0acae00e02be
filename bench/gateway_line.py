"""The client of `ring0 bench gateway`: one connection that is kept, and its times as rows."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bench.rows import Row, percentile, row

Headers = Mapping[str, str]
_NONE: Headers = {}


class Line:
    """One connection that is kept, as thin as a client can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Line:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    def close(self) -> None:
        self._writer.close()

    async def timed(self, path: str, body: dict[str, Any], headers: Headers = _NONE) -> float:
        began = time.perf_counter()
        status, _, answer = await self.post(path, body, headers)
        took = time.perf_counter() - began
        if status != 200:
            raise RuntimeError(f"{path} answered {status}: {answer[:400]!r}")
        return took

    async def post(
        self, path: str, body: dict[str, Any], headers: Headers = _NONE
    ) -> tuple[int, dict[str, str], bytes]:
        status, told = await self._ask(path, body, headers)
        return status, told, b"".join([chunk async for chunk in self._body(told)])

    async def first_event(self, path: str, body: dict[str, Any]) -> float:
        began = time.perf_counter()
        _, headers = await self._ask(path, body)
        seen, took = b"", 0.0
        async for chunk in self._body(headers):
            seen += chunk
            if not took and b'"content":"x' in seen:
                took = time.perf_counter() - began
        if not took:
            raise RuntimeError(f"no text in the stream: {seen[:400]!r}")
        return took

    async def _ask(
        self, path: str, body: dict[str, Any], headers: Headers = _NONE
    ) -> tuple[int, dict[str, str]]:
        raw = json.dumps(body).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer sk-bench\r\n"
            f"Content-Type: application/json\r\n{more}Content-Length: {len(raw)}\r\n\r\n"
        )
        self._writer.write(head.encode() + raw)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split()[1]), {key.lower(): value.strip() for key, _, value in pairs}

    async def _body(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        if "content-length" in headers:
            yield await self._reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)


def added(name: str, times: dict[str, list[float]]) -> list[Row]:
    direct = times["direct"]
    rows = [row(f"{name}.direct.p50", percentile(direct, 0.50) * 1e3, "ms", len(direct))]
    for whose in ("ring0", "litellm"):
        if found := times.get(whose):
            for p, share in ((50, 0.50), (99, 0.99)):
                added = percentile(found, share) - percentile(direct, share)
                rows.append(row(f"{name}.{whose}.added.p{p}", added * 1e3, "ms", len(found)))
    return rows
