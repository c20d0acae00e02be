"""Anthropic's messages; also spoken by others who serve Claude's clients.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ring0.errors import Ring0Error
from ring0.models.base import ModelAnswer, ModelRequest
from ring0.models.dialects import About, Asked
from ring0.models.dialects.messages import answer, payload, request
from ring0.models.dialects.messages.stream import MessagesReader
from ring0.models.dialects.messages.telling import MessagesWriter
from ring0.models.names import NameMap

VERSION: Final = "2023-06-01"
"""The newer 2026-10-21 tells answers alike and takes less (no `temperature`)."""


class Messages:
    """The dialect `messages`."""

    name: Final = "messages"

    def asked(self, body: Any, headers: Mapping[str, str]) -> Asked:
        return request.asked(body, headers)

    def request(self, body: dict[str, Any]) -> ModelRequest:
        return request.read(body)

    def path(self, model: str, *, stream: bool) -> str:
        return "/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}

    def headers_of(self, asked: ModelRequest) -> dict[str, str]:
        return payload.headers(asked)

    def payload(
        self, asked: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
    ) -> dict[str, Any]:
        return payload.write(asked, model, names, stream=stream)

    def read_answer(
        self, body: bytes, asked: ModelRequest, model: str, names: NameMap
    ) -> ModelAnswer:
        return answer.read(body, asked, model, names)

    def reader(self, asked: ModelRequest, model: str, names: NameMap) -> MessagesReader:
        return MessagesReader(asked, model, names)

    def write_answer(self, found: ModelAnswer, about: About) -> dict[str, Any]:
        return answer.write(found, about)

    def writer(self, about: About) -> MessagesWriter:
        return MessagesWriter(about)

    def error(self, error: Ring0Error, status: int) -> dict[str, Any]:
        return answer.error(error, status)
