"""The handshake era's sessions: what one client said of itself, and what goes to it by itself.

A session belongs to the run whose listener it was opened at: at another run's its name is nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from ring0 import limits
from ring0.gateway.mcp.messages import SERVER_ERROR, Id, Message, Refused
from ring0.gateway.mcp.stateless import Client, check_capabilities
from ring0.gateway.mcp.table import HANDSHAKE, LATEST
from ring0.runtime import Runtime

HEADER: Final = "Mcp-Session-Id"
_NAME_BYTES: Final = 16
LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)


class Session:
    """One client's, from `initialize` to `DELETE` or the end of the run."""

    def __init__(self, name: str, version: str, client: Client) -> None:
        self.name = name
        self.version = version
        self.client = client
        self.streaming = False
        """Its client listens for what goes to it by itself."""
        self.over = False
        self.subscribed: set[str] = set()
        self.given_up: dict[Id, asyncio.Event] = {}
        """By request under way: set where the client wants no answer any more."""
        self.news = asyncio.Event()
        self._waiting: deque[bytes] = deque(maxlen=limits.MCP_DOOR_NEWS_MAX)
        self._asked: dict[Id, asyncio.Future[Message]] = {}
        self._number = 0

    def tell(self, message: bytes) -> None:
        """For whoever listens, once however often it comes meanwhile; the oldest go where nobody
        does."""
        if message not in self._waiting:
            self._waiting.append(message)
        self.news.set()

    def told(self) -> list[bytes]:
        self.news.clear()
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def asks(self) -> tuple[Id, asyncio.Future[Message]]:
        """A number for a request to the client, and what its answer will be."""
        self._number += 1
        number = f"ring0-{self._number}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        answer.add_done_callback(lambda _: self._asked.pop(number, None))
        return number, answer

    def answered(self, message: Message) -> bool:
        """Whether somebody waits for that answer."""
        waiting = self._asked.get(message.id) if message.id is not None else None
        if waiting is None or waiting.done():
            return False
        waiting.set_result(message)
        return True

    def end(self) -> None:
        self.over = True
        self.news.set()
        for waiting in list(self._asked.values()):
            waiting.cancel()
        for gone in self.given_up.values():
            gone.set()


class Sessions:
    """Those of one run."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._open: dict[str, Session] = {}

    def open(self, params: dict[str, Any]) -> Session:
        """For a client that says `initialize`. The oldest idle one goes where there are too
        many. Raises Refused where none is idle, or the client says too much of itself."""
        capabilities = params.get("capabilities")
        capabilities = capabilities if isinstance(capabilities, dict) else {}
        check_capabilities(capabilities)
        if len(self._open) >= limits.MCP_DOOR_SESSIONS_MAX:
            idle = [one for one in self._open.values() if not one.given_up and not one.streaming]
            if not idle:
                raise Refused(SERVER_ERROR, f"{limits.MCP_DOOR_SESSIONS_MAX} sessions are at work.")
            self.close(idle[0].name)
        asked = params.get("protocolVersion")
        client = Client(capabilities=capabilities, log_level=LEVELS[0])
        name = self._runtime.random_bytes(_NAME_BYTES).hex()
        version = asked if asked in HANDSHAKE else LATEST
        session = self._open[name] = Session(name, version, client)
        return session

    def find(self, name: str) -> Session | None:
        return self._open.get(name)

    def close(self, name: str) -> bool:
        session = self._open.pop(name, None)
        if session is not None:
            session.end()
        return session is not None

    def close_all(self) -> None:
        for name in list(self._open):
            self.close(name)

    def of_resource(self, uri: str) -> list[Session]:
        """Those whose clients want to hear of it."""
        return [one for one in self._open.values() if uri in one.subscribed]
