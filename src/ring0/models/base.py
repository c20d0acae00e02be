"""What every model provider takes and gives: `ModelRequest`, `ModelAnswer`, `Provider`.

The kernel's one form of a conversation. What a client's or a provider's own words for it are:
`dialects/`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol

import msgspec

from ring0 import errors, limits
from ring0.types import Frozen, ModelConfig

ANY_MODEL: Final = "*"
"""A configuration's model that is asked under whatever name its client has for it."""
MEDIA: Final = ("image", "audio", "file")
"""Parts that nobody here looks into."""
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")
CHARS_PER_TOKEN: Final = 4
"""The estimate where nobody counts: a token is about four characters."""


class ToolCall(Frozen, frozen=True, kw_only=True):
    """A tool call that a model proposes."""

    id: str
    name: str
    args: dict[str, Any]


class Part(Frozen, frozen=True, kw_only=True):
    """One piece of a message whose pieces have an order, or are more than text."""

    kind: Literal["text", "image", "audio", "file", "call", "opaque"]
    text: str = ""
    """Of `text`; of `call`, the id of the tool call that stands here."""
    media_type: str = ""
    data: str = ""
    """Base64, of what is no text. Nothing is ever fetched: an address is no data."""
    name: str = ""
    """Of a file; of what has `native`, the dialect whose words those are."""
    native: dict[str, Any] = msgspec.field(default_factory=dict)
    """Of `opaque` (thinking, encrypted content): as its dialect has it. Of `text`: what its dialect
    says beside it."""
    blob: str = ""
    """Of `opaque`: what nobody but its provider reads (a signature, what is encrypted). A run sends
    only what it was given; clients leave out or change what is around it."""


class Message(Frozen, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    """All of its text, also where `parts` have it once more."""
    parts: tuple[Part, ...] = ()
    """Empty where it is nothing but text, then its tool calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant only."""
    tool_call_id: str = ""
    """Of a tool's result, and required there: the call that it answers."""
    is_error: bool = False
    """Of a tool's result: it says that the call failed."""


class ToolOffer(Frozen, frozen=True, kw_only=True):
    """A tool that the model may propose to call."""

    name: str
    description: str = ""
    schema: dict[str, Any] = msgspec.field(default_factory=dict)


class Native(Frozen, frozen=True, kw_only=True):
    """What is meant for whoever speaks the same dialect; nobody else reads it."""

    dialect: str
    body: dict[str, Any]
    """Rebuilt from the dialect's field table: nothing is in it that the table does not list."""
    messages: int = 0
    """How many of the request's messages it says; what comes after them is the kernel's word."""


class ModelRequest(Frozen, frozen=True, kw_only=True):
    """A question to a model. Made by `parse_request`, which checks it."""

    messages: tuple[Message, ...]
    tools: tuple[ToolOffer, ...] = ()
    max_tokens: int = limits.MODEL_ANSWER_TOKENS_DEFAULT
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or `tool:NAME`."""
    parallel: bool = True
    """Whether it may propose several calls at once."""
    answer_schema: dict[str, Any] | None = None
    """The JSON Schema that its text has to fit; None: any text. Empty: any JSON object."""
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    effort: str = ""
    """How much it should reason: `minimal`, `low`, `medium`, `high`; empty: as it does."""
    answers: int = 1
    """How many are asked for at once: each is paid for."""
    vectors: bool = False
    """It asks for a vector of each message's text, and for nothing else."""
    model: str = ""
    """What its client calls the model; a provider hears it where its configuration says `*`."""
    features: tuple[str, ...] = ()
    """What it asks of the provider beyond an answer (`web_search`, `remote_image`, `store`): each
    is for the policy to allow."""
    native: Native | None = None
    """As the client wrote it: what a provider of the same dialect is sent."""
    traceparent: str = ""
    """The span that it is asked in: a header beside the question, and no part of it."""


class Unanswered(Frozen, frozen=True, kw_only=True):
    """A model that was asked and did not answer."""

    model: str
    """Its name in the configuration."""
    why: str


class ModelAnswer(Frozen, frozen=True, kw_only=True):
    """What the model said."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tokens_in: int
    tokens_out: int
    model: str
    """What the provider says it was."""
    estimated: bool = False
    """The provider did not count the tokens: they are our estimate."""
    parts: tuple[Part, ...] = ()
    """Its pieces in their order; empty: its text, then its tool calls."""
    stop: Literal["end", "length", "tools", "stop", "filter"] = "end"
    """Why it ended: it was done, too long, it proposes calls, a `stop` came, a filter held it."""
    tokens_cached: int = 0
    """Of `tokens_in`, those that the provider had read before."""
    tokens_extra: int = 0
    """Input tokens that are paid for beside `tokens_in`: what it costs to keep some for later."""
    tokens_reasoning: int = 0
    """Of `tokens_out`, those that are not in its text."""
    answered_by: str = ""
    """The model's name in the configuration, where it is not the one that was asked for."""
    unanswered: tuple[Unanswered, ...] = ()
    """Those that were asked before it."""
    native: Native | None = None
    """What else the provider said in its dialect (refusal, log probabilities, …), by its table."""


class Delta(Frozen, frozen=True, kw_only=True):
    """A piece of an answer on its way. Tool calls are none: they come whole, with the answer."""

    text: str = ""
    kind: Literal["text", "reasoning", "part"] = "text"
    part: Part | None = None
    """Of `part`: one of the answer's parts that comes whole before what follows (thinking), or,
    of the kind `text`, begins here: its text follows."""


Sink = Callable[[Delta], Awaitable[None]]
"""Takes the pieces of an answer as they come; what it has taken begins the answer's text."""

Again = Callable[[], Awaitable[None]]
"""Asked before another attempt of one call, where the one before may have been paid for: reserves
as much once more. Raises LimitReached where the budget has no room."""


SlowDown = Callable[[float], None]
"""Told that the provider takes nothing for so many seconds (429 with Retry-After)."""


class Provider(Protocol):
    """A model behind one interface."""

    async def answer(
        self,
        request: ModelRequest,
        idempotency_key: str,
        again: Again | None = None,
        sink: Sink | None = None,
    ) -> ModelAnswer:
        """The model's answer, whole. Raises `ModelFailed`, `unspent` where its last attempt can't
        have been paid for; the same key may be asked again.

        `sink`: is given pieces of it before, where the provider has any. Once it was given one
        there is no other attempt: the answer is broken then, and that is an error."""

    async def close(self) -> None:
        """Ends what it holds open."""


def parse_request(args: object) -> ModelRequest:
    """Plain JSON as a request. Raises `CallInvalid`, naming the place, for anything odd."""
    try:
        request = msgspec.convert(args, ModelRequest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _refused(str(error)) from None
    if request.native is not None or request.features or request.answers != 1 or request.vectors:
        raise _refused("native, features, answers, vectors belong to the doors of other dialects")
    if request.model:
        raise _refused("which model is asked is said by the call's name")
    parts = [part for message in request.messages for part in message.parts]
    if any(part.kind == "opaque" or part.native for part in parts):
        raise _refused("what only its provider reads belongs to the doors of other dialects")
    if any(part.kind in MEDIA and not part.data for part in parts):
        raise _refused("an image, a sound or a file comes with its data: nothing is fetched")
    return checked(request)


def checked(request: ModelRequest) -> ModelRequest:
    """The request, where its messages and tools fit together. Raises `CallInvalid`."""
    if not request.messages or len(request.messages) > limits.MODEL_MESSAGES_MAX:
        raise _refused(f"there must be 1 to {limits.MODEL_MESSAGES_MAX:,} messages")
    if not 1 <= request.max_tokens <= limits.MODEL_ANSWER_SIZE_BYTES_MAX:
        raise _refused(f"max_tokens is {request.max_tokens}")
    if not 1 <= request.answers <= limits.MODEL_ANSWERS_MAX:
        raise _refused(
            f"n is {request.answers}: at most {limits.MODEL_ANSWERS_MAX} answer can be asked for at"
            " once"
        )
    _check_tools(request.tools)
    _check_messages(request.messages)
    _check_media(request.messages)
    return request


def _check_tools(tools: tuple[ToolOffer, ...]) -> None:
    if len(tools) > limits.MODEL_TOOLS_MAX:
        raise _refused(f"more than {limits.MODEL_TOOLS_MAX} tools are offered")
    seen: set[str] = set()
    for tool in tools:
        if not tool.name or len(tool.name) > limits.CALL_NAME_CHARS_MAX:
            raise _refused("a tool's name is empty or too long")
        if tool.name in seen:
            raise _refused(f"the tool {tool.name} is offered twice")
        seen.add(tool.name)


def _check_messages(messages: tuple[Message, ...]) -> None:
    """Calls only from an assistant; results only of calls that are open, each once."""
    open_calls: set[str] = set()
    if sum(len(message.tool_calls) for message in messages) > limits.MODEL_CALLS_SAID_MAX:
        raise _refused(f"it tells of more than {limits.MODEL_CALLS_SAID_MAX:,} tool calls")
    for place, message in enumerate(messages):
        at = f"messages[{place}]"
        if message.tool_calls and message.role != "assistant":
            raise _refused(f"{at}: only an assistant proposes calls")
        for call in message.tool_calls:
            if not call.id or not call.name or call.id in open_calls:
                raise _refused(f"{at}: a call has no name, or no id of its own")
            open_calls.add(call.id)
        if (message.role == "tool") != bool(message.tool_call_id):
            raise _refused(f"{at}: tool_call_id belongs to messages of the role tool")
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                answered = message.tool_call_id[: limits.CALL_NAME_CHARS_MAX]
                raise _refused(f"{at}: no call {answered!r} is open that it could answer")
            open_calls.remove(message.tool_call_id)


def _check_media(messages: tuple[Message, ...]) -> None:
    """Images, sounds and files: so many, so large, and what they say they are."""
    found = [part for one in messages for part in one.parts if part.kind in MEDIA]
    if len(found) > limits.MODEL_MEDIA_PARTS_MAX:
        raise _refused(f"more than {limits.MODEL_MEDIA_PARTS_MAX} images, sounds and files")
    if sum(len(part.data) for part in found) > limits.MODEL_MEDIA_SIZE_BYTES_MAX:
        raise _refused(
            f"its images, sounds and files have more than {limits.MODEL_MEDIA_SIZE_BYTES_MAX:,}"
            " bytes together, as base64"
        )
    for part in found:
        if part.data and not (
            _MEDIA_TYPE.fullmatch(part.media_type) and _BASE64.fullmatch(part.data)
        ):
            raise _refused(f"{part.kind}: its media_type, or its base64, is not well formed")


def called(config: ModelConfig, request: ModelRequest) -> str:
    """What the provider calls the model that is asked."""
    return request.model if config.model == ANY_MODEL else config.model


def is_loopback(host: str) -> bool:
    """Does it name this machine itself?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def estimate_tokens(text_chars: int) -> int:
    return -(-text_chars // CHARS_PER_TOKEN)


def _refused(why: str) -> errors.CallInvalid:
    return errors.CallInvalid(
        "The request to the model is not of the right form.",
        why=why,
        todo="see ModelRequest in ring0/models/base.py",
    )
