"""A credential is of no use to a run that is nobody any more, by the moment it would be used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from egress_world import Server, WorldAuthority
from kernel_world import world

from ring0.errors import RunDead
from ring0.tools.driver import CallContext
from ring0.types import CallState

TOML = """
[network]
allow_private = ["127.0.0.0/8", "::1/128"]
authorities = ["AUTHORITY"]
[credentials.key]
secret = "KEY"
use_for = "GET https://localhost:PORT/*"
"""


@pytest.mark.parametrize("how", ["its process died", "it ended", "it was started again"])
async def test_a_credential_is_looked_at_again_just_before_it_is_used(
    tmp_path: Path, how: str
) -> None:
    """The run dies between its intent and the moment at which its credential is there: while a
    login is renewed, say."""
    authority = WorldAuthority()
    heard: list[bytes] = []

    def say(request: bytes) -> bytes:
        heard.append(request)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    server = Server(say, authority.server(["localhost"]))
    await server.open()
    (tmp_path / "world.pem").write_text(authority.pem)
    home = tmp_path / "home"
    home.mkdir()
    toml = TOML.replace("AUTHORITY", str(tmp_path / "world.pem"))
    (home / "ring0.toml").write_text(toml.replace("PORT", str(server.port)))
    egress = [f"GET https://localhost:{server.port}/*"]
    tools = {"web": {"use": "http", "egress": egress, "secrets": ["key"]}}
    secrets = {"KEY": "canary-of-a-key-77"}
    async with world(home, tools=tools, environment=secrets, secrets=True) as w:
        ask = {"url": f"https://localhost:{server.port}/a"}
        assert (await w.call("web.get", ask)).state is CallState.OK
        assert len(heard) == 1 and b"canary-of-a-key-77" in heard[0]

        handles, real = w.kernel.gate.handles, w.kernel.outside._secret

        def dies_meanwhile(name: str) -> str:
            if how == "its process died":
                handles.process_died(w.run.handle)
            elif how == "it ended":
                handles.kill(w.run.id)
            else:
                handles.mint(w.run.id, w.run.row.epoch + 1)
            return real(name)

        w.kernel.outside._secret = dies_meanwhile
        outcome = await asyncio.gather(w.call("web.get", ask), return_exceptions=True)
        assert isinstance(outcome[0], RunDead) or outcome[0].state is CallState.ERROR, outcome
        assert len(heard) == 1, "nothing went out in the name of a run that is nobody"
    server.close()


async def test_whoever_asks_without_a_run_is_no_dead_one(tmp_path: Path) -> None:
    """`ring0 tools add` uses credentials, and no run is there."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(
        '[credentials.key]\nsecret = "KEY"\nuse_for = "GET https://a.example/*"\n'
    )
    async with world(home, start=False, environment={"KEY": "canary-of-a-key-78"}) as w:
        context: CallContext | Any = None
        value = await w.kernel.outside.credentials["key"].value(context)
        assert value == "canary-of-a-key-78"
