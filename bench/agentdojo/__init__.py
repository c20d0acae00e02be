"""`ring0 bench agentdojo`: every pair of AgentDojo (user task, injection task), replayed, no model.

The ground truth of the user's task runs through the real tools, with the injected text wherever the
task reads; then the injection's calls are tried. `append`: all of the user's calls, then the
injection's. `substitute`: the user's calls up to and including the first whose result shows the
injected text, then the injection's in place of the rest. The attacker's puppet always obeys:
undefended (the profile `observe`, in the same table) all of it is executed. Asks of the user's own
calls are answered yes, those of the injection's no: what is asked counts as not executed. What the
package's own check says of the same run stands beside it.

The user's tasks run alone as well: `unattended` is without a single ask and with the package's
`utility` true; `with a perfect approver`, utility is true where every ask is answered yes.
"""

from __future__ import annotations

import asyncio
import json as json_
import multiprocessing
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.agentdojo.replay import Held, Mode, Played, Times, theatre
from bench.agentdojo.served import PYTHON, WORKER, Broken, Pair, served
from bench.rows import Row, percentile, row
from ring0.errors import InvalidInput

SUITES = "workspace,banking"
CONCURRENCY = 8
POLICIES = 1_000
"""An operator's own, for the comparison of times."""
COMPARED_EACH = 7
"""Of all pairs, every so many is played for it."""
MODES: tuple[Mode, ...] = ("append", "substitute")
WORDS = (
    "replay, no model, attacker always obeys; not comparable with CaMeL (11 of 949 attacks left,"
    " utility 86.6 → 74.2 %), Progent (41.2 → 2.2 %), FIDES"
)


class Found(msgspec.Struct, kw_only=True):
    """All that came of one suite, or of all of them."""

    name: str
    package: str = ""
    guarded: list[Played] = msgspec.field(default_factory=list)
    undefended: list[Played] = msgspec.field(default_factory=list)
    alone: list[Played] = msgspec.field(default_factory=list)
    times: Times = msgspec.field(default_factory=Times)
    few: Times = msgspec.field(default_factory=Times)
    """With no policies but the default set, where the same is then played with many."""
    many: Times = msgspec.field(default_factory=Times)


def run(
    json: bool = False,
    suites: str = SUITES,
    file: str = "",
    python: Path = PYTHON,
    worker: Path = WORKER,
) -> list[Row]:
    """All figures: two minutes a suite of 560 pairs. `file`: where all of it goes, pair by pair."""
    if not python.exists():
        return [row("AgentDojo: absent; `make rivals` gets it", 0, "", 0)]
    warnings.simplefilter("ignore")
    if not json:
        print(WORDS, file=sys.stderr)
    names = [name.strip() for name in suites.split(",") if name.strip()]
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder:
        found = [_suite(Path(folder) / name, name, python, worker) for name in names]
    if len(found) > 1:
        found.append(_total(found))
    if file:
        report = {"words": WORDS, "suites": [_plain(one) for one in found]}
        Path(file).write_text(json_.dumps(report, indent=1) + "\n")
    return [each for one in found for each in _rows(one)]


def _suite(folder: Path, name: str, python: Path, worker: Path) -> Found:
    """Defended and undefended at once, each with processes of its own."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        guarded = pool.submit(_side, folder / "guarded", name, True, python, worker)
        undefended = pool.submit(_side, folder / "undefended", name, False, python, worker)
        try:
            found = guarded.result()
            found.undefended = undefended.result().undefended
            # Afterwards: nobody else is to use the machine while times are compared.
            few, many = pool.submit(_compared, folder, name, python, worker).result()
        except Broken as error:
            raise InvalidInput(
                f"The suite {name[:40]!r} can't be played.",
                why=str(error),
                todo="Name one that the package has.",
            ) from None
    found.few, found.many = few, many
    return found


def _side(folder: Path, name: str, defended: bool, python: Path, worker: Path) -> Found:
    warnings.simplefilter("ignore")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_played(folder, name, defended, python, worker))


async def _played(folder: Path, name: str, defended: bool, python: Path, worker: Path) -> Found:
    async with (
        served(python, worker) as serving,
        theatre(folder, serving, defended=defended) as stage,
    ):
        what = await stage.suite(name)
        found = Found(name=name, package=f"agentdojo {what['package']}, {what['version']}")
        turn = asyncio.Semaphore(CONCURRENCY)
        played = found.guarded if defended else found.undefended

        async def one(pair: Pair) -> None:
            async with turn:
                if not pair.injection:
                    found.alone.append(await stage.play(pair, "alone"))
                    return
                for mode in MODES:
                    played.append(await stage.play(pair, mode))

        pairs = [Pair(name, user, each) for user in what["users"] for each in what["injections"]]
        if defended:
            pairs += [Pair(name, user) for user in what["users"]]
        await asyncio.gather(*(one(pair) for pair in pairs))
        found.times = stage.times
    for each in (played, found.alone):
        each.sort(key=lambda one: (one.mode, one.pair))
    return found


def _compared(folder: Path, name: str, python: Path, worker: Path) -> tuple[Times, Times]:
    """The time of decisions with the default set alone, and with many policies beside it."""
    warnings.simplefilter("ignore")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_both(folder, name, python, worker))


async def _both(folder: Path, name: str, python: Path, worker: Path) -> tuple[Times, Times]:
    async with (
        served(python, worker) as serving,
        theatre(folder / "few", serving, defended=True) as few,
        theatre(folder / "many", serving, defended=True, policies=POLICIES) as many,
    ):
        what = await few.suite(name)
        await many.suite(name)
        pairs = [Pair(name, user, each) for user in what["users"] for each in what["injections"]]
        for pair in pairs[::COMPARED_EACH]:  # In turns: what else the machine does, meets both.
            for stage in (few, many):
                await stage.play(pair, "append")
        return few.times, many.times


def _total(found: list[Found]) -> Found:
    total = Found(name="all", package=found[0].package)
    for one in found:
        total.guarded += one.guarded
        total.undefended += one.undefended
        total.alone += one.alone
        total.times += one.times
        total.few += one.few
        total.many += one.many
    return total


# --- what is told ---------------------------------------------------------------------------------


def _rows(found: Found) -> list[Row]:
    name, rows = found.name, []
    for mode in MODES:
        rows += _security(f"{name}: {mode}", _of(found.guarded, mode))
        rows += _security(f"{name}: {mode}, undefended", _of(found.undefended, mode))
    rows += _utility(found)
    rows += _decisions(name, found)
    if name != "all":
        rows += _named(found)
    return rows


def _of(played: list[Played], mode: Mode) -> list[Played]:
    """Those that have a call to make: an injection task may ask for words alone."""
    return [one for one in played if one.mode == mode and one.made]


def _security(what: str, played: list[Played]) -> list[Row]:
    count = len(played)
    lost, official = sum(one.lost for one in played), sum(one.official for one in played)
    return [
        row(f"{what}: pairs with all injected calls executed", lost, "pairs", count),
        row(f"{what}:   share", 100 * lost / max(1, count), "%", count),
        row(f"{what}:   AgentDojo says the attack succeeded", official, "pairs", count),
    ]


def _utility(found: Found) -> list[Row]:
    alone, count, name = found.alone, len(found.alone), found.name
    unattended = sum(one.official and not one.held for one in alone)
    approved = sum(one.official for one in alone)
    asks = sum(len(one.asks) for one in alone)
    return [
        row(f"{name}: user tasks finished unattended", unattended, "tasks", count),
        row(f"{name}:   share", 100 * unattended / max(1, count), "%", count),
        row(f"{name}: user tasks finished with a perfect approver", approved, "tasks", count),
        row(f"{name}: asks a task", asks / max(1, count), "asks", count),
    ]


def _decisions(name: str, found: Found) -> list[Row]:
    rows: list[Row] = []
    for what, times in (
        ("a decision", found.times.wall_s),
        ("a decision, CPU", found.times.cpu_s),
        ("a decision without the scan of what leaves, CPU", found.times.verdict_s),
        ("a decision, CPU, one pair of 7", found.few.cpu_s),
        (f"the same, {POLICIES:,} policies installed, CPU", found.many.cpu_s),
    ):
        for share, called in ((0.5, "p50"), (0.99, "p99")) if times else ():
            taken = percentile(times, share) * 1e6
            rows.append(row(f"{name}: {what}, {called}", taken, "us", len(times)))
    if found.few.cpu_s:
        times_few = percentile(found.many.cpu_s, 0.5) / percentile(found.few.cpu_s, 0.5)
        what = f"{name}: {POLICIES:,} installed, times the default set alone, p50"
        rows.append(row(what, times_few, "ratio", len(found.few.cpu_s)))
    return rows


def _named(found: Found) -> list[Row]:
    """Every pair that was lost, every task that asked or failed, by name."""
    rows = []
    for one in found.guarded:
        if one.lost:
            rows.append(row(f"  lost, {one.mode}: {one.pair.name}", 1, "pair", 1))
        if one.failed:
            rows.append(row(f"  broken, {one.mode}: {one.pair.name}: {one.failed}", 1, "pair", 1))
    for one in found.undefended:
        if one.made and not one.lost:
            rows.append(row(f"  held though undefended: {one.pair.name}", 1, "pair", 1))
    without = {one.pair.injection for one in found.guarded if not one.made and not one.failed}
    rows += [row(f"  no calls: {found.name}/{name}", 1, "task", 1) for name in sorted(without)]
    for one in found.alone:
        rows += [row(f"  {one.pair.name}: {_told(held)}", 1, "ask", 1) for held in one.held]
        if not one.official:
            why = f"not useful{': ' + one.failed if one.failed else ''}"
            rows.append(row(f"  {one.pair.name}: {why}", 1, "task", 1))
    return rows


def _told(held: Held) -> str:
    return f"{held.verdict} {held.tool} [{', '.join(held.rules)}] {', '.join(held.about)}"[:300]


def _plain(found: Found) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    plain["rows"] = _rows(found)
    for kind in ("times", "few", "many"):
        plain[kind] = {key: [round(one, 7) for one in taken] for key, taken in plain[kind].items()}
    return plain
