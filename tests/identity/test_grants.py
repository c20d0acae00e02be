"""What a run may do: its agent's manifest, its task's grant, its principal's and its parent's."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, World, world

from ring0.errors import InvalidInput
from ring0.identity import narrowing, operator_name
from ring0.kernel.agent import manifests
from ring0.kernel.life.queueing import Beside
from ring0.types import AgentManifest, CallKind, CallState, Mode, Outcome, Run

ME = operator_name(os.getuid())
CHILD = AgentManifest(name="child", agents=("child",))


async def begin(w: World, only: list[str] | None, manifest: AgentManifest = CHILD) -> Run:
    """A second run, embedded, that stays until the world ends it."""
    from ring0.kernel.agent.agents import Family, embedded

    async def agent(run: Any) -> Any:
        return await w.end

    family = Family(manifest=manifest, mode=Mode.EMBEDDED)
    grant = None if only is None else narrowing.for_task(only)
    row = await w.kernel.runs.begin(
        embedded(family, {f"agent:{manifest.name}": agent}),
        "the task",
        principal=ME,
        tenant="local",
        beside=Beside(only=grant),
    )
    w.run = w.kernel.gate.live[row.id]
    return row


def refused(outcome: Outcome, word: str) -> bool:
    return outcome.state is CallState.REFUSED and word in (outcome.error or {})["what"]


async def test_a_run_asks_for_what_its_tasks_grant_names_and_hears_a_clear_no_for_the_rest(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", start=False) as w:
        await begin(w, ["crm.query"])
        for name in ("crm.query", "crm.execute"):
            w.tool(Doing(name))
        assert (await w.call("crm.query")).state is CallState.OK
        no = await w.call("crm.execute")
        assert refused(no, "'crm.execute' is not in this run's grant")
        assert "crm.query" in (no.error or {})["why"]
        assert refused(await w.call("never.heard"), "There is no tool")
        assert (await w.kind(CallKind.NOW, {})).state is CallState.OK, "it said nothing of those"
        assert [tool.name for tool in w.run.named()[0]] == ["crm.query"]
        assert (await w.row()).only == (narrowing.for_task(["crm.query"]),)


async def test_a_grant_of_nothing_leaves_no_tool(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        await begin(w, [])
        w.tool(Doing("crm.query"))
        assert refused(await w.call("crm.query"), "not in this run's grant")


async def test_models_and_agents_are_narrowed_where_a_grant_speaks_of_them(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        await begin(w, ["model:small", "agent:other", "kernel:now"])
        no = await w.call("default", {}, kind=CallKind.MODEL)
        assert refused(no, "'model:default' is not in this run's grant")
        no = await w.call("child", {"task": "x"}, kind=CallKind.SPAWN)
        assert refused(no, "'agent:child' is not in this run's grant")
        assert refused(await w.kind(CallKind.RANDOM, {"bytes": 4}), "kernel:random")
        assert (await w.kind(CallKind.NOW, {})).state is CallState.OK


async def test_a_childs_grants_are_its_parents_and_its_own(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        await begin(w, ["crm.*", "mail.send"])
        parent = w.run
        given = await w.call(
            "child", {"task": "x", "only": ["*.query", "files.read"]}, kind=CallKind.SPAWN
        )
        child = w.kernel.gate.live[given.value["run"]]
        assert child.row.only == (*parent.row.only, narrowing.for_task(["*.query", "files.read"]))
        assert child.narrowed is not None
        named = {
            t
            for t in ("crm.query", "crm.execute", "mail.send", "files.read", "x.query")
            if child.narrowed.allows(f"tool:{t}")
        }
        assert named == {"crm.query"}
        w.run = child
        grand = await w.call("child", {"task": "y"}, kind=CallKind.SPAWN)
        row = await w.row(grand.value["run"])
        assert row.only == child.row.only, "who asks for no grant gets all that the parent holds"


async def test_a_spawn_with_a_grant_that_cant_be_read_starts_nobody(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        await begin(w, None)
        for only in (["a b"], [""], ["model:"], "crm.query", [1]):
            no = await w.call("child", {"task": "x", "only": only}, kind=CallKind.SPAWN)
            assert no.state is not CallState.OK, only
        assert await w.store.runs(parent=w.run.id) == []


async def test_a_principals_grant_narrows_all_its_runs_and_nobody_elses(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(f'[principals."{ME}"]\nonly = ["crm.query"]\n')
    async with world(home, principal=ME) as w:
        for name in ("crm.query", "crm.execute"):
            w.tool(Doing(name))
        assert (await w.call("crm.query")).state is CallState.OK
        assert refused(await w.call("crm.execute"), "not in this run's grant")
        assert (
            w.kernel.granting.of(
                (await w.row()).__class__(**{**_fields(await w.row()), "principal": "bob"}),
                operator=False,
            )
            is None
        )


def _fields(row: Run) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


async def test_both_the_principal_and_the_task_have_to_name_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(f'[principals."{ME}"]\nonly = ["crm.*"]\n')
    async with world(home, start=False) as w:
        await begin(w, ["*.query", "files.read"])
        for name in ("crm.query", "crm.execute", "files.read", "mail.query"):
            w.tool(Doing(name))
        ok = [n for n in w.run.tools if (await w.call(n)).state is CallState.OK]
        assert ok == ["crm.query"]


async def test_a_grant_that_nobody_can_read_starts_no_kernel(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for text in (
        f'[principals."{ME}"]\nonly = ["a b"]\n',
        f'[principals."{ME}"]\n',
        f'[principals."{ME}"]\nonly = "crm.query"\n',
        f'[principals."{ME}"]\nonly = []\nmore = 1\n',
        '[identity]\nlisten = "0.0.0.0:7421"\n',
        '[identity]\nlisten = "127.0.0.1"\n',
        '[identity]\nlisten = "example.com:1"\n',
        '[identity]\ntrust_domain = "spiffe://x"\n',
    ):
        (home / "ring0.toml").write_text(text)
        with pytest.raises(Exception, match=r"ring0.toml|grant can name"):
            async with world(home, start=False):
                pass


async def test_a_grant_holds_after_a_restart_of_the_kernel(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        row = await begin(w, ["crm.query"])
        await w.store.flush()
    async with world(tmp_path / "home", start=False) as w:
        again = await w.store.run(row.id)
        assert again is not None and again.only == row.only == (narrowing.for_task(["crm.query"]),)


async def test_a_refusal_by_the_grant_is_on_record(tmp_path: Path) -> None:
    async with world(tmp_path / "home", start=False) as w:
        await begin(w, ["crm.query"])
        driver = w.tool(Doing("mail.send"))
        await w.call("mail.send")
        (call,) = await w.calls()
        assert call.state is CallState.REFUSED and driver.done == 0


def test_a_grant_on_the_command_line_is_read_before_anything_starts() -> None:
    with pytest.raises(InvalidInput):
        narrowing.exactly(["crm query"])
    assert manifests.Config().principals == {}


async def test_a_run_without_any_grant_pays_nothing_for_them(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        assert w.run.narrowed is None
        await asyncio.sleep(0)
