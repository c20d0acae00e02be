"""Real servers, of npm and PyPI, in both eras of the protocol: approved, called, contained."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp_world import Outlet, World, node_server, python_server, world

from ring0.errors import EffectUnknown, ToolFailed
from ring0.tools.mcp import ToolChanged, pins


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_server_everything_answers_in_all_its_ways(here: World) -> None:
    pin = await here.approve(node_server("server-everything", "stdio"), "all")
    assert pin.offer.protocol < "2026"
    assert await here.value("all.echo", message="hi") == "Echo: hi"
    assert "5" in await here.value("all.get_sum", a=2, b=3)
    weather = await here.value("all.get_structured_content", location="Chicago")
    assert set(weather) == {"temperature", "conditions", "humidity"}
    image = await here.value("all.get_tiny_image")
    assert any(part.get("mime_type") == "image/png" for part in image["parts"])
    done = await here.value("all.trigger_long_running_operation", duration=1, steps=3)
    assert "completed" in done
    assert "canary" not in json.dumps(await here.value("all.get_env"))


async def test_server_memory_keeps_its_state_within_a_run(here: World) -> None:
    config = {**node_server("server-memory"), "env": {"MEMORY_FILE_PATH": "/tmp/memory.jsonl"}}
    await here.approve(config, "mem")
    entity = {"name": "Ann", "entityType": "person", "observations": ["likes tea"]}
    await here.call("mem.create_entities", entities=[entity])
    found = await here.value("mem.search_nodes", query="tea")
    assert [found_one["name"] for found_one in found["entities"]] == ["Ann"]


async def test_server_filesystem_works_on_the_runs_own_files(here: World) -> None:
    config = {**node_server("server-filesystem", "/work"), "workspace": True}
    await here.approve(config, "fs")
    await here.put("notes/a.txt", b"one\n")
    assert "one" in json.dumps(await here.value("fs.read_text_file", path="/work/notes/a.txt"))
    written = await here.call("fs.write_file", path="/work/b.txt", content="two\n")
    assert [(change.path, change.value) for change in written.files] == [("b.txt", b"two\n")]
    assert written.undo
    with pytest.raises(ToolFailed, match=r"outside|denied"):
        await here.call("fs.read_text_file", path="/etc/passwd")


async def test_server_git_commits_in_the_workspace(here: World) -> None:
    config = {
        **python_server("mcp_server_git"),
        "workspace": True,
        "operations": {"git_status": {"reads": True}},
    }
    pin = await here.approve(config, "git")
    assert pin.offer.protocol >= "2026"
    assert {"python:mcp-server-git", "python:mcp", "python:gitpython"} <= {
        unit.name for unit in pin.code
    }
    for path, content in REPOSITORY.items():
        await here.put(path, content)
    status = await here.value("git.git_status", repo_path="/work/repo")
    assert "a.txt" in json.dumps(status)
    await here.call("git.git_add", repo_path="/work/repo", files=["a.txt"])
    done = await here.call("git.git_commit", repo_path="/work/repo", message="first")
    assert "repo/.git/refs/heads/main" in {change.path for change in done.files}
    # Another server, another sandbox: the repository is the workspace's.
    await here.tools["git.git_log"].close()
    assert "first" in json.dumps(await here.value("git.git_log", repo_path="/work/repo"))


async def test_server_time_tells_the_time(here: World) -> None:
    await here.approve(python_server("mcp_server_time"), "clock")
    assert "UTC" in json.dumps(await here.value("clock.get_current_time", timezone="UTC"))


async def test_server_fetch_brings_a_page_through_the_egress_and_nothing_else(here: World) -> None:
    outlet = Outlet(b"<html><body><p>Plain words.</p></body></html>", "text/html")
    config = python_server("mcp_server_fetch", "--ignore-robots-txt")
    config = {**config, "egress": ["GET https://docs.example.com/*"], "wall_s": 30}
    await here.approve(config, "web", reach=outlet.begin)
    # Raw: to simplify a page, it would fetch a program by npm where there is Node.
    page = await here.value("web.fetch", url="https://docs.example.com/page", raw=True)
    assert "Plain words." in json.dumps(page)
    assert outlet.asked == ["https://docs.example.com/page"]
    for elsewhere in ("https://other.example.com/", "http://169.254.169.254/latest"):
        with pytest.raises((ToolFailed, EffectUnknown)):
            await here.call("web.fetch", url=elsewhere, raw=True)
    assert len(outlet.asked) == 1


async def test_an_update_of_a_package_that_a_server_needs_is_drift(here: World) -> None:
    pin = await here.approve(python_server("mcp_server_time"), "clock")
    older = [
        unit if unit.name != "python:pydantic" else pins.Unit(
            name=unit.name, version="0.1", files=unit.files, digest="0" * 64
        )
        for unit in pin.code
    ]  # fmt: skip
    import msgspec

    pins.write(here.folder, {"clock": msgspec.structs.replace(pin, code=tuple(older))})
    here.load(python_server("mcp_server_time"), "clock")
    with pytest.raises(ToolChanged) as refused:
        await here.call("clock.get_current_time", timezone="UTC")
    assert "code python:pydantic:" in refused.value.why and "-0.1" in refused.value.why


REPOSITORY = {
    "repo/.git/HEAD": b"ref: refs/heads/main\n",
    "repo/.git/config": b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
    b"[user]\n\tname = Ann\n\temail = ann@example.com\n",
    "repo/.git/objects/info/keep": b"",
    "repo/.git/refs/heads/keep": b"",
    "repo/a.txt": b"one\n",
}
