"""A connection to one MCP server, from its handshake to its end; both eras of the protocol.

The library (`mcp`) speaks the protocol; this keeps it in a task of its own, bounds every wait, and
turns what goes wrong into errors that say so. It knows nothing of sandboxes, pins or runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
    PingRequest,
    Request,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel, TypeAdapter, ValidationError

from mcp import Client
from ring0 import __version__, limits
from ring0.errors import ToolFailed
from ring0.runtime import Runtime
from ring0.tools.mcp.elicited import with_defaults
from ring0.tools.mcp.pins import Offer, PinnedTool
from ring0.tools.mcp.through import Round
from ring0.tools.mcp.wire import Wire
from ring0.tools.mcp.wording import clean
from ring0.types import Frozen

_ME: Final = Implementation(name="ring0", version=__version__)
_Answer: Final[TypeAdapter[CallToolResult | InputRequiredResult]] = TypeAdapter(
    CallToolResult | InputRequiredResult
)
_TROUBLE: Final = (MCPError, ValidationError, RuntimeError, ValueError, OSError, RecursionError)


class Gone(Exception):
    """The server is not there any more, or breaks the rules; the message says how."""


class Answer(Frozen, frozen=True, kw_only=True):
    """What a tool answered, as it came: parts, a structured value, whether it calls itself an
    error."""

    parts: list[dict[str, Any]]
    structured: Any = None
    failed: bool = False


class _Plain(RootModel[dict[str, Any]]):
    """A result of any kind: the library has checked it against the protocol."""


class Reached(Frozen, frozen=True, kw_only=True):
    """What a server answered to any other request, as it came, or its error."""

    result: dict[str, Any] = msgspec.field(default_factory=dict)
    error: dict[str, Any] | None = None
    """`code`, `message` and perhaps `data`."""
    notes: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """What it said on the way of its progress and its log, where somebody wants to hear it."""


class Session:
    """An open connection. Ends by `close`, or when the server does."""

    def __init__(self, wire: Wire, runtime: Runtime, instance: str, answers: str = "") -> None:
        """`answers`: how what the server asks of a person is answered (`Settings.answers`)."""
        self._wire = wire
        self._answers = answers
        self._runtime = runtime
        self._instance = instance
        self._client: Client | None = None
        self._stop = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._watched: frozenset[str] = frozenset()
        self._listening: asyncio.Task[None] | None = None
        self.listed_us = 0
        """When its tools were last asked for."""

    @property
    def over(self) -> bool:
        return self._keeper is None or self._keeper.done() or bool(self._wire.judge.broken)

    @property
    def list_changed(self) -> bool:
        """The server says that its tools are others now."""
        return self._wire.judge.list_changed

    async def open(self) -> None:
        """The handshake. Raises ToolFailed."""
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._keeper = self._runtime.start(self._keep(ready), name=f"mcp {self._instance}")
        try:
            self._client = await self._runtime.wait_for(ready, limits.MCP_START_S_MAX)
        except TimeoutError:
            await self.close()
            raise self._unfit(f"it does not answer within {limits.MCP_START_S_MAX} s") from None
        except _TROUBLE as error:
            await self.close()
            raise self._wire.judge.wanted or self._unfit(self._told(error)) from None
        except BaseException:
            await self.close()
            raise

    async def _keep(self, ready: asyncio.Future[Client]) -> None:
        """The library's task: what it enters, it leaves in the same one."""
        try:
            async with Client(
                self._wire, mode="auto", cache=None, client_info=_ME, raise_exceptions=False,
                elicitation_callback=with_defaults if self._answers == "defaults" else None,
            ) as client:  # fmt: skip
                if not ready.done():
                    ready.set_result(client)
                stop = asyncio.ensure_future(self._stop.wait())
                ended = asyncio.ensure_future(self._wire.ended.wait())
                try:
                    await asyncio.wait({stop, ended}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stop.cancel()
                    ended.cancel()
        except BaseException as error:
            error = _one(error)
            if not ready.done() and not isinstance(error, asyncio.CancelledError):
                ready.set_exception(error)
                ready.exception()  # Whoever waits may have gone.
            elif isinstance(error, asyncio.CancelledError):
                ready.cancel()
                raise

    async def offer(self) -> Offer:
        """What the server says of itself, all its tools included. Raises ToolFailed."""
        client = self._client
        assert client is not None, "it is open"
        # Before they are asked for: one that comes with the answer is not lost.
        self._wire.judge.list_changed = False
        self._wire.judge.begin()
        try:
            tools = await self._runtime.wait_for(self._tools(client), limits.MCP_START_S_MAX)
        except TimeoutError:
            raise self._unfit(f"it names no tools within {limits.MCP_START_S_MAX} s") from None
        except _TROUBLE as error:
            raise self._wire.judge.wanted or self._unfit(self._told(error)) from None
        self.listed_us = self._runtime.monotonic_us()
        info = client.server_info
        instructions = client.instructions or ""
        self._bound(instructions)
        return Offer(
            protocol=client.protocol_version,
            server_name=info.name if info else "",
            server_version=info.version if info else "",
            instructions=instructions,
            tools=tuple(sorted(tools, key=lambda tool: tool.name)),
        )

    async def _tools(self, client: Client) -> list[PinnedTool]:
        found: dict[str, PinnedTool] = {}
        cursor: str | None = None
        for _ in range(limits.MCP_LIST_PAGES_MAX):
            # The session, not the client: its cache is none of ours.
            page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            for tool in page.tools:
                if tool.name in found:
                    raise ValueError(f"it names the tool {clean(tool.name, 60)!r} twice")
                found[tool.name] = self._pinned(tool)
            if len(found) > limits.MCP_TOOLS_MAX:
                raise ValueError(f"it names more than {limits.MCP_TOOLS_MAX} tools")
            cursor = page.next_cursor
            if not cursor:
                return list(found.values())
        raise ValueError("its list of tools does not end")

    def _pinned(self, tool: Any) -> PinnedTool:
        for text in (tool.name, tool.title or "", tool.description or ""):
            self._bound(text)
        annotations = tool.annotations
        return PinnedTool(
            name=tool.name,
            title=tool.title or "",
            description=tool.description or "",
            schema=tool.input_schema,
            output_schema=tool.output_schema,
            annotations=annotations.model_dump(by_alias=True, mode="json", exclude_none=True)
            if annotations
            else {},
        )

    def _bound(self, text: str) -> None:
        if len(text) > limits.MCP_TEXT_CHARS_MAX:
            raise self._unfit(f"a text of it has more than {limits.MCP_TEXT_CHARS_MAX} characters")

    async def call(self, tool: str, args: dict[str, Any], traceparent: str = "") -> Answer:
        """One call. Raises ToolFailed where the server answers with an error, Gone where it does
        not answer. A caller that is cancelled, or has waited enough, cancels it at the server."""
        client = self._client
        assert client is not None, "it is open"
        self._wire.judge.begin(traceparent)
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=args))
        try:
            result = await client.session.send_request(request, _Answer)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED or self.over:
                raise Gone(self._told(error)) from None
            said = clean(error.message, limits.MCP_ERROR_CHARS_MAX)
            raise self._wire.judge.wanted or self._refuses(said) from None
        except (ValidationError, RecursionError):
            raise Gone("it answers with something that is no result") from None
        if isinstance(result, InputRequiredResult):
            raise self._wants_more()
        return Answer(
            parts=[
                part.model_dump(by_alias=True, mode="json", exclude_none=True)
                for part in result.content
            ],
            structured=result.structured_content,
            failed=bool(result.is_error),
        )

    async def ask(
        self, method: str, params: dict[str, Any], round_: Round | None, traceparent: str = ""
    ) -> Reached:
        """One request of any other kind. `round_`: for whom it is asked, where the agent meets the
        server through the kernel; None: for the kernel. Raises ToolFailed, Gone."""
        client = self._client
        assert client is not None, "it is open"
        judge = self._wire.judge
        judge.begin(traceparent)
        judge.meta, judge.notes = (round_.meta, []) if round_ else (None, None)
        request = Request[Any, str](method=method, params=params)
        error: dict[str, Any] | None = None
        result: dict[str, Any] = {}
        try:
            result = (await client.session.send_request(request, _Plain)).root
        except MCPError as failure:
            if failure.code == CONNECTION_CLOSED or self.over:
                raise Gone(self._told(failure)) from None
            if judge.wanted is not None:
                raise judge.wanted from None
            error = _plain_error(failure)
        except (ValidationError, RecursionError):
            raise Gone("it answers with something that is no result") from None
        finally:
            notes, judge.meta, judge.notes = judge.notes or [], None, None
        if error is not None and round_ is None:
            raise self._refuses(error["message"])
        if result.get("resultType") == "input_required" and round_ is None:
            raise self._wants_more()
        return Reached(result=result, error=error, notes=notes)

    async def watch(self, uris: frozenset[str], updated: Callable[[str], None]) -> Reached:
        """From now on `updated` is told when one of these resources has changed, and of no other.
        Raises ToolFailed where the server tells nobody, Gone."""
        client = self._client
        assert client is not None, "it is open"
        self._wire.judge.updated = lambda uri: updated(uri) if uri in uris else None
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            await self._listen_to(uris)
        else:
            for uri in sorted(uris - self._watched):
                await self.ask("resources/subscribe", {"uri": uri}, None)
            for uri in sorted(self._watched - uris):
                await self.ask("resources/unsubscribe", {"uri": uri}, None)
        self._watched = uris
        return Reached()

    async def _listen_to(self, uris: frozenset[str]) -> None:
        """One request that stays open, in place of the last. Returns when it is acknowledged."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
            self._listening = None
        if not uris:
            return
        known = self._wire.judge.acknowledged
        known.clear()
        listening = self._runtime.start(self._listen(uris), name="mcp listens")
        heard = asyncio.ensure_future(known.wait())
        try:
            await asyncio.wait(
                {listening, heard},
                timeout=limits.MCP_CANCEL_GRACE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            heard.cancel()
        if not known.is_set():
            listening.cancel()
            raise self._refuses("it does not tell when a resource changes")
        self._listening = listening

    async def _listen(self, uris: frozenset[str]) -> None:
        client = self._client
        assert client is not None, "it is open"
        params = {"notifications": {"resourceSubscriptions": sorted(uris)}}
        request = Request[Any, str](method="subscriptions/listen", params=params)
        try:
            await client.session.send_request(request, _Plain)
        except _TROUBLE:
            pass  # Nothing is told any more; whoever needs it reads again.

    def _refuses(self, said: str) -> ToolFailed:
        refused = ToolFailed(
            f"{self._instance} refuses the call: {said}",
            why="The MCP server's own words.",
            todo="Correct the arguments.",
        )
        refused.tells_of_data = True
        return refused

    def _wants_more(self) -> ToolFailed:
        return ToolFailed(
            f"{self._instance} asks for more before it answers.",
            why="ring0 gives servers no model and no person to ask.",
            todo="Give all that the tool needs as arguments.",
        )

    async def answers(self) -> bool:
        """Does it still react, within the grace that follows a cancel?"""
        client = self._client
        if client is None or self.over:
            return False
        modern = client.protocol_version in MODERN_PROTOCOL_VERSIONS
        asking = (
            client.session.send_discover(client.protocol_version)
            if modern
            else client.session.send_request(PingRequest(), EmptyResult)
        )
        try:
            await self._runtime.wait_for(asking, limits.MCP_CANCEL_GRACE_S)
        except TimeoutError:
            return False
        except MCPError:
            return not self.over  # An error is an answer.
        except _TROUBLE:
            return False
        return True

    async def close(self) -> None:
        """Any number of times."""
        if self._listening is not None:
            self._listening.cancel()
        self._stop.set()
        if self._keeper is not None and not self._keeper.done():
            await asyncio.wait({self._keeper}, timeout=limits.MCP_CANCEL_GRACE_S)
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    def _told(self, error: BaseException) -> str:
        """What went wrong, in words; the server's own are cleaned."""
        if self._wire.judge.broken:
            return self._wire.judge.broken
        if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
            said = self._wire.errors()
            return f"it ended; it said: {said}" if said else "it ended without a word"
        if isinstance(error, ValidationError):
            return "what it sends does not fit the protocol"
        said = error.message if isinstance(error, MCPError) else str(error)
        return clean(said, limits.MCP_ERROR_CHARS_MAX)

    def _unfit(self, why: str) -> ToolFailed:
        error = ToolFailed(
            f"The MCP server {self._instance!r} can't be used.",
            why=f"{why[:1].upper()}{why[1:]}.",
            todo="See that it starts by itself, and speaks MCP on its standard output.",
        )
        error.tells_of_data = True  # The reason may be the server's own words.
        return error


def _plain_error(failure: MCPError) -> dict[str, Any]:
    error = {
        "code": failure.code,
        "message": clean(failure.message, limits.MCP_ERROR_CHARS_MAX),
    }
    data = failure.error.data
    return error if data is None else {**error, "data": data}


def _one(error: BaseException) -> BaseException:
    """The first of a group: the library's tasks fail together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
