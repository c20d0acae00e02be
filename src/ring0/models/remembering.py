"""A client's question as its provider gets it, with what the kernel puts in and leaves out.

The client's own body stays on record as it is; `memory` of the call's arguments says what is done
to it. Values only: not here what is recalled, or which turns make room (gateway/models), nor which
orders stand (kernel/calls/models.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from ring0 import errors, limits
from ring0.models.base import CHARS_PER_TOKEN, ModelRequest, checked
from ring0.models.dialects import Dialect, dialect
from ring0.types import Frozen

_PLACES: Final = {"chat": "messages", "messages": "messages", "responses": "input"}
"""Where each dialect has the conversation. One that is not here is never touched."""
_MEDIA: Final = frozenset({"data", "file_data", "encrypted_content", "signature"})
_MEDIA_CHARS: Final = limits.WINDOW_MEDIA_TOKENS * CHARS_PER_TOKEN

Side = Literal["lead", "user", "model", "result"]
"""Who says it: the operator of the agent, the user, the model, a tool."""


class Left(Frozen, frozen=True, kw_only=True):
    """What was left out, and why: for whoever reads the record."""

    turns: int
    tokens: int
    """Of what was left out; and of what stays, without the block in its place."""
    kept_tokens: int
    most_tokens: int
    why: str = ""


class Edit(Frozen, frozen=True, kw_only=True):
    """What is done to one question."""

    left_out: int = 0
    """So many messages, behind the operator's own at the beginning."""
    window: str = ""
    """Stands in their place."""
    recalled: str = ""
    """Stands before what was said last."""
    left: Left | None = None
    records: tuple[str, ...] = ()
    """Those that `recalled` quotes."""
    without: tuple[str, ...] = ()
    """What could not be put in, and why."""


def edited(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a model's call as its provider's body is made of them. Raises
    CallInvalid."""
    if "memory" not in args:
        return args
    try:
        edit = msgspec.convert(args["memory"], Edit)
        body = apply(args["dialect"], args["body"], edit)
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError, IndexError):
        raise errors.CallInvalid(
            "What memory adds to the question can't be read.", todo="Ask at a model door."
        ) from None
    return {**{key: value for key, value in args.items() if key != "memory"}, "body": body}


def apply(name: str, body: dict[str, Any], edit: Edit) -> dict[str, Any]:
    """The body with that done to it."""
    items = list(conversation(name, body) or ())
    lead = leading(name, items)
    items[lead : lead + edit.left_out] = []
    if edit.window:
        items.insert(lead, _said(name, edit.window))
    if edit.recalled:
        items = _quoted(name, items, lead, edit.recalled)
    return {**body, _PLACES[name]: items}


def ordered(args: dict[str, Any], orders: str) -> dict[str, Any]:
    """The arguments of a model's call with these standing orders before all else, as its operator's
    own words are told; of what asks for no answer, as they are. Raises CallInvalid."""
    name = args.get("dialect", "")
    try:
        if not name:
            return {**args, "messages": _led(args["messages"], orders)}
        body = args["body"]
        if name == "chat":
            body = {**body, "messages": _led(body["messages"], orders)}
        elif name == "messages":
            body = {**body, "system": _before(orders, body.get("system"))}
        elif name == "responses":
            body = {**body, "instructions": _before(orders, body.get("instructions"))}
    except (KeyError, TypeError, AttributeError, IndexError):
        raise errors.CallInvalid(
            "A model is asked with no messages.", todo="Give the conversation as a list of them."
        ) from None
    return {**args, "body": body}


def _led(messages: list[Any], orders: str) -> list[Any]:
    """One message of the operator's at the beginning: templates of models take no second."""
    if messages and messages[0].get("role") in ("system", "developer"):
        first, *rest = messages
        return [{**first, "content": _before(orders, first.get("content"))}, *rest]
    return [{"role": "system", "content": orders}, *messages]


def _before(orders: str, said: Any) -> Any:
    if isinstance(said, list):
        return [{"type": "text", "text": orders}, *said]
    return f"{orders}\n{said}" if said else orders


def conversation(name: str, body: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What was said, one after another; None: nobody here can tell."""
    place = _PLACES.get(name)
    found = body.get(place) if place else None
    if isinstance(found, str) and name == "responses":
        return [_said(name, found)] if found else []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return None
    return found


def leading(name: str, items: Sequence[dict[str, Any]]) -> int:
    """How many at the beginning are the operator's own: they always stay."""
    others = (number for number, one in enumerate(items) if side(name, one) != "lead")
    return next(others, len(items))


def turns(name: str, items: Sequence[dict[str, Any]]) -> list[int]:
    """Where each turn begins that stays or goes as a whole, behind what leads: what the model says
    and calls in a row, with the results."""
    begins: list[int] = []
    before: Side = "lead"
    for number in range(leading(name, items), len(items)):
        now = side(name, items[number])
        goes_on = now == "result" or (now == "model" and before == "model")
        if not begins or not goes_on:
            begins.append(number)
        before = now
    return begins


def side(name: str, item: dict[str, Any]) -> Side:
    kind, role = str(item.get("type", "message")), item.get("role")
    if name == "responses" and kind != "message":
        return "result" if kind.endswith("_output") else "model"
    if role in ("system", "developer"):
        return "lead"
    if role == "tool" or (role == "user" and any(_is_result(one) for one in _blocks(item))):
        return "result"
    return "model" if role == "assistant" else "user"


def newest(name: str, items: Sequence[dict[str, Any]]) -> str:
    """The text of what was said last, by the user or by tools."""
    found: list[str] = []
    for item in reversed(items):
        if side(name, item) not in ("user", "result"):
            break
        found.append(text_of(item))
        if side(name, item) == "user":
            break
    return "\n".join(reversed(found)).strip()


def text_of(item: dict[str, Any]) -> str:
    """What it says in words."""
    return " ".join(filter(None, _texts(item)))


def tokens(items: Sequence[dict[str, Any]]) -> int:
    """About how many they are: as the door counts elsewhere, and pictures by the piece."""
    return -(-sum(_chars(one) for one in items) // CHARS_PER_TOKEN)


def cut(sizes: Sequence[int], most: int) -> int:
    """How many turns of these sizes (tokens) make room. It follows the conversation from its
    beginning, so that what it says of a longer one goes on from what it said of a shorter one: the
    cut moves in steps, and a provider's cache of what stands before holds in between."""
    first, total = 0, 0
    for number, size in enumerate(sizes):
        total += size
        room = most - most // limits.WINDOW_BLOCK_SHARE if first else most
        if total > room:
            while first < number and total > most // limits.WINDOW_CUT_SHARE:
                total -= sizes[first]
                first += 1
    return first


def fits(name: str, body: dict[str, Any], edit: Edit) -> ModelRequest | None:
    """The question with that done to it, where it is still one."""
    spoken: Dialect = dialect(name)
    try:
        return checked(spoken.request(apply(name, body, edit)))
    except errors.CallInvalid:
        return None


# --- in each dialect ------------------------------------------------------------------------


def _said(name: str, text: str) -> dict[str, Any]:
    typed = {"type": "message"} if name == "responses" else {}
    return {**typed, "role": "user", "content": text}


def _quoted(name: str, items: list[dict[str, Any]], lead: int, text: str) -> list[dict[str, Any]]:
    """With this before what was said last, but after results: they follow what called for them."""
    if len(items) <= lead:
        return [*items, _said(name, text)]
    *before, last = items
    if name == "messages" and last.get("role") == "user":
        content = last.get("content", "")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        at = max((n + 1 for n, one in enumerate(blocks) if _is_result(one)), default=0)
        blocks.insert(at, {"type": "text", "text": text})
        return [*before, {**last, "content": [one for one in blocks if one.get("text") != ""]}]
    if side(name, last) == "result":
        return [*items, _said(name, text)]
    return [*before, _said(name, text), last]


def _blocks(item: dict[str, Any]) -> list[Any]:
    content = item.get("content")
    return content if isinstance(content, list) else []


def _is_result(block: Any) -> bool:
    return isinstance(block, dict) and str(block.get("type", "")).endswith("tool_result")


def _texts(value: Any) -> list[str]:
    """Words of a message: its content and its blocks', in their order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    if isinstance(value, dict):
        return [
            text for key in ("text", "content", "output") for text in _texts(value.get(key, ""))
        ]
    return []


def _chars(value: Any) -> int:
    if isinstance(value, str):
        is_data = value.startswith("data:") and len(value) > _MEDIA_CHARS
        return _MEDIA_CHARS if is_data else len(value)
    if isinstance(value, list):
        return sum(_chars(one) for one in value)
    if isinstance(value, dict):
        return sum(
            len(key) + min(_chars(one), _MEDIA_CHARS if key in _MEDIA else 1 << 62)
            for key, one in value.items()
        )
    return len(str(value))
