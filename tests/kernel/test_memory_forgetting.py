"""Forgetting: shown before, whole when done, proved by a receipt, and never another's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kernel_world import World, world
from labels_world import function

from ring0.errors import InvalidInput, NotFound
from ring0.gateway.operations import Direct
from ring0.identity.roles import RoleMissing
from ring0.kernel.memory import directing, exchanging, forgetting
from ring0.kernel.memory.documents import Order
from ring0.kernel.memory.ingesting import _Writing
from ring0.kernel.operating import erasing
from ring0.kernel.replaying.exporting import export
from ring0.memory import exchange
from ring0.memory.forgetting import Selector
from ring0.observability.verify import verify
from ring0.store import events as ev
from ring0.types import (
    CallKind,
    CallState,
    Integrity,
    Label,
    MemoryKind,
    NewRecord,
    Operator,
    RecordState,
    Role,
    RunState,
)

TENANT, AGENT = "local", "clerk"
OWNER = (TENANT, "alice", AGENT)
MARK = "zanzibar-4711"
BY = "ann"


def selector(principal: str = "alice", **more: Any) -> Selector:
    return Selector(tenant=TENANT, principal=principal, agent=AGENT, **more)


async def note(w: World, text: str) -> None:
    done = await w.kind(CallKind.MEMORY_APPEND, {"text": text})
    assert done.state is CallState.OK, done


async def ended(home: Path, text: str, principal: str = "alice", task: str = "the task") -> str:
    """A run that noted it, and ended."""
    async with world(home, principal=principal, task=task) as w:
        await note(w, text)
        w.end.set_result("done")
        await w.until(RunState.DONE)
        return w.run.id


def files_with(home: Path, word: str) -> list[str]:
    """Names of the files of the data folder in which these bytes are."""
    return [
        str(path.relative_to(home))
        for path in sorted(home.rglob("*"))
        if path.is_file() and word.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize(
    "empty", [{}, {"ids": ()}, {"everything": False}, {"act": "", "document": "", "subject": ""}]
)
async def test_an_empty_selector_is_an_error_and_never_means_everything(
    tmp_path: Path, empty: dict[str, Any]
) -> None:
    """A delete that wiped every user began so."""
    await ended(tmp_path / "home", "stays")
    async with world(tmp_path / "home") as w:
        for do in (forgetting.plan(w.kernel, selector(**empty)),
                   forgetting.forget(w.kernel, selector(**empty), by=BY)):  # fmt: skip
            with pytest.raises(InvalidInput, match="Nothing says what"):
                await do
        with pytest.raises(InvalidInput, match="Whose memory"):
            await forgetting.plan(
                w.kernel, Selector(tenant=TENANT, principal="", agent=AGENT, everything=True)
            )
        with pytest.raises(InvalidInput, match="stands alone"):
            await forgetting.plan(w.kernel, selector(everything=True, subject="x"))


async def test_nothing_of_it_is_left_down_to_the_bytes_of_the_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = await ended(home, f"the pin is {MARK}")
    await ended(home, "a neighbours note: marrakech-1")
    await ended(home, "bobs own note: timbuktu-2", principal="bob")
    async with world(home, start=False) as w:
        await directing.write(
            w.kernel, OWNER,
            [NewRecord(kind=MemoryKind.FACT, text=f"x {MARK}", subject=MARK, predicate=MARK,
                       label=Label(integrity=Integrity.USER), key=MARK),
             NewRecord(kind=MemoryKind.PASSAGE, text=f"y {MARK}", document=f"{MARK}.md",
                       place=MARK, label=Label(integrity=Integrity.UNTRUSTED))],
            by=BY,
        )  # fmt: skip
        assert files_with(home, MARK)
        everything: list[Selector] = [
            selector(act=run), selector(subject=MARK), selector(document=f"{MARK}.md")
        ]  # fmt: skip
        for one in everything:
            receipt = await forgetting.forget(w.kernel, one, by=BY, note="asked to")
            assert receipt.left == () and receipt.checked and receipt.records >= 1
        assert files_with(home, MARK) == []
        assert files_with(home, "marrakech-1") and files_with(home, "timbuktu-2")
        report = await verify(w.store)
        assert report.ok, report.problems
    assert files_with(home, MARK) == []


async def test_it_reaches_what_was_made_of_it_and_who_recalled_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = await ended(home, f"the pin is {MARK}")
    async with world(home, task="look it up") as w:
        found = await w.kind(CallKind.MEMORY_RECALL, {"query": f"pin {MARK}", "k": 1})
        args = {"subject": "pin", "predicate": "is", "value": MARK,
                "sources": [found.value[0]["id"]]}  # fmt: skip
        assert (await w.kind(CallKind.MEMORY_REMEMBER, args)).state is CallState.OK
        await note(w, f"in other words: {MARK}")
        second = w.run.id
        blocked = await forgetting.plan(w.kernel, selector(act=first))
        assert [run for run, _, _ in blocked.blocked] == [second]
        with pytest.raises(InvalidInput, match="stands in the way"):
            await forgetting.forget(w.kernel, selector(act=first), by=BY)
        assert await w.store.records_of([f"{first}#1"]), "nothing was forgotten of it"
        w.end.set_result("done")
        await w.until(RunState.DONE)
    async with world(home, task="another matter", start=False) as w:
        plan = await forgetting.plan(w.kernel, selector(act=first))
        assert set(plan.runs) == {first, second}
        assert [one.kind for one in plan.found.made] == [MemoryKind.FACT]
        assert any("in other words" in one.text for one in plan.found.seen)
        narrow = await forgetting.plan(w.kernel, selector(act=first), only_made=True)
        assert narrow.found.seen == ()
        await forgetting.forget(w.kernel, selector(act=first), by=BY)
        for run in (first, second):
            row = await w.store.run(run)
            assert row is not None and row.erased
    assert files_with(home, MARK) == []


async def test_a_crash_half_way_is_finished_by_the_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    run = await ended(home, f"the pin is {MARK}")

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the power is gone")

    async with world(home, start=False) as w:
        with monkeypatch.context() as patched:
            patched.setattr(forgetting.erasing, "erase", broken)
            with pytest.raises(RuntimeError):
                await forgetting.forget(w.kernel, selector(act=run), by=BY)
        (name,) = [entry.body.receipt async for entry in w.store.entries(ev.KERNEL)
                   if isinstance(entry.body, ev.Forgotten)]  # fmt: skip
        found = await forgetting.check(w.store, name)
        assert found.left == (f"values of {run}",)
        assert (await forgetting.finish(w.kernel, name, by=BY)).left == ()
        with pytest.raises(NotFound):
            await forgetting.check(w.store, "f-000000000000")
    assert files_with(home, MARK) == []


async def test_what_a_run_forgets_twice_after_a_crash_is_one_receipt(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        await note(w, "the pin is 4711")
        await w.store.flush()
        rows = await w.store.records(selector().scope)
        (one,) = [row.id for row in rows if row.role == "note"]
        names = [
            await forgetting.by_a_run(w.kernel.memory, w.run.row, "c-1", [one], "") for _ in "ab"
        ]
        assert names[0] == names[1]
        found = await forgetting.check(w.store, names[0])
        assert (found.records, found.left) == (1, ())


async def test_another_scopes_record_is_none_and_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    bobs = await ended(home, "bobs plan", principal="bob")
    await ended(home, "alices plan")
    async with world(home, start=False) as w:
        with pytest.raises(NotFound):
            await forgetting.forget(w.kernel, selector(ids=(f"{bobs}#1",)), by=BY)
        with pytest.raises(NotFound):
            await forgetting.forget(w.kernel, selector(act=bobs), by=BY)
        done = await forgetting.forget(w.kernel, selector(everything=True), by=BY)
        assert bobs not in done.runs
        sizes = {one.owner[1]: one.records for one in await w.store.scopes()}
        assert sizes["bob"] >= 2 and "alice" not in sizes


async def test_forgetting_takes_the_role_admin_and_a_plan_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = await ended(home, "stays")
    body = {"agent": AGENT, "principal": "alice", "act": run}
    async with world(home, start=False) as w:
        weak = Operator(name="vic", roles=frozenset({Role.VIEWER, Role.OPERATOR, Role.APPROVER}))
        with pytest.raises(RoleMissing):
            await Direct(w.kernel, weak).ask("memory-forget", body)
        ann = Direct(w.kernel, Operator(name="ann", roles=frozenset({Role.ADMIN})))
        plan = await ann.ask("memory-forget", body)
        assert plan["records"] >= 2 and plan["runs"] == [run]
        assert await w.store.record(f"{run}#1") is not None
        done = await ann.ask("memory-forget", body | {"yes": True})
        assert done["by"] == "ann" and done["left"] in ((), [])


# --- what people write ----------------------------------------------------------------------------


async def test_a_directive_is_a_persons_and_stands_until_it_is_retired(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        viewer = Operator(name="vic", roles=frozenset({Role.VIEWER}))
        body = {"agent": AGENT, "principal": "alice", "text": "Answer in French."}
        with pytest.raises(RoleMissing):
            await Direct(w.kernel, viewer).ask("memory-directive", body)
        roles = frozenset({Role.OPERATOR, Role.APPROVER})
        ann = Direct(w.kernel, Operator(name="ann", roles=roles))
        row = await ann.ask("memory-directive", body)
        assert row["by"] == "ann" and row["integrity"] == "user"
        assert [one.text for one in await directing.listed(w.store, OWNER)] == ["Answer in French."]
        await ann.ask("memory-settle", {"record": row["id"], "state": "retired"})
        assert await directing.listed(w.store, OWNER) == []
        assert len(await directing.listed(w.store, OWNER, retired=True)) == 1
        with pytest.raises(InvalidInput, match="already"):
            await ann.ask("memory-settle", {"record": row["id"], "state": "current"})
        with pytest.raises(InvalidInput, match="nobody approves"):
            await ann.ask("memory-settle", {"record": f"{w.run.id}#1", "state": "retired"})


async def test_a_procedure_is_recalled_once_a_person_approved_it(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        args = {"text": "refunds: look up the order first", "kind": "procedure"}
        assert (await w.kind(CallKind.MEMORY_APPEND, args)).state is CallState.OK
        asked = {"query": "refunds order", "kinds": ["procedure"]}
        assert (await w.kind(CallKind.MEMORY_RECALL, asked)).value == []
        await w.store.flush()
        from ring0.kernel.memory.manager import scope_of

        (row,) = await w.store.records(
            scope_of(w.run.row), kinds=(MemoryKind.PROCEDURE,), states=(RecordState.PROPOSED,)
        )
        await directing.settle(w.kernel, row.id, RecordState.CURRENT, by=BY)
        found = await w.kind(CallKind.MEMORY_RECALL, asked | {"k": 6})
        assert [one["text"] for one in found.value] == [args["text"]]


# --- from elsewhere -------------------------------------------------------------------------------


async def test_an_export_taken_in_elsewhere_is_a_strangers_and_twice_is_once(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    await ended(home, "the pin is 4711")
    other = (TENANT, "bob", AGENT)
    async with world(home, start=False) as w:
        from ring0.memory.forgetting import all_of

        rows = [one async for one in all_of(w.store, selector().scope)]
        data = b"\n".join([exchange.header(OWNER, 1), *map(exchange.line, rows)])
        page = exchange.read(data).records
        given: dict[str, Any] = {"by": BY, "known": {}, "source": "import:1"}
        done = await exchanging.take(w.kernel, other, page, **given)
        assert done.new == len(rows) and len(done.ids) == len(rows)
        assert (await exchanging.take(w.kernel, other, page, **given)).new == 0
        assert (await exchanging.take(w.kernel, OWNER, page, **given)).new == 0, "its own export"
        taken = await w.store.records_of(list(done.ids.values()))
        assert {str(one.label.integrity) for one in taken.values()} == {"untrusted"}
        assert all("import:1" in one.label.sources for one in taken.values())
        report = await verify(w.store)
        assert report.ok, report.problems


async def test_imports_of_the_same_at_once_leave_a_journal_that_verifies(tmp_path: Path) -> None:
    """Those that came late wrote nothing, and leave no key that stands for nothing."""
    said = b'[{"id": "m", "memory": "likes oolong", "user_id": "u"}]'
    async with world(tmp_path / "home", start=False) as w:
        page = exchange.read(said).records
        given: dict[str, Any] = {"by": BY, "known": {}, "source": "import:1"}
        done = await asyncio.gather(
            *(exchanging.take(w.kernel, OWNER, page, **given) for _ in range(4))
        )
        ids = {one for each in done for one in each.ids.values()}
        assert set(await w.store.records_of(list(ids))) == ids
        assert [one.records for one in await w.store.scopes()] == [1]
        report = await verify(w.store)
        assert report.ok, report.problems
        await forgetting.forget(w.kernel, selector(everything=True), by=BY)
        report = await verify(w.store)
        assert report.ok, report.problems


async def test_what_is_forgotten_in_the_middle_of_an_act_takes_no_key_from_the_rest(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", start=False) as w:
        label = Label(integrity=Integrity.UNTRUSTED)
        scope = selector().scope
        order = Order(scope=scope, name="book.md", by=BY, trusted=False)
        act = _Writing(w.kernel, order, "m-one", b"k" * 32)
        for word in ("first", "second"):
            await act.remember(
                [NewRecord(kind=MemoryKind.PASSAGE, text=word, label=label, document="book.md")]
            )
            if word == "first":
                await forgetting.forget(w.kernel, selector(document="book.md"), by=BY)
        report = await verify(w.store)
        assert report.ok, report.problems
        assert [row.text for row in await w.store.records(scope)] == ["second"]


async def test_only_an_admin_answers_for_a_file(tmp_path: Path) -> None:
    said = [{"id": "m", "memory": "likes tea", "user_id": "u"}]
    page = exchange.read(__import__("json").dumps(said).encode()).records
    import msgspec

    body = {"agent": AGENT, "principal": "alice", "page": msgspec.to_builtins(page),
            "source": "import:1", "trust": True}  # fmt: skip
    async with world(tmp_path / "home", start=False) as w:
        from ring0.errors import CallDenied

        operator = Operator(name="ola", roles=frozenset({Role.OPERATOR}))
        with pytest.raises(CallDenied, match="role admin"):
            await Direct(w.kernel, operator).ask("memory-import", body)
        both = frozenset({Role.OPERATOR, Role.ADMIN})
        done = await Direct(w.kernel, Operator(name="ann", roles=both)).ask("memory-import", body)
        (row,) = (await w.store.records_of(list(done["ids"].values()))).values()
        assert row.label.integrity is Integrity.USER


async def test_a_quarantined_import_is_not_recalled(tmp_path: Path) -> None:
    from ring0.kernel.lineage import acting

    said = b'[{"id": "m", "memory": "likes oolong", "user_id": "u"}]'
    async with world(tmp_path / "home") as w:
        function(w.run, "page", "x")
        page = exchange.read(said).records
        await exchanging.take(w.kernel, OWNER, page, by=BY, known={}, source="import:abc")
        found = await w.kernel.memory.recall(selector().scope, "oolong", k=5)
        assert [one.record.text for one in found] == ["likes oolong"]
        done = await acting.quarantine(w.kernel, "import:abc", by=BY)
        assert done.paused == ()
        assert await w.kernel.memory.recall(selector().scope, "oolong", k=5) == []
        await acting.lift(w.kernel, "import:abc", by=BY)
        assert len(await w.kernel.memory.recall(selector().scope, "oolong", k=5)) == 1


async def test_an_export_of_an_erased_run_says_that_it_was_erased(tmp_path: Path) -> None:
    run = await ended(tmp_path, MARK)
    async with world(tmp_path) as w:
        await erasing.erase(w.kernel, [run], by=BY)
        row = await w.store.run(run)
        with pytest.raises(InvalidInput, match="was erased") as raised:
            await export(tmp_path, w.store, w.kernel.runtime, row)
        assert "audit verify" in raised.value.todo
