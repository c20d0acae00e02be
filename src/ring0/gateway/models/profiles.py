"""Normalisation profiles: what a client says differently on each start, though it asks the same.

A process without paths is known by what it asks. A profile says what of that does not count, so
that a client that was started again finds its answers. It changes the name of a call alone: what
is judged, sent and recorded is what the client said. Profiles are journalled by name with each
call; one that would name calls otherwise gets another number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class Profile(Protocol):
    """One client's ways."""

    name: str

    def normal(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of an `Asked` without what differs on each start."""


class ClaudeCode:
    """Claude Code, and the Claude Agent SDK that runs it.

    Its session has an id of its own, which also names folders that it tells the model of; it tells
    today's date, and in a line for its maker's accounts which build it is. (Its device's id comes
    in `metadata`, which no request keeps.)
    """

    name = "claude-code/1"
    _AGENT: Final = "claude-cli/"
    _SESSION: Final = "x-claude-code-session-id"
    _ACCOUNTS: Final = "x-anthropic-billing-header:"
    _DATE: Final = re.compile(r"(Today's date(?: is(?: now)?|:) )\d{4}[-/]\d{2}[-/]\d{2}")
    _FOLDER: Final = re.compile(
        rf"((?:/claude(?:-\d+)?/|\.claude/projects/)[^/\s\"']{{1,255}}/){_UUID}"
    )

    def __init__(self, session: str) -> None:
        """`session`: its id, as it says; empty where it says none that is one."""
        self._session = session

    @classmethod
    def of(
        cls, dialect: str, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ClaudeCode | None:
        """That client, if it is one: it says so, and what it asks has its shape."""
        system = body.get("system")
        shaped = isinstance(system, list) and isinstance(body.get("messages"), list)
        if dialect != "messages" or not shaped:
            return None
        if not headers.get("user-agent", "").startswith(cls._AGENT):
            return None
        session = headers.get(cls._SESSION, "")
        return cls(session if re.fullmatch(_UUID, session) else "")

    def normal(self, body: dict[str, Any]) -> dict[str, Any]:
        system = [one for one in body["system"] if not self._is_accounts(one)]
        found: dict[str, Any] = self._clean({**body, "system": system})
        return found

    def _is_accounts(self, block: Any) -> bool:
        text = block.get("text") if isinstance(block, dict) else None
        return isinstance(text, str) and text.startswith(self._ACCOUNTS)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._clean(one) for one in value]
        if isinstance(value, dict):
            return {key: self._clean(one) for key, one in value.items()}
        return value

    def _text(self, text: str) -> str:
        if self._session:
            text = text.replace(self._session, "SESSION")
        if "/" in text:
            text = self._FOLDER.sub(r"\1SESSION", text)
        return self._DATE.sub(r"\1DATE", text)


def find(dialect: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Profile | None:
    """The profile of the client that asks this; None: it says the same on each start."""
    return ClaudeCode.of(dialect, headers, body)
