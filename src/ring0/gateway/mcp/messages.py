"""JSON-RPC as MCP has it: messages read strictly, answers and errors written.

Not for what a message means.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.models import sse
from ring0.types import Frozen

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SERVER_ERROR: Final = -32000
SESSION_NOT_FOUND: Final = -32001
RESOURCE_NOT_FOUND: Final = -32002
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""Of HTTP, for an error in the stateless era."""

Id = str | int
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """An error as the protocol has it."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    @classmethod
    def of(cls, error: Ring0Error, code: int = INTERNAL_ERROR) -> Refused:
        """One of ours, word for word."""
        return cls(code, error.as_line(), {"ring0": error.as_dict()})


class Message(Frozen, frozen=True, kw_only=True):
    """What a client sent: a request (`id` and `method`), a notification (`method`), or an answer
    to a request of ours (`id`)."""

    id: Id | None = None
    method: str = ""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    result: Any = None
    error: Any = None


def read(body: Any) -> Message:
    """A parsed body as a message. Raises Refused."""
    if isinstance(body, list):
        raise Refused(INVALID_REQUEST, "One message a request: batches are not taken.")
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        raise Refused(INVALID_REQUEST, "The body is no JSON-RPC 2.0 message.")
    if unknown := body.keys() - {"jsonrpc", "id", "method", "params", "result", "error"}:
        raise Refused(INVALID_REQUEST, f"A message has no field {min(unknown)[:80]!r}.")
    number, method, params = body.get("id"), body.get("method", ""), body.get("params", {})
    if "id" in body and (type(number) not in (str, int) or not _is_short(number)):
        raise Refused(INVALID_REQUEST, "An `id` is a short text or a whole number.")
    if not isinstance(method, str) or not isinstance(params, dict):
        raise Refused(INVALID_REQUEST, "`method` is a text and `params` an object.")
    if not method and number is None:
        raise Refused(INVALID_REQUEST, "The message has neither `method` nor `id`.")
    return Message(
        id=number,
        method=method,
        params=params,
        result=body.get("result"),
        error=body.get("error"),
    )


def _is_short(number: Any) -> bool:
    return not isinstance(number, str) or len(number) <= limits.MCP_DOOR_ID_CHARS_MAX


def answer(number: Id, result: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": number, "result": result})


def refusal(number: Id | None, refused: Refused) -> bytes:
    error: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.data is not None:
        error["data"] = refused.data
    return _encode({"jsonrpc": "2.0", "id": number, "error": error})


def notification(method: str, params: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, "params": params})


def request(number: Id, method: str, params: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def event(message: bytes) -> bytes:
    """As a stream has it."""
    return sse.event(message, "message")
