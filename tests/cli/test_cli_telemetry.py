"""`logs`, `show --waterfall`, `report`, `export`: a run looked at afterwards, whatever it said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cli_world import RING0, World

HOSTILE = """
from ring0 import Context, agent

BAD = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\\x1b[31m\\u202e\\u2028'\\"&"


@agent(builtins={"files": {"use": "files"}})
async def hostile(ctx: Context, task: str):
    await ctx.tool("files.write", path="a<b>.txt", text=BAD)
    try:
        await ctx.tool("<script>alert(2)</script>", text=BAD)
    except Exception:
        pass
    return {BAD: BAD}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A folder where a parent with a child ran, and then an agent that means ill."""
    w = World(tmp_path_factory.mktemp("telemetry"))
    w.write("hostile.py", HOSTILE)
    assert w.ring0("run", "agent.py:parent", "a task").code == 0
    assert w.ring0("run", "hostile.py:hostile", "<b>a task</b>").code == 0
    return w


def runs(w: World) -> dict[str, str]:
    """By agent."""
    rows = w.ring0("ps", "--all", "--json").json["runs"]
    return {row["agent"]: row["id"] for row in rows}


def lines(w: World, *given: str) -> list[dict[str, Any]]:
    done = w.ring0("logs", *given, "--json")
    assert done.code == 0, done.all
    return [json.loads(line) for line in done.out.splitlines()]


# --- logs -----------------------------------------------------------------------------------------


def test_every_entry_of_a_tree_is_one_line_in_the_order_of_the_log(ran: World) -> None:
    names = runs(ran)
    found = lines(ran, names["parent"])
    assert {told["run"] for told in found} == {names["parent"], names["plain"]}
    for run in (names["parent"], names["plain"]):
        seqs = [told["seq"] for told in found if told["run"] == run]
        assert seqs == list(range(1, len(seqs) + 1))
    assert len({told["trace_id"] for told in found}) == 1, "a tree is one trace"
    assert all(re.fullmatch("[0-9a-f]{16}", told["span_id"]) for told in found)
    assert [told["at"] for told in found] == sorted(told["at"] for told in found)


def test_lines_hold_nothing_that_an_agent_or_a_model_wrote(ran: World) -> None:
    out = ran.ring0("logs", "--json").out
    assert "a task" not in out and "alert(1)" not in out


def test_lines_are_filtered_by_kind_state_verdict_rule_and_words(ran: World) -> None:
    refused = lines(ran, "--state", "refused")
    assert refused and all(told["state"] == "refused" for told in refused)
    assert {told["kind"] for told in lines(ran, "--kind", "spawn")} == {"spawn"}
    assert {told["event"] for told in lines(ran, "--kind", "run-ended")} == {"run-ended"}
    assert {told["verdict"] for told in lines(ran, "--verdict", "deny")} == {"deny"}
    rule = lines(ran, "--kind", "spawn")[0]["rules"][0]
    assert all(rule in told["rules"] for told in lines(ran, "--rule", rule))
    assert all("files.write" in json.dumps(told) for told in lines(ran, "--grep", "FILES.WRITE"))
    assert lines(ran, "--grep", "no such words") == []
    assert len(lines(ran, "--last", "3")) == 3
    assert lines(ran, "--last", "3") == lines(ran)[-3:]
    assert len(lines(ran, "--since", "1 d")) == len(lines(ran))


def test_a_word_that_no_line_can_have_is_no_filter(ran: World) -> None:
    for option in ("--kind", "--state", "--verdict"):
        done = ran.ring0("logs", option, "denied!")
        assert done.code == 2 and f"{option} 'denied!'" in done.err, "it would read as none"


def test_a_length_of_time_that_is_none_is_said(ran: World) -> None:
    done = ran.ring0("logs", "--since", "yesterday")
    assert done.code == 2 and "no length of time" in done.err


def test_reasons_are_told_where_they_are_asked_for(ran: World) -> None:
    names = runs(ran)
    plain, why = ran.ring0("logs", names["parent"]).out, ran.ring0("logs", names["parent"], "--why")
    assert "manifest names this agent" not in plain
    assert "manifest names this agent" in why.out


def test_no_name_of_an_agents_reaches_a_terminal_raw(ran: World) -> None:
    out = ran.ring0("logs").out + ran.ring0("show", "last", "--waterfall", "--costs").out
    assert "\x1b" not in out and "\u202e" not in out


def test_following_goes_on_with_what_comes_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    w = World(tmp_path)
    assert w.ring0("run", "agent.py:plain", "first").code == 0
    following = subprocess.Popen(
        [RING0, "logs", "-f", "--json"],
        cwd=w.folder, env=w.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert following.stdout is not None
        first = [json.loads(following.stdout.readline())]
        assert w.ring0("run", "agent.py:plain", "second").code == 0
        second = runs(w)["plain"]
        ends = time.monotonic() + 20
        while first[-1].get("event") != "run-ended" or first[-1]["run"] != second:
            assert time.monotonic() < ends
            first.append(json.loads(following.stdout.readline()))
        seen = [(told["run"], told["seq"]) for told in first]
        assert len(seen) == len(set(seen)), "no line twice"
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
    finally:
        following.kill()
        following.wait()


# --- show -----------------------------------------------------------------------------------------


def test_the_waterfall_draws_each_call_beneath_its_run(ran: World) -> None:
    parent = runs(ran)["parent"]
    out = ran.ring0("show", parent, "--waterfall").out
    assert out.index("parent") < out.index("spawn plain") < out.index("files.write")
    drawn = [line for line in out.splitlines() if "█" in line or "▇" in line]
    assert len(drawn) == len(ran.ring0("show", parent, "--waterfall", "--json").json["rows"])
    rows = ran.ring0("show", parent, "--waterfall", "--json").json["rows"]
    assert all(row["begun_us"] <= row["ended_us"] for row in rows)


def test_only_some_calls_are_shown_where_one_asks_for_these(ran: World) -> None:
    hostile = runs(ran)["hostile"]
    told = ran.ring0("show", hostile, "--only", "refused", "--json").json
    assert [call["state"] for call in told["calls"]] == ["refused"]
    parent = ran.ring0("show", runs(ran)["parent"], "--only", "files.write", "--json").json
    (spawn,) = parent["calls"]
    assert [call["name"] for call in spawn["child"]["calls"]] == ["files.write"]


def test_costs_add_up_over_the_tree(ran: World) -> None:
    told = ran.ring0("show", runs(ran)["parent"], "--costs", "--json").json
    assert {cost["of"]: cost["calls"] for cost in told["costs"]}["files.write"] == 1


# --- report ---------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def report(w: World, run: str, *given: str) -> tuple[str, Page]:
    path = w.folder / f"{run}{len(given)}.html"
    path.unlink(missing_ok=True)
    done = w.ring0("report", run, "--out", str(path), *given)
    assert done.code == 0, done.all
    assert path.stat().st_mode & 0o077 == 0, "it is for its owner's eyes"
    text = path.read_text("utf-8")
    page = Page()
    page.feed(text)
    return text, page


def test_all_that_an_agent_wrote_is_text_in_a_report(ran: World) -> None:
    text, page = report(ran, runs(ran)["hostile"])
    assert not page.tags & {"script", "img", "iframe", "a", "link", "form", "object", "b>"}
    assert "<script>alert(1)</script>" in page.text, "it is there, as text"
    assert "\x1b" not in text and "\u202e" not in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_report_loads_nothing_and_runs_nothing(ran: World) -> None:
    text, page = report(ran, runs(ran)["hostile"])
    (policy,) = [v for n, v in page.attributes if n == "content" and "default-src" in v]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not [v for n, v in page.attributes if n in ("src", "href", "action", "style")]
    assert "http://" not in text and "https://" not in text and "url(" not in text


def test_the_style_of_a_report_is_the_one_that_its_policy_lets_through(ran: World) -> None:
    import base64
    import hashlib

    text, _ = report(ran, runs(ran)["parent"])
    style = text.split("<style>")[1].split("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in text


def test_a_report_tells_the_tree_the_rules_and_what_went_wrong(ran: World) -> None:
    _, page = report(ran, runs(ran)["parent"])
    for words in ("parent", "spawn plain", "files.write", "manifest names this agent", "root "):
        assert words in page.text
    _, page = report(ran, runs(ran)["hostile"])
    wrong = page.text.split("What went wrong")[1].split("When")[0]
    assert "refused" in wrong


def test_a_file_that_is_there_is_not_written_over(ran: World) -> None:
    path = ran.folder / "there.html"
    path.write_text("mine")
    done = ran.ring0("report", "last", "--out", str(path))
    assert done.code == 2 and path.read_text() == "mine"
    link = ran.folder / "link.html"
    os.symlink(path, link)
    assert ran.ring0("report", "last", "--out", str(link)).code == 2
    assert path.read_text() == "mine"


# --- export ---------------------------------------------------------------------------------------


def test_without_a_place_an_export_says_what_to_add(ran: World) -> None:
    done = ran.ring0("export", "otlp", "last")
    assert done.code == 2 and "[otlp]" in done.err
