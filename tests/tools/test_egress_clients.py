"""Real programs through the proxy, unchanged, with nothing but the environment it asks for."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys

import pytest
from egress_world import CANARY, World, answer

from ring0.tools.egress import proxy_environment


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


PYTHON = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as answer:
    print(answer.status, answer.read().decode())
"""
NODE = """
const http = require('node:http'), tls = require('node:tls'), url = new URL(process.argv[1]);
const proxy = new URL(process.env.HTTPS_PROXY);
http.request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: url.host,
              headers: {host: url.host}})
  .on('connect', (told, socket) => {
    if (told.statusCode !== 200) { console.log(told.statusCode); process.exit(1); }
    const safe = tls.connect({socket, servername: url.hostname}, () => {
      http.get({host: url.hostname, port: url.port, path: url.pathname + url.search,
                createConnection: () => safe}, answer => {
        answer.setEncoding('utf8');
        answer.on('data', data => { console.log(answer.statusCode, data); process.exit(0); });
      });
    });
    safe.on('error', error => { console.log(error.code); process.exit(1); });
  }).end();
"""
CLIENTS = {
    "curl": ("curl", "-sS", "-w", " %{http_code}", "{url}"),
    "wget": ("wget", "-q", "-O", "-", "--ca-certificate={ca}", "{url}"),
    "python": (sys.executable, "-c", PYTHON, "{url}"),
    "node": ("node", "-e", NODE, "{url}"),
}


async def run(served, tmp_path, argv, url: str) -> tuple[int, str]:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(served.authority.certificate_pem)
    inside = proxy_environment(str(authority))
    environment = {
        name: value.replace(":7421", f":{served.port}") for name, value in inside.items()
    }
    process = await asyncio.create_subprocess_exec(
        *(part.format(url=url, ca=authority) if "{url}" in part or "{ca}" in part else part
          for part in argv),
        env={**environment, "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, out.decode()


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_program_reaches_an_allowed_host_and_the_kernels_key_goes_along(
    world, tmp_path, name
):
    if shutil.which(CLIENTS[name][0]) is None:
        pytest.skip(f"no {name} here")
    server = await world.server(answer(b"hello", b"Content-Type: text/plain"), "shop.test")
    place = f"https://shop.test:{server.port}"
    served = await world.proxy(place, credentials=[world.credential(place)])
    code, out = await run(served, tmp_path, CLIENTS[name], f"{place}/things?a=1")
    assert code == 0 and "hello" in out and CANARY not in out, out
    assert server.heard[0].startswith(b"GET /things?a=1 HTTP/1.1\r\n")
    assert CANARY.encode() in server.heard[0]


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_program_is_refused_another_host(world, tmp_path, name):
    if shutil.which(CLIENTS[name][0]) is None:
        pytest.skip(f"no {name} here")
    server = await world.server(answer(b"hello"), "evil.test")
    served = await world.proxy("https://shop.test")
    code, out = await run(served, tmp_path, CLIENTS[name], f"https://evil.test:{server.port}/")
    assert code != 0 and "hello" not in out
    assert server.connections == 0 and world.looked_up == []


async def test_curl_posts_a_large_body_and_waits_to_be_told(world, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    server = await world.server(answer(b"taken"), "shop.test")
    place = f"https://shop.test:{server.port}"
    served = await world.proxy(f"POST {place}")
    body = tmp_path / "body"
    body.write_bytes(b"x" * 400_000)
    argv = ("curl", "-sS", "-H", "Expect: 100-continue", "--data-binary", f"@{body}", "{url}")
    code, out = await run(served, tmp_path, argv, place)
    assert (code, out) == (0, "taken")
    assert server.heard[0].endswith(body.read_bytes())


async def test_curl_hears_why_it_was_refused(world, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    server = await world.server(answer(b"x"), "shop.test")
    place = f"https://shop.test:{server.port}"
    served = await world.proxy(place)
    argv = ("curl", "-sS", "-X", "DELETE", "-i", "{url}")
    code, out = await run(served, tmp_path, argv, place)
    assert code == 0 and "403" in out and "x-ring0-error: denied" in out
