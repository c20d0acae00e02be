"""A stream of Gemini's: each event is an answer of its own form, with what has come since."""

from __future__ import annotations

from ring0.models import sse
from ring0.models.base import Delta, ModelAnswer, ModelRequest
from ring0.models.dialects.gemini.answer import Gathered
from ring0.models.names import NameMap


class GeminiReader:
    """Puts a provider's pieces together."""

    def __init__(self, request: ModelRequest, model: str, names: NameMap) -> None:
        self._events = sse.Events()
        self._gathered = Gathered(request, model, names)

    def feed(self, chunk: bytes) -> list[Delta]:
        return [
            delta for event in self._events.feed(chunk) for delta in self._gathered.take(event.data)
        ]

    def end(self) -> ModelAnswer:
        return self._gathered.end()
