"""`ring0 bench tamper`: is a journal that somebody changed found out by a verifier that isn't ours?

A kernel runs agents; its signed checkpoints go to a file. Then, 2,000 times from a seed, whoever
owns the machine changes the journal in one of 16 ways, in a copy of the database itself, and makes
it agree with itself again: leaf hashes, tree, size. Go's x/mod/sumdb (`note`, `tlog`) gets the
entries and the checkpoints that were kept, and nothing of ring0. Beside it: `audit verify
--log-only` with the same, and without any checkpoint, as a hash chain would stand. The control
changes what was written after the last checkpoint: nobody can find that, and the row says so. Go
comes with `make proof`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from bench import outside
from bench.rows import Row, row
from bench.tamperings import KINDS, Case, World, after_the_last, untouched
from ring0 import Context, agent, tool
from ring0.observability.proof import checkpoints, logs, proofs
from ring0.observability.proof.anchors import Anchors, read_notes
from ring0.observability.proof.notes import open_note, read_key
from ring0.sdk.embedded import embedded
from ring0.store import merkle
from ring0.store.sqlite import sql

SEED = 2_026
TRIALS = 2_000
CONTROLS = 200
RUNS = 12
SUMDB = "Go's x/mod/sumdb"


def run() -> list[Row]:
    """All figures. Takes a minute."""
    with tempfile.TemporaryDirectory() as folder:
        world = asyncio.run(_world(Path(folder)))
        return _rows(world)


def _rows(world: World) -> list[Row]:
    chance = random.Random(SEED)
    names = list(KINDS)
    kinds = [names[number % len(names)] for number in range(TRIALS)]
    cases = [_stored(world, KINDS[kind](world, chance)) for kind in kinds]
    control = [_stored(world, after_the_last(world, chance)) for _ in range(CONTROLS)]
    rows = [
        row("journal: entries, all", len(world.log), "entries", 1),
        row(
            "journal: entries under a kept checkpoint", world.anchored, "entries", len(world.notes)
        ),
    ]
    program = outside.build()
    if program is None:
        rows.append(row(f" {SUMDB}: absent, `make proof` installs it", 0, "", 0))
    else:
        good = list(outside.answers(program, [_question(world, untouched(world))]))
        assert good == ["ok"], f"the journal as it was written is refused: {good}"
        asked = [_question(world, case) for case in cases + control]
        said = [answer.startswith("found") for answer in outside.answers(program, asked)]
        rows += _counted("found by x/mod/sumdb", kinds, said[:TRIALS], SUMDB)
        rows.append(_control("x/mod/sumdb", said[TRIALS:], SUMDB))
    own = [_own(world, case) for case in cases]
    rows.append(row("found by ring0 audit verify, log", sum(own), "found", TRIALS, SUMDB))
    alone = [_own(world, case._replace(notes=[])) for case in cases]
    rows.append(row("found without any checkpoint", sum(alone), "found", TRIALS, "the floor"))
    return [*rows, _control("ring0", [_own(world, case) for case in control], "")]


def _counted(name: str, kinds: Sequence[str], said: Sequence[bool], rival: str) -> list[Row]:
    found, tried = Counter[str](), Counter(kinds)
    for kind, is_found in zip(kinds, said, strict=True):
        found[kind] += is_found
    each = [row(f"  {kind}", found[kind], "found", tried[kind], rival) for kind in tried]
    lines = [
        {**one, "name": f"{one['name']}: {found[k]} of {tried[k]}"}
        for one, k in zip(each, tried, strict=True)
    ]
    return [row(name, sum(said), "found", len(said), rival), *lines]  # type: ignore[list-item]


def _control(by: str, said: Sequence[bool], rival: str) -> Row:
    return row(
        f"control, after the last checkpoint: found by {by}", sum(said), "found", len(said), rival
    )


# --- the journal ----------------------------------------------------------------------------------


@tool(effect="pure")
def look_up(name: str) -> str:
    """A tool that only reads."""
    return f"{name} owes 120 EUR"


@agent(tools=[look_up])
async def clerk(context: Context, task: str) -> str:
    """An agent that calls its tool a few times."""
    told = [await context.tool("look_up", name=f"{task} {number}") for number in range(3)]
    return "; ".join(map(str, told))


async def _world(folder: Path) -> World:
    kept = folder / "kept"
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "ring0.toml").write_text(f'[[checkpoints]]\nfile = "{kept}"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with embedded(home, {}) as ring:
            for number in range(RUNS):
                await ring.run(clerk, f"customer {number}")
                await ring.kernel.anchoring.anchor()
            key = (await ring.kernel.store.settings())["signer"].value
    connection = apsw.Connection(str(home / "journal.db"), flags=apsw.SQLITE_OPEN_READONLY)
    log = [(str(r), int(s), bytes(b)) for _, r, s, _, b in connection.execute(sql.ALL_EVENTS)]
    connection.close()
    # The last ones were never kept: what came after those that were is the control.
    sized = {
        checkpoints.read_text(open_note(n, [read_key(key)]).text).size: n for n in read_notes(kept)
    }
    sizes = sorted(size for size in sized if size <= len(log) * 5 // 6)
    return World(home / "journal.db", log, [sized[size] for size in sizes], key, sizes[-1])


def _stored(world: World, case: Case) -> Case:
    """The case as it comes back from a database that was made to agree with it."""
    database, source = apsw.Connection(":memory:"), apsw.Connection(str(world.journal))
    with database.backup("main", source, "main") as backup:
        backup.step(-1)
    source.close()
    database.execute("DROP TRIGGER event_is_kept; DROP TRIGGER event_stays; DELETE FROM event")
    tree, seen = merkle.Tree(), set()
    for index, (run_id, seq, body) in enumerate(case.log):
        while (run_id, seq) in seen:
            seq += 1
        seen.add((run_id, seq))
        leaf = merkle.leaf_hash(body)
        tree.append(leaf)
        database.execute(sql.ADD_EVENT, (index, run_id, seq, leaf, body))
    database.execute(sql.MOVE_TREE, (tree.size, b"".join(tree.peaks), 0))
    log = [(str(r), int(s), bytes(b)) for _, r, s, _, b in database.execute(sql.ALL_EVENTS)]
    database.close()
    return case._replace(log=log)


def _question(world: World, case: Case) -> dict[str, Any]:
    entries = [base64.b64encode(body).decode() for _, _, body in case.log]
    return {
        "key": world.key,
        "anchors": case.notes,
        "entries": entries,
        "receipts": case.receipts,
    }


def _own(world: World, case: Case) -> bool:
    """Whether `audit verify` finds it."""
    rows = ((i, merkle.leaf_hash(b), b) for i, (_, _, b) in enumerate(case.log))
    if not logs.check_log(rows, Anchors(case.notes, [read_key(world.key)])).ok:
        return True
    for one in case.receipts if case.notes else ():
        proof = tuple(base64.b64decode(step) for step in one["proof"])
        receipt = checkpoints.Receipt(index=one["index"], proof=proof, note=one["note"])
        try:
            entry = base64.b64decode(one["entry"])
            checkpoints.check_receipt(receipt, entry, [read_key(world.key)])
        except proofs.ProofWrong:
            return True
    return False
