"""What becomes of each method of MCP, in both eras: one table. What is not in it is refused.

Nothing is carried out here.
"""

from __future__ import annotations

from typing import Final, Literal

from ring0.types import CallKind, Frozen

HANDSHAKE: Final = ("2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that begin with `initialize` and have sessions."""
STATELESS: Final = ("2026-07-28",)
"""Revisions in which each request says all that it needs."""
LATEST: Final = HANDSHAKE[-1]
"""What a client is offered that asks for a revision which nobody here speaks."""

How = Literal["call", "door", "refused"]
Era = Literal["handshake", "stateless"]
BOTH: Final = ("handshake", "stateless")


class Method(Frozen, frozen=True, kw_only=True):
    """One method."""

    name: str
    sender: Literal["client", "server", "either"]
    eras: tuple[Era, ...] = BOTH
    how: How
    """`call`: a call through the gate. `door`: the door knows the answer, and nothing happens.
    `refused`: never taken from a client, and from a server ended at the kernel."""
    kind: CallKind | None = None
    """Of the call."""
    operation: str = ""
    """The operation of an upstream server that it becomes; empty: `tools/call` says it itself."""
    why: str = ""
    """It is refused."""


def _call(name: str, operation: str, *eras: Era) -> Method:
    return Method(
        name=name,
        sender="client",
        eras=eras or BOTH,
        how="call",
        kind=CallKind.TOOL,
        operation=operation,
    )


def _door(name: str, *eras: Era, sender: Literal["client", "either"] = "client") -> Method:
    return Method(name=name, sender=sender, eras=eras or BOTH, how="door")


def _refused(name: str, why: str, *eras: Era, server: bool = False) -> Method:
    sender: Literal["client", "server"] = "server" if server else "client"
    return Method(name=name, sender=sender, eras=eras or BOTH, how="refused", why=why)


_NO_TASKS: Final = "A run's own waiting is the kernel's: a call that takes long is held or polled."
_NO_QUESTIONS: Final = "A server asks neither a model nor a person of the kernel's."
_NO_NEWS: Final = "Nothing that this door lists changes while a run goes on."

METHODS: Final = {
    method.name: method
    for method in (
        # Of a client.
        _door("initialize", "handshake"),
        _door("notifications/initialized", "handshake"),
        _door("server/discover", "stateless"),
        _door("ping", "handshake", sender="either"),
        _door("tools/list"),
        _call("tools/call", ""),
        _call("resources/list", "resources.list"),
        _call("resources/templates/list", "resources.templates"),
        _call("resources/read", "resources.read"),
        _call("resources/subscribe", "resources.subscribe", "handshake"),
        _call("resources/unsubscribe", "resources.unsubscribe", "handshake"),
        _call("prompts/list", "prompts.list"),
        _call("prompts/get", "prompts.get"),
        _call("completion/complete", "completion.complete"),
        _door("logging/setLevel", "handshake"),
        _door("notifications/cancelled", sender="either"),
        _door("notifications/progress", "handshake", sender="either"),
        _door("notifications/roots/list_changed", "handshake"),
        _refused("subscriptions/listen", _NO_NEWS, "stateless"),
        _refused("tasks/get", _NO_TASKS),
        _refused("tasks/list", _NO_TASKS),
        _refused("tasks/result", _NO_TASKS),
        _refused("tasks/cancel", _NO_TASKS),
        _refused("tasks/update", _NO_TASKS),
        # Of a server: what an upstream one sends ends at the kernel.
        _refused("sampling/createMessage", _NO_QUESTIONS, server=True),
        _refused("elicitation/create", _NO_QUESTIONS, server=True),
        _refused("roots/list", _NO_QUESTIONS, server=True),
        _refused("notifications/elicitation/complete", _NO_QUESTIONS, server=True),
        _refused("notifications/message", "Told only where `through` says so.", server=True),
        _refused("notifications/tools/list_changed", _NO_NEWS, server=True),
        _refused("notifications/prompts/list_changed", _NO_NEWS, server=True),
        _refused("notifications/resources/list_changed", _NO_NEWS, server=True),
        _refused("notifications/resources/updated", "Told only to subscribers.", server=True),
        _refused("notifications/subscriptions/acknowledged", _NO_NEWS, "stateless", server=True),
        _refused("notifications/tasks/status", _NO_TASKS, server=True),
        _refused("notifications/tasks", _NO_TASKS, server=True),
    )
}


def method_of(name: str, era: Era) -> Method | None:
    """What a client may send in that era; None: it is refused."""
    found = METHODS.get(name)
    if found is None or era not in found.eras or found.how == "refused" or found.sender == "server":
        return None
    return found
