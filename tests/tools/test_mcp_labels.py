"""What an operator says of the labels of an MCP server's tools; the server says nothing of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kernel_world import World, world
from labels_world import TRUSTED, UNTRUSTED, origin
from mcp_world import SERVER

from ring0.errors import ManifestInvalid
from ring0.runtime import Runtime
from ring0.tools.mcp import Server, drivers, pins, settings
from ring0.types import Confidentiality

CONFIG: dict[str, Any] = {"use": "mcp", "command": ["python", "server.py"], "wall_s": 20}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "home", task="say hello-4711") as made:
        folder = tmp_path / "agent"
        folder.mkdir()
        (folder / "server.py").write_text(SERVER)
        server = Server("srv", settings.read("srv", CONFIG), folder, Runtime())
        pins.write(folder, {"srv": await server.inspect(made.kernel.sandboxes)})
        yield made


def load(here: World, tmp_path: Path, **echo: Any) -> None:
    config = {**CONFIG, "operations": {"echo": echo}}
    for driver in drivers("srv", config, tmp_path / "agent", Runtime()):
        here.tool(driver)


async def test_what_the_operator_says_of_a_servers_tool_is_in_its_manifest(
    here: World, tmp_path: Path
) -> None:
    load(here, tmp_path, recipients=["text"], content=["text"], removes=True,
         confidentiality="private", fields={"**.id": "trusted-field"})  # fmt: skip
    manifest = here.run.tools["srv.echo"].manifest
    assert (manifest.recipients, manifest.content, manifest.removes) == (("text",), ("text",), True)
    assert manifest.confidentiality is Confidentiality.PRIVATE
    assert [one.path for one in manifest.fields] == ["**.id"]
    assert not here.run.tools["srv.write"].manifest.fields


async def test_a_field_that_the_operator_vouches_for_is_no_echo_of_a_strangers(
    here: World, tmp_path: Path
) -> None:
    load(here, tmp_path, fields={"**": "trusted-field"}, confidentiality="private")
    users = await here.call("srv.echo", {"text": "hello-4711"})
    assert [one.integrity for one in users.fields] == [TRUSTED]
    strangers = await here.call("srv.echo", {"text": "evil-6666"})
    assert strangers.value == "evil-6666" and strangers.label.integrity is UNTRUSTED
    assert origin(here.run, "evil-6666") is UNTRUSTED
    assert (await here.row()).label.confidentiality is Confidentiality.PRIVATE


async def test_what_a_server_says_of_itself_vouches_for_nothing(
    here: World, tmp_path: Path
) -> None:
    load(here, tmp_path)
    found = await here.call("srv.echo", {"text": "hello-4711"})
    assert found.fields == () and found.label.integrity is UNTRUSTED


@pytest.mark.parametrize(
    "said", [{"recipients": ["nobody"]}, {"fields": {"a..b": "private"}}, {"fields": {"a": "x"}}]
)
async def test_words_that_dont_fit_are_an_error_that_says_where(
    here: World, tmp_path: Path, said: dict[str, Any]
) -> None:
    with pytest.raises(ManifestInvalid, match=r"tools\.srv\.operations\.echo"):
        load(here, tmp_path, **said)
