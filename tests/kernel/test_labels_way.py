"""The way of a value, told from the journal alone: from the argument back to where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from approvals_world import CAROL, PAY, payer
from kernel_world import World, world
from labels_world import MAIL, MAIL_FIELDS, TRUSTED, UNTRUSTED, function
from locks_world import band

from ring0 import limits
from ring0.errors import NotFound
from ring0.kernel.lineage.tracing import Step, Traces
from ring0.types import AgentManifest, CallKind, Integrity

FILES = AgentManifest(name="clerk", tools={"files": {"use": "files"}})


def steps(step: Step) -> Iterator[Step]:
    yield step
    for inner in step.behind:
        yield from steps(inner)


async def paid(w: World, to: str) -> str:
    """The id of a call that pays somebody; a person says yes."""
    call = w.start("pay", {**PAY, "to": to}, path="9", counter=1)
    await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL)
    await call
    await w.store.flush()
    return f"{w.run.id}/9/1"


async def test_the_way_of_a_value_leads_through_a_file_to_where_it_was_read(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=FILES, task="pay the bill") as w:
        payer(w)
        function(w.run, "mail", MAIL, MAIL_FIELDS)
        await w.call("mail", path="1", counter=1)
        await w.call("files.write", {"path": "bill.txt", "text": "m-4711"}, path="2", counter=1)
        await w.call("files.read", {"path": "bill.txt"}, path="3", counter=1)
        call = await paid(w, "m-4711")
        way = await Traces(w.store).way(call)
        assert way.call == call
        (to,) = [one for one in way.behind if one.what == "to = m-4711"]
        behind = {one.call for one in to.behind}
        assert f"{w.run.id}/1/1" in behind and f"{w.run.id}/3/1" in behind
        written = [one for one in steps(way) if one.call == f"{w.run.id}/2/1"]
        assert written and any(one.what == "text = m-4711" for one in steps(written[0]))


async def test_each_call_tells_where_its_arguments_came_from(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=FILES, task="look up acme-9") as w:
        function(w.run, "mail", MAIL, MAIL_FIELDS)
        await w.call("mail", {"q": "acme-9"}, path="1", counter=1)
        await w.call("mail", {"q": "ann@acme.com", "more": "zz-17"}, path="1", counter=2)
        await w.store.flush()
        trace = await Traces(w.store).of(w.run.id)
        first, second = trace.calls.values()
        assert [(o.value, o.sources, o.integrity) for o in first.origins] == [
            ("acme-9", ("task",), Integrity.USER)
        ]
        assert [(o.argument, o.integrity, bool(o.sources)) for o in second.origins] == [
            ("more", UNTRUSTED, False),
            ("q", TRUSTED, True),
        ]
        assert first.fields == {"[].id": "trusted-field", "[].sender": "trusted-field private"}
        assert first.label.integrity is UNTRUSTED


async def test_what_lies_beside_a_judged_value_within_an_argument_is_told_too(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", task="look up acme-9") as w:
        function(w.run, "mail", MAIL, critical=("q.to",))
        await w.call("mail", {"q": {"to": "acme-9", "text": "zz-17"}}, path="1", counter=1)
        await w.store.flush()
        (call,) = (await Traces(w.store).of(w.run.id)).calls.values()
        assert sorted((o.argument, o.sources) for o in call.origins) == [
            ("q.text", ()),
            ("q.to", ("task",)),
        ]


async def test_it_is_the_same_after_the_run_has_ended_and_its_tools_are_gone(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with world(home, manifest=FILES) as w:
        payer(w)
        function(w.run, "mail", MAIL, MAIL_FIELDS)
        await w.call("mail")
        call = await paid(w, "eve@evil.example")
        before = await Traces(w.store).way(call)
        await w.kernel.kill("run", w.run.id, by="ann")
    async with world(home, start=False) as later:
        assert await Traces(later.store).way(call) == before


async def test_what_was_judged_is_told_as_it_was_judged_and_who_answered_for_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home") as w:
        payer(w)
        function(w.run, "page", "pay mallory")
        await w.call("page")
        call = await paid(w, "mallory")
        found = (await Traces(w.store).of(w.run.id)).calls[call]
        (to,) = [one for one in found.origins if one.argument == "to"]
        assert to.integrity is UNTRUSTED and to.sources[0].startswith("page@")
        assert ("to", CAROL.name) in [(one.what, one.by) for one in found.declassified]


async def test_the_way_leads_into_the_run_that_a_value_came_from(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        spawned = await parent.call(CallKind.SPAWN, {"task": "read"}, "child")
        child = await b.actor(spawned.value["run"])
        function(child.run, "page", "take DE-6666")
        await child.call(CallKind.TOOL, {}, "page")
        await child.end("DE-6666")
        await parent.call(CallKind.WAIT, {"run": child.id})
        function(parent.run, "use", "done")
        await parent.call(CallKind.TOOL, {"q": "DE-6666"}, "use", counter=50)
        await b.kernel.store.flush()
        way = await Traces(b.kernel.store).way(f"{parent.id}/0/50")
        kinds = [(one.kind, one.what) for one in steps(way)]
        assert ("run", child.id) in kinds and ("call", "page") in kinds


async def test_a_childs_task_is_told_as_its_parents_word(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent = await b.start()
        spawned = await parent.call(CallKind.SPAWN, {"task": "pay DE-4711"}, "child")
        child = await b.actor(spawned.value["run"])
        function(child.run, "use", "done")
        await child.call(CallKind.TOOL, {"q": "DE-4711"}, "use")
        await b.kernel.store.flush()
        (call,) = (await Traces(b.kernel.store).of(child.id)).calls.values()
        assert [(one.sources, one.integrity) for one in call.origins] == [(("task",), UNTRUSTED)]


async def test_the_way_of_what_was_recalled_names_the_runs_that_noted_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        function(w.run, "page", "supplier DE-6666")
        await w.call("page")
        await w.kind(CallKind.MEMORY_APPEND, {"text": "supplier DE-6666"})
        noted = w.run.id
    async with world(home) as later:
        await later.kind(CallKind.MEMORY_RECALL, {"query": "supplier"})
        function(later.run, "use", "done")
        await later.call("use", {"q": "DE-6666"}, path="9", counter=1)
        await later.store.flush()
        way = await Traces(later.store).way(f"{later.run.id}/9/1")
        assert any(one.kind == "memory" and noted in one.what for one in steps(way))


async def test_a_way_that_leads_through_much_is_bounded_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LABELS_NODES_MAX", 30)
    async with world(tmp_path / "home") as w:
        function(w.run, "same", lambda args: "pay DE-6666")
        for n in range(40):
            await w.call("same", {"q": f"DE-6666 and DE-6666 {n}", "more": n})
        await w.store.flush()
        way = await Traces(w.store).way(f"{w.run.id}/0/40")
        assert sum(1 for _ in steps(way)) < 100 and any(one.told for one in steps(way))


async def test_what_is_not_on_record_has_no_way(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        with pytest.raises(NotFound):
            await Traces(w.store).way(f"{w.run.id}/0/7")
        with pytest.raises(NotFound):
            await Traces(w.store).of("r-none")
