"""Quarantine: all that may come of a source is found, shown, and revoked; lifting gives it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from approvals_world import PAY, payer
from kernel_world import World, world
from labels_world import PRIVATE, function
from locks_world import band

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, NotFound
from ring0.gateway.operations import Direct
from ring0.identity.roles import RoleMissing
from ring0.kernel.lineage import acting
from ring0.kernel.lineage.reaching import matches, quarantined, reached
from ring0.observability.verify import verify
from ring0.types import (
    AgentManifest,
    ApprovalState,
    CallKind,
    CallState,
    Integrity,
    Operator,
    Quarantine,
    Role,
    RunState,
)

FILES = AgentManifest(name="clerk", tools={"files": {"use": "files"}})
BY = "ann (uid 1)"


@pytest.mark.parametrize(
    ("wanted", "source", "fits"),
    [
        ("mail.read@r-1/0/3", "mail.read@r-1/0/3", True),
        ("mail.read@r-1/0/3", "mail.read@r-1/0/31", False),
        ("mail.read", "mail.read@r-1/0/3", True),
        ("mail", "mail.read@r-1/0/3", True),
        ("mail", "mailbox.read@r-1/0/3", False),
        ("mail", "mail@example.com", False),
        ("mail", "mail.txt", False),
        ("https://a.example", "https://a.example/x", True),
        ("https://a.example", "https://a.example.evil/x", False),
        ("https://a.example/x", "https://a.example/x?y=1", True),
        ("https://a.example/x", "https://a.example/xy", False),
        ("tickets/1.txt", "tickets/1.txt", True),
        ("tickets", "tickets/1.txt", False),
        ("hook pull", "hook pull", True),
        ("", "mail.read@r-1/0/3", False),
    ],
)
def test_a_source_is_what_it_is_called_and_what_lies_beneath(
    wanted: str, source: str, fits: bool
) -> None:
    assert matches(wanted, source) is fits


def test_of_several_quarantines_the_earliest_counts_and_no_other_tenants() -> None:
    rows = [
        Quarantine(tenant=tenant, source=str(n), runs=runs, by=BY, at_us=1)
        for n, (tenant, runs) in enumerate(
            [("t", {"r-1": 5, "r-2": 3}), ("t", {"r-1": 2}), ("u", {"r-1": 1, "r-9": 1})]
        )
    ]
    assert quarantined("t", rows) == {"r-1": 2, "r-2": 3}


async def poisoned(w: World) -> str:
    """A run that notes something, reads a page, notes something else, and writes a file."""
    function(w.run, "page", "the supplier is DE-6666")
    await w.kind(CallKind.MEMORY_APPEND, {"text": "before: supplier"})
    await w.call("page", path="7", counter=50)
    await w.kind(CallKind.MEMORY_APPEND, {"text": "after: supplier DE-6666"})
    await w.call("files.write", {"path": "a.txt", "text": "DE-6666"})
    return f"page@{w.run.id}/7/50"


async def recalled(w: World) -> list[str]:
    found = await w.kind(CallKind.MEMORY_RECALL, {"query": "supplier", "k": 20})
    return sorted(row["text"] for row in found.value if "supplier" in row["text"])


async def test_all_that_a_run_did_after_it_saw_a_source_is_found(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        source = await poisoned(w)
        found = await reached(w.store, w.kernel.runtime, "local", source)
        assert list(found.runs) == [w.run.id] and found.live == (w.run.id,)
        kinds = [item.kind for item in found.items]
        assert kinds.count("file") == 1 and kinds.count("memory") == 3
        (direct,) = [item for item in found.items if item.direct]
        assert direct.name == f"{w.run.id}/7/50 page" and direct.seq == found.runs[w.run.id]
        assert await reached(w.store, w.kernel.runtime, "other", source) == type(found)(
            source=source, runs={}, items=(), pending=(), live=()
        )


async def test_memory_of_it_is_not_recalled_any_more_until_it_is_lifted(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, manifest=FILES) as w:
        source = await poisoned(w)
    async with world(home) as later:
        assert "after: supplier DE-6666" in await recalled(later)
    async with world(home) as later:
        await acting.quarantine(later.kernel, source, by=BY)
        assert await recalled(later) == ["before: supplier"]
    async with world(home) as after_restart:
        assert await recalled(after_restart) == ["before: supplier"]
        await acting.lift(after_restart.kernel, source, by=BY)
        assert "after: supplier DE-6666" in await recalled(after_restart)
        report = await verify(after_restart.store)
        assert report.ok, report.problems


async def test_what_is_out_does_not_push_out_what_is_not(tmp_path: Path) -> None:
    """A stranger who fills a memory must not hide the rest of it for good."""
    home = tmp_path / "home"
    async with world(home, manifest=FILES) as w:
        source = await poisoned(w)
        for n in range(600):
            await w.kind(CallKind.MEMORY_APPEND, {"text": f"supplier supplier {n}"})
    async with world(home) as later:
        await acting.quarantine(later.kernel, source, by=BY)
        assert await recalled(later) == ["before: supplier"]


async def test_a_live_run_that_saw_it_is_paused_and_one_that_did_not_goes_on(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        seen, other = await b.start(), await b.start("other")
        function(seen.run, "page", "x")
        await seen.call(CallKind.TOOL, {}, "page")
        done = await acting.quarantine(b.kernel, "page", by=BY)
        assert done.paused == (seen.id,) and done.killed == ()
        assert (await seen.row()).paused_by == BY and not (await other.row()).paused_by


async def test_a_live_run_that_saw_it_is_ended_where_the_operator_says_so(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        source = await poisoned(w)
        done = await acting.quarantine(w.kernel, source, by=BY, kill=True)
        assert done.killed == (w.run.id,)
        assert (await w.row()).state is RunState.CANCELLED


async def test_asks_that_rest_on_it_are_revoked_and_nobody_can_answer_them(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        tool = payer(w)
        source = await poisoned(w)
        call = w.start("pay", dict(PAY))
        approval = await w.pending()
        done = await acting.quarantine(w.kernel, source, by=BY)
        assert done.revoked == (approval.id,)
        row = await w.store.approval(approval.id)
        assert row is not None and row.state is ApprovalState.REVOKED and row.answered_by == BY
        assert "quarantined" in row.note
        await w.kernel.resume(w.run.id, by=BY)
        assert (await call).state is CallState.REFUSED and tool.done == 0


async def test_it_is_followed_through_messages_children_and_their_results(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        reader = await b.actor(
            (await parent.call(CallKind.SPAWN, {"task": "read"}, "child")).value["run"]
        )
        writer = await b.actor(
            (await parent.call(CallKind.SPAWN, {"task": "write"}, "child")).value["run"]
        )
        await reader.send(writer.id, "before")
        assert (await writer.receive()).state is CallState.OK
        function(reader.run, "page", "x", confidentiality=PRIVATE)
        await reader.call(CallKind.TOOL, {}, "page")
        found = await reached(b.kernel.store, b.kernel.runtime, "local", "page")
        assert set(found.runs) == {reader.id}
        await reader.send(writer.id, "after")
        found = await reached(b.kernel.store, b.kernel.runtime, "local", "page")
        assert set(found.runs) == {reader.id}  # It is on its way.
        assert [item.name for item in found.items if item.kind == "message"] == [f"to {writer.id}"]
        await writer.receive()
        grandchild = await b.actor(
            (await writer.call(CallKind.SPAWN, {"task": "more"}, "child")).value["run"]
        )
        await writer.end("done")
        found = await reached(b.kernel.store, b.kernel.runtime, "local", "page")
        assert set(found.runs) == {reader.id, writer.id, grandchild.id}
        assert parent.id not in found.runs
        await parent.call(CallKind.WAIT, {"run": writer.id})
        found = await reached(b.kernel.store, b.kernel.runtime, "local", "page")
        assert set(found.runs) == {reader.id, writer.id, grandchild.id, parent.id}


async def test_it_is_followed_through_memory_into_later_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home, manifest=FILES) as w:
        source, first = await poisoned(w), w.run.id
    async with world(home) as other:
        await other.kind(CallKind.MEMORY_RECALL, {"query": "before", "k": 1})
        clean = other.run.id
    async with world(home) as later:
        await later.kind(CallKind.MEMORY_RECALL, {"query": "after", "k": 1})
        found = await reached(later.store, later.kernel.runtime, "local", source)
        assert first in found.runs and later.run.id in found.runs and clean not in found.runs


async def test_a_persons_word_to_a_run_that_saw_it_is_not_of_it(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        source = await poisoned(w)
        await w.kernel.send(w.run.id, "stop", by="alice")
        found = await reached(w.store, w.kernel.runtime, "local", source)
        assert not [item for item in found.items if item.kind == "message"]


async def test_a_run_can_be_a_source(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        await poisoned(w)
        found = await reached(w.store, w.kernel.runtime, "local", f"run {w.run.id}")
        assert found.runs == {w.run.id: 1}


async def test_what_a_recall_brought_is_known_though_its_result_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    async with world(home, manifest=FILES) as w:
        source = await poisoned(w)
    monkeypatch.setattr(limits, "RESULT_SIZE_BYTES_MAX", 40)
    async with world(home) as later:
        await later.kind(CallKind.MEMORY_RECALL, {"query": "before", "k": 1})
        found = await reached(later.store, later.kernel.runtime, "local", source)
        assert later.run.id not in found.runs
        await later.kind(CallKind.MEMORY_RECALL, {"query": "after", "k": 1})
        found = await reached(later.store, later.kernel.runtime, "local", source)
        assert later.run.id in found.runs


async def test_a_fact_that_a_quarantined_one_superseded_holds_again(tmp_path: Path) -> None:
    """Rollback: what stood before the stranger came stands again, until it is lifted."""
    home = tmp_path / "home"
    fact = {"subject": "supplier", "predicate": "account", "value": "DE-1111"}
    async with world(home, manifest=FILES) as w:
        await w.kind(CallKind.MEMORY_REMEMBER, fact)
    async with world(home, manifest=FILES) as w:
        # A stranger whom somebody vouches for: what he says is as good as what stood there.
        function(w.run, "page", "x", output=Integrity.USER)
        await w.call("page", path="7", counter=50)
        done = await w.kind(CallKind.MEMORY_REMEMBER, fact | {"value": "DE-6666"})
        assert done.state is CallState.OK, done
        source = f"page@{w.run.id}/7/50"

    async def holds() -> list[str]:
        async with world(home) as later:
            asked = {"query": "supplier account", "kinds": ["fact"]}
            found = await later.kind(CallKind.MEMORY_RECALL, asked)
            return [row["value"] for row in found.value]

    assert await holds() == ["DE-6666"]
    async with world(home) as later:
        await acting.quarantine(later.kernel, source, by=BY)
    assert await holds() == ["DE-1111"]
    async with world(home) as later:
        await acting.lift(later.kernel, source, by=BY)
    assert await holds() == ["DE-6666"]


async def test_quarantine_is_an_operators_act(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        await poisoned(w)
        viewer = Operator(name="vic", roles=frozenset({Role.VIEWER, Role.APPROVER}))
        asked: list[tuple[str, dict[str, Any]]] = [
            ("quarantine", {"source": "page"}),
            ("quarantine-lift", {"source": "page"}),
        ]
        for verb, body in asked:
            with pytest.raises(RoleMissing):
                await Direct(w.kernel, viewer).ask(verb, body)
        assert await w.store.quarantines() == []
        ann = Direct(w.kernel, Operator(name="ann", roles=frozenset({Role.OPERATOR})))
        done = await ann.ask("quarantine", {"source": "page", "note": "odd"})
        assert list(done["paused"]) == [w.run.id]
        (row,) = await w.store.quarantines()
        assert (row.source, row.by, row.note) == ("page", "ann", "odd")
        await ann.ask("quarantine-lift", {"source": "page"})
        assert await w.store.quarantines() == []


async def test_what_is_no_source_and_what_is_not_quarantined_are_errors(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        for source in ("", "a\nb", "x" * (limits.SOURCE_CHARS_MAX + 1)):
            with pytest.raises(InvalidInput):
                await acting.quarantine(w.kernel, source, by=BY)
        with pytest.raises(NotFound):
            await acting.lift(w.kernel, "page", by=BY)


async def test_quarantines_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUARANTINES_MAX", 2)
    monkeypatch.setattr(limits, "QUARANTINE_RUNS_MAX", 0)
    async with world(tmp_path / "home", manifest=FILES) as w:
        await acting.quarantine(w.kernel, "one", by=BY)
        await acting.quarantine(w.kernel, "two", by=BY)
        await acting.quarantine(w.kernel, "two", by=BY)
        with pytest.raises(LimitReached):
            await acting.quarantine(w.kernel, "three", by=BY)
        await poisoned(w)
        with pytest.raises(LimitReached, match="More than 0 runs"):
            await acting.look(w.kernel, "page")


async def test_what_came_of_a_source_is_told_up_to_a_bound_and_counted_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path / "home", manifest=FILES) as w:
        source = await poisoned(w)
        whole = await reached(w.store, w.kernel.runtime, "local", source)
        monkeypatch.setattr(limits, "QUARANTINE_ITEMS_MAX", 2)
        found = await reached(w.store, w.kernel.runtime, "local", source)
        assert found.items == whole.items[:2] and found.runs == whole.runs
        assert found.more == len(whole.items) - 2 and whole.more == 0
