"""`through = true`: the agent meets a server nearly as if no kernel were between them.

The server's tools keep their names; its notes of progress and of its log go to the agent with the
result; what it asks for (a model's words, somebody's input, folders) it asks of the agent's own
client, whose answers are arguments of the next call: judged, scanned and on record like all others.
Never is a person of the kernel's asked, nor a model.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.types import Frozen

ROUND: Final = "_mcp"
"""The argument that holds a call's round; no schema of a server's shows it."""
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "capabilities": {"type": "object"},
        "log_level": {"type": "string"},
        "progress": {"type": "boolean"},
        "responses": {"type": "object"},
        "state": {"type": "string", "maxLength": limits.MCP_DOOR_STATE_CHARS_MAX},
    },
    "additionalProperties": False,
}
_META: Final = "io.modelcontextprotocol/"
_PROGRESS: Final = "ring0"
_KEPT: Final = frozenset({"notifications/message", "notifications/progress"})


class Round(Frozen, frozen=True, kw_only=True):
    """What a server is told of the client for which it is called."""

    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    log_level: str = ""
    progress: bool = False
    responses: dict[str, Any] = msgspec.field(default_factory=dict)
    state: str = ""

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    @property
    def meta(self) -> dict[str, Any]:
        """Of the request to the server, in place of the kernel's own."""
        found: dict[str, Any] = {_META + "clientCapabilities": self.capabilities}
        if self.log_level:
            found[_META + "logLevel"] = self.log_level
        if self.progress:
            found["progressToken"] = _PROGRESS
        return found

    @property
    def params(self) -> dict[str, Any]:
        """Of the request, beside what it always has."""
        found: dict[str, Any] = {}
        if self.responses:
            found["inputResponses"] = self.responses
        if self.state:
            found["requestState"] = self.state
        return found


def round_of(args: dict[str, Any]) -> tuple[dict[str, Any], Round]:
    """The arguments as the server takes them, and the round."""
    rest = {key: value for key, value in args.items() if key != ROUND}
    return rest, msgspec.convert(args.get(ROUND, {}), Round)


def speak_for(message: dict[str, Any], meta: dict[str, Any]) -> None:
    """Puts a client's own powers into a request, where the protocol tells them in each."""
    told: dict[str, Any] = message.setdefault("params", {}).setdefault("_meta", {})
    stateless = _META + "clientCapabilities" in told
    for key, value in meta.items():
        if stateless or not key.startswith(_META):
            told[key] = value


def updated_of(message: dict[str, Any]) -> str:
    """The resource that a notification says has changed; empty for every other."""
    params = message.get("params")
    uri = params.get("uri") if isinstance(params, dict) else None
    is_one = message.get("method") == "notifications/resources/updated"
    return uri if is_one and isinstance(uri, str) else ""


def note_of(message: dict[str, Any]) -> dict[str, Any] | None:
    """A notification that is told with the result; None for every other."""
    method, params = message.get("method"), message.get("params")
    if method not in _KEPT or not isinstance(params, dict):
        return None
    return {"method": method, "params": params}
