"""What must hold after the kills, from the journal and from the ledgers outside it; the table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from desk_world import CALM_S, ROUNDS, Desks

from ring0 import limits
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.store.events import decode_entry
from ring0.store.sqlite import SqliteStore, open_store
from ring0.types import Call, CallState, Effect, MemoryKind, Run, RunState, Scope

LATE_US = int(CALM_S * 1_000_000)


class Sums:
    """Of one world."""

    def __init__(self) -> None:
        self.runs = self.calls = self.effects = self.unknown = 0
        self.lost = self.stuck = self.twice = self.late = 0


async def check(desks: Desks) -> Sums:
    """Every promise; what is broken is in `desks.problems`."""
    sums, problems = Sums(), desks.problems
    store = open_store(desks.home, Runtime(), write=False)
    runs = await store.runs(most=10_000)
    sums.runs = len(runs)
    sums.stuck = sum("stuck" in problem for problem in problems)
    lost = desks.acknowledged - {run.id for run in runs}
    sums.lost = len(lost)
    problems += [f"lost: {run}" for run in lost]
    entries = Counter(desks.entries())
    twice = [entry for entry, times in entries.items() if times > 1]
    sums.twice = len(twice)
    problems += [f"an effect stands twice: {entry}" for entry in twice]
    calls = {run.id: await store.calls(run.id) for run in runs}
    sums.calls = sum(len(of_run) for of_run in calls.values())
    desks.store = store
    once = [
        call
        for some in calls.values()
        for call in some
        if call.effect is Effect.ONCE and call.state is not CallState.REFUSED
    ]
    sums.effects = len(once)
    entry_of = {call.id: await desks.entry_of(call) for call in once}
    done = _effects(desks, once, entry_of)
    problems += [f"nobody did it: {entry}" for entry in entries.keys() - done]
    for run in runs:
        problems += await _run(store, run, done)
    _cut_offs(desks, store, entry_of, sums)
    report = await verify(store)
    problems += [f"verify: {one}" for one in report.problems]
    left = [*await store.sandboxes_alive(), *await store.sandboxes_parked()]
    problems += [f"a sandbox is left: {one.id} {one.purpose}" for one in left]
    problems += [f"a lock is left: {one.resource}" for one in await store.locks()]
    await store.close()
    return sums


def _effects(desks: Desks, once: Sequence[Call], entry_of: dict[str, str]) -> dict[str, bool]:
    """The `once` calls against the ledgers: what stands there is what the journal says."""
    entries, done = set(desks.entries()), {}
    for call in once:
        entry = entry_of[call.id]
        done[entry] = entry in entries
        if done[entry] != (call.state is CallState.OK):
            desks.problems.append(f"{call.id} ({entry}) is {call.state}, outside: {done[entry]}")
    return done


async def _run(store: SqliteStore, run: Run, done: dict[str, bool]) -> list[str]:
    """One run: it is done, and its result and files are what an undisturbed one has."""
    if run.state is not RunState.DONE:
        why = (await store.blob(run.result)).decode() if run.result else ""
        return [f"{run.id} ({run.agent}) is {run.state}: {why[:300]}"]
    result = json.loads(await store.blob(run.result))["value"]
    files = {file.path: await store.blob(file.blob) for file in await store.files(run.id)}
    task = (await store.blob(run.task)).decode()
    if run.agent == "helper":
        told, wanted = result, [f"{task}-helped"]
        right = files == {"mine.md": str(told).encode()}
    else:
        name = json.loads(task)["name"]
        told = result["done"]
        wanted = [f"{name}-{n}-{what}" for n in range(ROUNDS) for what in ("bank", "post")]
        wanted.append(f"{name}-signed")
        notes = {f"notes/{name}-{n}.md": note for n, note in enumerate(result["notes"])}
        right = files == {path: note.encode() for path, note in notes.items()}
        heard = ["from the operator", {"from": name, "done": result["helped"]}]
        said = sorted(json.dumps(one, sort_keys=True) for one in heard)
        right = right and result["said"] == said
        problems = await _window(store, run, result["sets"])
        if problems:
            return problems
    expected = [one if done.get(one) else f"{one}: not done" for one in wanted]
    if told != expected or not right:
        return [f"{run.id} ({run.agent}) came to {result}, with {sorted(files)}; {expected}"]
    return []


async def _window(store: SqliteStore, run: Run, sets: list[str]) -> list[str]:
    """Its compactions: each once, one range behind the other, each with its summary; and of what
    the working set was, nothing is lost."""
    entries = [entry async for entry in store.entries(run.id)]
    ranges = [e.body for e in entries if isinstance(e.body, ev.WindowCompacted)]
    begins = [1, *(one.upto_seq + 1 for one in ranges)]
    window, working = await store.window(run.id), await store.working(run.id)
    scope = Scope(tenant=run.tenant, principal=run.principal, agent=run.agent, run=run.id)
    summaries = await store.records(scope, kinds=(MemoryKind.SUMMARY,))
    wrong = [one.from_seq for one, begin in zip(ranges, begins, strict=False)
             if one.from_seq != begin]  # fmt: skip
    if len(ranges) != ROUNDS or wrong or len(summaries) != ROUNDS:
        return [f"{run.id} was compacted {len(ranges)} times, with {len(summaries)} summaries"]
    if window is None or working is None or window.upto_seq != ranges[-1].upto_seq:
        return [f"{run.id} has lost its window"]
    if [step.status for step in working[0].plan] != ["done"] * ROUNDS:
        return [f"{run.id} has lost what is done: {working[0].plan}"]
    lost = [n for n, told in enumerate(sets, 1) if told.count("[done]") != n]
    return [f"{run.id}: the working set after compaction {n} is another" for n in lost]


def _cut_offs(desks: Desks, store: SqliteStore, entry_of: dict[str, str], sums: Sums) -> None:
    """Calls became unknown where a kill met them between intent and outcome, and nowhere else;
    and from then on nothing of them came out any more."""
    reached_us, unknown = dict(desks.http.entries), []
    for *_, body in store.stored():
        entry = decode_entry(body)
        if isinstance(entry.body, ev.CallCutOff):
            unknown.append(entry.body.call)
            came_us = reached_us.get(entry_of[entry.body.call], 0)
            if came_us > entry.at_us + LATE_US:
                sums.late += 1
                desks.problems.append(f"a late effect: {entry.body.call}")
    sums.unknown = len(unknown)
    if sorted(unknown) != sorted(desks.cut_off):
        desks.problems.append(
            f"unknown are {sorted(unknown)}; an intent and no outcome had {sorted(desks.cut_off)}"
        )


def table(worlds: Sequence[tuple[Desks, Sums]]) -> str:
    """The figures of all worlds, as the page of the scheduler asks for them."""
    kills = [kill for desks, _ in worlds for kill in desks.kills]
    takeovers = sorted(us for desks, _ in worlds for us in desks.takeovers_us)

    def total(name: str) -> int:
        return sum(getattr(sums, name) for _, sums in worlds)

    at_points = Counter(kill for kill in kills if kill)
    rows = [
        ("kill -9 at named points", f"{at_points.total()} at {len(at_points)} points"),
        ("kill -9 at random", str(len(kills) - at_points.total())),
        ("runs, calls", f"{total('runs')}, {total('calls')}"),
        ("`once` effects", str(total("effects"))),
        ("lost", str(total("lost"))),
        ("stuck", str(total("stuck"))),
        ("`once` twice", str(total("twice"))),
        ("late effects", str(total("late"))),
        (
            "`unknown`; kills between intent and outcome",
            f"{total('unknown')}; {sum(len(desks.cut_off) for desks, _ in worlds)}",
        ),
    ]
    if takeovers:
        middle, last = takeovers[len(takeovers) // 2], takeovers[-1]
        words = f"p50 {middle / 1e6:.1f} s, longest {last / 1e6:.1f} s"
        words += f" (2 x lease: {2 * limits.LEASE_S} s)"
        rows.append(("from a death to the next kernel at work", words))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {figure}" for name, figure in rows)
