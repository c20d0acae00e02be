"""The agent's way to the kernel: `Door`, and `HttpDoor`, which speaks it over the unix socket.

In embedded mode the kernel passes a door of its own. Nothing is decided here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from ring0 import errors, limits
from ring0.sdk import values
from ring0.types import Frozen, Integrity, Label, Request, ToolManifest

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

SOCKET_PATH: Final = "/run/ring0/door.sock"
SOCKET_VARIABLE: Final = "RING0_DOOR"
ANSWER_SIZE_BYTES_MAX: Final = limits.BLOB_SIZE_BYTES_MAX
_CHUNK_BYTES: Final = 64 * limits.KIB


class RunInfo(Frozen, frozen=True, kw_only=True):
    """What a run is told of itself when it starts."""

    run: str
    agent: str
    task: str
    tools: tuple[ToolManifest, ...] = ()
    """What it may ask for; asking is no guarantee of an allow."""
    models: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()


class Given(tuple[Any, Label]):
    """The value of a call and where it came from; `notice` is what the kernel says beside it, and
    `mark` how a model is to be shown it."""

    notice: str = ""
    mark: str = ""

    @classmethod
    def of(cls, value: Any, label: Label, notice: str, mark: str = "") -> Given:
        given = cls((value, label))
        given.notice, given.mark = notice, mark
        return given


class Door(Protocol):
    """What an agent's process may ask of the kernel."""

    async def call(self, request: Request) -> tuple[Any, Label]:
        """The value of a call and where it came from; a `Ring0Error` where it was not to be."""

    async def describe(self) -> RunInfo:
        """What this run is."""

    async def finish(self, *, value: Any = None, error: dict[str, str] | None = None) -> None:
        """The end of the run: its value, or the error (`Ring0Error.as_dict()`)."""


class _Answer(msgspec.Struct):
    """The body of an answer; unknown fields are left alone, a newer kernel may say more."""

    value: Any = None
    label: Label | None = None
    error: dict[str, Any] | None = None
    notice: str = ""
    mark: str = ""


class HttpDoor:
    """JSON over HTTP on the kernel's unix socket, kept alive. Whose run: the listener says so."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path or os.environ.get(SOCKET_VARIABLE) or SOCKET_PATH
        self._session: aiohttp.ClientSession | None = None

    async def call(self, request: Request) -> tuple[Any, Label]:
        body = {
            "kind": request.kind.value,
            "name": request.name,
            "args": request.args,
            "path": request.path,
            "counter": request.counter,
        }
        encoded = values.encode(body, limits.CALL_BODY_SIZE_BYTES_MAX, "The call")
        answer = _read(await self._send("POST", "/v1/call", encoded), _Answer)
        if answer.label is None:
            # A value of unknown origin is a value of the worst origin.
            return answer.value, Label(integrity=Integrity.UNTRUSTED)
        return Given.of(answer.value, answer.label, answer.notice, answer.mark)

    async def describe(self) -> RunInfo:
        return _read(await self._send("GET", "/v1/run", None), RunInfo)

    async def finish(self, *, value: Any = None, error: dict[str, str] | None = None) -> None:
        body = {"value": value} if error is None else {"error": error}
        encoded = values.encode(body, limits.CALL_BODY_SIZE_BYTES_MAX, "The result")
        _read(await self._send("POST", "/v1/result", encoded), _Answer)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, method: str, route: str, body: bytes | None) -> bytes:
        """One exchange. A connection that breaks is tried once more: the call id makes that safe
        (the kernel joins the call in flight, or gives the outcome that it recorded)."""
        import aiohttp

        try:
            try:
                return await self._exchange(method, route, body)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ClientError, OSError):
                return await self._exchange(method, route, body)
        except (aiohttp.ClientError, OSError) as error:
            raise errors.RunDead(
                "The door to the kernel is closed.",
                why=f"{type(error).__name__} at {self._path}",
                todo="nothing: the run has ended, or the kernel has stopped",
            ) from None

    async def _exchange(self, method: str, route: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        async with self._opened().request(
            method, "http://ring0" + route, data=body, headers=headers, allow_redirects=False
        ) as response:
            found = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                found += chunk
                if len(found) > ANSWER_SIZE_BYTES_MAX:
                    response.close()
                    raise errors.Ring0Error(
                        "The kernel's answer is too large.",
                        why=f"more than {ANSWER_SIZE_BYTES_MAX:,} bytes",
                    )
            return bytes(found)

    def _opened(self) -> aiohttp.ClientSession:
        """The session, opened late: importing aiohttp is most of this SDK's start."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(
                    self._path, limit=limits.CALLS_IN_FLIGHT_PER_RUN_MAX
                ),
                # A call may wait for a human, for a day.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def _read(body: bytes, kind: type[T]) -> T:
    """The body of an answer as `kind`; the error that it carries is raised, whatever the status."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.error:
            raise error_of(answer.error, answer.notice, answer.mark)
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise errors.Ring0Error("The kernel's answer can't be read.", why=str(error)) from None


def error_of(body: dict[str, Any], notice: str = "", mark: str = "") -> errors.Ring0Error:
    """The error that a body says, as the class of its code; an unknown code is a `Ring0Error`."""
    text = {field: str(body.get(field) or "") for field in ("code", "what", "why", "todo")}
    kind = _by_code().get(text["code"], errors.Ring0Error)
    error = kind(text["what"] or text["code"], why=text["why"], todo=text["todo"])
    error.notice, error.mark = notice, mark
    return error


def _by_code() -> dict[str, type[errors.Ring0Error]]:
    found: dict[str, type[errors.Ring0Error]] = {}
    rest = [errors.Ring0Error]
    while rest:
        kind = rest.pop()
        # Only the vocabulary itself: an agent may have subclasses of its own.
        if kind.__module__ == errors.__name__:
            found[kind.code] = kind
            rest += kind.__subclasses__()
    return found
