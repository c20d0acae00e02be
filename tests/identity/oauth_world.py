"""A kernel whose tool reaches a resource server with an OAuth login, both on loopback, for real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from egress_world import Server, WorldAuthority
from issuer import Issuer
from reaching_world import ASK, at_work, reachable

from ring0.identity import Vault
from ring0.identity.fetching import Fetcher
from ring0.identity.oauth import Client, OAuth, discover
from ring0.identity.refreshing import entries_of
from ring0.kernel.kernel import Kernel
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Call, CallKind

AGENT = """
import json
from ring0 import Context, agent

@agent(name="caller")
async def caller(ctx: Context, task: str) -> list:
    said = []
    for code in json.loads(task):
        try:
            said.append(await ctx.tool("py.run", code=code))
        except Exception as error:
            said.append(str(error))
    return said
"""


class Resource(Server):
    """Takes the issuer's tokens and no others; says back what it was sent."""

    def __init__(self, issuer: Issuer, authority: WorldAuthority) -> None:
        self.tokens: list[str] = []
        self.good = 0
        self._issuer = issuer
        super().__init__(self._say, authority.server(["localhost"]))

    def _say(self, request: bytes) -> bytes:
        text = request.decode("latin-1")
        token = text.partition("Bearer ")[2].partition("\r\n")[0]
        self.tokens.append(token)
        good = self._issuer.is_good(token)
        self.good += good
        said = json.dumps({"heard": text, "token": token}).encode()
        status = "200 OK" if good else "401 Unauthorized"
        return (
            f"HTTP/1.1 {status}\r\nX-Token: {token}\r\nContent-Length: {len(said)}\r\n\r\n".encode()
            + said
        )


class OAuthWorld:
    def __init__(self, kernel: Kernel, issuer: Issuer, resource: Resource, folder: Path) -> None:
        self.kernel = kernel
        self.issuer = issuer
        self.resource = resource
        self.folder = folder
        self.manifest = AgentManifest(name="")

    async def run(self, *programs: str, name: str = "caller") -> list[Any]:
        """What the programs printed, each a tool's call of one isolated run."""
        head = f"PORT = {self.resource.port}\n{ASK}"
        task = json.dumps([head + program for program in programs])
        row = await self.kernel.start(
            await self.kernel.describe(self.manifest), task, principal="alice"
        )
        self.last = row.id
        ended = await asyncio.wait_for(self.kernel.runs.wait(row.id), 60)
        body = msgspec.json.decode(await self.kernel.store.blob(ended.result))
        assert "value" in body, body
        return [said if isinstance(said, str) else said["stdout"] for said in body["value"]]

    async def requests(self) -> list[Call]:
        await self.kernel.store.flush()
        calls = await self.kernel.store.calls(self.last)
        return [call for call in calls if call.kind is CallKind.EGRESS]


async def log_in(home: Path, issuer: Issuer, name: str = "api") -> None:
    """A person logs in, as `ring0 secret login` does it."""
    runtime = Runtime()
    fetch = Fetcher(runtime)
    oauth = OAuth(await discover(issuer.url, fetch), Client(client_id="ring0"), fetch, runtime)
    device = await oauth.begin_device()
    issuer.approve(device.user_code)
    # The person has answered already: nobody waits for the next moment to look.
    tokens = await oauth.finish_device(msgspec.structs.replace(device, interval_s=0))
    Vault(home).put(entries_of(name, tokens), runtime.now_us())


@asynccontextmanager
async def oauth_world(
    folder: Path, *, agents: str = "[]", logged_in: bool = True, static: str = ""
) -> AsyncIterator[OAuthWorld]:
    async with Issuer() as issuer:
        config = f"""
[oauth.api]
issuer = "{issuer.url}"
client_id = "ring0"
scopes = ["read"]
[credentials.api]
oauth = "api"
agents = {agents}
use_for = "https://localhost:PORT/v1/*"
{static}
"""
        async with reachable(folder, lambda made: Resource(issuer, made), config) as (
            home,
            resource,
        ):
            (folder / "agent.py").write_text(AGENT)
            if static:
                Vault(home).set("corp/key", "first-value-of-it", 1)
            if logged_in:
                await log_in(home, issuer)
            async with at_work(home) as kernel:
                here = OAuthWorld(kernel, issuer, resource, folder)
                here.manifest = calling(folder, resource.port, "api")
                yield here


def calling(folder: Path, port: int, secret: str) -> AgentManifest:
    """The agent, whose programs may ask the server with that credential."""
    egress = [f"https://localhost:{port}/*"]
    python = {"use": "python", "egress": egress, "secrets": [secret], "timeout_s": 60}
    return AgentManifest(
        name="caller", entry="agent.py:caller", folder=str(folder), tools={"py": python}
    )
