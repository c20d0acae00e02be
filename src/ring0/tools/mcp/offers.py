"""What an MCP server offers beside tools, as drivers: `NAME.resources.read` and the like.

An operator says which (`serves`). No approval pins it, so all that comes is a stranger's word of
this moment, labelled as such. Each operation reads, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from ring0 import limits
from ring0.errors import ToolFailed
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.mcp.pins import Pin
from ring0.tools.mcp.server import CutOff, Server
from ring0.tools.mcp.settings import Settings
from ring0.tools.mcp.through import ROUND, SCHEMA, Round, round_of
from ring0.types import Effect, Frozen, Integrity, Label, ToolManifest

if TYPE_CHECKING:
    from ring0.tools.mcp.session import Reached, Session

Part = Literal["resources", "prompts", "completions"]

_TEXT: Final = {"type": "string", "maxLength": limits.MCP_TEXT_CHARS_MAX}


class _Operation(Frozen, frozen=True, kw_only=True):
    """One method of the protocol as an operation."""

    part: Part
    method: str
    title: str
    properties: dict[str, Any] = msgspec.field(default_factory=dict)
    required: tuple[str, ...] = ()
    lists: str = ""
    """The field of the result that comes in pages; empty: it comes at once."""
    asks: bool = False
    """The server may ask for more before it answers."""


OPERATIONS: Final[Mapping[str, _Operation]] = {
    "resources.list": _Operation(
        part="resources", method="resources/list", title="name the resources", lists="resources"
    ),
    "resources.templates": _Operation(
        part="resources",
        method="resources/templates/list",
        title="name the templates of resources",
        lists="resourceTemplates",
    ),
    "resources.read": _Operation(
        part="resources",
        method="resources/read",
        title="read a resource",
        properties={"uri": _TEXT},
        required=("uri",),
        asks=True,
    ),
    "resources.subscribe": _Operation(
        part="resources",
        method="resources/subscribe",
        title="tell of a resource when it changes",
        properties={"uri": _TEXT},
        required=("uri",),
    ),
    "resources.unsubscribe": _Operation(
        part="resources",
        method="resources/unsubscribe",
        title="tell of a resource no more",
        properties={"uri": _TEXT},
        required=("uri",),
    ),
    "prompts.list": _Operation(
        part="prompts", method="prompts/list", title="name the prompts", lists="prompts"
    ),
    "prompts.get": _Operation(
        part="prompts",
        method="prompts/get",
        title="fill in a prompt",
        properties={
            "name": _TEXT,
            "arguments": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        required=("name",),
        asks=True,
    ),
    "completion.complete": _Operation(
        part="completions",
        method="completion/complete",
        title="complete an argument",
        properties={
            "ref": {
                "type": "object",
                "properties": {"type": _TEXT, "name": _TEXT, "uri": _TEXT, "title": _TEXT},
                "required": ["type"],
                "additionalProperties": False,
            },
            "argument": {
                "type": "object",
                "properties": {"name": _TEXT, "value": _TEXT},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
            "context": {"type": "object"},
        },
        required=("ref", "argument"),
    ),
}


_WATCHES: Final = frozenset({"resources.subscribe", "resources.unsubscribe"})


class McpOffer:
    """One operation of one server."""

    def __init__(self, server: Server, pin: Pin, operation: str) -> None:
        said, about = server.settings, OPERATIONS[operation]
        self.instance = server.instance
        self.operation = operation
        self.through = said.through
        self.asks = about.asks
        self.watches = operation in _WATCHES
        self._server = server
        self._pin = pin
        self._about = about
        properties = dict(about.properties)
        if self.through:
            properties[ROUND] = SCHEMA
        self.manifest = ToolManifest(
            name=f"{server.instance}.{operation}",
            description=f"Asks the MCP server {server.instance} to {about.title}.",
            schema={
                "type": "object",
                "properties": properties,
                "required": list(about.required),
            },
            effect=Effect.PURE if _is_alone(said) else Effect.IDEMPOTENT,
            output=Integrity.UNTRUSTED,
            egress=(said.url,) if said.url else said.egress,
            secrets=said.secrets,
            wall_s=said.wall_s,
            code_digest=pin.digest,
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        said = self._server.settings
        return Prepared(
            driver_bytes=msgspec.json.encode(
                {"server": self._pin.digest, "method": self._about.method, "args": args},
                order="sorted",
            ),
            own=said.contained,
            slots=() if said.url else ("sandbox",),
            lines=(f"ask the MCP server {self.instance} to {self._about.title}",),
            host=urlsplit(said.url).hostname or "",
            method="POST" if said.url else "",
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        params, round_ = round_of(args)
        given = round_ if self.through else None

        async def ask(session: Session) -> Reached:
            if self._about.lists:
                return await self._all(session, given)
            if self.watches:
                on = self.operation == "resources.subscribe"
                return await self._server.watch(context.run.id, session, params["uri"], on=on)
            more = given.params if given else {}
            return await session.ask(self._about.method, {**params, **more}, given)

        try:
            done = await self._server.call(
                self._pin, ask, self.manifest.wall_s, self.manifest, context
            )
        except CutOff as error:
            failure = ToolFailed(
                f"{self.manifest.name} was cut off: {error}.",
                why="The MCP server's own fault.",
                todo="Ask again: the next call gets a server that answers.",
            )
            failure.tells_of_data = True
            raise failure from None
        from ring0.tools.mcp.results import reached_value  # It takes the library along: slow.

        said = Label(
            integrity=Integrity.UNTRUSTED, sources=(f"{self.manifest.name}@{context.call}",)
        )
        label = said.join(context.run.label.bare).join(done.label)
        return Result(value=reached_value(self.manifest.name, done.answer), label=label)

    async def _all(self, session: Session, given: Round | None) -> Reached:
        """Every page. Raises ToolFailed where there is no end to them."""
        field, cursor = self._about.lists, None
        items: list[Any] = []
        for _ in range(limits.MCP_LIST_PAGES_MAX):
            params: dict[str, Any] = {"cursor": cursor} if cursor else {}
            page = await session.ask(self._about.method, params, given)
            if page.error is not None:
                return page
            items += page.result.get(field) or []
            cursor = page.result.get("nextCursor")
            if not cursor and len(items) <= limits.MCP_OFFERS_MAX:
                return msgspec.structs.replace(page, result={field: items})
            if len(items) > limits.MCP_OFFERS_MAX:
                break
        raise ToolFailed(
            f"{self.instance} names too much: {self._about.method}.",
            why=f"At most {limits.MCP_OFFERS_MAX} on {limits.MCP_LIST_PAGES_MAX} pages are taken.",
            todo="Ask for one that you know.",
        )

    def hear(self, run: str, updated: Callable[[str], None]) -> None:
        """`updated` is told of each resource of its server that has changed and that the run
        watches."""
        self._server.hear(run, updated)

    async def close(self) -> None:
        """Ends the server, for all that it offers. Any number of times."""
        await self._server.close()


def _is_alone(said: Settings) -> bool:
    """It reaches nothing and sees no files: it can be asked again without a thought."""
    return said.contained and not said.workspace


def offers(server: Server, pin: Pin) -> list[McpOffer]:
    """What the operator lets the server serve beside tools."""
    said = server.settings
    # A server elsewhere speaks only in answer to a request: it can't tell of a change.
    left_out = _WATCHES if said.url else frozenset()
    return [
        McpOffer(server, pin, name)
        for name, about in OPERATIONS.items()
        if about.part in said.serves and name not in left_out
    ]
