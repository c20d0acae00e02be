"""What Prometheus is told: how things stand and what happened, without a run's name in a label."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from approvals_world import PAY, payer
from kernel_world import Doing, JumpingRuntime, World, world
from telemetry_world import configured, over_http

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.kernel.agent import config_telemetry
from ring0.kernel.agent.config_telemetry import MetricsTable
from ring0.kernel.telemetry import making
from ring0.kernel.telemetry.measuring import Measures
from ring0.kernel.telemetry.watching import Watching
from ring0.observability.proof.checkpoints import Checkpoint
from ring0.observability.telemetry.prometheus import OTHER, Family, text
from ring0.types import Effect, RunState

RULES = Path(__file__).parents[2] / "docs" / "prometheus-rules.yml"
PROMTOOL = os.environ.get("RING0_PROMTOOL") or shutil.which("promtool")
_SAMPLE = re.compile(r'(ring0_[a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.e+-]+)')


def parsed(body: bytes) -> dict[tuple[str, str], float]:
    """By name and labels, strictly: a line that is none of the format fails the test."""
    found: dict[tuple[str, str], float] = {}
    for line in body.decode().splitlines():
        if line.startswith(("# HELP ring0_", "# TYPE ring0_")):
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        key = (sample[1], sample[2] or "")
        assert key not in found, f"{key} twice"
        found[key] = float(sample[3])
    return found


async def measured(w: World) -> Measures:
    made = Measures(w.kernel)
    await w.store.flush()
    await made.begin()
    return made


async def numbers(w: World, measures: Measures) -> dict[tuple[str, str], float]:
    await w.store.flush()
    return parsed(await measures.text())


async def test_calls_are_counted_by_kind_state_and_tool(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        measures = await measured(w)
        w.tool(Doing("crm.query"))
        await w.call("crm.query")
        await w.call("crm.query")
        await w.call("not.there")
        found = await numbers(w, measures)
        assert found["ring0_calls_total", 'kind="tool",state="ok"'] == 2
        assert found["ring0_calls_total", 'kind="tool",state="refused"'] == 1
        assert found["ring0_tool_calls_total", 'tool="crm.query",state="ok"'] == 2
        assert found["ring0_call_seconds_count", 'kind="tool"'] == 2
        assert found["ring0_call_seconds_bucket", 'kind="tool",le="+Inf"'] == 2
        assert sum(n for (name, _), n in found.items() if name == "ring0_refusals_total") == 1
        again = await numbers(w, measures)
        assert {k: n for k, n in again.items() if "calls" in k[0]} == {
            k: n for k, n in found.items() if "calls" in k[0]
        }, "looking counts nothing"


async def test_counters_begin_with_the_kernel(tmp_path: Path) -> None:
    async with world(tmp_path / "home") as w:
        w.tool(Doing("crm.query"))
        await w.call("crm.query")
        found = await numbers(w, await measured(w))
        assert not [key for key in found if key[0] == "ring0_calls_total"]


async def test_no_label_names_a_run_a_call_or_a_person(tmp_path: Path) -> None:
    async with world(tmp_path / "home", principal="mallory") as w:
        measures = await measured(w)
        payer(w)
        call = w.start("pay", PAY)
        approval = await w.pending()
        body = (await measures.text()).decode()
        for name in (w.run.id, approval.id, "mallory", "the task"):
            assert name not in body
        call.cancel()


async def test_the_oldest_ask_ages_and_its_end_comes_nearer(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with world(tmp_path / "home", runtime=runtime) as w:
        measures = await measured(w)
        payer(w)
        call = w.start("pay", PAY)
        await w.pending()
        before = await numbers(w, measures)
        assert before["ring0_approvals_pending", ""] == 1
        runtime.jump(1_000)
        after = await numbers(w, measures)
        assert after["ring0_approval_oldest_seconds", ""] >= 1_000
        left = "ring0_approval_expires_seconds", ""
        assert 0 < after[left] <= before[left] - 1_000
        assert after["ring0_runs_waiting", 'reason="approval"'] == 1
        call.cancel()


async def test_the_fullest_budget_is_told_and_not_whose_it_is(tmp_path: Path) -> None:
    from ring0.types import Budget

    async with world(tmp_path / "home", budget=Budget(calls=4)) as w:
        measures = await measured(w)
        w.tool(Doing("crm.query"))
        for _ in range(3):
            await w.call("crm.query")
        found = await numbers(w, measures)
        assert found["ring0_budget_used_ratio_max", 'resource="calls"'] == 0.75


async def test_a_checkpoint_ages_only_while_something_is_behind_it(tmp_path: Path) -> None:
    runtime = JumpingRuntime()
    async with world(tmp_path / "home", runtime=runtime) as w:
        measures = await measured(w)
        await w.store.flush()
        size = (await w.store.head()).size
        path = w.home / "journal.checkpoint"
        said = Checkpoint(origin="ring0/1", size=size, root=bytes(32))
        path.write_text(f"{said.text()}\n— x y\n")
        runtime.jump(1_000)
        found = await numbers(w, measures)
        assert found["ring0_checkpoint_age_seconds", ""] == 0
        assert found["ring0_checkpoint_behind_entries", ""] == 0
        w.tool(Doing("crm.query"))
        await w.call("crm.query")
        found = await numbers(w, measures)
        assert found["ring0_checkpoint_age_seconds", ""] >= 1_000
        assert found["ring0_checkpoint_behind_entries", ""] > 0
        for broken in ("", "x", "a\nb\nc"):
            path.write_text(broken)
            found = await numbers(w, measures)
            assert (
                found["ring0_checkpoint_behind_entries", ""] == found["ring0_journal_entries", ""]
            )
            assert found["ring0_checkpoint_age_seconds", ""] > 0


async def test_an_effect_that_nobody_knows_of_is_counted(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with world(home) as w:
        tool = w.tool(Doing("mail.send", effect=Effect.ONCE))
        tool.hold()
        measures = await measured(w)
        call = w.start("mail.send")
        await tool.begun.wait()
        await w.kernel.kill("run", w.run.id, by="ada")
        call.cancel()
        found = await numbers(w, measures)
        assert found["ring0_calls_unknown_total", ""] == 1
        assert found["ring0_kills_total", 'scope="run"'] == 1


async def test_how_late_spans_are_is_a_number(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        measures = await measured(w)
        measures.exporting = exporting = making.exporter(w.kernel, lambda what: None)
        assert exporting is not None
        w.end.set_result("done")
        await w.until(RunState.DONE)
        found = await numbers(w, measures)
        assert found["ring0_otlp_late_entries", ""] == found["ring0_journal_entries", ""]
        while await exporting.step():
            pass
        found = await numbers(w, measures)
        assert found["ring0_otlp_late_entries", ""] == 0
        assert found["ring0_otlp_spans_total", 'result="sent"'] == 1


async def test_a_long_journal_is_counted_in_parts_and_the_rest_is_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "METRICS_ENTRIES_PER_SCRAPE_MAX", 500)
    async with world(tmp_path / "home") as w:
        measures = await measured(w)
        w.tool(Doing("crm.query"))
        for number in range(300):
            await w.call("crm.query", {"x": number})
        first = await numbers(w, measures)
        assert first["ring0_metrics_left_entries", ""] > 0
        second = await numbers(w, measures)
        assert second["ring0_metrics_left_entries", ""] == 0
        assert second["ring0_calls_total", 'kind="tool",state="ok"'] == 300


@pytest.mark.parametrize(
    "name",
    ['a"b', "a\\", "a\nring0_kills_total 9", "a" * 9_000, "\x1b[2J", "\ud800", "{}", "\u2028"],
)
def test_an_agents_names_stay_within_their_quotes(name: str) -> None:
    family = Family(name="ring0_x_total", help="x", kind="counter")
    family.add(1, tool=name)
    found = parsed(text([family]))
    assert [key[0] for key in found] == ["ring0_x_total"]
    assert len(next(iter(found))[1]) < 250


def test_a_label_with_too_many_values_ends_in_other() -> None:
    family = Family(name="ring0_x_total", help="x", kind="counter")
    for number in range(10_000):
        family.add(1, tool=f"t{number}")
    assert len(family.values) == limits.METRICS_LABEL_VALUES_MAX + 1
    assert family.values[(("tool", OTHER),)] == 10_000 - limits.METRICS_LABEL_VALUES_MAX


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"listen": "0.0.0.0:9464", "token": "T"}, "this machine"),
        ({"listen": "127.0.0.1", "token": "T"}, "this machine"),
        ({"listen": "127.0.0.1:0", "token": "T"}, "this machine"),
        ({"listen": "127.0.0.1:9464", "token": ""}, "no secret"),
        ({"listen": "127.0.0.1:9464", "token": "SHORT"}, "no secret"),
    ],
)
def test_numbers_are_not_given_to_other_machines_nor_without_a_token(
    table: dict[str, Any], what: str
) -> None:
    secrets = {"T": "0123456789abcdef", "SHORT": "123"}
    with pytest.raises(ManifestInvalid, match=what):
        config_telemetry.check(None, MetricsTable(**table), lambda name: secrets.get(name, ""))


# --- alerts ---------------------------------------------------------------------------------------


def rules() -> list[dict[str, str]]:
    """The rules file, as far as it is used: a block each. Strict about the form."""
    found: list[dict[str, str]] = []
    for line in RULES.read_text().splitlines():
        if begins := re.fullmatch(r" {6}- alert: ([A-Za-z0-9]+)", line):
            found.append({"alert": begins[1]})
        elif field := re.fullmatch(r" {8,10}([a-z]+): ?(.*)", line):
            found[-1][field[1]] = field[2]
        else:
            assert re.fullmatch(r"#.*|groups:|  - name: ring0|    rules:", line), line
    return found


async def test_every_alert_is_about_numbers_that_there_are(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        measures = await measured(w)
        measures.exporting = making.exporter(w.kernel, lambda what: None)
        measures.watching = Watching(w.kernel, lambda what, run: None)
        told = set(re.findall(r"# TYPE (\S+)", (await measures.text()).decode()))
    for rule in rules():
        used = set(re.findall(r"ring0_[a-z_]+", rule["expr"]))
        assert used and used <= told, f"{rule['alert']}: {used - told}"
        assert rule["summary"] and rule["todo"] and rule["labels"], rule["alert"]


def test_alerts_speak_of_asks_budgets_checkpoints_and_the_disk() -> None:
    every = " ".join(rule["expr"] for rule in rules())
    for name in ("approval_oldest", "budget_used", "checkpoint_age", "disk_free", "disk_full"):
        assert f"ring0_{name}" in every


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
async def test_promtool_takes_the_rules_and_the_numbers(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    async with world(tmp_path / "home") as w:
        measures = await measured(w)
        w.tool(Doing("crm.query"))
        await w.call("crm.query")
        body = await measures.text()
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=body, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
