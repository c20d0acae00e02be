"""OpenAI's embeddings: vectors for texts, from a model that answers with nothing else.

A question like any other, so it is judged, paid for and on record like any other: each text is a
message, and the vectors are the answer's `native`. It never comes in pieces.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.models.base import Message, ModelAnswer, ModelRequest, Native
from ring0.models.dialects import About, Asked
from ring0.models.dialects.chat.answer import error as error_body
from ring0.models.dialects.fields import Table
from ring0.models.names import NameMap
from ring0.models.wire import count, decoded, one_line, refused, unreadable

NAME: Final = "embeddings"
TABLE: Final = Table(NAME)
_FLOAT_BYTES: Final = 4
_FORMATS: Final = ("float", "base64")


class _One(msgspec.Struct):
    embedding: list[float] | str
    index: int


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Body(msgspec.Struct):
    data: list[_One]
    model: str | None = None
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Body).decode


class Embeddings:
    """The dialect `embeddings`."""

    name: Final = NAME

    def asked(self, body: Any, headers: Mapping[str, str]) -> Asked:
        found, _ = TABLE.rebuild(body)
        return Asked(model=found.pop("model", ""), body=found)

    def request(self, body: dict[str, Any]) -> ModelRequest:
        found, _ = TABLE.rebuild(body)
        if found.get("encoding_format", "float") not in _FORMATS:
            raise refused("encoding_format", f"it is one of {', '.join(_FORMATS)}")
        if not 1 <= found.get("dimensions", 1) <= limits.EMBEDDING_DIMENSIONS_MAX:
            raise refused("dimensions", f"there are 1 to {limits.EMBEDDING_DIMENSIONS_MAX:,}")
        return ModelRequest(
            messages=tuple(Message(role="user", content=text) for text in _texts(found)),
            max_tokens=1,
            vectors=True,
            native=Native(dialect=NAME, body=found),
        )

    def path(self, model: str, *, stream: bool) -> str:
        return "/embeddings"

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def headers_of(self, request: ModelRequest) -> dict[str, str]:
        return {}

    def payload(
        self, request: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
    ) -> dict[str, Any]:
        assert request.native is not None  # Nobody else's request asks for vectors.
        # A quarter of what they take as numbers; who does not know it sends numbers.
        return {**request.native.body, "model": model, "encoding_format": "base64"}

    def read_answer(
        self, body: bytes, request: ModelRequest, model: str, names: NameMap
    ) -> ModelAnswer:
        parsed = decoded(_decode, body)
        by_place = {one.index: one.embedding for one in parsed.data}
        assert request.native is not None
        texts = len(_texts(request.native.body))
        if sorted(by_place) != list(range(texts)) or len(parsed.data) != texts:
            raise unreadable(f"it has not one vector for each of {texts} texts")
        vectors = [_packed(by_place[place]) for place in range(texts)]
        if len({len(vector) for vector in vectors}) != 1:
            raise unreadable("its vectors are not of one length")
        said = (parsed.usage or _Usage()).prompt_tokens
        tokens_in, guessed = count(said, request)
        return ModelAnswer(
            text="",
            tokens_in=tokens_in,
            tokens_out=0,
            model=one_line(parsed.model or model, limits.CALL_NAME_CHARS_MAX),
            estimated=guessed,
            native=Native(dialect=NAME, body={"vectors": vectors}),
        )

    def write_answer(self, answer: ModelAnswer, about: About) -> dict[str, Any]:
        vectors = answer.native.body["vectors"] if answer.native else []
        packed = about.asked.body.get("encoding_format") == "base64"
        usage = {"prompt_tokens": answer.tokens_in, "total_tokens": answer.tokens_in}
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": place,
                    "embedding": one if packed else _numbers(one),
                }
                for place, one in enumerate(vectors)
            ],
            "model": answer.model,
            "usage": usage,
        }

    def error(self, error: Ring0Error, status: int) -> dict[str, Any]:
        return error_body(error, status)

    def reader(self, request: ModelRequest, model: str, names: NameMap) -> NoReturn:
        raise unreadable("vectors never come in pieces")

    def writer(self, about: About) -> NoReturn:
        raise unreadable("vectors never come in pieces")


def _texts(body: dict[str, Any]) -> list[str]:
    """Raises CallInvalid."""
    found = body.get("input")
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not 1 <= len(texts) <= limits.EMBEDDING_TEXTS_MAX:
        raise refused("input", f"it is a text, or a list of 1 to {limits.EMBEDDING_TEXTS_MAX:,}")
    if not all(isinstance(text, str) and text for text in texts):
        # Tokens hide from whoever judges what is said in them.
        raise refused("input", "each is a text with something in it: tokens are not taken")
    return texts


def _packed(vector: list[float] | str) -> str:
    """As base64 of 32-bit floats, the lowest byte first. Raises ModelFailed."""
    try:
        numbers = _numbers(vector) if isinstance(vector, str) else vector
        fits = 1 <= len(numbers) <= limits.EMBEDDING_DIMENSIONS_MAX
        if not fits or not all(map(math.isfinite, numbers)):
            raise ValueError("a number is none, or there are none or too many")
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except (ValueError, OverflowError, struct.error) as error:
        raise unreadable(f"a vector of its is none: {error}") from None


def _numbers(packed: str) -> list[float]:
    """Raises ValueError."""
    raw = base64.b64decode(packed, validate=True)
    if len(raw) % _FLOAT_BYTES:
        raise ValueError("its bytes are no whole numbers")
    return list(struct.unpack(f"<{len(raw) // _FLOAT_BYTES}f", raw))
