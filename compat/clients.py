"""Which clients there are: the program, its arguments, the environment and the door it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Client:
    """One row of the table."""

    name: str
    folder: str
    """Its program's, beneath examples/."""
    environment: str
    """Its libraries': requirements/compat/NAME.txt."""
    package: str
    """Whose version the table tells."""
    path: str
    """The route that it asks at."""
    arguments: tuple[str, ...] = ()
    tells_results: bool = True
    """It tells a model the results of its tools as results, and not as a user's text."""
    refund: str = "refund"
    """What its refund tool is called when a model proposes it."""


CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"

CLIENTS: Final = (
    Client("openai, chat", "openai", "openai", "openai", CHAT, ("--api", "chat")),
    Client("openai, responses", "openai", "openai", "openai", RESPONSES, ("--api", "responses")),
    Client("anthropic", "anthropic", "anthropic", "anthropic", MESSAGES),
    Client("openai-agents", "openai-agents", "openai-agents", "openai-agents", RESPONSES),
    Client(
        "pydantic-ai, openai:", "pydantic-ai", "pydantic-ai", "pydantic-ai-slim", RESPONSES,
        ("--model", "openai:gpt-5-mini"),
    ),
    Client(
        "pydantic-ai, openai-chat:", "pydantic-ai", "pydantic-ai", "pydantic-ai-slim", CHAT,
        ("--model", "openai-chat:gpt-5-mini"),
    ),
    Client(
        "pydantic-ai, anthropic:", "pydantic-ai", "pydantic-ai", "pydantic-ai-slim", MESSAGES,
        ("--model", "anthropic:claude-sonnet-4-5"),
    ),
    Client(
        "langchain, openai:", "langchain", "langchain", "langchain", CHAT,
        ("--model", "openai:gpt-5-mini"),
    ),
    Client(
        "langchain, anthropic:", "langchain", "langchain", "langchain", MESSAGES,
        ("--model", "anthropic:claude-sonnet-4-5"),
    ),
    Client("langgraph", "langgraph", "langchain", "langgraph", CHAT),
    Client("smolagents", "smolagents", "smolagents", "smolagents", CHAT, tells_results=False),
    Client(
        "claude-agent-sdk", "claude-agent-sdk", "claude-agent-sdk", "claude-agent-sdk", MESSAGES,
        refund="mcp__shop__refund",
    ),
)  # fmt: skip
