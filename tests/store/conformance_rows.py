"""Kills, runs, files, sandboxes, values and candidates for recall."""

from __future__ import annotations

import pytest
from conforming import (
    HOSTILE,
    Suite,
    assert_rows_say_what_the_journal_says,
    refuses,
)

import journals
from journals import key_of, queued, row_of
from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.store import GuardFailed, Store, Write, WriteImpossible, base
from ring0.store import events as ev
from ring0.types import (
    ENDED,
    Budget,
    FileDelta,
    RunState,
    Scope,
)


class RowConformance(Suite):
    """What is asked of the rows."""

    # --- kills ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("scope", "target", "reached"),
        [
            ("run", "r-top", {"r-top", "r-mid", "r-leaf"}),
            ("run", "r-mid", {"r-mid", "r-leaf"}),
            ("run", "r-leaf", {"r-leaf"}),
            ("agent", "clerk", {"r-top", "r-mid", "r-leaf", "r-same-agent"}),
            ("agent", "cook", {"r-else"}),
            ("tenant", "acme", {"r-top", "r-mid", "r-leaf", "r-same-agent"}),
            ("all", "", {"r-top", "r-mid", "r-leaf", "r-same-agent", "r-else"}),
            ("agent", "r-top", set()),
            ("run", "clerk", set()),
        ],
    )
    async def test_a_kill_reaches_what_it_names_and_all_beneath(
        self, store: Store, scope: str, target: str, reached: set[str]
    ) -> None:
        small = Budget(calls=10)
        await store.append(queued("r-top"))
        await store.append(queued("r-mid", parent=await row_of(store, "r-top"), budget=small))
        await store.append(queued("r-leaf", parent=await row_of(store, "r-mid"), budget=small))
        await store.append(queued("r-same-agent"))
        await store.append(
            queued("r-else", scope=Scope(tenant="b", principal="ann", agent="cook", run=None))
        )
        await store.append(journals.killed(scope, target, await store.kill_generation() + 1))
        seen = await store.kill_generation()
        await store.append(queued("r-later", kill_seen=seen))
        dead = set()
        for run in ("r-top", "r-mid", "r-leaf", "r-same-agent", "r-else", "r-later"):
            try:
                await store.append(
                    Write(
                        run=run,
                        guards=[base.NotKilled(run=run)],
                        events=[ev.RunMoved(state=RunState.RUNNING, epoch=1)],
                    )
                )
            except GuardFailed:
                dead.add(run)
        assert dead == reached

    async def test_two_kills_that_saw_the_same_generation_both_reach(self, store: Store) -> None:
        await store.append(journals.killed("agent", "nobody", 1))
        await store.append(queued("r-1", kill_seen=await store.kill_generation()))
        await store.append(journals.killed("all", "", 1))  # Decided before the first was written.
        with pytest.raises(GuardFailed):
            await store.append(journals.intended("r-1", 0, guards=[base.NotKilled(run="r-1")]))
        assert await store.kill_generation() == 2

    # --- runs, files, sandboxes -----------------------------------------------------------------

    async def test_runs_are_found_by_state_parent_root_and_name(self, store: Store) -> None:
        for number, run in enumerate(["r-aa", "r-ab", "r-b", "r-%", "r-_", "q-é"]):
            await store.append(queued(run, started_us=number + 1))
        parent = await row_of(store, "r-aa")
        await store.append(queued("r-kid", parent=parent, budget=Budget(calls=1), started_us=50))
        await store.append(journals.moved("r-b", epoch=1))
        await store.append(journals.over("r-%"))
        names = [run.id for run in await store.runs()]
        assert names == ["r-kid", "q-é", "r-_", "r-%", "r-b", "r-ab", "r-aa"]
        assert [run.id for run in await store.runs(most=2)] == names[:2]
        assert [run.id for run in await store.runs(states=[RunState.RUNNING])] == ["r-b"]
        assert [run.id for run in await store.runs(states=ENDED)] == ["r-%"]
        assert [run.id for run in await store.runs(parent="r-aa")] == ["r-kid"]
        assert [run.id for run in await store.runs(root="r-aa")] == ["r-kid", "r-aa"]
        assert await store.runs(root="' OR 1=1 --") == []
        assert await store.runs_named("r-a") == ["r-aa", "r-ab"]
        assert await store.runs_named("r-%") == ["r-%"]
        assert await store.runs_named("r-_") == ["r-_"]
        assert await store.runs_named("q-é") == ["q-é"]
        assert len(await store.runs_named("")) == 3
        for nobody in ("%", "_", "R-A", "r-aaa", "\x00", "\ud800", "🦀", "q-\U0010ffff"):
            assert await store.runs_named(nobody) == []

    async def test_files_are_put_replaced_removed_and_kept_apart(self, store: Store) -> None:
        start = FileDelta(path="in.txt", blob="0" * 64, size_bytes=2, label=journals.UNTRUSTED)
        await store.append(queued("r-1", files=[start]))
        await store.append(queued("r-10"))
        for run in ("r-1", "r-10"):
            await store.append(journals.moved(run, epoch=1))
        changes: list[list[tuple[str, bytes | None]]] = [
            [("b.md", b"one"), ("a.md", b"two"), ("é/🦀\n%.md", b"")],
            [("b.md", b"one more"), ("gone.md", b"x")],
            [("gone.md", None), ("never.md", None)],
        ]
        for number, files in enumerate(changes):
            await store.append(journals.intended("r-1", number))
            await store.append(journals.ended("r-1", number, files=files))
        await store.append(journals.intended("r-10", 0))
        await store.append(
            journals.ended("r-10", 0, files=[("a.md", None), ("from-10.md", b"y")], files_of="r-1")
        )
        await store.flush()
        paths = [file.path for file in await store.files("r-1")]
        assert paths == ["b.md", "from-10.md", "in.txt", "é/🦀\n%.md"]
        assert await store.files("r-10") == [] and await store.files("") == []
        found = await store.file("r-1", "b.md")
        assert found is not None and found.size_bytes == 8
        assert await store.blob(found.blob) == b"one more"
        assert await store.file("r-1", "gone.md") is None

    async def test_a_sandbox_is_alive_until_it_is_confirmed_dead(self, store: Store) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.sandboxed("r-1", "s-1"))
        await store.append(journals.sandboxed("r-1", "s-2"))
        assert [row.id for row in await store.sandboxes_alive()] == ["s-1", "s-2"]
        await store.append(journals.boxed_up("r-1", "s-1"))
        await store.flush()
        (alive,) = await store.sandboxes_alive()
        assert (alive.id, alive.run, alive.pid, alive.start_ticks) == ("s-2", "r-1", 42, 77)

    async def test_a_parked_sandbox_is_the_kernels_until_one_run_claims_it(
        self, store: Store
    ) -> None:
        await store.append(queued("r-1"))
        await store.append(journals.parked("p-1"))
        await store.append(journals.parked("p-2"))
        assert [row.id for row in await store.sandboxes_parked()] == ["p-1", "p-2"]
        assert await store.sandboxes_alive() == []
        await store.append(journals.claimed("r-1", "p-1"))
        await store.flush()
        (alive,) = await store.sandboxes_alive()
        assert (alive.id, alive.run, alive.pid, alive.purpose) == ("p-1", "r-1", 43, "tool")
        assert [row.id for row in await store.sandboxes_parked()] == ["p-2"]
        await refuses(store, journals.claimed("r-1", "p-1"), WriteImpossible)
        await store.append(Write(run=ev.KERNEL, events=[ev.SandboxEnded(sandbox="p-2")]))
        await store.flush()
        assert await store.sandboxes_parked() == []

    # --- values ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("value", [b"", b"\x00\xff", b"x" * limits.BLOB_SIZE_BYTES_MAX])
    async def test_a_value_comes_back_as_it_was(self, store: Store, value: bytes) -> None:
        (where,) = blobs = journals.named("r-1", value)
        await store.append(queued("r-1"))
        for _ in range(2):  # A second time is nothing new.
            event = ev.RunMoved(state=RunState.RUNNING)
            await store.append(Write(run="r-1", blobs=blobs, durable=True, events=[event]))
        assert await store.blob(where) == value

    async def test_keys_belong_to_runs(self, store: Store) -> None:
        await store.append(queued("r-1"))
        assert await store.run_key("r-1") == key_of("r-1")
        with pytest.raises(StoreDamaged, match="key of run"):
            await store.run_key("r-none")

    async def test_what_is_not_there_is_not_there(self, store: Store) -> None:
        for name in ("", "r-none", "'", "\x00", "\ud800", "a\udfffb"):
            assert await store.run(name) is None
            assert await store.call(name) is None
            assert await store.approval(name) is None
            assert await store.file(name, name) is None
            assert await store.calls(name) == [] and await store.files(name) == []
            with pytest.raises(StoreDamaged):
                await store.blob(name)

    async def test_hostile_strings_come_back_as_they_were(self, store: Store) -> None:
        for number, text in enumerate(HOSTILE):
            run = f"r-{number}{text[:200]}"
            scope = Scope(tenant=text, principal=text, agent=text, run=None)
            await store.append(queued(run, task=text, scope=scope))
            await store.append(journals.moved(run, epoch=1, why=text))
            await store.append(journals.intended(run, 0))
            await store.append(journals.ended(run, 0, files=[(text, text.encode())]))
            await store.append(journals.asked(run, f"a-{run}"))
            await store.append(journals.killed("agent", text + "?", number + 1))
            await store.flush()
            row = await row_of(store, run)
            assert (row.tenant, row.waiting_for) == (text, text)
            assert await store.blob(row.task) == text.encode()
            assert [file.path for file in await store.files(run)] == [text]
            assert await store.runs_named(run) == [run]
            assert (await store.calls(run))[0].id == f"{run}/0/0"
            assert (await store.approvals(run=run))[0].id == f"a-{run}"
        await assert_rows_say_what_the_journal_says(store)
