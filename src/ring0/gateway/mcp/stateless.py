"""The stateless era: each request carries its revision, its client's powers and, as headers, what
it asks for. The headers have to say what the body says: whoever routes by them must not be fooled.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec
from aiohttp import web

from ring0 import limits
from ring0.gateway.mcp.messages import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    UNSUPPORTED_VERSION,
    Message,
    Refused,
)
from ring0.gateway.mcp.table import STATELESS
from ring0.kernel import values
from ring0.types import Frozen

META: Final = "io.modelcontextprotocol/"
VERSION: Final = META + "protocolVersion"
CAPABILITIES: Final = META + "clientCapabilities"
LOG_LEVEL: Final = META + "logLevel"
SERVER_INFO: Final = META + "serverInfo"

VERSION_HEADER: Final = "Mcp-Protocol-Version"
METHOD_HEADER: Final = "Mcp-Method"
NAME_HEADER: Final = "Mcp-Name"
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_CODED: Final = re.compile(r"=\?base64\?(?P<value>.*)\?=")


class Client(Frozen, frozen=True, kw_only=True):
    """What a client says of itself."""

    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    log_level: str = ""
    """The mildest note of a server's log that it wants; empty: none."""


def client_of(message: Message, request: web.Request) -> Client:
    """Who asks, where the envelope is whole and agrees with the headers. Raises Refused."""
    meta = message.params.get("_meta")
    if not isinstance(meta, dict):
        raise Refused(INVALID_PARAMS, f"`params._meta` has to hold {VERSION} and {CAPABILITIES}.")
    if missing := [key for key in (VERSION, CAPABILITIES) if key not in meta]:
        raise Refused(INVALID_PARAMS, f"`params._meta` lacks {', '.join(missing)}.")
    _check_headers(message, meta[VERSION], request)
    version, capabilities = meta[VERSION], meta[CAPABILITIES]
    if not isinstance(version, str) or not isinstance(capabilities, dict):
        raise Refused(INVALID_PARAMS, f"{VERSION} is a text and {CAPABILITIES} an object.")
    check_version(version)
    check_capabilities(capabilities)
    level = meta.get(LOG_LEVEL, "")
    return Client(capabilities=capabilities, log_level=level if isinstance(level, str) else "")


def check_capabilities(capabilities: dict[str, Any]) -> None:
    """Raises Refused for more than a client has to say: parsed, it takes many times its bytes."""
    most = limits.MCP_DOOR_CAPABILITIES_SIZE_BYTES_MAX
    if len(values.canonical(capabilities)) > most:
        raise Refused(INVALID_PARAMS, f"The client's capabilities have at most {most:,} bytes.")


def check_version(version: str) -> None:
    """Raises Refused for a revision that is not of this era, or that nobody here speaks."""
    if version not in STATELESS:
        data = {"supported": list(STATELESS), "requested": version}
        raise Refused(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _check_headers(message: Message, version: Any, request: web.Request) -> None:
    if _one(request, VERSION_HEADER) != version:
        raise Refused(HEADER_MISMATCH, f"{VERSION_HEADER} is not what `_meta` says.")
    if _one(request, METHOD_HEADER) != message.method:
        raise Refused(HEADER_MISMATCH, f"{METHOD_HEADER} is not the body's method.")
    field = _NAMED_BY.get(message.method)
    named = message.params.get(field) if field else None
    if named is not None and _decoded(_one(request, NAME_HEADER)) != named:
        raise Refused(HEADER_MISMATCH, f"{NAME_HEADER} is not the body's `{field}`.")


def _one(request: web.Request, name: str) -> str | None:
    found = request.headers.getall(name, [])
    if len(found) > 1:
        raise Refused(HEADER_MISMATCH, f"{name} stands twice in the request.")
    return found[0] if found else None


def _decoded(value: str | None) -> str | None:
    """A header's value; one that is no plain text comes as base64. None where it is neither."""
    match = _CODED.fullmatch(value) if value is not None else None
    if match is None:
        return value
    try:
        plain = base64.b64decode(match["value"], validate=True)
        canonical = base64.b64encode(plain).decode() == match["value"]
        return plain.decode("utf-8") if canonical else None
    except (binascii.Error, ValueError):
        return None
