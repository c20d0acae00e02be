"""The native API as types: what a program asks at its door, and what it is told.

openapi.py describes these types. Not here: HTTP (door.py, calls.py); what JSON may look like at all
(`kernel.values.parse`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from ring0 import limits
from ring0.errors import CallInvalid, Ring0Error, RunFailed
from ring0.identity.tokens import Scope
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.types import CallKind, Label, Outcome, Request, ToolManifest

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode

ASKED: Final = tuple(
    kind for kind in CallKind if kind not in (CallKind.EGRESS, CallKind.PROPOSAL, CallKind.OBSERVED)
)
"""What may be asked for at a door: an agent's own sandbox reaches nothing."""

# As the gate holds it; it is said here too so that a program can know it beforehand.
_PATH: Final = r"^([0-9]{1,6}(\.[0-9]{1,6})*)?$"


# --- asked ------------------------------------------------------------------------------------


class CallAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call. With `path` and `counter` it is known by them, on every replay; without them by
    what it asks, and how often."""

    kind: Annotated[str, Meta(description="What is asked for.")]
    name: Annotated[
        str,
        Meta(
            max_length=limits.CALL_NAME_CHARS_MAX,
            description="The tool, the model or the agent; empty where the kind says it all.",
        ),
    ] = ""
    args: Annotated[Any, Meta(description="The kind's own, or the tool's, by its schema.")] = None
    path: Annotated[
        str,
        Meta(
            max_length=limits.CALL_PATH_CHARS_MAX,
            pattern=_PATH,
            description="The task of the program that asks: `0`, its first child `0.1`.",
        ),
    ] = ""
    counter: Annotated[
        int, Meta(ge=0, lt=2**31, description="Which call of that task this is, from 1.")
    ] = 0


class ResultAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of the agent's work: what it came to. The first result counts."""

    value: Annotated[Any, Meta(description="Any JSON value.")]


class FailureAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of the agent's work: that it failed."""

    error: Annotated[
        Any, Meta(description="`{what, why, todo}`, each a text; of anything else nothing is kept.")
    ]


# --- told -------------------------------------------------------------------------------------


class CallTold(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call came to."""

    value: Any
    label: Label
    notice: Annotated[
        str, Meta(description="What the kernel says beside it: that the run seems to be in a loop.")
    ] = ""
    mark: Annotated[
        str,
        Meta(
            description="Where `[guardrails] spotlight` is set and nobody vouches for the value:"
            " `delimit` or `datamark`, a space, and the marker that a model is to be shown it with."
        ),
    ] = ""


class ErrorTold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happened, why, and what to do about it."""

    code: Annotated[str, Meta(description="Its kind, for a program: `denied`, `call_invalid`, …")]
    whose: Annotated[str, Meta(description="Who can mend it: `yours`, `ours` or `world`.")]
    what: str
    why: str
    todo: str


class RefusalTold(msgspec.Struct, frozen=True, omit_defaults=True):
    """It was not to be."""

    error: ErrorTold
    notice: str = ""
    mark: str = ""


class RunTold(msgspec.Struct, frozen=True):
    """What a run is told of itself, and what whoever has a token of it is told."""

    run: str
    agent: str
    task: Annotated[str, Meta(description="Its text; empty for who comes with a token.")]
    tools: Annotated[
        list[ToolManifest],
        Meta(description="What it may ask for; asking is no guarantee of an allow."),
    ]
    models: list[str]
    agents: Annotated[list[str], Meta(description="What it may spawn.")]


class ResultTold(msgspec.Struct, frozen=True):
    """It was taken."""

    value: None = None


# --- from one to the other --------------------------------------------------------------------


def to_request(body: Any, traceparent: str = "") -> Request:
    """A call's body as a request. `traceparent`: as its header says. Raises CallInvalid."""
    asked = _read(body, CallAsked, "A call")
    if asked.kind not in ASKED:
        raise CallInvalid(
            f"There is no kind of call {asked.kind[:80]!r}.",
            why=f"There are: {', '.join(ASKED)}.",
            todo="Send one of those.",
        )
    if asked.kind == CallKind.MODEL and isinstance(asked.args, dict) and "dialect" in asked.args:
        raise CallInvalid(
            "A question in a dialect is asked at the dialect's own door.",
            why="What it brings along, and what its answer proposes, is looked at there.",
            todo="POST it to /v1/messages, /v1/responses or /v1/chat/completions.",
        )
    return Request(
        kind=CallKind(asked.kind),
        name=asked.name,
        args=asked.args,
        path=asked.path,
        counter=asked.counter,
        traceparent=traceparent,
    )


def to_result(body: Any) -> Any:
    """What the agent's work came to: a value, or the error that says how it failed. Raises
    CallInvalid."""
    if isinstance(body, dict) and "error" in body:
        return _failure(_read(body, FailureAsked, "A failure").error)
    return _read(body, ResultAsked, "A result").value


def told(outcome: Outcome) -> bytes:
    """What is answered to a call that came to a value."""
    return _encode(CallTold(outcome.value, outcome.label, outcome.notice, outcome.mark))


def refusal(error: Ring0Error) -> bytes:
    """What is answered where there is none: `RefusalTold`, in the words of the journal."""
    beside = {"notice": error.notice, "mark": error.mark}
    said = {key: text for key, text in beside.items() if text}
    return _encode({"error": error.as_dict(), **said})


async def describe(gate: Gate, run: LiveRun, scope: Scope | None = None) -> RunTold:
    """Raises RunDead."""
    gate.handles.check(run.handle)
    tools, models, agents = run.named(scope)
    return RunTold(
        run=run.id,
        agent=run.row.agent,
        task="" if scope else (await gate.store.blob(run.row.task)).decode(),
        tools=tools,
        models=models,
        agents=agents,
    )


def _read(body: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        fields = ", ".join(field.name for field in msgspec.structs.fields(kind))  # type: ignore[arg-type]
        raise CallInvalid(
            f"{what} can't be taken as it is.",
            why=str(error)[:300],
            todo=f"Send a JSON object; it has: {fields} (GET /v1/openapi.json).",
        ) from None


def _failure(error: Any) -> Ring0Error:
    error = error if isinstance(error, dict) else {}
    text = {key: str(error.get(key, ""))[:4_000] for key in ("what", "why", "todo")}
    return RunFailed(text["what"] or "The agent failed.", why=text["why"], todo=text["todo"])
