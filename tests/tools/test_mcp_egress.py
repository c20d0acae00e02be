"""A server in a sandbox with egress: answered during a call, and at no other time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp_world import SERVER, Outlet, World, world

from ring0.errors import EffectUnknown, ManifestInvalid

CONFIG: dict[str, Any] = {
    "use": "mcp",
    "command": ["python", "server.py"],
    "egress": ["GET https://api.example.com/*"],
    "wall_s": 20,
}
REACHING = SERVER.replace(
    'if name == "echo":',
    """if name == "echo" and args.get("text") == "later":
        import threading
        threading.Timer(0.3, lambda: open("/tmp/later", "w").write(fetch())).start()
        text(request, "soon")
    elif name == "echo" and args.get("text") == "was":
        text(request, open("/tmp/later").read())
    elif name == "echo":
        text(request, fetch())
    elif name == "never":""",
).replace(
    "def text(",
    """def fetch():
    import urllib.request
    try:
        return urllib.request.urlopen("https://api.example.com/x", timeout=5).read().decode()
    except Exception as error:
        return f"no: {error}"


def text(""",
)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.script(REACHING)
        yield made


async def test_a_server_reaches_out_during_its_call_and_at_no_other_time(here: World) -> None:
    outlet = Outlet()
    await here.approve(CONFIG, reach=outlet.begin)
    assert await here.value("echo", text="now") == "from outside"
    assert outlet.asked == ["https://api.example.com/x"]
    await here.call("echo", text="later")
    import asyncio

    await asyncio.sleep(1)
    assert (await here.value("echo", text="was")).startswith("no:")
    assert outlet.asked == ["https://api.example.com/x"]
    await here.tools["srv.echo"].close()
    assert outlet.closed


async def test_a_server_with_egress_is_judged_as_one_that_changes_the_world(here: World) -> None:
    outlet = Outlet()
    await here.approve(CONFIG, reach=outlet.begin)
    prepared = await here.tools["srv.echo"].prepare({}, here.context())
    assert (prepared.own, prepared.mutates, prepared.effect) == (False, True, "")
    assert "may reach GET https://api.example.com/*" in prepared.lines[0]
    with pytest.raises(EffectUnknown):
        await here.call("die")


async def test_without_egress_the_proxy_is_not_there(here: World) -> None:
    await here.approve({k: v for k, v in CONFIG.items() if k != "egress"})
    assert (await here.value("echo", text="now")).startswith("no:")
    assert "PROXY" not in json.dumps(await here.value("environ"))


async def test_a_kernel_without_egress_refuses_a_server_that_needs_it(here: World) -> None:
    outlet = Outlet()
    await here.approve(CONFIG, reach=outlet.begin)
    with pytest.raises(ManifestInvalid, match="needs the network"):
        here.load(CONFIG)
    with pytest.raises(ManifestInvalid, match="egress"):
        here.load({**CONFIG, "egress": ["https://*"]}, reach=outlet.begin)
