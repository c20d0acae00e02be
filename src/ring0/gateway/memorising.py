"""What an operator does about memory: `memory-search`, `-show`, `-why`, `-forget`, `-import`,
`-directive`, `-approve`, … As operations.py.

Not here: documents (ingesting.py), what is done (kernel/memory/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import CallDenied
from ring0.kernel.memory import directing, exchanging, explaining, forgetting
from ring0.kernel.memory.calls import RECALLED_KINDS, shown
from ring0.memory import facts
from ring0.memory.exchange import Imported
from ring0.memory.forgetting import Selector
from ring0.types import Integrity, MemoryKind, Owner, RecordState, Role, Scope

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.RECORD_FIELD_CHARS_MAX)]
_Text = Annotated[str, msgspec.Meta(max_length=limits.RECORD_CHARS_MAX)]


class _OfOne(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose memory: there is no default."""

    agent: _Name
    principal: _Name

    def owner(self, to: Direct) -> Owner:
        return (to.kernel.config.tenant, self.principal, self.agent)

    def scope(self, to: Direct) -> Scope:
        tenant, principal, agent = self.owner(to)
        return Scope(tenant=tenant, principal=principal, agent=agent, run=None)


class Search(_OfOne, kw_only=True):
    query: Annotated[str, msgspec.Meta(max_length=limits.RECALL_QUERY_CHARS_MAX)]
    k: Annotated[int, msgspec.Meta(ge=1, le=limits.RECALL_K_MAX)] = 10
    kinds: tuple[MemoryKind, ...] = ()
    as_of: str = ""
    min_integrity: Integrity | None = None

    async def do(self, to: Direct) -> Any:
        to.may("memory-search")
        found = await to.kernel.memory.recall(
            self.scope(to),
            self.query,
            k=self.k,
            kinds=self.kinds or RECALLED_KINDS,
            as_of_us=facts.moment_us(self.as_of, what="as_of"),
            min_integrity=self.min_integrity,
        )
        is_disputed = to.kernel.memory.is_disputed
        return [
            {**shown(one.record, one.score, await is_disputed(one.record)), "why": one.why}
            for one in found
        ]


class Why(msgspec.Struct, forbid_unknown_fields=True):
    """Where a record came from; `memory-show` is the same, told more shortly."""

    record: _Name

    async def do(self, to: Direct) -> Any:
        to.may("memory-why")
        store = to.kernel.store
        row = await explaining.find(store, self.record)
        explaining.check_tenant(row, to.kernel.config.tenant)
        owner = (row.tenant, row.principal, row.agent)
        return (await explaining.explain(store, row, among=owner)).as_dict()


class Forget(_OfOne, kw_only=True):
    """Without `yes` it is only planned."""

    ids: tuple[_Name, ...] = ()
    act: str = ""
    document: str = ""
    subject: str = ""
    source: str = ""
    before_us: int = 0
    everything: bool = False
    only_made: bool = False
    yes: bool = False
    note: str = ""

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-forget").name
        tenant, principal, agent = self.owner(to)
        selector = Selector(
            tenant=tenant,
            principal=principal,
            agent=agent,
            ids=self.ids,
            act=self.act,
            document=self.document,
            subject=self.subject,
            source=self.source,
            before_us=self.before_us,
            everything=self.everything,
        )
        if not self.yes:
            found = await forgetting.plan(to.kernel, selector, only_made=self.only_made)
            return found.as_dict()
        done = await forgetting.forget(
            to.kernel, selector, by=by, note=self.note, only_made=self.only_made
        )
        return done.as_dict()


class Finish(msgspec.Struct, forbid_unknown_fields=True):
    """A receipt again: what a crash left of it is done, and looked at anew."""

    receipt: _Name

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-receipt").name
        return (await forgetting.finish(to.kernel, self.receipt, by=by)).as_dict()


class Import(_OfOne, kw_only=True):
    page: Annotated[list[Imported], msgspec.Meta(max_length=limits.EXCHANGE_PAGE_RECORDS)]
    known: dict[str, str] = {}
    """Ids there and here, of those earlier records that this page names."""
    source: _Name
    trust: bool = False

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-import")
        if self.trust and Role.ADMIN not in by.roles:
            raise CallDenied(
                "--trust takes the role admin.",
                why="It makes the file's word as good as a person's, directives among it.",
                todo="Import it without: it is then a stranger's.",
            )
        done = await exchanging.take(
            to.kernel,
            self.owner(to),
            self.page,
            by=by.name,
            known=self.known,
            source=self.source,
            trust=self.trust,
        )
        return {"act": done.act, "ids": done.ids, "new": done.new, "demoted": done.demoted}


class Directive(_OfOne, kw_only=True):
    text: _Text

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-directive").name
        row = await directing.add(to.kernel, self.owner(to), self.text, by=by)
        return explaining.told(row)


class Settle(msgspec.Struct, forbid_unknown_fields=True):
    """`approve` a procedure; `retire` a procedure or a directive."""

    record: _Name
    state: Literal["current", "retired"]
    note: str = ""

    async def do(self, to: Direct) -> Any:
        by = to.may("memory-settle").name
        row = await directing.settle(
            to.kernel, self.record, RecordState(self.state), by=by, note=self.note
        )
        return explaining.told(row)


class Stats(msgspec.Struct, forbid_unknown_fields=True):
    """How what is remembered is searched just now."""

    async def do(self, to: Direct) -> Any:
        to.may("memory-stats")
        indexing = to.kernel.memory.indexing
        return await indexing.status() if indexing is not None else {}


VERBS: Final[dict[str, Any]] = {
    "memory-stats": Stats,
    "memory-search": Search,
    "memory-why": Why,
    "memory-forget": Forget,
    "memory-receipt": Finish,
    "memory-import": Import,
    "memory-directive": Directive,
    "memory-settle": Settle,
}
