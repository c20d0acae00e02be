"""`ring0 mcp` in a real sandbox: there whatever Python the program is of, and it ends."""

from __future__ import annotations

from cli_world import World

CLIENT = """
import json, os, subprocess, sys, time
try:
    import aiohttp
    print("it has our libraries")
except ImportError:
    print("it has none of our libraries")
bare = {"PATH": os.environ["PATH"]}     # as clients start a server: with little else
shim = subprocess.Popen(["ring0", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=bare)
def ask(number, method, **params):
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    shim.stdin.write(json.dumps(body).encode() + b"\\n")
    shim.stdin.flush()
    return json.loads(shim.stdout.readline())["result"]
ask(1, "initialize", protocolVersion="2025-11-25", capabilities={},
    clientInfo={"name": "c", "version": "1"})
shim.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\\n')
print([tool["name"] for tool in ask(2, "tools/list")["tools"]])
ask(3, "tools/call", name="files__write", arguments={"path": "a.txt", "text": "hi"})
shim.stdin.close()
print("ended with", shim.wait(timeout=15))
"""


def test_a_program_of_another_python_starts_it_by_its_name(world: World) -> None:
    world.write(
        "agent.toml",
        'name = "p"\ncommand = ["/usr/bin/python3", "x.py"]\n[tools.files]\nuse = "files"\n',
    )
    world.write("x.py", CLIENT)
    done = world.ring0("run", "--manifest", "agent.toml", "the task")
    assert done.code == 0 and "it has none of our libraries" in done.out, done.all
    assert "files__write" in done.out and "ended with 0" in done.out, done.all
    assert "files.write" in world.ring0("show").out
