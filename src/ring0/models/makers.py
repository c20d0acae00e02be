"""Who serves models over HTTP: a row for each, and a row is all that another one takes.

Not here: how they are asked (http.py), in which words (dialects/).
"""

from __future__ import annotations

from typing import Final

from ring0.types import Frozen


class Maker(Frozen, frozen=True, kw_only=True):
    """One provider, as `provider = "NAME"` calls it."""

    dialect: str
    base_url: str
    """Who is asked where a configuration names no other address."""
    key: str = ""
    """Where its key is (of the vault, or a variable), where a configuration names none."""
    prices: str = ""
    """Its table in prices.toml; empty: its prices are the operator's to say."""
    made: bool = True
    """Whoever is at that address made the dialect, and takes its newest fields; who speaks it too
    lacks some."""


OVER_HTTP: Final = {
    "openai": Maker(
        dialect="chat",
        base_url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        prices="openai",
    ),
    "openai-responses": Maker(
        dialect="responses",
        base_url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        prices="openai",
    ),
    "anthropic": Maker(
        dialect="messages",
        base_url="https://api.anthropic.com/v1",
        key="ANTHROPIC_API_KEY",
        prices="anthropic",
    ),
    "gemini": Maker(
        dialect="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key="GEMINI_API_KEY",
        prices="gemini",
    ),
    "openrouter": Maker(
        dialect="chat",
        base_url="https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
        made=False,
    ),
    "ollama": Maker(dialect="chat", base_url="http://127.0.0.1:11434/v1", made=False),
    "vllm": Maker(
        dialect="chat", base_url="http://127.0.0.1:8000/v1", key="VLLM_API_KEY", made=False
    ),
}
