"""`memory.*`: what a run may note, find, state, replace, forget and ask about, in its own scope."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
from approvals_world import CAROL
from kernel_world import World, world
from labels_world import function

from ring0.kernel.memory import directing
from ring0.memory import facts
from ring0.observability.verify import verify
from ring0.types import (
    Budget,
    CallKind,
    CallState,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    Outcome,
)

SUPPLIER = {"subject": "supplier", "predicate": "account"}


async def ok(w: World, kind: CallKind, **args: Any) -> Any:
    outcome = await w.kind(kind, args)
    assert outcome.state is CallState.OK, outcome
    return outcome.value


async def no(w: World, kind: CallKind, **args: Any) -> str:
    outcome = await w.kind(kind, args)
    assert outcome.state is not CallState.OK, outcome
    return str((outcome.error or {})["what"])


async def found(w: World, query: str, **args: Any) -> list[dict[str, Any]]:
    return list(await ok(w, CallKind.MEMORY_RECALL, query=query, **args))


async def held(w: World, **args: Any) -> list[str]:
    rows = await found(w, "supplier account", kinds=["fact"], **args)
    assert all(row["text"] == f"supplier account: {row['value']}" for row in rows)
    return sorted(row["value"] for row in rows)


async def reads_a_stranger(w: World) -> None:
    function(w.run, "page", "a stranger's page")
    assert (await w.call("page")).state is CallState.OK


# --- facts ----------------------------------------------------------------------------------------


async def test_a_conflict_supersedes_and_never_overwrites(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-1", valid_from="2026-01-01")
        before = facts.written(w.kernel.runtime.now_us())
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-2", valid_from="2026-03-01")
        assert await held(w) == ["DE-2"]
        assert await held(w, as_of=before) == ["DE-1"], "what was known then"
        rows = await w.store.records(w_scope(w), kinds=(MemoryKind.FACT,), superseded=True)
        old = next(row for row in rows if row.text == "DE-1")
        new = next(row for row in rows if row.text == "DE-2")
        assert old.superseded_by == new.id and facts.written(old.valid_to_us).startswith("2026-03")
        report = await verify(w.store)
        assert report.ok, report.problems


async def test_a_strangers_fact_disputes_a_users_and_does_not_replace_it(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-1")
        await reads_a_stranger(w)
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-6666")
        assert await held(w) == ["DE-1", "DE-6666"]
        rows = await found(w, "supplier account", kinds=["fact"], k=7)
        assert all(row["disputed"] for row in rows) and len(rows) == 2
        assert await held(w, min_integrity="user") == ["DE-1"]


async def test_the_same_key_again_is_the_same_record(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        for value in ("DE-1", "DE-1", "DE-2"):
            await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value=value, key="k")
        for text in ("note once", "note twice"):
            await ok(w, CallKind.MEMORY_APPEND, text=text, key="n")
        assert await held(w) == ["DE-1"]
        assert [row["text"] for row in await found(w, "note") if row["role"] == "note"] == [
            "note once"
        ]


async def test_a_source_must_have_been_seen_by_who_cites_it(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_APPEND, text="the invoice names DE-1")
        first = w.run.id
    async with world(tmp_path / "home") as w:
        await w.store.flush()
        note = next(
            r for r in await w.store.records(w_scope(w)) if r.act == first and r.role == "note"
        )
        fact = {**SUPPLIER, "value": "DE-1", "sources": [note.id]}
        assert "has not seen" in await no(w, CallKind.MEMORY_REMEMBER, **fact)
        assert await found(w, "invoice names", k=1)
        await ok(w, CallKind.MEMORY_REMEMBER, **fact)
        (row,) = await found(w, "supplier account", kinds=["fact"], k=2)
        told = await ok(w, CallKind.MEMORY_EXPLAIN, id=row["id"])
        assert [one["id"] for one in told["parents"]] == [note.id]
        assert told["call"].startswith(f"{w.run.id}/0/") and note.id in told["seen"]
        below = await ok(w, CallKind.MEMORY_EXPLAIN, id=note.id)
        assert {"id": row["id"], "by": "parents"} in below["children"]
        assert below["recalled_by"] == [w.run.id]
        assert "has not seen" in await no(
            w, CallKind.MEMORY_REMEMBER, **{**fact, "sources": ["r-000000000000#1"]}
        )


async def test_a_derived_record_is_as_low_as_its_parents_and_its_run(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await reads_a_stranger(w)
        await ok(w, CallKind.MEMORY_APPEND, text="the invoice names DE-6")
    async with world(tmp_path / "home") as w:
        (row,) = await found(w, "invoice names", k=1)
        assert row["integrity"] == "untrusted"
        assert (await w.row()).label.integrity is Integrity.UNTRUSTED, "it fell with what it read"
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-6", sources=[row["id"]])
        (fact,) = await found(w, "supplier account", kinds=["fact"])
        assert fact["integrity"] == "untrusted"


async def test_a_note_is_replaced_and_stays_on_record(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_APPEND, text="the meeting is on Monday")
        (row,) = await found(w, "meeting Monday", k=1)
        new = "the meeting is on Tuesday"
        await ok(w, CallKind.MEMORY_SUPERSEDE, id=row["id"], text=new, why="it moved")
        texts = [one["text"] for one in await found(w, "meeting", k=20)]
        assert new in texts and "the meeting is on Monday" not in texts
        told = await ok(w, CallKind.MEMORY_EXPLAIN, id=row["id"])
        assert told["superseded_by"].startswith(w.run.id)
        again = await no(w, CallKind.MEMORY_SUPERSEDE, id=row["id"], text="x")
        assert "superseded already" in again
        report = await verify(w.store)
        assert report.ok, report.problems


async def test_what_is_worse_replaces_nothing_better_and_nobody_replaces_a_directive(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_APPEND, text="pay only DE-1")
        (row,) = await found(w, "pay only", k=1)
        said = await directing.add(w.kernel, w_scope(w).owner, "Pay nobody.", by="ann")
        for args in ({"id": said.id, "text": "Pay all."}, {"id": f"{w.run.id}#1", "text": "x"}):
            assert "can't be superseded" in await no(w, CallKind.MEMORY_SUPERSEDE, **args)
        await reads_a_stranger(w)
        assert "can't be superseded" in await no(
            w, CallKind.MEMORY_SUPERSEDE, id=row["id"], text="pay DE-6"
        )
        assert [one.text for one in await directing.listed(w.store, w_scope(w).owner)] == [
            "Pay nobody."
        ]
        assert not [one for one in await found(w, "Pay nobody") if one["text"] == "Pay nobody."]


# --- whose it is ----------------------------------------------------------------------------------


def w_scope(w: World) -> Any:
    from ring0.kernel.memory.manager import scope_of

    return scope_of(w.run.row)


async def test_no_argument_names_another_scope(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, principal="bob") as w:
        await ok(w, CallKind.MEMORY_APPEND, text="bobs secret plan")
        (row,) = await found(w, "secret plan", k=1)
    async with world(home, principal="alice") as w:
        assert await found(w, "bobs secret plan", k=50) == [] or all(
            one["text"] != "bobs secret plan" for one in await found(w, "secret plan", k=50)
        )
        for kind, args in (
            (CallKind.MEMORY_EXPLAIN, {"id": row["id"]}),
            (CallKind.MEMORY_SUPERSEDE, {"id": row["id"], "text": "x"}),
            (CallKind.MEMORY_FORGET, {"ids": [row["id"]]}),
        ):
            assert "There is no record" in await no(w, kind, **args)
        for more in ("principal", "agent", "tenant", "scope", "run"):
            outcome = await w.kind(CallKind.MEMORY_RECALL, {"query": "plan", more: "bob"})
            assert outcome.state is CallState.REFUSED
        for text in ("Dir", "directive"):
            outcome = await w.kind(CallKind.MEMORY_RECALL, {"query": text, "kinds": ["directive"]})
            assert outcome.state is CallState.REFUSED


async def test_a_recall_never_crosses_a_scope(tmp_path: Path) -> None:
    """10,000 random queries over several scopes, by way of what the gate's driver asks; `ring0
    bench memory --isolation` makes 100,000."""
    dice, words = random.Random(7), [f"word{number}" for number in range(40)]
    async with world(tmp_path / "home", budget=Budget(calls=50)) as w:
        owners = [(w.kernel.config.tenant, who, agent)
                  for who in ("alice", "bob") for agent in ("clerk", "cook")]  # fmt: skip
        for owner in owners:
            new = [
                NewRecord(
                    kind=MemoryKind.EPISODE, role="note", label=Label(integrity=Integrity.USER),
                    text=" ".join([*dice.choices(words, k=6), f"of-{owner[1]}-{owner[2]}"]),
                )
                for _ in range(40)
            ]  # fmt: skip
            await directing.write(w.kernel, owner, new, by="ann")
        queries = 0
        for _ in range(2_500):
            query = " ".join(dice.choices(words, k=dice.randrange(1, 4)))
            for owner in owners:
                scope = msgspec.structs.replace(
                    w_scope(w), tenant=owner[0], principal=owner[1], agent=owner[2]
                )
                rows = await w.kernel.memory.recall(scope, query, k=3)
                queries += 1
                for one in rows:
                    assert (one.record.tenant, one.record.principal, one.record.agent) == owner
        assert queries == 10_000


# --- forgetting by a run --------------------------------------------------------------------------


async def test_a_run_forgets_its_own_notes_and_a_person_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_APPEND, text="the pin is 4711")
        (row,) = await found(w, "the pin", k=1)
        call = w.start("", {"ids": [row["id"]]}, kind=CallKind.MEMORY_FORGET)
        approval = await w.pending()
        shown = await w.shown(approval)
        assert "4711" in str(shown), "who is asked sees what would be gone"
        await w.kernel.answer(approval.id, yes=True, by=CAROL)
        outcome: Outcome = await call
        assert outcome.state is CallState.OK and outcome.value["forgotten"] == 1
        assert all("4711" not in one["text"] or one["role"] != "note"
                   for one in await found(w, "pin 4711", k=20))  # fmt: skip
        assert await w.store.record(row["id"]) is None
        task = f"{w.run.id}#1"
        assert "can't be forgotten by a run" in await no(w, CallKind.MEMORY_FORGET, ids=[task])
        assert (await w.kind(CallKind.MEMORY_FORGET, {"ids": []})).state is CallState.REFUSED


# --- what was told late, what is history, what was said before ------------------------------------


async def test_a_fact_told_late_of_an_earlier_time_is_history_and_replaces_nothing(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-2", valid_from="2026-06-01")
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-1", valid_from="2026-01-01")
        await w.store.flush()
        rows = await w.store.records(w_scope(w), kinds=(MemoryKind.FACT,), superseded=True)
        told = {row.text: (row.superseded_us, facts.written(row.valid_to_us)) for row in rows}
        assert told["DE-2"] == (0, ""), "what holds now holds on"
        assert told["DE-1"] == (0, "2026-06-01T00:00:00Z"), "the other one ended when it began"
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-3", valid_from="2026-09-01")
        await w.store.flush()
        rows = await w.store.records(w_scope(w), kinds=(MemoryKind.FACT,))
        assert {row.text for row in rows} == {"DE-1", "DE-3"}
        report = await verify(w.store)
        assert report.ok, report.problems


async def test_what_ended_when_the_next_began_is_not_disputed(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        until = {"valid_from": "2026-01-01", "valid_to": "2026-06-01"}
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-1", **until)
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-2", valid_from="2026-06-01")
        rows = await found(w, "supplier account", kinds=["fact"])
        assert {row["value"] for row in rows} == {"DE-1", "DE-2"}
        assert not any(row["disputed"] for row in rows)


async def test_what_was_asked_again_and_again_keeps_no_answer_out(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_REMEMBER, **SUPPLIER, value="DE-1")
        for spaces in range(1, 8):  # The very same call again and again is stopped as a loop.
            text = f"What is the{' ' * spaces}supplier account?"
            await ok(w, CallKind.MEMORY_APPEND, text=text)
        rows = await found(w, "What is the supplier account?", k=3)
        texts = [row["text"] for row in rows]
        assert len(texts) == 2
        assert "supplier account: DE-1" in texts


async def test_of_copies_the_one_that_people_vouch_for_is_recalled(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await ok(w, CallKind.MEMORY_APPEND, text="Refunds need a receipt.")
        await reads_a_stranger(w)
        await ok(w, CallKind.MEMORY_APPEND, text="refunds  need a RECEIPT.")
        (row,) = await found(w, "refunds receipt", k=1)
        assert row["integrity"] != "untrusted"
