"""The wire to a server elsewhere: Streamable HTTP, each message a request of its own.

What sends a request is given: the kernel's egress, which knows addresses, rules and credentials.
Nothing is left open between calls; a server speaks only in answer to a request. A stream that ends
before its answer is gone on with where it ended, as often and as soon as the server may say.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import INTERNAL_ERROR, METHOD_NOT_FOUND, JSONRPCMessage
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, LoginWanted, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.mcp.events import Stream, whole
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


class Send(Protocol):
    """Sends one request: no redirect is followed, credentials are added, the answer is bounded."""

    async def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes, /, *,
        by: Any = None, hear: Callable[[bytes], bool] | None = None,
    ) -> HttpAnswer:  # fmt: skip
        """`by`: the call that it is in. `hear`: is given each piece of a stream of events, and
        says whether it has heard enough. Raises LoginWanted where the server wants another token,
        Ring0Error."""
        ...


class _Hearing:
    """One stream as it comes: until it holds the answer that is waited for."""

    def __init__(
        self, number: str | int | None, stream: Stream, asks: Callable[[Any], bool]
    ) -> None:
        self.stream = stream
        self._number = number
        self._asks = asks

    def piece(self, piece: bytes) -> bool:
        try:
            heard = [self._enough(_json(data)) for data in self.stream.feed(piece)]
        except ValueError:
            return True
        return any(heard)

    def _enough(self, message: Any) -> bool:
        if not isinstance(message, dict):
            return False
        if self._number is not None and _answers(message, self._number):
            return True
        return self._asks(message)


class Requests:
    """A wire to one address."""

    def __init__(self, url: str, send: Send, runtime: Runtime) -> None:
        self.judge = Judge()
        self.ended = asyncio.Event()
        self.by: Any = None
        """The call for which requests are sent now."""
        self.answering = False
        """Somebody answers what the server asks in the midst of a call."""
        self._url = url
        self._http = send
        self._runtime = runtime
        self._session = ""
        self._version = ""
        self._arrived: asyncio.Queue[JSONRPCMessage | None] = asyncio.Queue()
        self._posts: dict[str | int, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._last = ""

    async def __aenter__(self) -> tuple[Incoming, Outgoing]:
        return Incoming(self._arrived.get, self.ended), Outgoing(self._send)

    async def __aexit__(self, *_: object) -> None:
        self.ended.set()
        going = [*self._posts.values(), *([self._listening] if self._listening else [])]
        for task in going:
            task.cancel()
        if going:
            await asyncio.wait(going)
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
        if method == "notifications/initialized" and self.answering and not modern:
            self._listening = self._runtime.start(self._listen(), name="mcp is asked")

    async def _tell(self, body: bytes, stamped: dict[str, str] | None) -> None:
        """A notification, or an answer to a request of theirs: nothing comes back."""
        try:
            await self._http("POST", self._url, self._headers(stamped), body, by=self.by)
        except Ring0Error as error:
            self._last = error.what

    async def _post(
        self, number: str | int, method: str, body: bytes, stamped: dict[str, str] | None
    ) -> None:
        told: set[str | int] = set()
        try:
            try:
                messages = await self._asked(number, method, body, stamped, told)
            except Ring0Error as error:
                said = f"{error.what} {error.why}".strip()
                if isinstance(error, LoginWanted):
                    self.judge.wanted = error
                elif method == "tools/call" and not isinstance(error, InvalidInput | CallDenied):
                    # It may have reached the server: nobody knows what it did.
                    raise self.judge.fault(said) from None
                messages = [_refusal(number, INTERNAL_ERROR, said)]
            for message in messages:
                if "method" in message and message.get("id") in told:
                    continue  # It was heard as it came.
                if (passed := self.judge.message(message)) is not None:
                    self._arrived.put_nowait(passed)
        except Broken as error:
            self._last = str(error)
            self._arrived.put_nowait(None)
        finally:
            self._posts.pop(number, None)

    async def _asked(
        self, number: str | int, method: str, body: bytes, stamped: dict[str, str] | None,
        told: set[str | int],
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The messages, the one that answers among them. Raises Broken, Ring0Error."""
        heard = _Hearing(number, Stream(), lambda message: self._asks(message, told))
        messages: list[dict[str, Any]] = []
        headers = self._headers(stamped)
        try:
            answer = await self._http(
                "POST", self._url, headers, body, by=self.by, hear=heard.piece
            )
        except Ring0Error as error:
            if not heard.stream.last_id:
                raise
            self._last = error.what  # It was cut off, and says where to go on.
        else:
            self.judge.heard(len(answer.body))
            if answer.status == 404 and self._session:
                raise self.judge.fault("its session is over")
            if method == "initialize":
                self._take_session(answer)
            if method == "tools/call" and answer.status >= 500:
                raise self.judge.fault(f"it answers with the status {answer.status}")
            messages = self._messages(answer, number)
        return await self._gone_on(number, messages, heard)

    async def _gone_on(
        self, number: str | int, messages: list[dict[str, Any]], heard: _Hearing
    ) -> list[dict[str, Any]]:
        """The same, with what comes on streams that go on where the one before ended."""
        stream = heard.stream
        for _ in range(limits.MCP_RETRIES_MAX):
            if any(_answers(message, number) for message in messages):
                return messages
            late = stream.retry_ms > limits.MCP_RETRY_MS_MAX
            if not stream.last_id or late or self._version in MODERN_PROTOCOL_VERSIONS:
                break
            await self._runtime.sleep(stream.retry_ms / 1_000)
            stream = heard.stream = Stream(stream.last_id, stream.retry_ms)
            headers = {**self._headers(None), "last-event-id": stream.last_id}
            del headers["content-type"]
            try:
                answer = await self._http(
                    "GET", self._url, headers, b"", by=self.by, hear=heard.piece
                )
            except Ring0Error as error:
                self._last = error.what
                continue
            self.judge.heard(len(answer.body))
            if answer.status != 200:
                break
            messages += self._messages(answer, number)
        if any(_answers(message, number) for message in messages):
            return messages
        raise self.judge.fault("its answer holds no answer to what was asked")

    async def _listen(self) -> None:
        """The stream on which a server asks what belongs to no answer, where somebody answers."""
        heard = _Hearing(None, Stream(), lambda message: self._asks(message, set()))
        for _ in range(limits.MCP_RETRIES_MAX):
            stream = heard.stream
            headers = self._headers(None)
            del headers["content-type"]
            if stream.last_id:
                headers["last-event-id"] = stream.last_id
            try:
                answer = await self._http(
                    "GET", self._url, headers, b"", by=self.by, hear=heard.piece
                )
            except Ring0Error as error:
                self._last = error.what
            else:
                if answer.status != 200:
                    return  # It has none.
            await self._runtime.sleep(min(stream.retry_ms, limits.MCP_RETRY_MS_MAX) / 1_000)
            heard.stream = Stream(stream.last_id, stream.retry_ms)

    def _asks(self, message: dict[str, Any], told: set[str | int]) -> bool:
        """A question of the server's, in the midst of its answer: it waits for ours before it
        goes on. Where nobody answers any, it is told so at the end, as of all that it says."""
        number = message.get("id")
        if not (self.answering and "method" in message and isinstance(number, str | int)):
            return False
        try:
            passed = self.judge.message(message)
        except Broken as error:
            self._last = str(error)
            return True
        told.add(number)
        self._arrived.put_nowait(passed)
        return False

    def _messages(self, answer: HttpAnswer, number: str | int) -> list[dict[str, Any]]:
        """The messages of an answer. Raises Broken."""
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
            messages = self._events(answer.body)
        elif kind == "application/json":
            messages = [_json(answer.body)]
        else:
            raise self.judge.fault(f"it answers with {clean(kind, 60)!r}, which is no message")
        if not all(isinstance(message, dict) for message in messages):
            raise self.judge.fault("it answers with something that is no message")
        return messages

    def _events(self, body: bytes) -> list[Any]:
        try:
            return [_json(data) for data in whole(body)]
        except ValueError as error:
            raise self.judge.fault(f"it sends {error}") from None

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


def _answers(message: dict[str, Any], number: str | int) -> bool:
    return "method" not in message and message.get("id") == number


def _refusal(number: str | int, code: int, message: str) -> dict[str, Any]:
    error = {"code": code, "message": clean(message, limits.MCP_ERROR_CHARS_MAX)}
    return {"jsonrpc": "2.0", "id": number, "error": error}
