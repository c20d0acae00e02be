"""Whatever a run did, and wherever the kernel died in it or in its undo: undo brings back exactly
what it claims, it does nothing twice, and what it does not claim it tells.

A seed gives a sequence of calls over rows, files, compensable and irreversible functions, and the
moments at which kernels die. RING0_UNDO_SEQUENCES says how many sequences; 8 take some 15 s.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kernel_world import database, rows
from undo_crashes import DIED, Dying, in_child
from undo_world import Books, Desk, desk

from ring0.errors import UndoRefused
from ring0.kernel.undo import planning
from ring0.runtime import Runtime
from ring0.tools.sql import databases
from ring0.tools.sql.sqlite import engine
from ring0.types import LIVE, Call, CallState

SEQUENCES = int(os.environ.get("RING0_UNDO_SEQUENCES", "8"))
TRIES_MAX = 12
PATHS = ("a.txt", "b.txt")
SQL = {
    "update": "UPDATE customer SET name = ? WHERE id = ?",
    "insert": "INSERT INTO customer (name, id) VALUES (?, ?)",
    "delete": "DELETE FROM customer WHERE name <> ? AND id = ?",
}
PURCHASES = "SELECT * FROM purchase ORDER BY id"
WAY_BACK = {"charge": "refund", "book": "unbook"}


def world(folder: Path) -> dict[str, Any]:
    """All rows, by the customer that they hang on."""
    found: dict[str, Any] = {}
    for row in rows(folder / "crm.db"):
        found.setdefault(str(row[0]), []).append(list(row))
    for row in rows(folder / "crm.db", PURCHASES):
        found.setdefault(str(row[2]), []).append(["purchase", *row])
    return found


class Sequence:
    """One run, one undo, and all kernels that die on the way."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.books = Books(folder)
        self.before = folder / "before.json"
        """The rows as they were before the statement that is under way."""
        self.code: Any = None

    def dying(self, most: int) -> Dying:
        alive = self.random.random() < 0.4
        return Dying(after=-1 if alive else self.random.randrange(most))

    # --- the run ------------------------------------------------------------------------------

    def work(self) -> None:
        todo = [self.random.choice(OPERATIONS) for _ in range(self.random.randint(2, 8))]
        drawn = [self.random.randrange(1 << 30) for _ in todo]
        runtime = self.dying(90)

        async def body() -> None:
            async with desk(self.folder, runtime=runtime, act=runtime.act) as d:
                runtime.watched = True
                for number, (operation, draw) in enumerate(zip(todo, drawn, strict=True)):
                    self.before.write_text(json.dumps(world(self.folder)))
                    await operation(d, number, random.Random(draw))
                await d.finish()

        assert in_child(body) in (0, DIED)

    # --- the undo -----------------------------------------------------------------------------

    def undo(self) -> None:
        for attempt in range(TRIES_MAX):
            runtime = self.dying(50) if attempt < TRIES_MAX - 2 else Runtime()

            async def body(runtime: Runtime = runtime) -> None:
                act = getattr(runtime, "act", lambda _: None)
                async with desk(self.folder, runtime=runtime, act=act, start=False) as d:
                    runtime.watched = True  # type: ignore[attr-defined]
                    await self.take_back(d)

            if in_child(body) == 0:
                return
        raise AssertionError("the undo came to no end")

    async def take_back(self, d: Desk) -> None:
        """All that an operator does, until nothing more is to be done."""
        run = await self.run_of(d)
        if run is None:
            return
        if (await d.store.run(run)).state in LIVE:
            await d.kernel.kill("run", run, by="alice")
        self.code = d.code()
        d.kernel.undoing.knows(run, self.code)
        await d.kernel.recover()
        for row in await d.store.runs():
            for call in await d.store.calls(row.id):
                if call.state is CallState.UNKNOWN:
                    happened = await self.happened(d, call)
                    await d.kernel.settle(call.id, happened=happened, by="alice")
        for row in await d.store.runs(states=LIVE):
            await d.kernel.runs.wait(row.id)
        try:
            await d.undo(run=run, code=self.code)
        except UndoRefused:
            # One step is in the way, and it is known before: the others, one by one.
            plan = await d.kernel.plan_undo(run, rehearse=False)
            for step in plan.steps:
                if not step.refused:
                    await d.undo(run=run, only=step.call, code=self.code)

    async def run_of(self, d: Desk) -> str | None:
        return next((r.id for r in await d.store.runs() if r.agent == "clerk"), None)

    async def happened(self, d: Desk, call: Call) -> bool:
        """As a person would see it who looks at the world."""
        if call.name == "crm.execute":
            return world(self.folder) != json.loads(self.before.read_text())
        if call.name == "undo":
            (undone,) = [await d.store.call(call.undoes)]
            evidence = await d.store.blob(undone.undo)
            if planning.evidence_of(evidence) == "file":
                return False  # Files are on record with the outcome, or as they were.
            _, images = databases.read_evidence(evidence)
            path = str(self.folder / "crm.db")
            return engine.state(path, images, is_over=lambda: False) == "not_done"
        return any(line["call"] == call.id for line in self.books.lines())

    # --- what must hold -------------------------------------------------------------------------

    def check(self, initial: dict[str, Any]) -> None:
        async def body() -> None:
            async with desk(self.folder, start=False) as d:
                await self.check_all(d, initial)

        assert in_child(body) == 0, "see above"

    async def check_all(self, d: Desk, initial: dict[str, Any]) -> None:
        run = await self.run_of(d)
        if run is None:
            assert world(self.folder) == initial
            return
        d.kernel.undoing.knows(run, d.code())
        plan = await d.kernel.plan_undo(run)
        told = {left.call for left in plan.left} | {step.call for step in plan.steps}
        assert all(step.refused for step in plan.steps if step.call not in self.not_reached(plan))
        undone, stays = set(), []
        for call in await d.store.calls(run):
            if call.undone_by:
                by = await d.store.call(call.undone_by)
                assert by is not None and by.state is CallState.OK and by.undoes == call.id
                assert call.id not in told, "what was taken back is not told as staying"
                undone.add(call.id)
            elif call.id in told:
                stays.append((call, json.loads(await d.store.blob(call.args))))
        self.check_books(undone, told)
        # Rows and files that nothing has touched but what was taken back are as they were.
        ids = {str(args["parameters"][1]) for c, args in stays if c.name == "crm.execute"}
        now = world(self.folder)
        for key in initial.keys() | now.keys():
            assert key in ids or now.get(key) == initial.get(key), (key, now, initial)
        paths = {args["path"] for c, args in stays if c.name.startswith("files.")}
        assert {file.path for file in await d.store.files(run)} <= paths

    def not_reached(self, plan: Any) -> set[str]:
        """Steps after a refused one of the same kind."""
        ended: set[str] = set()
        found = set()
        for step in plan.steps:
            if step.how in ended:
                found.add(step.call)
            if step.refused:
                ended.add(step.how)
        return found

    def check_books(self, undone: set[str], told: set[str]) -> None:
        lines = self.books.lines()
        back = Counter((line["what"], line.get("order", line.get("seat"))) for line in lines)
        for line in lines:
            way_back = WAY_BACK.get(line["what"])
            if way_back:
                done = back[way_back, line.get("order", line.get("seat"))]
                assert done == (line["call"] in undone), (line, done)
            if way_back or line["what"] == "mail":
                assert (line["call"] in undone) != (line["call"] in told), (line, undone, told)
            assert line["what"] != "mail" or line["call"] not in undone


# --- what a run may do ------------------------------------------------------------------------


async def charge(d: Desk, number: int, rng: random.Random) -> None:
    await d.call("charge", {"order": f"o{number}", "amount": rng.randrange(1, 9)})


async def book(d: Desk, number: int, rng: random.Random) -> None:
    await d.call("book", {"seat": f"s{number}"})


async def mail(d: Desk, number: int, rng: random.Random) -> None:
    await d.call("mail", {"to": f"m{number}"})


async def sql(d: Desk, number: int, rng: random.Random) -> None:
    statement = SQL[rng.choice(sorted(SQL))]
    args = {"statement": statement, "parameters": [f"n{number}", rng.randrange(1, 5)]}
    await d.call("crm.execute", args)


async def write(d: Desk, number: int, rng: random.Random) -> None:
    await d.call("files.write", {"path": rng.choice(PATHS), "text": f"t{number}"})


async def remove(d: Desk, number: int, rng: random.Random) -> None:
    await d.call("files.remove", {"path": rng.choice(PATHS)})


OPERATIONS = (charge, book, mail, sql, sql, sql, write, write, remove)


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_undo_brings_back_exactly_what_it_claims_whatever_died_on_the_way(
    tmp_path: Path, seed: int
) -> None:
    database(tmp_path)
    initial = world(tmp_path)
    one = Sequence(tmp_path, seed)
    one.work()
    one.undo()
    one.check(initial)
