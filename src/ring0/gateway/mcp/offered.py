"""What a run is offered at its MCP door, and what each thing is called there.

Tools of the kernel, by the names that models know them by (`crm__query` for `crm.query`); and the
resources and prompts of its MCP servers, each marked with the server that it is of, so that no two
can be taken for each other. A server with `through` keeps its own names.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from ring0 import limits
from ring0.gateway.mcp.messages import INVALID_PARAMS, RESOURCE_NOT_FOUND, Refused
from ring0.kernel.live import LiveRun
from ring0.tools.mcp import McpOffer
from ring0.tools.mcp.through import ROUND
from ring0.types import Effect, ToolManifest

T = TypeVar("T")
_OF_URI: Final = "+"
_OF_NAME: Final = "__"


class Offered:
    """As it is for one request: a grant may leave a run less than its manifest names."""

    def __init__(self, run: LiveRun, door_names: dict[str, str]) -> None:
        may = {manifest.name for manifest in run.named()[0]}
        self._tools = {there: name for there, name in door_names.items() if name in may}
        self._run = run
        self.offers: dict[str, dict[str, McpOffer]] = {}
        """By server: its operations beside tools, by name."""
        for name in sorted(may):
            driver = run.tools[name].driver
            if isinstance(driver, McpOffer):
                self._tools = {there: own for there, own in self._tools.items() if own != name}
                self.offers.setdefault(driver.instance, {})[driver.operation] = driver

    # --- tools --------------------------------------------------------------------------------

    def tools(self) -> list[dict[str, Any]]:
        """Sorted by name: the same set is the same list."""
        return [
            _described(there, self._run.tools[own].manifest, self._is_through(own))
            for there, own in sorted(self._tools.items())
        ]

    def own_name(self, there: str) -> str:
        """The tool that is called so here. What is not, stays as it is: the gate says no to it."""
        return self._tools.get(there, there)

    def has(self, there: str) -> bool:
        return there in self._tools

    def is_through(self, there: str) -> bool:
        return self._is_through(self.own_name(there))

    def _is_through(self, own: str) -> bool:
        tool = self._run.tools.get(own)
        return tool is not None and getattr(tool.driver, "through", False)

    def logs(self) -> bool:
        """Does any server tell the client of its work?"""
        return any(self._is_through(name) for name in self._tools.values())

    # --- what servers offer beside tools ------------------------------------------------------

    def with_operation(self, operation: str) -> list[McpOffer]:
        return [found[operation] for found in self.offers.values() if operation in found]

    def server_of_name(self, operation: str, name: str) -> tuple[McpOffer, str]:
        """Whose prompt that is, and what its server calls it. Raises Refused."""
        return self._server_of(operation, name, _OF_NAME, INVALID_PARAMS)

    def server_of_uri(self, operation: str, uri: str) -> tuple[McpOffer, str]:
        """Likewise, a resource. Raises Refused."""
        return self._server_of(operation, uri, _OF_URI, RESOURCE_NOT_FOUND)

    def _server_of(self, operation: str, named: str, mark: str, code: int) -> tuple[McpOffer, str]:
        servers = self.with_operation(operation)
        for server in servers:
            start = server.instance + mark
            if not server.through and named.startswith(start):
                return server, named[len(start) :]
        open_ = [server for server in servers if server.through]
        if len(open_) == 1:  # Of several, nobody knows whose it is.
            return open_[0], named
        raise Refused(
            code, f"There is nothing here that is called {named[:200]!r}.", {"uri": named}
        )

    def capabilities(self, *, stateless: bool) -> dict[str, Any]:
        """As `initialize` and `server/discover` tell them."""
        found: dict[str, Any] = {"tools": {}}
        if self.with_operation("resources.read"):
            watched = self.with_operation("resources.subscribe") and not stateless
            found["resources"] = {"subscribe": True} if watched else {}
        if self.with_operation("prompts.get"):
            found["prompts"] = {}
        if self.with_operation("completion.complete"):
            found["completions"] = {}
        if self.logs():
            found["logging"] = {}
        return found


def called(server: McpOffer, item: dict[str, Any], field: str) -> dict[str, Any]:
    """A resource (`uri`, `uriTemplate`) or a prompt (`name`) as it is called at the door."""
    if server.through or not isinstance(item.get(field), str):
        return item
    mark = _OF_NAME if field == "name" else _OF_URI
    return {**item, field: f"{server.instance}{mark}{item[field]}"}


def _described(there: str, manifest: ToolManifest, through: bool) -> dict[str, Any]:
    schema = manifest.schema
    if through:
        properties = {k: v for k, v in schema.get("properties", {}).items() if k != ROUND}
        schema = {**schema, "properties": properties}
    pure = manifest.effect is Effect.PURE
    return {
        "name": there,
        "description": manifest.description,
        "inputSchema": {"type": "object", **schema},
        "annotations": {
            "readOnlyHint": pure,
            "destructiveHint": manifest.effect is Effect.ONCE
            and manifest.reversal == "irreversible",
            "idempotentHint": manifest.effect is not Effect.ONCE,
            "openWorldHint": bool(manifest.egress),
        },
    }


def page(items: Sequence[T], params: dict[str, Any], key: Any) -> tuple[list[T], str]:
    """What comes after the cursor, at most a page of it, and the next cursor. A cursor says after
    which one to go on: nothing is told twice or left out where the list has changed. Raises
    Refused."""
    cursor = params.get("cursor")
    rest = list(items)
    if cursor is not None:
        last = _last(cursor)
        rest = [item for item in rest if key(item) > last]
    if len(rest) <= limits.MCP_DOOR_PAGE_ITEMS_MAX:
        return rest, ""
    rest = rest[: limits.MCP_DOOR_PAGE_ITEMS_MAX]
    return rest, base64.urlsafe_b64encode(key(rest[-1]).encode()).decode()


def _last(cursor: Any) -> str:
    try:
        return base64.b64decode(str(cursor), altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise Refused(INVALID_PARAMS, "The cursor is not one that was given here.") from None
