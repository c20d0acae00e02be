"""`run --only`, `token …`, `identity …`: real commands, a daemon, a program that has a token."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from cli_world import World
from serving_world import daemon

AGENT = '''
from ring0 import Context, agent, tool


@tool(effect="pure")
def double(n: int) -> int:
    """Doubles."""
    return 2 * n


@tool(effect="pure")
def triple(n: int) -> int:
    """Triples."""
    return 3 * n


async def tries(ctx: Context) -> dict:
    found = {}
    for name in ("double", "triple"):
        try:
            found[name] = await ctx.tool(name, n=2)
        except Exception as error:
            found[name] = str(error)
    return found


@agent(tools=[double, triple], agents=["below"])
async def above(ctx: Context, task: str):
    own = await tries(ctx)
    child = await ctx.spawn("below", "try", only=["*le"] if task == "all" else ["triple"])
    return {"own": own, "child": await child.wait()}


@agent(tools=[double, triple])
async def below(ctx: Context, task: str):
    return await tries(ctx)


@agent(tools=[double, triple])
async def stays(ctx: Context, task: str):
    await ctx.tool("double", n=1)
    await ctx.sleep(float(task))
'''


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.write("own.py", AGENT)
    return made


def test_a_task_with_a_grant_does_no_more_and_neither_does_its_child(world: World) -> None:
    done = world.ring0("run", "own.py:above", "all", "--only", "double", "--json")
    value = done.json["value"]
    assert value["own"]["double"] == 4 and "not in this run's grant" in value["own"]["triple"]
    assert value["child"]["double"] == 4, "`*le` names it, and so does the parent's grant"
    assert "not in this run's grant" in value["child"]["triple"]


def test_a_childs_own_grant_takes_away_what_its_parent_has(world: World) -> None:
    value = world.ring0("run", "own.py:above", "one", "--json").json["value"]
    assert value["own"] == {"double": 4, "triple": 6}
    assert value["child"]["triple"] == 6 and "not in this run's" in value["child"]["double"]


def test_a_grant_that_can_not_be_read_starts_nothing(world: World) -> None:
    done = world.ring0("run", "own.py:above", "all", "--only", "a b")
    assert done.code == 2 and "nothing that a grant can name" in done.err
    assert not (world.home / "journal.db").exists()


def call(home: Path, token: str, name: str) -> Any:
    """What any program does with a token: an HTTP request on a unix socket."""
    body = json.dumps({"kind": "tool", "name": name, "args": {"n": 4}}).encode()
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(home / "calls.sock"))
        head = f"POST /v1/call HTTP/1.1\r\nHost: ring0\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        line.sendall(head.encode() + body)
        said = b""
        while more := line.recv(65_536):
            said += more
    return json.loads(said.partition(b"\r\n\r\n")[2])


def test_a_token_is_given_narrowed_used_and_taken_back(world: World) -> None:
    with daemon(world):
        run = world.ring0("run", "own.py:stays", "60", "--detach").out.strip()
        for _ in range(200):  # It is at work once it has a call on record.
            given = world.ring0("token", "give", run, "--only", "double", "--json")
            if given.code == 0:
                break
            time.sleep(0.1)
        token = given.json["token"]
        assert given.json["socket"] == str(world.home / "calls.sock")
        assert call(world.home, token, "double")["value"] == 8
        assert "not in the token" in call(world.home, token, "triple")["error"]["what"]

        narrower = world.ring0("token", "narrow", "--only", "nothing.*", stdin=token).out.strip()
        assert "not in the token" in call(world.home, narrower, "double")["error"]["what"]
        shown = world.ring0("token", "show", "--json", stdin=narrower).json
        assert len(shown) == 2 and "tool:double" in shown[0]["says"]

        (listed,) = world.ring0("token", "list", run, "--json").json
        assert listed["id"] == shown[0]["id"] and token not in json.dumps(listed)
        assert world.ring0("token", "revoke", run, listed["id"]).code == 0
        assert call(world.home, token, "double")["error"]["code"] == "token_dead"
        assert world.ring0("token", "list", run).out.strip() == "None."
        world.ring0("kill", run)
    assert world.ring0("audit", "verify").code == 0


def test_what_is_no_token_is_told_so(world: World) -> None:
    for words in (("narrow", "--only", "x"), ("show",)):
        done = world.ring0("token", *words, stdin="rubbish")
        assert done.code != 0 and "not valid" in done.err and "Traceback" not in done.all
    assert world.ring0("token", "narrow", stdin="x").code == 2
    assert world.ring0("token", "give", "r-000000000000").code != 0


def test_the_keys_of_jwts_are_printed_once_there_are_some(world: World) -> None:
    world.ring0("run", "own.py:below", "x")
    assert "no key yet" in world.ring0("identity", "jwks").err
    first = world.ring0("identity", "rotate", "--json").json["kid"]
    second = world.ring0("identity", "rotate", "--json").json["kid"]
    keys = world.ring0("identity", "jwks").json["keys"]
    assert [key["kid"] for key in keys] == [first, second] and "d" not in keys[0]
