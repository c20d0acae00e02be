"""Opaque parts keep their source: what a run sends of them, it was given.

Nobody here can read what a model thought in secret, or what its provider encrypted: it may hold
what another run knows. So a run sends on only what came in an answer of its own. All of it is
learnt anew from the answers, so that a replay knows as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ring0.errors import CallDenied
from ring0.kernel import values
from ring0.kernel.live import LiveRun
from ring0.models import ModelRequest
from ring0.models.base import Message, Part

_CITED_BY: Final = "encrypted_index"


class Given:
    """What one run was given."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._digests: set[str] = set()

    def learn(self, parts: Iterable[Part]) -> None:
        """Those of an answer."""
        self._digests.update(self._digest(blob) for part in parts for blob in _blobs(part))

    def learn_again(self, messages: Iterable[Message]) -> None:
        """Those of a conversation that the journal has."""
        for message in messages:
            self.learn(message.parts)

    def check(self, request: ModelRequest) -> None:
        """Raises CallDenied for one that this run was never given."""
        for number, message in enumerate(request.messages):
            for part in message.parts:
                if any(self._digest(blob) not in self._digests for blob in _blobs(part)):
                    raise CallDenied(
                        f"Message {number} has a block that nobody here can read"
                        f" ({str(part.native.get('type', 'opaque'))[:40]}), and this run was never"
                        " given it.",
                        why="What another run was told in secret stays there; no answer of this"
                        " run had it.",
                        todo="Leave it out: a model goes on without what it thought before.",
                    )

    def _digest(self, blob: Any) -> str:
        return self._run.digest_of(values.canonical(blob))


def _blobs(part: Part) -> list[Any]:
    """What of it nobody here can read: all of an opaque one, and what a text's citations were
    found by."""
    if part.kind == "opaque":
        return [part.blob or part.native]
    cited = part.native.get("citations", ()) if part.kind == "text" else ()
    return [one[_CITED_BY] for one in cited if isinstance(one, dict) and one.get(_CITED_BY)]
