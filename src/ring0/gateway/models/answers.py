"""An answer at a model door: out of an outcome, and what it is called, the same on every replay."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import ModelFailed
from ring0.models import ModelAnswer
from ring0.models.dialects import About, Asked

DEFAULT: Final = "default"
"""The model that answers for whatever name the manifest does not have."""


def read_answer(value: Any) -> ModelAnswer:
    """The outcome of a call of a model. Raises ModelFailed for what was too large to be kept."""
    try:
        return msgspec.convert(value, ModelAnswer)
    except msgspec.ValidationError:
        raise ModelFailed(
            "The model's answer could not be kept.",
            why=f"It is larger than a call may return: {limits.RESULT_SIZE_BYTES_MAX:,} bytes.",
            todo="Ask for less at once: `max_tokens` bounds an answer.",
        ) from None


def answer_id(call: str) -> str:
    """Of the answer that came of that call."""
    return hashlib.sha256(call.encode()).hexdigest()[: limits.ANSWER_ID_CHARS]


def about(asked: Asked, call: str, begun_us: int) -> About:
    """What is told of it beside what the model said."""
    return About(
        id=answer_id(call),
        model=asked.model or DEFAULT,
        created_s=begun_us // 1_000_000,
        asked=asked,
    )
