"""OpenAI's chat completions; also spoken by vLLM, Ollama, OpenRouter and most others.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ring0.errors import Ring0Error
from ring0.models.base import ModelAnswer, ModelRequest
from ring0.models.dialects import About, Asked
from ring0.models.dialects.chat import answer, request
from ring0.models.dialects.chat.stream import ChatReader, ChatWriter
from ring0.models.names import NameMap


class Chat:
    """The dialect `chat`."""

    name: Final = "chat"

    def asked(self, body: Any, headers: Mapping[str, str]) -> Asked:
        return request.asked(body)

    def request(self, body: dict[str, Any]) -> ModelRequest:
        return request.read(body)

    def path(self, model: str, *, stream: bool) -> str:
        return "/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def headers_of(self, asked: ModelRequest) -> dict[str, str]:
        return {}

    def payload(
        self, asked: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
    ) -> dict[str, Any]:
        return request.write(asked, model, names, official=official, stream=stream)

    def read_answer(
        self, body: bytes, asked: ModelRequest, model: str, names: NameMap
    ) -> ModelAnswer:
        return answer.read(body, asked, model, names)

    def reader(self, asked: ModelRequest, model: str, names: NameMap) -> ChatReader:
        return ChatReader(asked, model, names)

    def write_answer(self, found: ModelAnswer, about: About) -> dict[str, Any]:
        return answer.write(found, about)

    def writer(self, about: About) -> ChatWriter:
        return ChatWriter(about)

    def error(self, error: Ring0Error, status: int) -> dict[str, Any]:
        return answer.error(error, status)
