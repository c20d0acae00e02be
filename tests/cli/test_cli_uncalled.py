"""A program that never asked the kernel for anything: its person is told why that may be."""

from __future__ import annotations

import json

from cli_world import World

ELSEWHERE = """
import urllib.request
try:
    urllib.request.urlopen("https://api.openai.com/v1/models", timeout=5)
except OSError as error:
    print("no model:", error)
"""
KNOWS_THE_WAY = """
import json, os, urllib.request
from pathlib import Path
told = json.loads(Path(os.environ["RING0_MCP_CONFIG"]).read_text())
url = told["mcpServers"]["ring0"]["url"]
assert url == os.environ["RING0_MCP_URL"], url
meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}}
def ask(method, **params):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    headers = {"Content-Type": "application/json", "Mcp-Protocol-Version": "2026-07-28",
               "Mcp-Method": method, "Mcp-Name": params.get("name", "")}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))["result"]
print([tool["name"] for tool in ask("tools/list")["tools"]])
if CALLS:
    print(ask("tools/call", name="files__write", arguments={"path": "a.txt", "text": "hi"}))
"""


def test_a_program_that_looks_for_its_model_elsewhere_is_told_what_to_set(world: World) -> None:
    world.write("elsewhere.py", ELSEWHERE)
    done = world.ring0("run", "--", "python3", "elsewhere.py")
    assert done.code == 0 and "no model:" in done.out
    said = " ".join(done.err.split())
    assert "asked ring0 for no model and no tool" in said
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "RING0_MCP_URL", "RING0_MCP_CONFIG"):
        assert name in said
    as_json = world.ring0("run", "--json", "--", "python3", "elsewhere.py")
    assert json.loads(as_json.out)["state"] == "done" and "RING0_MCP_URL" in as_json.err


def test_a_program_finds_the_mcp_door_and_is_told_nothing(world: World) -> None:
    world.write(
        "agent.toml", 'name = "p"\ncommand = ["python3", "x.py"]\n[tools.files]\nuse = "files"\n'
    )
    world.write("x.py", f"CALLS = True\n{KNOWS_THE_WAY}")
    done = world.ring0("run", "--manifest", "agent.toml", "--", "python3", "x.py")
    assert done.code == 0 and "files__write" in done.out, done.all
    assert "asked ring0 for no model" not in done.all
    assert "files.write" in world.ring0("show").out
    # To look at the list is not yet to call.
    world.write("x.py", f"CALLS = False\n{KNOWS_THE_WAY}")
    listed = world.ring0("run", "--manifest", "agent.toml", "--", "python3", "x.py")
    assert "asked ring0 for no model" in " ".join(listed.err.split())


def test_an_agent_of_the_sdk_that_needs_nothing_is_told_nothing(world: World) -> None:
    world.write(
        "quiet.py",
        "from ring0 import Context, agent\n\n@agent\nasync def quiet(ctx: Context, task: str):\n"
        "    return task\n",
    )
    done = world.ring0("run", "quiet.py", "hello")
    assert done.code == 0 and "asked ring0" not in done.all
