"""Tokens of runs, given out and taken back on record; what principals may ask for at all.

What a token is, and when it is dead: identity/tokens.py. The door at which they are shown:
gateway/calls.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.errors import InvalidInput, NotFound
from ring0.identity import narrowing
from ring0.identity.narrowing import Narrowed
from ring0.identity.tokens import Issued, Tokens
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.types import Only, Run

if TYPE_CHECKING:
    from ring0.kernel.agent.config_identity import PrincipalTable

_ALL_TOOLS: Final[Only] = (narrowing.TOOL + "*",)
"""What a token is for where nobody says: no models, no children, nothing of the kernel's own."""


class Granting:
    """The tokens of one kernel's runs, and its principals' grants."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        tokens: Tokens,
        live: Mapping[str, LiveRun],
        principals: Mapping[str, PrincipalTable],
    ) -> None:
        """`live`: the runs at work. Raises InvalidInput for a grant that is none."""
        self.tokens = tokens
        self.open_door: Callable[[], Awaitable[str]] | None = None
        """Opens the door for tokens, and gives its path. None: nobody serves one."""
        self._store = store
        self._runtime = runtime
        self._live = live
        self._principals = {
            name: narrowing.for_task(table.only) for name, table in principals.items()
        }

    def of(self, row: Run, *, operator: bool) -> Narrowed | None:
        """What narrows a run: its task's grant, those above it, its principal's. None: nothing.
        What a person has the kernel do itself (`operator`) is no agent's."""
        own = self._principals.get(row.principal)
        grants = narrowing.narrowed(row.only, *(() if own is None else (own,)))
        return Narrowed(grants) if grants and not operator else None

    async def give(self, run: str, only: Iterable[str] | None, expires_s: int, *, by: str) -> str:
        """A token of a run at work, for what `only` names (None: its tools) of what the run may
        ask for itself. Raises NotFound, InvalidInput, LimitReached, StoreDamaged."""
        live = self._at_work(run)
        if live.agent.operator:
            raise InvalidInput(
                f"{run[:40]} is an operator's own: there is no token of it.",
                why="Policies spare what an operator has the kernel do; nobody else is to do it.",
                todo="Give one of an agent's run.",
            )
        named = _ALL_TOOLS if only is None else narrowing.exactly(only)
        text, issued = await self._runtime.in_thread(
            self.tokens.mint, run, live.row.epoch, named, expires_s
        )
        event = ev.TokenIssued(
            token=issued.id,
            epoch=issued.epoch,
            only=named,
            expires_us=issued.expires_us,
            by=by,
        )
        guards: list[base.Guard] = [
            base.RunLive(run=run, epoch=issued.epoch),
            base.NotKilled(run=run),
        ]
        try:
            await self._store.append(Write(run=run, events=[event], guards=guards, durable=True))
        except GuardFailed as failure:
            raise _not_at_work(run, failure.detail) from None
        if self._live.get(run) is not live:
            raise _not_at_work(run, "it ended just now")
        if not self.tokens.live(run):
            live.leaving.append(lambda: self._forget(run))
        self.tokens.give_out(issued)
        return text

    async def revoke(self, run: str, token: str, *, by: str) -> None:
        """Takes back a token by its id, with all that was narrowed from it. It is dead before it is
        on record. Raises NotFound, InvalidInput, LimitReached."""
        self._at_work(run)
        if len(token) != limits.TOKEN_ID_CHARS or not set(token) <= set("0123456789abcdef"):
            raise InvalidInput(
                f"{token[:40]!r} is no id of a token.",
                todo="`ring0 token list RUN` has them; `ring0 token show` tells those of one.",
            )
        self.tokens.revoke(run, token)
        event = ev.TokenRevoked(token=token, by=by)
        await self._store.append(Write(run=run, events=[event], durable=True))

    def list(self, run: str) -> list[Issued]:
        """Those of a run that can be used. Raises NotFound."""
        self._at_work(run)
        return self.tokens.live(run)

    async def _forget(self, run: str) -> None:
        self.tokens.forget(run)

    def _at_work(self, run: str) -> LiveRun:
        live = self._live.get(run)
        if live is None:
            raise _not_at_work(run, "it has ended, or it waits as a row")
        return live


def _not_at_work(run: str, why: str) -> NotFound:
    return NotFound(
        f"{run[:40]} is not at work.",
        why=f"A token is as alive as its run's process: {why}.",
        todo="`ring0 ps` lists what is at work.",
    )
