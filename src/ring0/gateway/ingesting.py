"""What an operator does about documents: `memory-ingest`, `memory-documents`. As operations.py.

The bytes come from whoever asks, in pieces: the kernel opens no file that somebody names to it, so
nobody reads through it what only it may read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.identity import roles
from ring0.kernel import values
from ring0.kernel.memory import forgetting
from ring0.kernel.memory.documents import Ingested, Order
from ring0.memory.forgetting import Selector
from ring0.types import Operator, Role, Scope

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct

_Piece = Annotated[bytes, msgspec.Meta(max_length=limits.DOCUMENT_PIECE_SIZE_BYTES)]
_Name = Annotated[str, msgspec.Meta(max_length=limits.RECORD_FIELD_CHARS_MAX)]


class Ingest(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a file; with the last one, what is to become of it."""

    agent: _Name
    name: _Name
    data: _Piece
    upload: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """What whoever asks calls the pieces of this one file."""
    first: bool
    last: bool
    principal: _Name = ""
    """Empty: who asks."""
    trust: bool = False
    private: bool = False
    forget_old: bool = False
    yes: bool = False
    """Ended runs that hold what is forgotten are erased with it."""
    note: str = ""

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-ingest")
        _check_may(by, trust=self.trust, forget_old=self.forget_old)
        scope = scope_of(to, self.principal, self.agent)
        ingesting = to.kernel.ingesting
        ingesting.take(by.name, self.upload, self.data, first=self.first)
        if not self.last:
            return None
        order = Order(
            scope=scope,
            name=self.name,
            by=by.name,
            trusted=self.trust,
            private=self.private,
            note=values.note(self.note),
        )
        done = await ingesting.ingest(order, ingesting.whole(by.name, self.upload))
        return await self._forget(to, order, done) if self.forget_old else done

    async def _forget(self, to: Direct, order: Order, done: Ingested) -> Ingested:
        """What the document said once, and says no more."""
        ids = await to.kernel.ingesting.superseded(order.scope, order.name)
        most = limits.RECORDS_PER_EVENT_MAX
        tenant, principal, agent = order.scope.owner
        for start in range(0, len(ids), most):
            page = Selector(
                tenant=tenant,
                principal=principal,
                agent=agent,
                ids=ids[start : start + most],
            )
            found = await forgetting.plan(to.kernel, page)
            if found.runs and not self.yes:
                raise _runs_hold_it(self.name, found.runs)
            receipt = await forgetting.forget(to.kernel, page, by=order.by, note=order.note)
            done = msgspec.structs.replace(
                done, receipt=receipt.id, forgotten=done.forgotten + receipt.records
            )
        return done


class Documents(msgspec.Struct, forbid_unknown_fields=True):
    agent: _Name
    principal: _Name = ""

    async def do(self, to: Direct) -> Any:
        to.may("memory-documents")
        scope = scope_of(to, self.principal, self.agent)
        return await to.kernel.ingesting.documents(scope)


def scope_of(to: Direct, principal: str, agent: str) -> Scope:
    """All runs of an agent for one principal. Raises InvalidInput."""
    if not agent:
        raise InvalidInput(
            "Whose memory is meant was not said.",
            why="Each agent has one of its own for each principal.",
            todo="Give --agent NAME.",
        )
    tenant = to.kernel.config.tenant
    return Scope(tenant=tenant, principal=principal or to.by.name, agent=agent, run=None)


def _check_may(by: Operator, *, trust: bool, forget_old: bool) -> None:
    """Raises RoleMissing: what lets text pass for a person's word, or erases, takes an admin."""
    if trust:
        roles.check(by, Role.ADMIN, "memory ingest --trust")
    if forget_old:
        roles.check(by, Role.ADMIN, "memory ingest --forget-old")


def _runs_hold_it(name: str, runs: tuple[str, ...]) -> InvalidInput:
    shown = ", ".join(runs[:5]) + (" and more" if len(runs) > 5 else "")
    return InvalidInput(
        f"{name!r} is ingested, and what it said before is superseded but not forgotten.",
        why=f"Runs that have ended recalled it, and their calls hold the text: {shown}.",
        todo="`--forget-old --yes` erases these runs with it.",
    )


VERBS: Final[dict[str, Any]] = {"memory-ingest": Ingest, "memory-documents": Documents}
