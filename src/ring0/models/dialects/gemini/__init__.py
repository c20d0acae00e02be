"""Google's Gemini, `generateContent`: a dialect of providers only, since no door speaks it.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from ring0.models.base import ModelAnswer, ModelRequest
from ring0.models.dialects.gemini import payload
from ring0.models.dialects.gemini.answer import Gathered
from ring0.models.dialects.gemini.stream import GeminiReader
from ring0.models.names import NameMap


class Gemini:
    """The dialect `gemini`."""

    name: Final = "gemini"

    def path(self, model: str, *, stream: bool) -> str:
        """The model stands in the address: a name with a `/` or a `?` in it leads nowhere else."""
        there = quote(model.removeprefix("models/"), safe="")
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/{there}:{method}"

    def headers(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key} if key else {}

    def headers_of(self, asked: ModelRequest) -> dict[str, str]:
        return {}

    def payload(
        self, asked: ModelRequest, model: str, names: NameMap, *, official: bool, stream: bool
    ) -> dict[str, Any]:
        return payload.write(asked, model, names)

    def read_answer(
        self, body: bytes, asked: ModelRequest, model: str, names: NameMap
    ) -> ModelAnswer:
        """A whole answer has the form of a stream's pieces, and is one."""
        gathered = Gathered(asked, model, names)
        gathered.take(body)
        return gathered.end()

    def reader(self, asked: ModelRequest, model: str, names: NameMap) -> GeminiReader:
        return GeminiReader(asked, model, names)
