"""A program that never got anything of the kernel: its person is told why that may be."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
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


# --- what it asked was refused ------------------------------------------------------------------

ASKS = """
import json, os, urllib.error, urllib.request
body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}], **MORE}
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions",
                                 json.dumps(body).encode(), {"Content-Type": "application/json"})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print("status", error.code)
"""


@contextmanager
def provider(status: int, words: str) -> Iterator[str]:
    """The address of one that answers so to whatever it is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"error": {"message": words}}).encode()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configure(world: World, provider: str = "openai", **fields: str) -> None:
    world.home.mkdir(exist_ok=True)
    lines = "".join(f'{key} = "{text}"\n' for key, text in fields.items())
    prices = "price_in_microusd_per_mtok = 0\nprice_out_microusd_per_mtok = 0\n"
    text = f'[models.default]\nprovider = "{provider}"\nmodel = "gpt-9"\n{lines}{prices}'
    (world.home / "ring0.toml").write_text(text)


def test_a_question_that_the_door_refused_is_told_and_not_that_there_was_none(world: World) -> None:
    world.write("x.py", ASKS.replace("MORE", '{"frobnicate": 1}'))
    done = world.ring0("run", "--", "python3", "x.py")
    told = " ".join(done.err.split())
    assert done.code == 0 and "status 422" in done.out
    assert "asked ring0 for no model" not in told and "Its question was refused" in told
    assert "frobnicate" in told and "`ring0 show r-" in told
    assert "refused" in done.out and "frobnicate" in done.out, "while it goes on, too"
    assert "frobnicate" in world.ring0("show").out


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ("without a key", "ring0 secret set OPENAI_API_KEY", "in the environment of ring0")),
        (404, ("no model 'gpt-9'", "[models]", "base_url")),
        (400, ("refused the question", "its own words")),
    ],
)
def test_what_a_provider_refused_is_told_with_the_command_that_mends_it(
    world: World, status: int, words: tuple[str, ...]
) -> None:
    world.write("x.py", ASKS.replace("MORE", "{}"))
    with provider(status, "its own words") as address:
        configure(world, base_url=address)
        done = world.ring0("run", "--", "python3", "x.py")
    assert f"status {status}" in done.out
    for told in (" ".join(done.out.split()), " ".join(done.err.split())):
        for one in (*words, "provider openai", "its own words"):
            assert one in told, (one, told)


def test_a_program_that_was_answered_once_is_told_nothing(world: World) -> None:
    world.write("script.toml", 'answer = "hi"\n[[rules]]\nname = "r"\nwhen = "hello"\nsay = "hi"\n')
    world.write(
        "agent.toml",
        'name = "p"\ncommand = ["python3", "x.py"]\n[models.default]\nprovider = "scripted"\n'
        'model = "s"\nscript = "script.toml"\n',
    )
    odd, plain = (ASKS.replace("MORE", more) for more in ('{"frobnicate": 1}', "{}"))
    world.write("x.py", odd + plain)
    done = world.ring0("run", "--", "python3", "x.py")
    assert "status 422" in done.out and "200" in done.out, done.all
    assert "Its question" not in done.err and "questions was" not in done.err


# --- a key that is not there --------------------------------------------------------------------


def test_a_provider_without_a_key_is_told_before_the_agent_starts(world: World) -> None:
    world.write("x.py", "print('it', 'starts')")
    configure(world)
    done = world.ring0("run", "--", "python3", "x.py")
    told = " ".join(done.out.split())
    assert done.code == 0 and "model default (openai) has no key" in told
    assert "`ring0 secret set OPENAI_API_KEY`" in told
    assert told.index("has no key") < told.index("it starts")
    as_json = world.ring0("run", "--json", "--", "python3", "x.py")
    assert json.loads(as_json.out)["state"] == "done" and "has no key" in as_json.err


def test_a_key_that_is_set_or_not_needed_is_no_word_worth(world: World) -> None:
    world.write("x.py", "print('it', 'starts')")

    def told() -> str:
        return world.ring0("run", "--", "python3", "x.py").all

    for maker, address in (("openai", "http://127.0.0.1:9/v1"), ("ollama", ""), ("vllm", "")):
        configure(world, maker, **({"base_url": address} if address else {}))
        assert "no key" not in told()
    configure(world)
    assert "no key" in told()
    world.environment["OPENAI_API_KEY"] = "sk-0123456789abcdef"
    assert "no key" not in told()
    del world.environment["OPENAI_API_KEY"]
    assert world.ring0("secret", "set", "OPENAI_API_KEY", stdin="sk-0123456789abcdef").code == 0
    assert "no key" not in told()
