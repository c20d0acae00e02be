"""Forks: another run's past, recalled; from there on a new task of whoever forks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ring0 import Context, agent, tool
from ring0.errors import InvalidInput, NotFound, StoreDamaged
from ring0.kernel.operating import erasing
from ring0.observability.verify import verify
from ring0.sdk.embedded import Ring, code_of, embedded
from ring0.types import (
    Approval,
    ApprovalState,
    CallState,
    Confidentiality,
    Integrity,
    Operator,
    Outcome,
    Run,
    Terms,
)

ALICE, BOB = Operator(name="alice"), Operator(name="bob")
DONE: list[Any] = []
ALLOW = """
@id("all") @reason("All of it is allowed here.")
permit (principal, action, resource);
"""
pytestmark = pytest.mark.filterwarnings("ignore::ring0.sdk.embedded.NotContained")


@tool(effect="pure")
async def read(x: int) -> dict[str, int]:
    """Reads."""
    DONE.append(["read", x])
    return {"read": x}


@tool(effect="once")
async def pay(amount: int) -> str:
    """Pays."""
    DONE.append(["pay", amount])
    return f"paid {amount}"


@agent(name="child", tools=[read])
async def child(ctx: Context, task: str) -> Any:
    return await ctx.tool("read", x=int(task))


@agent(name="clerk", tools=[read, pay], agents=["child"], budget="20 calls, 1 min, 10000 tokens")
async def clerk(ctx: Context, task: str) -> Any:
    began = await ctx.random()
    first = await ctx.tool("read", x=1)
    paid = await ctx.tool("pay", amount=first["read"] * 10)
    second = await ctx.tool("read", x=first["read"] + 1)
    more = await ctx.tool("pay", amount=second["read"] * 100)
    return {"began": began, "task": task, "said": [first, paid, second, more]}


@agent(name="parent", tools=[read, pay], agents=["child"], budget="200 calls, 1 min, 1000 tokens")
async def parent(ctx: Context, task: str) -> Any:
    kept = await ctx.spawn("child", "1")
    await ctx.now()
    return await kept.wait()


@agent(name="writer", builtins={"files": {"use": "files"}}, budget="20 calls, 1 min")
async def writer(ctx: Context, task: str) -> Any:
    await ctx.tool("files.write", path="a.txt", text="first")
    await ctx.tool("files.write", path="a.txt", text="second")
    return await ctx.tool("files.read", path="a.txt")


@contextlib.asynccontextmanager
async def ring_at(folder: Path, policy: str = ALLOW) -> AsyncIterator[Ring]:
    DONE.clear()
    (folder / "own.cedar").write_text(policy)
    (folder / "ring0.toml").write_text('policy = ["own.cedar"]\nprofile = "observe"\n')
    async with embedded(folder, {}) as ring:
        yield ring


async def ended(ring: Ring, row: Run) -> Any:
    found = await asyncio.wait_for(ring.kernel.runs.wait(row.id), 10)
    body = msgspec.json.decode(await ring.kernel.store.blob(found.result))
    assert "value" in body, body
    return body["value"]


async def asked(ring: Ring, run: str) -> Approval:
    async with asyncio.timeout(10):
        while True:
            await ring.kernel.store.flush()
            for one in await ring.kernel.store.approvals(states=[ApprovalState.PENDING], run=run):
                return one
            row = await ring.kernel.store.run(run)
            assert row is not None and not row.ended_us, "it ended before it asked"
            await asyncio.sleep(0.01)


async def original(ring: Ring) -> tuple[Run, list[int]]:
    """A run of alice's that is done, and the seq at which each of its calls had ended."""
    row = await ring.kernel.start_embedded(*declared(clerk), "the task of alice", principal="alice")
    await ended(ring, row)
    await ring.kernel.store.flush()
    found = []
    async for entry in ring.kernel.store.entries(row.id):
        if type(entry.body).__name__ == "CallEnded":
            found.append(entry.seq)
    now = await ring.kernel.store.run(row.id)
    assert now is not None and len(found) == 5
    return now, found


def declared(function: Any) -> Any:
    from ring0.sdk.embedded import _declared

    return _declared(function)


async def fork(ring: Ring, row: Run, at: int, by: str = "bob", **more: Any) -> Run:
    edits = more.pop("edits", {})
    return await ring.kernel.forking.fork(
        row.id, at, edits, by=by, code=code_of(more.pop("agent", clerk)), **more
    )


async def test_a_fork_recalls_the_past_and_goes_on_live(tmp_path: Path) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        whole = await ended(ring, row)
        before = list(DONE)
        made = await fork(ring, row, at[2])
        assert (await asked(ring, made.id)).call == f"{made.id}/0/5", "the last payment"
        assert [*before, ["read", 2]] == DONE, "what was done by then is not done again"
        await ring.kernel.answer((await asked(ring, made.id)).id, yes=True, by=BOB)
        value = await ended(ring, made)
        assert value["began"] == whole["began"] and value["said"] == whole["said"]
        assert [one for one in before if one[0] == "pay"] == [["pay", 10], ["pay", 200]]
        assert DONE[-1] == ["pay", 200]
        await ring.kernel.store.flush()
        report = await verify(ring.kernel.store)
        assert report.ok, report.problems


async def test_a_fork_is_a_new_task_of_whoever_forks_with_the_budget_of_today(
    tmp_path: Path,
) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        made = await fork(ring, row, at[2])
        await asked(ring, made.id)
        now = await ring.kernel.store.run(made.id)
        assert now is not None and (now.principal, now.parent) == ("bob", "")
        assert now.forked == f"{row.id}#{at[2]}" and now.root == made.id
        assert now.calls_used == 1, "what is recalled costs nothing"
        assert now.deadline_us > row.deadline_us and now.label == row.label
        await ring.kernel.kill("run", made.id, by="bob")


async def test_every_call_that_is_not_pure_asks_though_the_policy_allows_it(
    tmp_path: Path,
) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        made = await fork(ring, row, at[1], by="alice")
        pending = await asked(ring, made.id)
        assert pending.call == f"{made.id}/0/3" and not pending.under
        calls = await ring.kernel.store.calls(made.id)
        assert not [one for one in calls if one.name == "pay"], "nothing of it has begun"
        await ring.kernel.answer(pending.id, yes=False, by=ALICE)
        found = await asyncio.wait_for(ring.kernel.runs.wait(made.id), 10)
        assert found.state == "failed", "the agent heard no"


async def test_no_approval_that_was_given_in_advance_holds_in_another_fork(
    tmp_path: Path,
) -> None:
    """It holds in the fork that it was given in, and there alone."""
    async with ring_at(tmp_path) as ring:
        row = await ring.kernel.start_embedded(*declared(writer), "go", principal="alice")
        await ended(ring, row)
        first = await fork(ring, row, 1, by="alice", agent=writer)
        pending = await asked(ring, first.id)
        terms = Terms(until_s=600, match={"path": "*", "text": "*"})
        await ring.kernel.answer(pending.id, yes=True, by=ALICE, terms=terms)
        await ended(ring, first)
        approvals = await ring.kernel.store.approvals(run=first.id)
        assert [bool(one.under) for one in approvals] == [False, True], "the second was covered"
        second = await fork(ring, row, 1, by="alice", agent=writer)
        assert not (await asked(ring, second.id)).under
        await ring.kernel.kill("run", second.id, by="alice")


async def test_an_edit_carries_the_label_of_who_edited_it(tmp_path: Path) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        was = await ring.kernel.store.call(f"{row.id}/0/2")
        assert was is not None
        edits = {f"{row.id}/0/2": {"read": 7}}
        made = await fork(ring, row, at[1], edits=edits)
        pending = await asked(ring, made.id)
        shown = msgspec.json.decode(await ring.kernel.store.blob(pending.shown))
        assert shown["arguments"] == {"amount": 70}
        copied = await ring.kernel.store.call(f"{made.id}/0/2")
        assert copied is not None
        outcome = msgspec.json.decode(await ring.kernel.store.blob(copied.outcome), type=Outcome)
        assert outcome.value == {"read": 7} and outcome.label.integrity is Integrity.USER
        assert outcome.label.sources == ("edited by bob",)
        assert outcome.label.confidentiality is Confidentiality.PUBLIC
        now = await ring.kernel.store.run(made.id)
        assert now is not None and now.label.integrity is Integrity.UNTRUSTED, "it read the rest"
        entries = [entry.body async for entry in ring.kernel.store.entries(made.id)]
        (forked,) = [one for one in entries if type(one).__name__ == "RunForked"]
        assert (forked.by, forked.edits) == ("bob", (f"{made.id}/0/2",))
        await ring.kernel.kill("run", made.id, by="bob")


async def test_another_task_begins_at_the_first_event(tmp_path: Path) -> None:
    async with ring_at(tmp_path) as ring:
        row, _ = await original(ring)
        made = await fork(ring, row, 1, edits={"task": "bob's own"})
        await ring.kernel.answer((await asked(ring, made.id)).id, yes=True, by=BOB)
        await asyncio.sleep(0)
        pending = await asked(ring, made.id)
        await ring.kernel.answer(pending.id, yes=True, by=BOB)
        assert (await ended(ring, made))["task"] == "bob's own"


@pytest.mark.parametrize(
    ("at", "edits"),
    [
        (0, {}),
        (10_000, {}),
        (2, {"r-of-another/0/1": 1}),
        (1, {"{run}/0/2": {"read": 7}}),
        (5, {"task": 7}),
        (5, {f"{{run}}/0/{number}": 1 for number in range(70)}),
    ],
)
async def test_a_fork_that_makes_no_sense_is_refused_and_leaves_nothing(
    at: int, edits: dict[str, Any], tmp_path: Path
) -> None:
    async with ring_at(tmp_path) as ring:
        row, _ = await original(ring)
        named = {key.replace("{run}", row.id): value for key, value in edits.items()}
        with pytest.raises(InvalidInput):
            await fork(ring, row, at, edits=named)
        with pytest.raises(NotFound):
            await ring.kernel.forking.fork("r-nobody", 1, {}, by="bob")
        await ring.kernel.store.flush()
        assert len(await ring.kernel.store.runs()) == 1


async def test_a_run_of_another_tenant_is_not_there_to_be_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        monkeypatch.setattr(ring.kernel.forking, "_tenant", "another")
        with pytest.raises(NotFound):
            await fork(ring, row, at[0])


async def test_an_effect_that_nobody_knows_of_is_no_past_to_begin_with(tmp_path: Path) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        real = ring.kernel.store.entries

        async def entries(run: str = "") -> Any:
            async for entry in real(run):
                body = entry.body
                if type(body).__name__ == "CallEnded" and body.call.endswith("/3"):
                    from ring0.store.events import CallCutOff

                    entry = msgspec.structs.replace(
                        entry, body=CallCutOff(call=body.call, why="a crash")
                    )
                yield entry

        ring.kernel.store.entries = entries  # type: ignore[method-assign]
        with pytest.raises(InvalidInput, match="nobody knows"):
            await fork(ring, row, at[2])


async def test_a_fork_of_a_fork_is_as_deep_and_asks_as_well(tmp_path: Path) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        first = await fork(ring, row, at[2])
        pending = await asked(ring, first.id)
        await ring.kernel.answer(pending.id, yes=True, by=BOB)
        await ended(ring, first)
        await ring.kernel.store.flush()
        now = await ring.kernel.store.run(first.id)
        assert now is not None
        calls = await ring.kernel.store.calls(first.id)
        last = max(call.seq for call in calls if call.name == "read")
        second = await fork(ring, now, last + 1, by="carol")
        pending = await asked(ring, second.id)
        assert pending.call == f"{second.id}/0/5"
        states = [call.state for call in await ring.kernel.store.calls(second.id)]
        assert states == [CallState.OK] * 4
        await ring.kernel.kill("run", second.id, by="carol")


async def test_what_a_fork_spawns_asks_as_the_fork_does_and_old_children_are_not_its_own(
    tmp_path: Path,
) -> None:
    async with ring_at(tmp_path) as ring:
        row = await ring.kernel.start_embedded(*declared(parent), "go", principal="alice")
        await ended(ring, row)
        await ring.kernel.store.flush()
        made = await fork(ring, row, 1, agent=parent)
        pending = await asked(ring, made.id)
        assert pending.call == f"{made.id}/0/1", "to start another run asks"
        await ring.kernel.answer(pending.id, yes=True, by=BOB)
        await ended(ring, made)
        (below,) = await ring.kernel.store.runs(parent=made.id)
        assert below.forked == f"{row.id}#1"
        spawned = (await ring.kernel.store.calls(row.id))[0].seq
        later = await fork(ring, row, spawned + 3, agent=parent)
        found = await asyncio.wait_for(ring.kernel.runs.wait(later.id), 10)
        assert found.state == "failed", "it has no such child to wait for"


async def test_a_fork_has_the_workspace_as_it_was_then(tmp_path: Path) -> None:
    async with ring_at(tmp_path) as ring:
        row = await ring.kernel.start_embedded(*declared(writer), "go", principal="alice")
        assert "second" in str(await ended(ring, row))
        await ring.kernel.store.flush()
        first = (await ring.kernel.store.calls(row.id))[0]
        made = await fork(ring, row, first.seq + 1, agent=writer)
        pending = await asked(ring, made.id)
        assert pending.call == f"{made.id}/0/2", "to write again asks, in its own workspace too"
        (file,) = await ring.kernel.store.files(made.id)
        assert await ring.kernel.store.blob(file.blob) == b"first"
        await ring.kernel.answer(pending.id, yes=True, by=BOB)
        assert "second" in str(await ended(ring, made))
        await ring.kernel.store.flush()
        assert (await verify(ring.kernel.store)).ok


async def test_a_past_of_which_a_value_is_gone_is_not_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ring_at(tmp_path) as ring:
        row, at = await original(ring)
        call = await ring.kernel.store.call(f"{row.id}/0/1")
        assert call is not None
        real = ring.kernel.store.blob

        async def blob(address: str) -> bytes:
            if address == call.outcome:
                raise StoreDamaged("It is gone.")
            return await real(address)

        monkeypatch.setattr(ring.kernel.store, "blob", blob)
        with pytest.raises(StoreDamaged):
            await fork(ring, row, at[2])
        await ring.kernel.store.flush()
        assert len(await ring.kernel.store.runs()) == 1


async def test_a_run_is_not_erased_while_somebody_forks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the key of what was erased would live on, in a fork whose past is gone."""
    async with ring_at(tmp_path) as ring:
        row, _ = await original(ring)
        key, real, halfway = b"", ring.kernel.store.run_key, asyncio.Event()

        async def slowly(run: str) -> bytes:
            nonlocal key
            key = await real(run)
            halfway.set()
            await asyncio.sleep(0.3)
            return key

        monkeypatch.setattr(ring.kernel.store, "run_key", slowly)
        forking = asyncio.ensure_future(fork(ring, row, 1))
        await halfway.wait()
        monkeypatch.setattr(ring.kernel.store, "run_key", real)
        with pytest.raises(InvalidInput, match="shares its values"):
            await erasing.erase(ring.kernel, [row.id], by="ann")
        assert set(ring.kernel.store.runs_keyed(key)) == {(await forking).id, row.id}
