"""A server outside, a data folder whose kernel reaches it, and how a tool's program asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from egress_world import Server, WorldAuthority

from ring0.gateway import door
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.runtime import Runtime

S = TypeVar("S", bound=Server)

ASK = """
import http.client, os, ssl

def ask(path, method="GET"):
    # `localhost` is what NO_PROXY leaves out, and what the test's server is called.
    trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    line = http.client.HTTPSConnection("127.0.0.1", 7421, timeout=30, context=trust)
    line.set_tunnel("localhost", PORT)
    line.request(method, path)
    answer = line.getresponse()
    return answer.status, answer.getheaders(), answer.read()

"""
"""Python that goes before a program; PORT is the server's."""


@asynccontextmanager
async def reachable(
    folder: Path, make: Callable[[WorldAuthority], S], config: str
) -> AsyncIterator[tuple[Path, S]]:
    """The server, and the data folder: everything is permitted, and the server's authority is
    trusted. `config` is the rest of ring0.toml; PORT in it becomes the server's."""
    authority = WorldAuthority()
    server = make(authority)
    await server.open()
    home = folder / "home"
    home.mkdir(mode=0o700)
    (folder / "world.pem").write_text(authority.pem)
    (home / "own.cedar").write_text(
        '@id("t") @reason("Of this test.") permit (principal, action, resource);'
    )
    (home / "ring0.toml").write_text(f"""
policy = ["own.cedar"]
[network]
allow_private = ["127.0.0.0/8", "::1/128"]
authorities = ["{folder / "world.pem"}"]
{config.replace("PORT", str(server.port))}
""")
    try:
        yield home, server
    finally:
        server.close()


@asynccontextmanager
async def at_work(home: Path) -> AsyncIterator[Kernel]:
    """A kernel that starts isolated runs."""
    kernel = await open_kernel(home, Runtime(), {})
    kernel.runs.doors = door.doors(kernel.gate)
    try:
        yield kernel
    finally:
        await kernel.close()
