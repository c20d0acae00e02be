"""`ring0 cron` and `ring0 hook`, with real daemons: given, listed, fired, crashed, taken away."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import os
import re
import signal
import time
import urllib.request

from cli_world import World
from serving_world import daemon, journal

from ring0.store import events as ev

NOTED = """
from ring0 import Context, agent


@agent(builtins={"files": {"use": "files"}})
async def noted(ctx: Context, task: str):
    return "first " + task
"""
READS = """
from ring0 import Context, agent


@agent(builtins={"files": {"use": "files"}})
async def reads(ctx: Context, task: str):
    return (await ctx.tool("files.read", path="event.json"))["text"]
"""


def fired(world: World) -> list[ev.CronFired]:
    return [body for _, body in journal(world) if isinstance(body, ev.CronFired)]


def test_without_a_daemon_it_is_kept_and_says_that_nothing_starts_yet(world: World) -> None:
    world.write("noted.py", NOTED)
    done = world.ring0("cron", "add", "tidy", "*/5 * * * *", "noted.py", "tidy up")
    assert done.code == 0 and "next" in done.out and "ring0 serve" in done.out, done.all
    (row,) = world.ring0("cron", "list", "--json").json
    assert row["when"] == "*/5 * * * *  UTC" and row["code"] == "as given"
    assert "uid" in row["principal"] and row["next_us"] % 300_000_000 == 0
    again = world.ring0("cron", "add", "tidy", "*/5 * * * *", "noted.py", "tidy up")
    assert again.code == 2 and "--force" in again.err
    assert "No daemon" in world.ring0("cron", "run", "tidy").err
    assert world.ring0("audit", "checkpoint", "--sign").code == 0
    assert world.ring0("audit", "verify").code == 0
    assert world.ring0("cron", "remove", "tidy").code == 0
    assert world.ring0("cron", "list", "--json").json == []
    assert world.ring0("cron", "remove", "tidy").code == 2


def test_a_daemon_fires_it_with_the_code_as_it_was_given(world: World) -> None:
    world.write("noted.py", NOTED)
    with daemon(world) as d:
        done = world.ring0("cron", "add", "often", "--every", "10s", "noted.py", "now")
        assert done.code == 0, done.all
        world.write("noted.py", NOTED.replace("first", "second"))
        (row,) = world.ring0("cron", "list", "--json").json
        assert row["code"] == "changed since"
        run = world.ring0("cron", "run", "often").out.strip()
        world.until(lambda: not world.live())
        assert world.ring0("show", run, "--json").json["result"]["value"] == "first now"
        d.says("cron often has started it", wait_s=20)
        world.until(lambda: len(fired(world)) >= 2)
        assert world.ring0("cron", "pause", "often").code == 0
        count = len(fired(world))
        (row,) = world.ring0("cron", "list", "--json").json
        assert row["paused_by"] and row["runs"] == count
        assert d.end() == 0


def test_killed_at_any_moment_no_moment_has_two_runs_or_none(world: World) -> None:
    world.write("noted.py", NOTED)
    with daemon(world) as d:
        for name in ("a", "b", "c"):
            more = ("--overlap", "queue", "--missed", "all")
            done = world.ring0("cron", "add", name, "--every", "10s", *more, "noted.py", name)
            assert done.code == 0, done.all
        for pause_s in (7.3, 0.9, 0.1):  # Before a moment, in the middle of one, while it starts.
            time.sleep(pause_s)
            worker = d.worker()
            os.kill(worker, signal.SIGKILL)
            d.next_worker(worker)

        def going_on() -> bool:
            """Runs that were at work when two workers died in a row are held for a person."""
            for row in world.ring0("ps", "--json").json["runs"]:
                if row["paused_by"]:
                    world.ring0("resume", row["id"])
            return all(row["runs"] >= 2 for row in world.ring0("cron", "list", "--json").json)

        world.until(going_on)
        for name in ("a", "b", "c"):
            world.ring0("cron", "remove", name)
        world.until(lambda: not world.live())
        assert d.end() == 0
    for name in ("a", "b", "c"):
        due = [event.due_us for event in fired(world) if event.cron == name]
        assert due == sorted(set(due))
        assert {b - a for a, b in itertools.pairwise(due)} <= {10_000_000}
    states = {row["state"] for row in world.ring0("ps", "--all", "--json").json["runs"]}
    assert states == {"done"}
    assert world.ring0("audit", "verify").code == 0


def test_what_makes_no_sense_is_refused_before_anything_is_started(world: World) -> None:
    world.write("noted.py", NOTED)
    for words in (
        ("noted.py", "x"),
        ("* * * *", "noted.py", "x"),
        ("* * * * *", "--every", "5m", "noted.py", "x"),
        ("--every", "1s", "noted.py", "x"),
        ("--every", "soon", "noted.py", "x"),
        ("--at", "yesterday", "noted.py", "x"),
        ("--at", "2001-01-01T00:00Z", "noted.py", "x"),
        ("--timezone", "Mars/X", "* * * * *", "noted.py", "x"),
        ("--missed", "all", "--overlap", "skip", "* * * * *", "noted.py", "x"),
        ("* * * * *", "nothing.py", "x"),
        ("*", "*", "*", "*", "*", "noted.py", "x"),
    ):
        done = world.ring0("cron", "add", "x", *words)
        assert done.code == 2, (words, done.all)
    assert not world.home.exists() or world.ring0("cron", "list", "--json").json == []


def test_a_moment_is_read_in_the_zone_that_is_named(world: World) -> None:
    world.write("noted.py", NOTED)
    at = ("--at", "2040-07-01T12:00", "--timezone", "Europe/Berlin")
    made = world.ring0("cron", "add", "x", *at, "noted.py", "x", "--json")
    assert made.code == 0, made.all
    assert made.json["schedule"]["at_us"] == 2_224_749_600_000_000 and made.json["missed"] == "once"


def test_a_signed_delivery_reaches_an_agent_as_a_file(world: World) -> None:
    world.write("reads.py", READS)
    done = world.ring0("hook", "add", "push", "reads.py", "look at it")
    assert done.code == 0, done.all
    secret = re.search(r"whsec_\S+", done.out)
    assert secret
    key = base64.b64decode(secret[0].removeprefix("whsec_"))
    listed = world.ring0("hook", "list")
    assert "as given" in listed.out and secret[0] not in listed.all
    with daemon(world, "--hooks", "127.0.0.1:0") as d:
        d.says("takes deliveries at")
        address = d.log.split("takes deliveries at ")[1].split()[0]
        body, when = b'{"n": 1}', str(int(time.time()))
        text = b".".join((b"m1", when.encode(), body))
        right = base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()
        headers = {
            "webhook-id": "m1",
            "webhook-timestamp": when,
            "webhook-signature": f"v1,{right}",
        }
        request = urllib.request.Request(f"http://{address}/hooks/push", body, headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 202
            run = json.load(answer)["run"]
        world.until(lambda: not world.live())
        shown = world.ring0("show", run, "--json").json
        assert shown["result"]["value"] == '{"n": 1}'
        (row,) = world.ring0("hook", "list", "--json").json
        assert row["last_run"] == run and row["runs"] == 1
        assert d.end() == 0
    assert secret[0].encode() not in (world.home / "journal.db").read_bytes()


def test_a_daemon_that_can_t_take_deliveries_there_says_so_at_once(world: World) -> None:
    done = world.ring0("serve", "--hooks", "0.0.0.0:0")
    assert done.code == 2 and "--hooks-host" in done.all
    assert world.ring0("serve", "--hooks", "nowhere").code == 2
    assert world.ring0("serve", "--hooks-host", "x").code == 2
