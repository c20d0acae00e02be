"""The wire to a server elsewhere: Streamable HTTP, each message a request of its own.

What sends a request is given: the kernel's egress, which knows addresses, rules and credentials.
Nothing is left open between calls; a server speaks only in answer to a request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import INTERNAL_ERROR, METHOD_NOT_FOUND, JSONRPCMessage
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.mcp.wire import Broken, Incoming, Judge, Outgoing, plain_of
from ring0.tools.mcp.wording import clean
from ring0.types import Frozen

_SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"
_SESSION_FORM: Final = re.compile(r"[\x21-\x7e]{1,256}")
_STATUS_SAID: Final = {
    401: "it wants a credential: name one for its host in ring0.toml, [credentials]",
    403: "it refuses the credential, or there is none",
    404: "there is nothing at that address",
    429: "it is asked too often",
}


class HttpAnswer(Frozen, frozen=True, kw_only=True):
    """What a server answered to one request."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


Send = Callable[[str, str, dict[str, str], bytes], Awaitable[HttpAnswer]]
"""(method, url, headers, body). Follows no redirect, adds the operator's credentials, bounds the
answer. Raises Ring0Error."""


class Requests:
    """A wire to one address."""

    def __init__(self, url: str, send: Send, runtime: Runtime) -> None:
        self.judge = Judge()
        self.ended = asyncio.Event()
        self._url = url
        self._http = send
        self._runtime = runtime
        self._session = ""
        self._version = ""
        self._arrived: asyncio.Queue[JSONRPCMessage | None] = asyncio.Queue()
        self._posts: dict[str | int, asyncio.Task[None]] = {}
        self._last = ""

    async def __aenter__(self) -> tuple[Incoming, Outgoing]:
        return Incoming(self._arrived.get, self.ended), Outgoing(self._send)

    async def __aexit__(self, *_: object) -> None:
        self.ended.set()
        for post in list(self._posts.values()):
            post.cancel()
        if self._posts:
            await asyncio.wait(self._posts.values())
        if self._session:
            try:  # So that the server forgets it now and not some day.
                await self._runtime.wait_for(
                    self._http("DELETE", self._url, self._headers(None), b""),
                    limits.MCP_CANCEL_GRACE_S,
                )
            except (Ring0Error, TimeoutError):
                pass

    def errors(self) -> str:
        return self._last

    async def _send(self, item: SessionMessage) -> None:
        value = plain_of(item.message)
        metadata = item.metadata
        stamped = metadata.headers if isinstance(metadata, ClientMessageMetadata) else None
        method, number = value.get("method"), value.get("id")
        if method == "initialize":
            self._version = ""
        elif stamped and _VERSION in {name.lower() for name in stamped}:
            self._version = next(v for name, v in stamped.items() if name.lower() == _VERSION)
        modern = self._version in MODERN_PROTOCOL_VERSIONS
        if method == "notifications/cancelled" and modern:
            # In this era an answer that nobody waits for any more is the cancel.
            post = self._posts.get(value["params"].get("requestId"))
            if post is not None:
                post.cancel()
            return
        self.judge.sent(value)
        body = msgspec.json.encode(value)
        if method is not None and number is not None:
            self._posts[number] = self._runtime.start(
                self._post(number, str(method), body, stamped), name=f"mcp {number}"
            )
        else:
            await self._tell(body, stamped)

    async def _tell(self, body: bytes, stamped: dict[str, str] | None) -> None:
        """A notification, or an answer to a request of theirs: nothing comes back."""
        try:
            await self._http("POST", self._url, self._headers(stamped), body)
        except Ring0Error as error:
            self._last = error.what

    async def _post(
        self, number: str | int, method: str, body: bytes, stamped: dict[str, str] | None
    ) -> None:
        try:
            try:
                answer = await self._http("POST", self._url, self._headers(stamped), body)
                self.judge.heard(len(answer.body))
                if answer.status == 404 and self._session:
                    raise self.judge.fault("its session is over")
                if method == "initialize":
                    self._take_session(answer)
                if method == "tools/call" and answer.status >= 500:
                    raise self.judge.fault(f"it answers with the status {answer.status}")
                messages = self._messages(answer, number)
            except Ring0Error as error:
                said = f"{error.what} {error.why}".strip()
                if method == "tools/call" and not isinstance(error, InvalidInput | CallDenied):
                    # It may have reached the server: nobody knows what it did.
                    raise self.judge.fault(said) from None
                messages = [_refusal(number, INTERNAL_ERROR, said)]
            for message in messages:
                if (passed := self.judge.message(message)) is not None:
                    self._arrived.put_nowait(passed)
        except Broken as error:
            self._last = str(error)
            self._arrived.put_nowait(None)
        finally:
            self._posts.pop(number, None)

    def _messages(self, answer: HttpAnswer, number: str | int) -> list[dict[str, Any]]:
        """The messages of an answer, the one that answers among them. Raises Broken."""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not 200 <= answer.status < 300 or answer.status == 202:
            if kind == "application/json":
                value = _json(answer.body)
                if isinstance(value, dict) and isinstance(value.get("error"), dict):
                    return [{**value, "jsonrpc": "2.0", "id": number}]
            code = METHOD_NOT_FOUND if answer.status == 404 else INTERNAL_ERROR
            said = _STATUS_SAID.get(answer.status, "it does not do what it was asked")
            if 300 <= answer.status < 400:
                where = clean(answer.headers.get("location", ""), 200)
                said = f"it sends elsewhere, to {where}: a redirect is not followed"
            return [_refusal(number, code, f"status {answer.status}: {said}")]
        if kind == "text/event-stream":
            messages = [_json(data) for data in _events(answer.body)]
        elif kind == "application/json":
            messages = [_json(answer.body)]
        else:
            raise self.judge.fault(f"it answers with {clean(kind, 60)!r}, which is no message")
        if not all(isinstance(message, dict) for message in messages):
            raise self.judge.fault("it answers with something that is no message")
        if not any("method" not in m and m.get("id") == number for m in messages):
            raise self.judge.fault("its answer holds no answer to what was asked")
        return messages

    def _take_session(self, answer: HttpAnswer) -> None:
        name = answer.headers.get(_SESSION, "")
        if name and not _SESSION_FORM.fullmatch(name):
            raise self.judge.fault("the name that it gives its session is none")
        self._session = name

    def _headers(self, stamped: dict[str, str] | None) -> dict[str, str]:
        headers = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        if self._session:
            headers[_SESSION] = self._session
        if self._version:
            headers[_VERSION] = self._version
        headers.update({name.lower(): value for name, value in (stamped or {}).items()})
        return headers


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _events(body: bytes) -> list[bytes]:
    """The data of each event of a finished stream, comments and empty ones left out."""
    found = []
    text = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for event in text.split(b"\n\n"):
        lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
        if data.strip():
            found.append(data)
        if len(found) > limits.MCP_NOTICES_PER_CALL_MAX:
            break
    return found


def _refusal(number: str | int, code: int, message: str) -> dict[str, Any]:
    error = {"code": code, "message": clean(message, limits.MCP_ERROR_CHARS_MAX)}
    return {"jsonrpc": "2.0", "id": number, "error": error}
