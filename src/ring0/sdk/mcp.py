"""`ring0 mcp`: the run's MCP door for clients that start a program and speak to its standard
streams. Each line goes to `/mcp` over the run's socket, and what comes back is a line.

It decides nothing and knows no method but those by which the protocol itself is spoken.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp

from ring0 import limits
from ring0.sdk.door import SOCKET_PATH, SOCKET_VARIABLE

URL: Final = "http://localhost/mcp"
_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
_SESSION: Final = "Mcp-Session-Id"
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_STREAM: Final = "text/event-stream"
_INTERNAL_ERROR: Final = -32603
_LISTENING: Final = "listening"


class Shim:
    """One client's."""

    def __init__(self, out: Any, path: str = "") -> None:
        """`out`: binary, for lines."""
        self._out = out
        path = path or os.environ.get(SOCKET_VARIABLE) or SOCKET_PATH
        self._http = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=limits.CALL_BODY_SIZE_BYTES_MAX,
        )
        self._session = ""
        self._version = ""
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._unheard = asyncio.Event()
        """Nobody reads what it says any more."""

    async def serve(self, lines: asyncio.StreamReader) -> None:
        """Until the client closes either stream: that is how one ends. What was asked before has a
        moment to be answered; a call that waits for a person goes on in the kernel."""
        reading: asyncio.Future[Any] = asyncio.ensure_future(self._read(lines))
        unheard: asyncio.Future[Any] = asyncio.ensure_future(self._unheard.wait())
        first = asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait([reading, unheard], return_when=first)
            asked = [task for key, task in self._tasks.items() if key != _LISTENING]
            if asked and not unheard.done():
                answered: asyncio.Future[Any] = asyncio.gather(*asked, return_exceptions=True)
                over_s, ends = limits.MCP_SHIM_END_S, [answered, unheard]
                await asyncio.wait(ends, timeout=over_s, return_when=first)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            unheard.cancel()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._session:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(limits.MCP_SHIM_END_S):
                    await self._http.delete(URL, headers=self._headers({}))
        await self._http.close()

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await _line(lines):
            if line.strip():
                await self._take(line)

    # --- what the client says -----------------------------------------------------------------

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            await self._post(line, {})  # The door says what is wrong with it.
            return
        stateless = _is_stateless(message)
        if message.get("method") == "notifications/cancelled" and not self._session:
            # In the stateless era an answer that nobody waits for any more is the cancel.
            task = self._tasks.get(_key(_params(message).get("requestId")))
            if task is not None:
                task.cancel()
            return
        begins = message.get("method") == "initialize" and not stateless
        if "id" not in message or begins:
            await self._post(line, message)  # In order: what follows needs it.
            if message.get("method") == "notifications/initialized":
                self._start(_LISTENING, self._listen())
            return
        self._start(_key(message["id"]), self._post(line, message))

    def _start(self, key: Any, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[key] = task
        task.add_done_callback(
            lambda done: self._tasks.pop(key, None) if self._tasks.get(key) is done else None
        )

    async def _post(self, line: bytes, message: dict[str, Any]) -> None:
        try:
            async with self._http.post(URL, data=line, headers=self._headers(message)) as answer:
                if message.get("method") == "initialize" and not _is_stateless(message):
                    self._session = answer.headers.get(_SESSION, "")
                if answer.content_type == _STREAM:
                    async for data in _events(answer):
                        self._say(data)
                elif body := await answer.read():
                    if message.get("method") == "initialize":
                        self._version = _version_of(body)
                    self._say(body)
        except (aiohttp.ClientError, OSError) as error:
            if "id" in message and "method" in message:
                self._say(_failure(message["id"], error))

    async def _listen(self) -> None:
        """What goes to the client by itself."""
        headers = {**self._headers({}), "Accept": _STREAM}
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with self._http.get(URL, headers=headers) as answer:
                if answer.status == 200:
                    async for data in _events(answer):
                        self._say(data)

    def _headers(self, message: dict[str, Any]) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": f"application/json, {_STREAM}",
        }
        if not _is_stateless(message):
            session = {_SESSION: self._session, "Mcp-Protocol-Version": self._version}
            return {**headers, **{name: value for name, value in session.items() if value}}
        method, params = str(message.get("method", "")), _params(message)
        headers["Mcp-Protocol-Version"] = _coded(str(params["_meta"][_VERSION]))
        headers["Mcp-Method"] = _coded(method)
        if (field := _NAMED_BY.get(method)) and isinstance(params.get(field), str):
            headers["Mcp-Name"] = _coded(params[field])
        return headers

    def _say(self, message: bytes) -> None:
        try:
            self._out.write(message.replace(b"\n", b"") + b"\n")
            self._out.flush()
        except OSError:
            self._unheard.set()


async def _line(lines: asyncio.StreamReader) -> bytes:
    """The next line, whole; empty at the end."""
    try:
        return await lines.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError:
        return b""  # Nobody sends so much in earnest, and nothing after it can be trusted.


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The data of each event as it comes."""
    data: list[bytes] = []
    async for line in answer.content:
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"".join(data)
            data = []


def _params(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    return params if isinstance(params, dict) else {}


def _is_stateless(message: dict[str, Any]) -> bool:
    meta = _params(message).get("_meta")
    return isinstance(meta, dict) and _VERSION in meta


def _key(number: Any) -> tuple[str, str]:
    """7 and "7" are two."""
    return type(number).__name__, str(number)


def _coded(value: str) -> str:
    """As a header can hold it."""
    if value.isascii() and value.isprintable() and value == value.strip() and "=?" not in value:
        return value
    plain = value.encode("utf-8", "replace")  # Half a surrogate pair: the door refuses the body.
    return f"=?base64?{base64.b64encode(plain).decode()}?="


def _version_of(body: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["result"]["protocolVersion"])
    return ""


def _failure(number: Any, error: Exception) -> bytes:
    words = f"ring0's door does not answer: {type(error).__name__}."
    told = {"code": _INTERNAL_ERROR, "message": words}
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": told}).encode()


async def main() -> int:
    """On this process's own streams, until they are closed."""
    lines = asyncio.StreamReader(limit=limits.CALL_BODY_SIZE_BYTES_MAX)
    stream = sys.stdin.buffer
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):  # All of it is there.
        lines.feed_data(stream.read())
        lines.feed_eof()
    else:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), stream)
    shim = Shim(sys.stdout.buffer)
    try:
        await shim.serve(lines)
    finally:
        await shim.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
