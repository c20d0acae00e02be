"""The native API described by OpenAPI 3.1, made from its types and from the kernel's own drivers.

Not here: what the model doors speak (their makers describe that), and what a tool takes: that each
run is told of its own tools (`GET /v1/run`).
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from ring0 import __version__
from ring0.gateway import native
from ring0.gateway.told import STATUS, STATUS_ELSE
from ring0.kernel.calls import asking, kinds, lockcalls, messages, models, waits
from ring0.kernel.memory import calls as remembering
from ring0.kernel.memory import windows
from ring0.tools.deriving import Derive
from ring0.types import CallKind, ToolManifest

_SCHEMAS: Final = "#/components/schemas/"

_MANIFESTS: Final[dict[CallKind, ToolManifest]] = {
    CallKind.MODEL: models.Model.manifest,
    CallKind.MEMORY_APPEND: remembering.Append.manifest,
    CallKind.MEMORY_RECALL: remembering.Recall.manifest,
    CallKind.MEMORY_REMEMBER: remembering.Remember.manifest,
    CallKind.MEMORY_SUPERSEDE: remembering.Supersede.manifest,
    CallKind.MEMORY_FORGET: remembering.Forget.manifest,
    CallKind.MEMORY_EXPLAIN: remembering.Explain.manifest,
    CallKind.MEMORY_SET: windows.Change.manifest,
    CallKind.MEMORY_COMPACT: windows.Compact.manifest,
    CallKind.MEMORY_ASSEMBLE: windows.Assemble.manifest,
    CallKind.SPAWN: kinds.Spawn.manifest,
    CallKind.WAIT: waits.Wait.manifest,
    CallKind.SLEEP: waits.Sleep.manifest,
    CallKind.ASK: asking.Ask.manifest,
    CallKind.LOCK: lockcalls.LockCall.manifest,
    CallKind.SEND: messages.Send.manifest,
    CallKind.DERIVE: Derive("derive").manifest,
    CallKind.NOW: kinds.Now.manifest,
    CallKind.RANDOM: kinds.Random.manifest,
}
"""What each kind takes; a tool's arguments are its own."""

_WHY: Final = {
    400: "The request's body is broken.",
    403: "Refused: by policy, by a person, or there is nothing of that name for this run.",
    404: "There is no such thing.",
    408: "The request's body came too slowly.",
    409: "A replay asked for what its journal does not hold; or this path and counter stand for"
    " another call.",
    410: "The run has ended, or this door is another's.",
    413: "The request is too large.",
    STATUS_ELSE: "It does not fit, or it could not be done: the error says which.",
    429: "A budget, a rate or a bound was met, or a loop was stopped.",
    500: "A fault of ring0.",
    502: "The tool or the model failed.",
}
_OF_A_BODY: Final = frozenset({400, 408, 413})


@functools.cache
def document() -> bytes:
    """The description, as JSON."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=2)


def _document() -> dict[str, Any]:
    structs = (
        native.CallAsked,
        native.ResultAsked,
        native.FailureAsked,
        native.CallTold,
        native.RefusalTold,
        native.RunTold,
        native.ResultTold,
    )
    _, schemas = msgspec.json.schema_components(structs, ref_template=_SCHEMAS + "{name}")
    plain = schemas.pop(native.CallAsked.__name__)
    calls = {_call_name(kind): _call(plain, kind) for kind in native.ASKED}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ring0: the native API",
            "version": __version__,
            "description": "What a program in its sandbox asks of the kernel, at $RING0_DOOR (a"
            " unix socket) and $RING0_URL (its own loopback). Which listener a request came in on"
            " says whose it is. A held call answers when a person has: don't time out.",
        },
        "servers": [{"url": "/"}],
        "paths": _paths(calls),
        "components": {"schemas": {**schemas, **calls}},
    }


def _paths(calls: dict[str, Any]) -> dict[str, Any]:
    mapping = {str(kind): _SCHEMAS + _call_name(kind) for kind in native.ASKED}
    call = {
        "oneOf": [{"$ref": _SCHEMAS + name} for name in calls],
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    }
    result = {"oneOf": [_ref(native.ResultAsked), _ref(native.FailureAsked)]}
    return {
        "/v1/call": {"post": _operation("call", "One call.", native.CallTold, call)},
        "/v1/run": {"get": _operation("run", "What this run is, and may ask for.", native.RunTold)},
        "/v1/result": {
            "post": _operation("result", "The end of its work.", native.ResultTold, result)
        },
        "/v1/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This description.",
                "responses": {"200": _response("It.", {"type": "object"}), **_refusals({410, 500})},
            }
        },
    }


def _operation(
    name: str, summary: str, answer: type[msgspec.Struct], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    statuses = {*STATUS.values(), STATUS_ELSE, 500} | (_OF_A_BODY if body else set())
    said = {} if body is None else {"requestBody": {"required": True, "content": _json(body)}}
    return {
        "operationId": name,
        "summary": summary,
        **said,
        "responses": {"200": _response("It was done.", _ref(answer)), **_refusals(statuses)},
    }


def _refusals(statuses: set[int]) -> dict[str, Any]:
    return {
        str(status): _response(_WHY[status], _ref(native.RefusalTold))
        for status in sorted(statuses)
    }


def _call(plain: dict[str, Any], kind: CallKind) -> dict[str, Any]:
    """The schema of a call of one kind: of `CallAsked`, with that kind's arguments."""
    properties = {**plain["properties"], "kind": {"const": str(kind)}}
    required = ["kind"]
    manifest = _MANIFESTS.get(kind)
    if manifest is not None:
        properties["args"] = manifest.schema
        # To leave them out is to give none.
        required += ["args"] if manifest.schema.get("required") else []
    said = manifest.description if manifest else "Call a tool, by its name in GET /v1/run."
    return {**plain, "title": str(kind), "description": said, "properties": properties,
            "required": required}  # fmt: skip


def _call_name(kind: CallKind) -> str:
    return f"Call.{kind}"


def _ref(of: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _SCHEMAS + of.__name__}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
