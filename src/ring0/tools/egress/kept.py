"""Cookies and tokens that answers bring: the sandbox gets a handle, the kernel keeps the value.

A handle in a field that is for credentials, sent to the same host, is put back on the far side;
anywhere else it is a meaningless word. Lives and dies with its sandbox.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from ring0 import limits
from ring0.runtime import Runtime
from ring0.tools.egress.headers import HANDLE, is_secret
from ring0.tools.egress.request import EgressAnswer, EgressRequest

_SHAPED_LIKE_TOKENS: Final = (
    r"(?:access|refresh|id|session|auth|bearer|device)[_-]?token|client[_-]?secret"
)
_JSON_FIELD: Final = re.compile(
    rf'"({_SHAPED_LIKE_TOKENS})"(\s*:\s*)"((?:[^"\\]|\\.)+)"'.encode(), re.IGNORECASE
)
_FORM_FIELD: Final = re.compile(rf"(^|[&#?])({_SHAPED_LIKE_TOKENS})=([^&\s]+)", re.IGNORECASE)
_COOKIE: Final = re.compile(r"\s*([^=;\s]+)=([^;]*)(.*)")
_KEEPABLE: Final = re.compile(r"[\x20-\x7e]{1,8192}")
"""What can stand in a header. A value with a line break in it would begin a line of its own."""


class Keeper(Protocol):
    """Keeps values for one sandbox, or one run. It is called from a thread as well."""

    def keep(self, origin: str, name: str, value: str) -> str:
        """A handle for a value that came from this origin (scheme, host, port)."""
        ...

    def find(self, origin: str, handle: str) -> str | None:
        """The value, for the origin that it came from; None for all others."""
        ...


class Kept:
    """A keeper in memory. Its `repr` shows no value."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._values: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._handles: dict[tuple[str, str], str] = {}

    def __repr__(self) -> str:
        return f"Kept({len(self._values)})"

    def keep(self, origin: str, name: str, value: str) -> str:
        """A new handle; the oldest goes where there are too many.

        Several threads may be here: what one has looked up, another may have dropped.
        """
        handle = self._handles.get((origin, value), "")
        if handle:
            with contextlib.suppress(KeyError):
                self._values.move_to_end(handle)
                return handle
        handle = "ring0-kept-" + self._runtime.random_bytes(16).hex()
        self._handles[origin, value] = handle
        self._values[handle] = (origin, value)
        while len(self._values) > limits.EGRESS_KEPT_MAX:
            _, oldest = self._values.popitem(last=False)
            self._handles.pop(oldest, None)
        return handle

    def find(self, origin: str, handle: str) -> str | None:
        came_from, value = self._values.get(handle, ("", ""))
        return value if came_from == origin and value else None


def put_back(request: EgressRequest, keeper: Keeper) -> tuple[dict[str, str], list[str]]:
    """The headers with handles of this host replaced, and the values that were put in.

    A handle that is not this host's stays the meaningless word that it is.
    """
    values: list[str] = []

    def real(found: re.Match[str]) -> str:
        value = keeper.find(request.origin, found.group())
        if value is None:
            return found.group()
        values.append(value)
        return value

    headers = {
        name: HANDLE.sub(real, value) if is_secret(name) else value
        for name, value in request.headers.items()
    }
    return headers, values


def take_in(answer: EgressAnswer, origin: str, keeper: Keeper) -> EgressAnswer:
    """The answer with handles in place of cookies and of fields that are shaped like tokens.

    Those beyond what is kept at all are dropped.
    """
    left = limits.EGRESS_KEPT_MAX

    def handle(name: str, value: str) -> str:
        nonlocal left
        if HANDLE.fullmatch(value):
            return value
        left -= 1
        if left < 0 or not _KEEPABLE.fullmatch(value):
            return "dropped"
        return keeper.keep(origin, name, value)

    headers = []
    for name, value in answer.headers:
        if name == "set-cookie":
            headers += [(name, cookie)] if (cookie := _cookie(value, handle)) else []
        elif is_secret(name) and name != "www-authenticate":
            headers.append((name, handle(name, value)))
        else:
            headers.append((name, _form(value, handle)))
    kind = next((value for name, value in answer.headers if name == "content-type"), "").lower()
    body = _JSON_FIELD.sub(lambda found: _json(found, handle), answer.body)
    if "form-urlencoded" in kind or "text/plain" in kind:
        body = _form(body.decode("latin-1"), handle).encode("latin-1")
    return EgressAnswer(status=answer.status, headers=tuple(headers), body=body)


def _cookie(value: str, handle: Callable[[str, str], str]) -> str:
    """The cookie with a handle for its value, for its own host only; one without value: as is."""
    found = _COOKIE.fullmatch(value)
    if found is None:
        return ""
    name, text, rest = found[1], found[2].strip(), found[3]
    kept = [part for part in rest.split(";") if not part.strip().lower().startswith("domain")]
    return f"{name}={handle(name, text) if text else ''}" + ";".join(kept)


def _json(found: re.Match[bytes], handle: Callable[[str, str], str]) -> bytes:
    try:
        value = json.loads(b'"' + found[3] + b'"')
    except ValueError:
        value = found[3].decode("utf-8", "replace")
    replaced = handle(found[1].decode(), value).encode()
    return b'"' + found[1] + b'"' + found[2] + b'"' + replaced + b'"'


def _form(text: str, handle: Callable[[str, str], str]) -> str:
    return _FORM_FIELD.sub(lambda found: f"{found[1]}{found[2]}={handle(found[2], found[3])}", text)
