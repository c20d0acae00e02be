"""What every model provider takes and gives: `ModelRequest`, `ModelAnswer`, `Provider`.

The kernel's one form of a conversation; the doors translate their dialects into it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol

import msgspec

from ring0 import errors, limits
from ring0.types import Frozen

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"
MESSAGES_MAX: Final = 4_096
TOOLS_MAX: Final = 256
CHARS_PER_TOKEN: Final = 4
"""The estimate where nobody counts: a token is about four characters."""


class ToolCall(Frozen, frozen=True, kw_only=True):
    """A tool call that a model proposes."""

    id: str
    name: str
    args: dict[str, Any]


class Message(Frozen, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant only."""
    tool_call_id: str = ""
    """Of a tool's result, and required there: the call that it answers."""


class ToolOffer(Frozen, frozen=True, kw_only=True):
    """A tool that the model may propose to call."""

    name: str
    description: str = ""
    schema: dict[str, Any] = msgspec.field(default_factory=dict)


class ModelRequest(Frozen, frozen=True, kw_only=True):
    """A question to a model. Made by `parse_request`, which checks it."""

    messages: tuple[Message, ...]
    tools: tuple[ToolOffer, ...] = ()
    max_tokens: int = limits.MODEL_ANSWER_TOKENS_DEFAULT


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


Again = Callable[[], Awaitable[None]]
"""Asked before another attempt of one call, where the one before may have been paid for: reserves
as much once more. Raises LimitReached where the budget has no room."""


SlowDown = Callable[[float], None]
"""Told that the provider takes nothing for so many seconds (429 with Retry-After)."""


class Provider(Protocol):
    """A model behind one interface."""

    async def answer(
        self, request: ModelRequest, idempotency_key: str, again: Again | None = None
    ) -> ModelAnswer:
        """The model's answer. Raises `ModelFailed`, `unspent` where its last attempt can't have
        been paid for; the same key may be asked again."""

    async def close(self) -> None:
        """Ends what it holds open."""


def parse_request(args: object) -> ModelRequest:
    """Plain JSON as a request. Raises `CallInvalid`, naming the place, for anything odd."""
    try:
        request = msgspec.convert(args, ModelRequest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _refused(str(error)) from None
    if not request.messages or len(request.messages) > MESSAGES_MAX:
        raise _refused(f"there must be 1 to {MESSAGES_MAX:,} messages")
    if not 1 <= request.max_tokens <= limits.MODEL_ANSWER_SIZE_BYTES_MAX:
        raise _refused(f"max_tokens is {request.max_tokens}")
    _check_tools(request.tools)
    _check_messages(request.messages)
    return request


def _check_tools(tools: tuple[ToolOffer, ...]) -> None:
    if len(tools) > TOOLS_MAX:
        raise _refused(f"more than {TOOLS_MAX} tools are offered")
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
                raise _refused(f"{at}: it answers no open call")
            open_calls.remove(message.tool_call_id)


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
