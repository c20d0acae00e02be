"""Messages between a server and the MCP library: one line each, over a sandbox's pipes.

What a server sends is judged here, before the library sees it: bounded, counted, and answers only
to what was asked. Notifications end here; what breaks the rules breaks the wire, and with it the
call that is in flight, and nothing else. (`mcp` is slow to import: so is this module.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

import anyio
import msgspec
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, jsonrpc_message_adapter
from pydantic import ValidationError

from ring0 import limits
from ring0.errors import LoginWanted
from ring0.tools.mcp import through
from ring0.tools.mcp.wording import clean

_READ_SIZE_BYTES: Final = 64 * limits.KIB
_CHANGED: Final = "notifications/tools/list_changed"
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_EXCERPT_CHARS: Final = 120
_FREE: Final = frozenset({"structuredContent", "inputSchema", "outputSchema", "_meta"})
"""What the library takes as it is; all else it compares with each thing that it might be, and
keeps a record of each that it is not: a message of 2 MiB would cost it gigabytes."""

for _name in ("mcp", "client", "server"):
    # The library logs what servers send; without a handler that ends on a terminal, raw.
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


class Broken(Exception):
    """The other side broke the rules; the message says how."""


class Judge:
    """What may pass from a server to the library. One a connection."""

    def __init__(self) -> None:
        self.list_changed = False
        self.meta: dict[str, Any] | None = None
        """For whom it is asked (`through.Round.meta`); None: for the kernel."""
        self.traceparent = ""
        """The span of the call that is carried out; empty: it is nobody's call."""
        self.notes: list[dict[str, Any]] | None = None
        """What it says on the way; None: nobody wants to hear it."""
        self.updated: Callable[[str], None] | None = None
        """Told the address of a resource that has changed."""
        self.acknowledged = asyncio.Event()
        """It has agreed to tell of changes."""
        self.wanted: LoginWanted | None = None
        """Its server wants another token than it was shown."""
        self.broken = ""
        """Why nothing more is taken from this server; empty: it is taken."""
        self._asked: dict[str | int, str] = {}
        """Requests without an answer, by id; those that were given up stay, so that a late answer
        is no fault."""
        self._notices = 0
        self._stray = 0
        self._size_bytes = 0

    def begin(self, traceparent: str = "") -> None:
        """A new call: the counts begin again."""
        self.traceparent = traceparent
        self.wanted = None
        self._notices = self._stray = self._size_bytes = 0

    def heard(self, size_bytes: int) -> None:
        """Counts what came. Raises Broken."""
        self._size_bytes += size_bytes
        if self._size_bytes > limits.MCP_CALL_SIZE_BYTES_MAX:
            raise self.fault(f"it sends more than {limits.MCP_CALL_SIZE_BYTES_MAX} bytes")

    def sent(self, message: dict[str, Any]) -> None:
        """Notes what is asked for, and for whom."""
        if self.meta is not None and "method" in message:
            through.speak_for(message, self.meta)
        if self.traceparent and "method" in message:  # Unprefixed, as SEP-414 has it.
            params = message.setdefault("params", {})
            params.setdefault("_meta", {})["traceparent"] = self.traceparent
        if "method" in message and "id" in message:
            if len(self._asked) >= limits.MCP_NOTICES_PER_CALL_MAX:
                self._asked.pop(next(iter(self._asked)))
            self._asked[message["id"]] = message["method"]

    def line(self, line: bytes) -> JSONRPCMessage | None:
        """A line as a message; None for what ends here. Raises Broken."""
        if not line.strip():
            return None
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            value = None
        if isinstance(value, dict) and value.get("jsonrpc") == "2.0":
            return self.message(value)
        if value is None and b'"jsonrpc"' in line:  # It may be what somebody waits for.
            raise self.fault("it sends a message of the wrong form")
        self._stray += 1
        if self._stray > limits.MCP_STRAY_LINES_MAX:
            raise self.fault(f"it prints what is no message: {_excerpt(line)}")
        return None

    def message(self, value: dict[str, Any]) -> JSONRPCMessage | None:
        """A message for the library; None for what ends here. Raises Broken."""
        method, number = value.get("method"), value.get("id")
        if isinstance(method, str):
            self._notices += 1
            if self._notices > limits.MCP_NOTICES_PER_CALL_MAX:
                raise self.fault("it sends more than is taken during one call")
            self.list_changed = self.list_changed or method == _CHANGED
            if number is None:
                if method == _ACKNOWLEDGED:
                    self.acknowledged.set()
                if self.updated is not None and (uri := through.updated_of(value)):
                    self.updated(uri)
                if self.notes is not None and (note := through.note_of(value)) is not None:
                    self.notes.append(note)
                return None
        elif type(number) not in (str, int) or number not in self._asked:  # True is 1, too
            raise self.fault(f"it answers what nobody asked: id {clean(repr(number), 40)}")
        else:
            self._asked.pop(number)
        if _is_too_much(value):
            raise self.fault(f"its message has more than {limits.MCP_VALUES_MAX} values")
        try:
            return jsonrpc_message_adapter.validate_python(value, by_name=False)
        except (ValidationError, RecursionError):
            raise self.fault("it sends a message of the wrong form") from None

    def fault(self, why: str) -> Broken:
        self.broken = self.broken or why
        return Broken(why)


class Wire(Protocol):
    """A connection to a server, as `mcp.Client` takes it, and what is known of it."""

    judge: Judge
    ended: asyncio.Event

    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip

    def errors(self) -> str:
        """What the server last said to nobody in particular; may be hostile."""
        ...


class Incoming:
    """The library's reading end. Its end is the end of the connection."""

    def __init__(self, next_message: Callable[[], Any], ended: asyncio.Event) -> None:
        self._next = next_message
        self._ended = ended

    async def receive(self) -> SessionMessage | Exception:
        try:
            message = await self._next()
        except (Broken, OSError, asyncio.IncompleteReadError):
            message = None
        if message is None:
            self._ended.set()
            raise anyio.EndOfStream
        return SessionMessage(message)

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self._ended.set()

    async def __aenter__(self) -> Incoming:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Outgoing:
    """The library's writing end."""

    def __init__(self, send: Callable[[SessionMessage], Any]) -> None:
        self._send = send

    async def send(self, item: SessionMessage, /) -> None:
        try:
            await self._send(item)
        except (OSError, RuntimeError):  # RuntimeError: the transport has been closed
            raise anyio.BrokenResourceError from None

    async def aclose(self) -> None:
        pass

    async def __aenter__(self) -> Outgoing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def plain_of(message: JSONRPCMessage) -> dict[str, Any]:
    """A message of the library as JSON has it."""
    found: dict[str, Any] = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
    return found


class Pipes:
    """A wire over the standard streams of a program in a sandbox. The caller ends the sandbox."""

    def __init__(
        self,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self.judge = Judge()
        self.ended = asyncio.Event()
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._read = bytearray()
        self._said = bytearray()
        self._said_size_bytes = 0
        self._listen = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> tuple[Incoming, Outgoing]:
        self._hearing = asyncio.ensure_future(self._hear())
        return Incoming(self._next, self.ended), Outgoing(self._send)

    async def __aexit__(self, *_: object) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
        self.ended.set()

    def errors(self) -> str:
        return clean(self._said.decode("utf-8", "replace").strip(), limits.MCP_ERROR_CHARS_MAX)

    async def _send(self, item: SessionMessage) -> None:
        value = plain_of(item.message)
        self.judge.sent(value)
        self._listen_again()
        self._stdin.write(msgspec.json.encode(value) + b"\n")
        await self._stdin.drain()

    async def _next(self) -> JSONRPCMessage | None:
        while (line := await self._line()) is not None:
            if (message := self.judge.line(line)) is not None:
                return message
        return None

    async def _line(self) -> bytes | None:
        looked_at = 0
        while (at := self._read.find(b"\n", looked_at)) < 0:
            looked_at = len(self._read)
            if looked_at > limits.MCP_LINE_SIZE_BYTES_MAX:
                raise self.judge.fault(
                    f"it sends a message of more than {limits.MCP_LINE_SIZE_BYTES_MAX} bytes"
                )
            chunk = await self._stdout.read(_READ_SIZE_BYTES)
            if not chunk:
                return None
            self.judge.heard(len(chunk))
            self._read += chunk
        line = bytes(self._read[:at])
        del self._read[: at + 1]
        return line

    async def _hear(self) -> None:
        """Standard error is read, so that it can't block; only its end is kept. Who floods it
        waits until the next call: reading on would cost the kernel as much as the server."""
        while chunk := await self._stderr.read(_READ_SIZE_BYTES):
            self._said += chunk
            del self._said[: max(0, len(self._said) - limits.MCP_ERRORS_KEPT_SIZE_BYTES)]
            self._said_size_bytes += len(chunk)
            if self._said_size_bytes > limits.MCP_ERRORS_SIZE_BYTES_MAX:
                self._listen.clear()
                await self._listen.wait()

    def _listen_again(self) -> None:
        self._said_size_bytes = 0
        self._listen.set()


def _is_too_much(message: dict[str, Any]) -> bool:
    """Has it more values than the library can look through in a moment?"""
    count = 0
    waiting: list[Any] = [message]
    while waiting:
        value = waiting.pop()
        inner = value
        if isinstance(value, dict):
            inner = [part for name, part in value.items() if name not in _FREE]
        count += len(value)
        if count > limits.MCP_VALUES_MAX:
            return True
        waiting += [part for part in inner if isinstance(part, dict | list)]
    return False


def _excerpt(line: bytes) -> str:
    return clean(line[: 4 * _EXCERPT_CHARS].decode("utf-8", "replace"), _EXCERPT_CHARS)
