"""What is to be forgotten: which records a person means, and all that came of them.

A selector always names whose memory, and never means "all" by being empty. Not here: how it is
done, what else holds the text, the receipt (kernel/memory/forgetting.py).
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, NotFound
from ring0.store import Store
from ring0.types import Frozen, MemoryKind, Record, Scope

Matches = Callable[[str, str], bool]
"""(what an operator named, a label's source): whether it is meant."""


class Selector(Frozen, frozen=True, kw_only=True):
    """Records of one scope. Several fields narrow each other down."""

    tenant: str
    principal: str
    agent: str
    ids: tuple[str, ...] = ()
    act: str = ""
    """A run's id, or an operator's act."""
    document: str = ""
    subject: str = ""
    source: str = ""
    """As `ring0 quarantine` names one."""
    before_us: int = 0
    everything: bool = False
    """The whole scope: spelled out, never implied."""

    @property
    def scope(self) -> Scope:
        return Scope(tenant=self.tenant, principal=self.principal, agent=self.agent, run=None)

    def check(self) -> None:
        """Raises InvalidInput."""
        if not (self.tenant and self.principal and self.agent):
            raise InvalidInput(
                "Whose memory is to be forgotten was not said.",
                why="Without a scope it could be anybody's.",
                todo="Give --agent, and --principal where it is not yours.",
            )
        narrows = any(
            (self.ids, self.act, self.document, self.subject, self.source, self.before_us)
        )
        if not narrows and not self.everything:
            raise InvalidInput(
                "Nothing says what is to be forgotten.",
                why="An empty selector never means everything.",
                todo="Give ids, --run, --document, --subject, --source or --before;"
                " all of it takes --everything.",
            )
        if narrows and self.everything:
            raise InvalidInput(
                "--everything stands alone.",
                why="With another selector it would be unclear which of them counts.",
                todo="Leave one of them out.",
            )
        if len(self.ids) > limits.RECORDS_PER_EVENT_MAX:
            raise InvalidInput(
                f"{len(self.ids):,} ids are too many at once.",
                why=f"{limits.RECORDS_PER_EVENT_MAX:,} are taken.",
                todo="Forget them in several parts.",
            )

    def means(self, record: Record, matches: Matches) -> bool:
        """Whether it is one of those that were asked for."""
        if (record.tenant, record.principal, record.agent) != self.scope.owner:
            return False
        return (
            (not self.ids or record.id in self.ids)
            and (not self.act or record.act == self.act)
            and (not self.document or record.document == self.document)
            and (not self.subject or record.subject == self.subject)
            and (not self.source or any(matches(self.source, one) for one in record.label.sources))
            and (not self.before_us or record.at_us < self.before_us)
        )

    def digest(self, key: bytes) -> str:
        """What stands on record of it: no name of a document or a subject, and nothing that could
        be tried out once the scope's key is gone."""
        return hmac.digest(key, msgspec.json.encode(self, order="sorted"), "sha256").hex()


class Reach(Frozen, frozen=True, kw_only=True):
    """The records that are meant, and those that came of them."""

    chosen: tuple[Record, ...]
    made: tuple[Record, ...]
    """Made of one of them, as its writer said."""
    seen: tuple[Record, ...] = ()
    """Written by a run after it had recalled or written one of them."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one.id for one in (*self.chosen, *self.made, *self.seen))


async def chosen(store: Store, selector: Selector, matches: Matches) -> list[Record]:
    """Raises InvalidInput, NotFound, LimitReached."""
    selector.check()
    if selector.ids:
        rows = await store.records_of(selector.ids)
        for one in selector.ids:
            there = rows.get(one)
            if there is None or (there.tenant, there.principal, there.agent) != (
                selector.scope.owner
            ):
                raise NotFound(
                    f"There is no record {one[:80]!r} of {selector.agent} for"
                    f" {selector.principal}.",
                    why="It was forgotten, or it is in another scope.",
                    todo="`ring0 memory show ID` tells whose a record is.",
                )
        meant = [rows[one] for one in dict.fromkeys(selector.ids)]
        return [row for row in meant if selector.means(row, matches)]
    found = []
    async for row in all_of(store, selector.scope):
        if selector.means(row, matches):
            found.append(row)
            _check_count(len(found))
    return found


async def all_of(store: Store, scope: Scope) -> AsyncIterator[Record]:
    """Every record of the scope, in whatever state, newest first."""
    after = ""
    while True:
        page = await store.records(
            scope, states=(), after=after, most=limits.RECORDS_PAGE_MAX, superseded=True
        )
        for one in page:
            yield one
        if len(page) < limits.RECORDS_PAGE_MAX:
            return
        after = page[-1].id


async def reach(store: Store, scope: Scope, meant: Iterable[Record], *, deep: bool = True) -> Reach:
    """All that came of these, over any number of steps, within their scope.

    `deep`: also what a run wrote after it had recalled (or written) one of them: it may say the
    same in other words. But all that runs do is done under directives: nothing is made of these.
    Raises LimitReached.
    """
    first = {one.id: one for one in meant}
    made: dict[str, Record] = {}
    seen: dict[str, Record] = {}
    fresh = list(first.values())
    while fresh:
        found: dict[str, str] = {}
        obeyed = {one.id for one in fresh if one.kind is MemoryKind.DIRECTIVE}
        for child, parent, how in await store.children_of([one.id for one in fresh]):
            if how == "parents" or (deep and parent not in obeyed):
                found[child] = "parents" if found.get(child) == "parents" else how
        rows = await store.records_of(list(found))
        if deep:
            for one in await _after(store, scope, fresh):
                rows.setdefault(one.id, one)
                found.setdefault(one.id, "seen")
        fresh = []
        for one in rows.values():
            if one.id in first or one.id in made or one.id in seen:
                continue
            if (one.tenant, one.principal, one.agent) != scope.owner:
                continue  # Nothing of another scope's is ever taken along.
            (made if found[one.id] == "parents" else seen)[one.id] = one
            fresh.append(one)
        _check_count(len(first) + len(made) + len(seen))
    return Reach(chosen=tuple(first.values()), made=tuple(made.values()), seen=tuple(seen.values()))


async def _after(store: Store, scope: Scope, written: Iterable[Record]) -> list[Record]:
    """What the runs that wrote these wrote from then on."""
    begins: dict[str, int] = {}
    for one in written:
        if one.act.startswith("r-"):
            begins[one.act] = min(one.seq, begins.get(one.act, one.seq))
    found = []
    for run, seq in begins.items():
        own = Scope(tenant=scope.tenant, principal=scope.principal, agent=scope.agent, run=run)
        async for one in all_of(store, own):
            if one.seq >= seq:
                found.append(one)
    return found


def _check_count(count: int) -> None:
    if count > limits.FORGOTTEN_AT_ONCE_MAX:
        raise LimitReached(
            f"More than {limits.FORGOTTEN_AT_ONCE_MAX:,} records would be forgotten at once.",
            why="One receipt holds no more.",
            todo="Select less: --before, --document, --run.",
        )
