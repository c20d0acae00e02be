"""A tool that can never start here says so when its run would begin, before anybody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel_world import database, world

from ring0.errors import ManifestInvalid, Ring0Error, SandboxUnavailable
from ring0.kernel.agent.agents import Agent
from ring0.tools import ahead
from ring0.types import AgentManifest


async def refused(folder: Path, config: str = "", /, **tool: Any) -> Ring0Error:
    """How a run with that tool is refused; nothing of it is on record."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "ring0.toml").write_text(config)
    async with world(home, start=False, secrets=True) as here:
        manifest = AgentManifest(name="clerk", tools={"desk": tool}, folder=str(folder))
        with pytest.raises(Ring0Error) as caught:
            await here.kernel.start_embedded(manifest, (), {}, "the task", principal="alice")
        await here.store.flush()
        assert await here.store.runs() == []
    assert "[tools.desk]" in caught.value.what, caught.value
    return caught.value


async def test_a_run_does_not_begin_without_the_tier_of_its_tool(tmp_path: Path) -> None:
    error = await refused(tmp_path, use="shell", tier="microvm")
    assert isinstance(error, SandboxUnavailable)
    assert "microvm" in error.what and "ring0 doctor" in error.todo


async def test_a_tier_without_egress_is_not_there_for_a_tool_that_reaches_out(
    tmp_path: Path,
) -> None:
    error = await refused(
        tmp_path, use="python", tier="gvisor", egress=["https://api.example.com/*"]
    )
    assert isinstance(error, SandboxUnavailable)


async def test_the_operators_minimum_holds_for_a_tool_that_names_no_tier(tmp_path: Path) -> None:
    error = await refused(tmp_path, '[sandbox]\ntier = "microvm"\n', use="python")
    assert isinstance(error, SandboxUnavailable)


async def test_a_run_does_not_begin_with_an_image_that_the_operator_does_not_trust(
    tmp_path: Path,
) -> None:
    error = await refused(tmp_path, use="python", image=["numpy"])
    assert isinstance(error, ManifestInvalid)
    assert "numpy" in error.what and "[sandbox] image of ring0.toml" in error.todo


async def test_a_run_does_not_begin_with_an_image_that_is_not_installed(tmp_path: Path) -> None:
    config = '[sandbox]\nimage = ["no_such_module"]\n'
    error = await refused(tmp_path, config, use="python", image=["no_such_module.part"])
    assert "'no_such_module'" in error.what and "pip install" in error.todo


async def test_a_run_does_not_begin_without_the_password_of_its_database(tmp_path: Path) -> None:
    url = "postgresql://ann@db.example.com/crm"
    error = await refused(tmp_path, use="sql", url=url, password_secret="CRM")
    assert error.todo == "`ring0 secret set CRM`"


@pytest.mark.parametrize("use", ["python", "shell", "http"])
async def test_a_run_does_not_begin_without_a_credential_that_a_tool_names(
    tmp_path: Path, use: str
) -> None:
    egress = ["https://api.example.com/*"]
    error = await refused(tmp_path, use=use, egress=egress, secrets=["api"])
    assert "[credentials.api]" in error.todo and "ring0 secret set" in error.todo


async def test_a_run_begins_with_all_that_its_tools_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    make = ahead.tiers.make

    async def counting(*given: Any) -> Any:
        nonlocal made
        made += 1
        return await make(*given)

    monkeypatch.setattr(ahead.tiers, "make", counting)
    monkeypatch.setattr(ahead, "_made", set())
    tools = {
        "crm": {"use": "sql", "database": database(tmp_path).name},
        "py": {"use": "python", "image": ["json"]},
        "sh": {"use": "shell"},
    }
    manifest = AgentManifest(name="clerk", tools=tools, folder=str(tmp_path))
    async with world(tmp_path / "home", manifest=manifest, secrets=True) as here:
        assert set(here.run.tools) == {"crm.query", "crm.execute", "py.run", "sh.run"}
        assert await here.store.sandboxes_alive() == []
        assert made == 1, "one of a kind is enough"


async def test_a_run_that_lost_a_password_waits_for_it_and_is_not_recovered(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    url = "postgresql://ann@db.example.com/crm"
    tools = {"crm": {"use": "sql", "url": url, "password_secret": "CRM"}}
    async with world(home, environment={"CRM": "long-enough"}, tools=tools, secrets=True) as here:
        run, agent = here.run.id, here.run.agent
        await here.kernel.runs.stop()
    async with world(home, start=False, secrets=True) as here:
        with pytest.raises(ManifestInvalid, match="'CRM'"):
            await here.kernel.recover(Agent(agent.family, "embedded", functions=agent.functions))
        assert (await here.row(run)).state == "running", "its row stands for a later try"
    async with world(home, environment={"CRM": "long-enough"}, start=False, secrets=True) as here:
        assert await here.kernel.recover(agent) == [run]
