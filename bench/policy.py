"""`ring0 bench policy`: one decision, with 1 to 1,000 policies installed, beside AGT's engine.

A decision is all that the gate does for it: the question made, the arguments that a rule looks at
given Cedar's types, the slice found, Cedar asked (twice where it would ask a person). `new`: no
question like it was decided before; `known`: one that no policy can tell apart from it was, as from
call to call of a run. The default set (19 statements) is always there; beside it are rules that
forbid other tools, and up to 10 that forbid more than so many rows of this one. AGT
(agent-governance-toolkit, `PolicyEvaluator`) gets the same rules in its own terms: a rule there has
one condition and no default set stands behind it. It lives in an environment of its own, which
`make rivals` makes; without it it is absent.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.rows import Row, percentile, row
from ring0.governance import Policies, Question
from ring0.types import Effect, Integrity, VerdictKind

INSTALLED = (1, 10, 100, 1_000)
ABOUT_ROWS = 10
DECISIONS = 2_000
WARM = 50
"""The first ones parse what is then kept."""
ROUNDS = 3
TOOL = "bench.write"
ARGS = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["to"],
}
RIVAL_S_MAX = 300
ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-rivals" / "bin" / "python"


class Times(NamedTuple):
    """Of each decision, in seconds."""

    wall: list[float]
    cpu: list[float]
    """Where others use the machine, wall time at p99 is theirs: this is not."""


def run() -> list[Row]:
    """All figures. Takes about a minute."""
    rows: list[Row] = []
    firsts: dict[str, list[float]] = {}
    for installed in INSTALLED:
        turns: dict[str, list[Times]] = {}
        for _ in range(ROUNDS):  # The machine is never quiet: in turns, and the median of each.
            for name, times in _turn(installed).items():
                turns.setdefault(name, []).append(times)
        for name, found in turns.items():
            p50 = _middle([percentile(times.wall, 0.50) for times in found])
            p99 = _middle([percentile(times.wall, 0.99) for times in found])
            cpu99 = _middle([percentile(times.cpu, 0.99) for times in found])
            cpu = _middle([sum(times.cpu) / len(times.cpu) for times in found])
            firsts.setdefault(name, []).append(p50)
            what, count = f"{name}, {installed:,} installed", ROUNDS * DECISIONS
            rows.append(row(f"{what}, p50", p50 * 1e6, "us", count))
            rows.append(row(f"{what}, p99", p99 * 1e6, "us", count))
            rows.append(row(f"{what}: CPU of a decision", cpu * 1e6, "us", count))
            rows.append(row(f"{what}: CPU of a decision, p99", cpu99 * 1e6, "us", count))
    for name, p50s in firsts.items():
        what = f"{name}: {INSTALLED[-1]:,} installed, times {INSTALLED[0]}"
        rows.append(row(what, p50s[-1] / p50s[0], "ratio", ROUNDS))
    if not PYTHON.exists():
        rows.append(row("AGT: absent; `make rivals` gets it", 0, "", 0))
    return rows


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _turn(installed: int) -> dict[str, Times]:
    found = {
        "ring0, new": _decide(installed),
        "ring0, new, with rules about arguments": _decide(installed, arguments=True),
        "ring0, new, asks": _decide(installed, wanted=VerdictKind.ASK),
        "ring0, known": _decide(installed, alike=True),
    }
    if PYTHON.exists():
        found["AGT"] = _rival(installed)
    return found


def policy_text(installed: int, arguments: bool, asks: bool) -> str:
    """So many rules beside the default set, the one that lets the call through among them."""
    own = f'action == Action::"{TOOL}", resource' if arguments else "action, resource"
    about = 'context.args.to == "ann"' if arguments else f'resource == Tool::"{TOOL}"'
    approved = " && context.approved" if asks else ""
    texts = [f'@id("own") permit (principal, {own}) when {{ {about}{approved} }};']
    for number in range(installed - 1):
        if number < ABOUT_ROWS - 1:
            where = f'action in Action::"tool", resource == Tool::"{TOOL}"'
            when = f" when {{ context.rows > {1_000_000 + number} }}"
        else:
            where, when = f'action in Action::"tool", resource == Tool::"other.t{number}"', ""
        texts.append(f'@id("r{number}") forbid (principal, {where}){when};')
    return "\n".join(texts)


def _decide(
    installed: int,
    *,
    alike: bool = False,
    arguments: bool = False,
    wanted: VerdictKind = VerdictKind.ALLOW,
) -> Times:
    with tempfile.TemporaryDirectory(prefix="ring0-bench-") as folder:
        path = Path(folder) / "bench.cedar"
        path.write_text(policy_text(installed, arguments, wanted is VerdictKind.ASK))
        policies = Policies.load([path])
    policies.check_tools({TOOL: ARGS})
    times = Times([], [])
    for number in range(DECISIONS + WARM):
        begun, cpu = time.perf_counter(), time.thread_time()
        verdict = policies.decide(_question(policies, number, alike))
        times.cpu.append(time.thread_time() - cpu)
        times.wall.append(time.perf_counter() - begun)
        assert verdict.kind is wanted, verdict
    return Times(times.wall[WARM:], times.cpu[WARM:])


def _question(policies: Policies, number: int, alike: bool) -> Question:
    return Question(
        tenant="acme",
        principal="ada",
        agent="clerk",
        run="r-0123456789ab",
        action="tool",
        resource=TOOL,
        effect=Effect.ONCE,
        reversal="reversible",
        mutates=True,
        own=False,
        changes_schema=False,
        forbidden="",
        rows=1 if alike else number,
        tables=("ledger",),
        run_integrity=Integrity.UNTRUSTED,
        untrusted_args=(),
        unfounded_args=(),
        operator=False,
        depth=0,
        calls_used=number,
        cost_microusd=0,
        args=policies.arguments(TOOL, "digest", ARGS, {"to": "ann", "amount": 12.5}),
    )


def _rival(installed: int) -> Times:
    script = ROOT / "bench" / "rivals" / "agt_policy.py"
    done = subprocess.run(
        [PYTHON, script, str(installed), str(ABOUT_ROWS), str(DECISIONS), TOOL],
        capture_output=True,
        check=True,
        timeout=RIVAL_S_MAX,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Times(found["wall_s"], found["cpu_s"])
