"""OpenAI's responses; also spoken by newer vLLM, Ollama and OpenRouter.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ring0.errors import Ring0Error
from ring0.models.base import ModelAnswer, ModelRequest
from ring0.models.dialects import About, Asked
from ring0.models.dialects.chat.answer import error as error_body
from ring0.models.dialects.responses import answer, request, written
from ring0.models.dialects.responses.stream import ResponsesReader
from ring0.models.dialects.responses.telling import ResponsesWriter
from ring0.models.names import NameMap


class Responses:
    """The dialect `responses`."""

    name: Final = "responses"

    def asked(self, body: Any, headers: Mapping[str, str]) -> Asked:
        return request.asked(body)

    def request(self, body: dict[str, Any]) -> ModelRequest:
        return request.read(body)

    def path(self, model: str, *, stream: bool) -> str:
        return "/responses"

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def headers_of(self, asked: ModelRequest) -> dict[str, str]:
        return {}

    def payload(
        self, asked: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
    ) -> dict[str, Any]:
        return written.payload(asked, model, names, stream=stream)

    def read_answer(
        self, body: bytes, asked: ModelRequest, model: str, names: NameMap
    ) -> ModelAnswer:
        return answer.read(body, asked, model, names)

    def reader(self, asked: ModelRequest, model: str, names: NameMap) -> ResponsesReader:
        return ResponsesReader(asked, model, names)

    def write_answer(self, found: ModelAnswer, about: About) -> dict[str, Any]:
        return answer.write(found, about)

    def writer(self, about: About) -> ResponsesWriter:
        return ResponsesWriter(about)

    def error(self, error: Ring0Error, status: int) -> dict[str, Any]:
        return error_body(error, status)

    def going_on(
        self, body: dict[str, Any], before: dict[str, Any], said: ModelAnswer, about: About
    ) -> dict[str, Any]:
        """The body of a request that goes on from an earlier answer, with all that was said before
        it: `before` is that one's body, `said` its answer as the client heard it. Its instructions
        are not taken over: each request brings its own."""
        heard = [request.TABLE.rebuild(one, "item")[0] for one in answer.items(said, about)]
        earlier, new = (request.items(one.get("input", "")) for one in (before, body))
        return {**body, "input": [*earlier, *heard, *new]}
