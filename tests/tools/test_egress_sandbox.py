"""From inside a real sandbox: the proxy is the only way out, for what its rules name."""

from __future__ import annotations

import contextlib
import sys

import pytest
import sandbox_world
from egress_world import CANARY, World, answer

from ring0 import limits
from ring0.errors import SandboxUnavailable
from ring0.tools.egress import Authority, parse_rules, proxy_environment, serve

INSIDE = """
import json, os, socket, ssl, urllib.request
where = os.environ['WHERE']
found = {}

def attempt(name, do):
    try:
        found[name] = do()
    except Exception as error:
        found[name] = f'{type(error).__name__}: {error}'[:300]

def fetch(url):
    return urllib.request.urlopen(url, timeout=5).read().decode()

def direct(address):
    with socket.create_connection(address, timeout=2) as connection:
        return 'connected'

attempt('through', lambda: fetch(f'https://{where}/page'))
attempt('elsewhere', lambda: fetch('https://evil.test/'))
attempt('plain', lambda: fetch(f'http://{where}/'))
attempt('direct', lambda: direct(('127.0.0.1', int(where.partition(':')[2]))))
attempt('dns', lambda: socket.getaddrinfo('shop.test', 443))
attempt('metadata', lambda: direct(('169.254.169.254', 80)))
found['environment'] = dict(os.environ)
print(json.dumps(found))
"""


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


async def test_a_program_in_a_sandbox_reaches_what_its_rules_name_and_nothing_else(world):
    server = await world.server(answer(b"page"), "shop.test")
    place = f"https://shop.test:{server.port}"
    rules = parse_rules([place], "egress")
    authority = Authority(rules, world.runtime)
    environment = {**proxy_environment("/work/ca.pem"), "WHERE": f"shop.test:{server.port}"}
    # The rules and the ask are the world's: its proxy is served on the sandbox's own listener.
    behind = await world.proxy(place, credentials=[world.credential(place)])
    made = sandbox_world.sandbox(
        sys.executable, "-c", INSIDE, go=False, env=environment, egress=True, workspace=True
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            sandbox = await stack.enter_async_context(made)
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        assert sandbox.proxy is not None and sandbox.files is not None
        sandbox.files.write("ca.pem", authority.certificate_pem)
        proxy = await serve(sandbox.proxy, behind.proxy.ask, rules, authority, world.runtime)
        stack.push_async_callback(proxy.close)
        await sandbox.go()
        out = await world.runtime.wait_for(sandbox.stdout.read(), 30)
        told = await sandbox.stderr.read()
    import json

    found = json.loads(out or told)
    assert found["through"] == "page"
    assert "403" in found["elsewhere"] and "403" in found["plain"]
    for name in ("direct", "dns", "metadata"):
        assert "Error" in found[name] or "gaierror" in found[name] or "timed out" in found[name]
    assert server.connections == 1 and CANARY.encode() in server.heard[0]
    assert CANARY not in out.decode() + told.decode()
    assert found["environment"]["HTTPS_PROXY"].endswith(f":{limits.PROXY_PORT}")
