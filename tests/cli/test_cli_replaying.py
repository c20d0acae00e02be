"""`export run`, `test`, `fork`, `diff`, `whatif`, `bisect`: recorded runs as a person uses them."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from cli_world import World

AGENT = """
from ring0 import Context, agent, tool


@tool(effect="pure")
def price(item: str) -> int:
    return len(item)


@tool(effect="once")
def order(item: str, pay: int) -> str:
    return f"{item} for {pay}"


@agent(name="buyer", tools=[price, order])
async def buyer(ctx: Context, task: str):
    cost = await ctx.tool("price", item=task)
    return await ctx.tool("order", item=task, pay=cost)
"""
ALLOW = """
@id("orders") @reason("Orders are fine here.")
permit (principal, action in Action::"tool", resource == Tool::"order");
"""


@pytest.fixture
def shop(world: World) -> World:
    """A data folder in which a buyer ran."""
    world.write("buyer.py", AGENT)
    world.home.mkdir()
    (world.home / "own.cedar").write_text(ALLOW)
    (world.home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    done = world.ring0("run", "buyer.py", "apples")
    assert done.code == 0, done.all
    return world


def git(folder: Path, *words: str) -> str:
    told = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.com", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip()


def commit(folder: Path, file: str, text: str, message: str) -> str:
    (folder / file).write_text(text)
    git(folder, "add", file)
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def test_a_run_is_exported_and_tested_where_nothing_of_it_is_left(shop: World) -> None:
    done = shop.ring0("export", "run", "last", "-o", "tape.r0")
    assert done.code == 0 and "keep it as you keep that" in done.out, done.all
    tape = shop.folder / "tape.r0"
    assert tape.stat().st_mode & 0o777 == 0o600
    assert shop.ring0("export", "run", "last", "-o", "tape.r0").code == 2, "it is there already"
    (shop.folder / "buyer.py").unlink()
    shop.home.rename(shop.folder / "gone")
    tested = shop.ring0("test", "tape.r0", "--json")
    assert tested.code == 0 and tested.json[0]["ok"] and tested.json[0]["matched"] == 2
    assert "2 of 2 calls matched" in shop.ring0("test", "tape.r0").out
    tape.write_bytes(tape.read_bytes().replace(b"apples", b"apple$"))
    refused = shop.ring0("test", "tape.r0", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "cassette_invalid")


def test_code_that_has_changed_fails_the_test_of_a_recorded_run(shop: World) -> None:
    assert shop.ring0("export", "run", "-o", "tape.r0").code == 0
    assert shop.ring0("test", "tape.r0", "--code", ".").code == 0
    shop.write("buyer.py", AGENT.replace("pay=cost", "pay=cost + 1"))
    done = shop.ring0("test", "tape.r0", "--code", ".")
    assert done.code == 5 and "tool order" in done.err, done.all
    told = shop.ring0("test", "tape.r0", "--code", ".", "--json")
    assert told.code == 5 and told.json[0]["at"].endswith("/0/2")


def test_a_fork_asks_where_the_run_was_allowed_and_parts_from_it_where_it_was_edited(
    shop: World,
) -> None:
    first = shop.ring0("ps", "--all", "--json").json["runs"][0]["id"]
    running = shop.start("fork", first, "--edit", "0/1=600")
    ask = shop.pending()
    held = shop.ring0("approvals", ask)
    assert f"fork/{shop.ring0('ps', '--json').json['runs'][0]['id']}" in held.out, held.all
    assert shop.ring0("approve", ask).code == 0
    done = shop.finish(running)
    assert done.code == 0 and "apples for 600" in done.out, done.all
    found = shop.ring0("diff", first, "last", "--json")
    assert found.code == 1 and found.json["apart"]["place"] == "0/2", found.all
    assert [one["how"] for one in found.json["calls"]] == ["differs", "differs"]
    assert found.json["calls"][0]["what"] == ["result", "label"]
    shown = shop.ring0("diff", first, "last")
    assert "They part at 0/2" in shown.out
    same = shop.ring0("diff", first, first)
    assert same.code == 0 and "Both asked for the same" in same.out
    assert shop.ring0("audit", "verify").code == 0


def test_a_fork_without_a_point_or_with_a_word_that_is_no_json_is_refused(shop: World) -> None:
    assert shop.ring0("fork", "last").code == 2
    assert shop.ring0("fork", "last", "--edit", "0/1=apples").code == 2
    assert shop.ring0("fork", "last", "--at", "9999").code == 2
    assert shop.ring0("fork", "last", "--edit", "0/9=1").code != 0
    assert len(shop.ring0("ps", "--all", "--json").json["runs"]) == 1


def test_a_call_is_decided_under_another_policy_and_with_another_argument(shop: World) -> None:
    now = shop.ring0("whatif", "last", "0/2", "--json")
    assert now.code == 0, now.all
    assert (now.json["was"]["kind"], now.json["would_be"]["kind"]) == ("allow", "allow")
    shop.write(
        "strict.cedar",
        '@id("dear") @reason("Too dear.") forbid (principal, action == Action::"order",'
        " resource) when { context.args.pay > 100 };\n" + ALLOW,
    )
    kept = shop.ring0("whatif", "last", "0/2", "--policy", "strict.cedar", "--json")
    assert kept.code == 0, kept.all
    assert kept.json["would_be"]["kind"] == "allow", kept.all
    dear = shop.ring0(
        "whatif", "last", "0/2", "--policy", "strict.cedar", "--set", "pay=500", "--json"
    )
    assert dear.json["would_be"]["kind"] == "deny", dear.all
    assert dear.json["would_be"]["reasons"][0]["rule"] == "dear"
    assert shop.ring0("whatif", "last", "0/2", "--set", "colour=red").code != 0
    assert "would be" in shop.ring0("whatif", "last", "0/2").out


def test_bisect_names_the_commit_that_changed_what_the_agent_asks(shop: World) -> None:
    repository = shop.folder / "repository"
    (repository / "agents").mkdir(parents=True)
    git(repository, "init", "-q")
    texts = [AGENT + f"# {number}\n" for number in range(9)]
    texts[6:] = [text.replace("pay=cost", "pay=cost * 2") for text in texts[6:]]
    commits = [
        commit(repository, "agents/buyer.py", text, f"change {number}")
        for number, text in enumerate(texts)
    ]
    agents = str(repository / "agents")
    done = shop.ring0("bisect", "last", "--good", commits[0], "--folder", agents, "--json")
    assert done.code == 0, done.all
    assert (done.json["commit"], done.json["good"]) == (commits[6], commits[5])
    assert done.json["subject"] == "change 6" and done.json["tried"] <= 6
    assert "order" in done.json["why"]
    assert git(repository, "status", "--porcelain") == "", "nothing was checked out"
    wrong = shop.ring0("bisect", "last", "--good", commits[7], "--folder", agents)
    assert wrong.code == 2 and "is not" in wrong.err
    assert shop.ring0("bisect", "last", "--good=--output=x", "--folder", agents).code == 2


def test_bisect_names_the_commit_that_changed_what_is_decided(shop: World) -> None:
    repository = shop.folder / "policies"
    repository.mkdir()
    git(repository, "init", "-q")
    texts = [ALLOW + f"// {number}\n" for number in range(4)]
    texts[2:] = [text.replace("permit", "forbid") for text in texts[2:]]
    commits = [
        commit(repository, "own.cedar", text, f"rule {number}") for number, text in enumerate(texts)
    ]
    done = shop.ring0(
        "bisect", "last", "--good", commits[0], "--folder", str(repository),
        "--policy", "own.cedar", "--json",
    )  # fmt: skip
    assert done.code == 0 and done.json["commit"] == commits[2], done.all
    assert "was allow, and is deny" in done.json["why"]


def test_reading_payloads_needs_access_to_their_tenant(shop: World) -> None:
    table = shop.home / "ring0.toml"
    table.write_text(f'tenant = "another"\n{table.read_text()}')
    done = shop.ring0("export", "run", "last", "-o", str(shop.folder / "run.r0"))
    assert done.code != 0 and "of this tenant" in done.err, done.all
    assert not (shop.folder / "run.r0").exists()


def test_a_replay_has_no_network_whatever_its_code_tries(shop: World, tmp_path: Path) -> None:
    file = str(shop.folder / "run.r0")
    assert shop.ring0("export", "run", "last", "-o", file).code == 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        tries = f"""
    import socket
    try:
        socket.create_connection(("127.0.0.1", {port}), 2).close()
    except OSError:
        pass
    cost"""
        code = tmp_path / "code"
        code.mkdir(mode=0o755)
        (code / "buyer.py").write_text(AGENT.replace("\n    cost", tries, 1))
        done = shop.ring0("test", file, "--code", str(code), "--json")
        assert done.code == 0 and done.json[0]["ok"], done.all
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_recording_that_asks_for_nothing_is_said_to_show_next_to_nothing(shop: World) -> None:
    shop.write("idle.py", AGENT.replace('cost = await ctx.tool("price", item=task)', "return 1"))
    assert shop.ring0("run", "idle.py", "x").code == 0
    assert shop.ring0("export", "run", "last", "-o", "idle.r0").code == 0
    assert "next to nothing" in shop.ring0("test", "idle.r0").out
