"""All that a back-up may hold open is void once it is put back: each thing that can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import journal_orders
import journals
import stories
from ring0 import limits
from ring0.kernel.operating import backing, restoring
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Write, base
from ring0.store import events as ev
from ring0.store.sqlite import JOURNAL, SqliteStore, open_store
from ring0.store.sqlite.copying import copy_journal
from ring0.types import LIVE, ApprovalState, Budget, CallState, Effect, RunState


async def open_things(store: SqliteStore) -> None:
    """A whole story, and a tree of two runs in the middle of everything."""
    await stories.tell(store)
    fence = await store.newest_fence() + 1
    top = journals.queued("r-top")
    assert isinstance(top.events[0], ev.RunQueued)
    for write in (
        top,
        journals.moved("r-top", epoch=1),
        journals.sandboxed("r-top", "s-top"),
        journals.parked("p-top"),
        journals.locked("r-top", "table:customers", fence),
        journals.asked("r-top", "a-top", 1),
        journals.asked("r-top", "a-yes", 2),
        journals.answered("r-top", "a-yes"),
        journals.stands("r-top", "st-top"),
        journals.queued(
            "r-low", parent=top.events[0].run, budget=Budget(calls=10, cost_microusd=1_000)
        ),
        journals.moved("r-low", epoch=1),
        journals.intended("r-low", 0, durable=True),
        journals.moved("r-low", RunState.WAITING, why="timer", wake_us=5),
        journal_orders.set_cron("nightly"),
        journal_orders.set_hook("push"),
        journals.killed("agent", "nobody", 7),
    ):
        await store.append(write)


async def put_back(tmp_path: Path) -> tuple[restoring.Restored, Path, SqliteStore]:
    """The journal with all that, as a back-up made it, restored elsewhere."""
    before = tmp_path / "before"
    before.mkdir()
    store = open_store(before, Runtime(), write=True)
    await open_things(store)
    folder = tmp_path / "backup"
    folder.mkdir()
    head, _ = copy_journal(before / JOURNAL, folder)
    files = {path.name: backing.kept(path) for path in folder.iterdir()}
    listed = backing.Listed(made_us=1, size=head.size, root=head.root, files=files)
    (folder / backing.LIST).write_bytes(msgspec.json.encode(listed))
    done = await restoring.restore(tmp_path / "home", folder, Runtime(), by="ann (uid 7)")
    return done, tmp_path / "home", store


@pytest.fixture
async def restored(tmp_path: Path) -> Any:
    done, home, before = await put_back(tmp_path)
    store = open_store(home, Runtime(), write=True)
    yield done, store, before
    await store.close()
    await before.close()


async def test_every_run_of_it_has_ended(restored: Any) -> None:
    done, store, _ = restored
    assert await store.runs(states=LIVE) == []
    top, low = await store.run("r-top"), await store.run("r-low")
    assert top.state is RunState.CANCELLED and low.state is RunState.UNKNOWN
    call = await store.call("r-low/0/0")
    assert call.effect is Effect.ONCE and call.state is CallState.UNKNOWN
    assert done.runs >= 2
    report = await verify(store)
    assert report.ok, report.problems


async def test_no_approval_of_it_can_be_used(restored: Any) -> None:
    done, store, _ = restored
    for approval in ("a-top", "a-yes"):
        row = await store.approval(approval)
        assert row.state is ApprovalState.REVOKED and row.answered_by == "ann (uid 7)"
    assert await store.approvals(states=[ApprovalState.PENDING, ApprovalState.APPROVED]) == []
    assert (await store.standing("st-top")).revoked_by and done.standings >= 1
    good = base.ApprovalGood(approval="a-yes", bound_to="b")
    with pytest.raises(GuardFailed):
        await store.append(Write(run=ev.KERNEL, guards=[good], events=[ev.KernelStopped()]))


async def test_a_lock_that_is_taken_then_has_a_number_that_none_had_before(restored: Any) -> None:
    _, store, before = restored
    assert await store.locks(run="r-top") == []
    # The other journal goes on, and gives out more.
    await before.append(
        journals.locked("r-top", "table:x", await before.newest_fence() + 1_000_000)
    )
    assert await store.newest_fence() > await before.newest_fence()


async def test_a_kill_of_the_other_journal_is_never_younger(restored: Any) -> None:
    _, store, before = restored
    await before.append(journals.killed("all", "", 1_000_000))
    assert await store.kill_generation() > await before.kill_generation()
    assert await store.kill_generation() >= limits.RESTORED_GENERATIONS


async def test_orders_of_it_start_nothing_until_a_person_says_so(restored: Any) -> None:
    done, store, _ = restored
    assert done.orders >= 2
    assert all(row.paused_by for row in (*await store.crons(), *await store.hooks()))
    (nightly,) = [row for row in await store.crons() if row.name == "nightly"]
    assert nightly.done_us > 1_000 and "restored" in nightly.skipped, "what it missed is skipped"


async def test_nobody_is_logged_in_and_no_process_of_it_is_anybodys(restored: Any) -> None:
    done, store, _ = restored
    assert await store.logins() == [] and done.logins == 1
    assert await store.sandboxes_alive() == [] == await store.sandboxes_parked()


async def test_new_runs_begin_after_the_kill_that_ended_the_old_ones(restored: Any) -> None:
    _, store, _ = restored
    seen = await store.kill_generation()
    await store.append(journals.queued("r-new", kill_seen=seen))
    await store.append(
        Write(
            run="r-new",
            guards=[base.NotKilled(run="r-new")],
            events=[ev.RunMoved(state=RunState.RUNNING, epoch=1)],
        )
    )
    late = journals.queued("r-late", kill_seen=seen - 1)
    await store.append(late)
    with pytest.raises(GuardFailed):
        await store.append(
            replace_guards(journals.moved("r-late", epoch=1), base.NotKilled(run="r-late"))
        )


def replace_guards(write: Write, guard: base.Guard) -> Write:
    return replace(write, guards=[guard])
