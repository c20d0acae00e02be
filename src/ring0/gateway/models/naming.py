"""What an answer at a model door is called: the same on every replay."""

from __future__ import annotations

import hashlib

from ring0 import limits
from ring0.models.dialects import About, Asked


def answer_id(call: str) -> str:
    """Of the answer that came of that call."""
    return hashlib.sha256(call.encode()).hexdigest()[: limits.ANSWER_ID_CHARS]


def about(asked: Asked, call: str, begun_us: int) -> About:
    """What is told of it beside what the model said."""
    return About(
        id=answer_id(call),
        model=asked.model or "default",
        created_s=begun_us // 1_000_000,
        asked=asked,
    )
