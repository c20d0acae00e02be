"""The dialects in which clients ask models and providers answer: each a folder, all of one shape.

    table.toml   what may be in a request, as data: what is not listed is an error that names it
    request.py   a client's body as a `ModelRequest`, and a `ModelRequest` as a provider's body
    answer.py    a provider's body as a `ModelAnswer`, and a `ModelAnswer` as a client's body
    stream.py    the same for answers that come in pieces (server-sent events)

Values only: nothing here sends, decides or knows a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from ring0.errors import Ring0Error
from ring0.models.base import Delta, ModelAnswer, ModelRequest
from ring0.models.names import NameMap
from ring0.types import Frozen


class Asked(Frozen, frozen=True, kw_only=True):
    """A client's body, read: what it asks for, and how it wants to be told."""

    model: str
    """As the client calls it."""
    body: dict[str, Any]
    """Rebuilt from the table, without `model` and without how the answer is to come."""
    stream: bool = False
    usage: bool = False
    """Of a stream: the tokens are to be told at its end, where the dialect leaves the choice."""
    previous: str = ""
    """The answer (its id) that this goes on from, where the dialect has such a thing."""


class About(Frozen, frozen=True, kw_only=True):
    """What an answer to a client says beside what the model said."""

    id: str
    """Of ours, made from the call's id: the same on every replay. Letters, digits, `_`."""
    model: str
    created_s: int
    """Seconds since 1970."""
    asked: Asked


class Reader(Protocol):
    """Reads a provider's stream. Raises ModelFailed for what is none, or is cut short."""

    def feed(self, chunk: bytes) -> Sequence[Delta]:
        """The pieces that have become whole with these bytes."""

    def end(self) -> ModelAnswer:
        """The whole answer, when there are no more bytes."""


class Writer(Protocol):
    """Writes a client's stream: complete server-sent events, in the dialect's order."""

    def begin(self) -> bytes: ...
    def delta(self, delta: Delta) -> bytes: ...

    def ping(self) -> bytes:
        """Keeps the connection alive, and means nothing."""

    def end(self, answer: ModelAnswer) -> bytes:
        """What `delta` has not told of it, and the end."""

    def error(self, error: Ring0Error) -> bytes:
        """The end of a stream that is broken."""


class AtProvider(Protocol):
    """One way to ask a model over HTTP."""

    @property
    def name(self) -> str: ...

    def path(self, model: str, *, stream: bool) -> str:
        """Beneath a provider's base address: `/chat/completions`."""

    def headers(self, key: str) -> dict[str, str]:
        """With which a provider is asked; `key` may be empty."""

    def headers_of(self, request: ModelRequest) -> dict[str, str]:
        """What this request needs beside those."""

    def payload(
        self, request: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
    ) -> dict[str, Any]:
        """The body for a provider. `official`: the dialect's own maker, who has newer fields."""

    def read_answer(
        self, body: bytes, request: ModelRequest, model: str, names: NameMap
    ) -> ModelAnswer:
        """A provider's body. Raises ModelFailed."""

    def reader(self, request: ModelRequest, model: str, names: NameMap) -> Reader: ...


class Dialect(AtProvider, Protocol):
    """One that clients speak, too: a door answers in it."""

    def asked(self, body: Any, headers: Mapping[str, str]) -> Asked:
        """A client's JSON, and what of its headers belongs to the question (by lower-case name).
        Raises CallInvalid, naming the field."""

    def request(self, body: dict[str, Any]) -> ModelRequest:
        """The `body` of an `Asked` as a request, `native` included. Raises CallInvalid."""

    def write_answer(self, answer: ModelAnswer, about: About) -> dict[str, Any]:
        """The body for a client."""

    def writer(self, about: About) -> Writer: ...

    def error(self, error: Ring0Error, status: int) -> dict[str, Any]:
        """The body of a refusal, as its clients read it."""


def dialect(name: str) -> Dialect:
    """The dialect of that name that clients speak. Raises KeyError."""
    return _all()[name]


def at_provider(name: str) -> AtProvider:
    """The dialect of that name that providers speak. Raises KeyError."""
    if name == "gemini":
        from ring0.models.dialects.gemini import Gemini

        return Gemini()
    return _all()[name]


def _all() -> dict[str, Dialect]:
    if not _KNOWN:
        from ring0.models.dialects.chat import Chat
        from ring0.models.dialects.embeddings import Embeddings
        from ring0.models.dialects.messages import Messages
        from ring0.models.dialects.responses import Responses

        _KNOWN.update({one.name: one for one in (Chat(), Messages(), Responses(), Embeddings())})
    return _KNOWN


_KNOWN: Final[dict[str, Dialect]] = {}
