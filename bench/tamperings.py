"""What somebody who owns the machine does to a journal: the kinds of `ring0 bench tamper`.

Each takes what was written and kept, and a seeded chance, and gives what a verifier is shown.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ring0.observability.proof import checkpoints, proofs
from ring0.observability.proof.notes import sign
from ring0.observability.proof.tiles import root_of
from ring0.store import merkle

Log = list[tuple[str, int, bytes]]
"""(run, seq, exact bytes)."""


class Case(NamedTuple):
    """What the verifier gets."""

    log: Log
    notes: list[str]
    receipts: list[dict[str, Any]]


class World(NamedTuple):
    """A journal that was written, and what was kept of it elsewhere."""

    journal: Path
    log: Log
    notes: list[str]
    key: str
    anchored: int
    """Entries that the last kept checkpoint vouches for."""


def untouched(world: World) -> Case:
    return Case(list(world.log), list(world.notes), [_receipt(world, 3)])


def _changed(world: World, change: Callable[[Log], None]) -> Case:
    case = untouched(world)._replace(receipts=[])
    change(case.log)
    assert case.log[: world.anchored] != world.log[: world.anchored], "nothing was changed"
    return case


def _edited(entry: tuple[str, int, bytes], body: bytes) -> tuple[str, int, bytes]:
    return entry[0], entry[1], body


def _edit(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        at = chance.randrange(world.anchored)
        body = bytearray(log[at][2])
        where = chance.randrange(len(body))
        body[where] = (body[where] + chance.randrange(1, 95) - 32) % 95 + 32
        log[at] = _edited(log[at], bytes(body))
        if log[at] == world.log[at]:
            log[at] = _edited(log[at], bytes(body) + b" ")

    return _changed(world, change)


def _said_otherwise(old: bytes, new: bytes) -> Callable[[World, random.Random], Case]:
    def tamper(world: World, chance: random.Random) -> Case:
        def change(log: Log) -> None:
            there = [at for at in range(world.anchored) if old in log[at][2]]
            at = chance.choice(there)
            log[at] = _edited(log[at], log[at][2].replace(old, new, 1))

        return _changed(world, change)

    return tamper


def _earlier(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        at = chance.randrange(world.anchored)
        entry = json.loads(log[at][2])
        entry["at_us"] -= chance.randrange(1, 10**9)
        log[at] = _edited(log[at], json.dumps(entry, separators=(",", ":")).encode())

    return _changed(world, change)


def _delete(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        at = chance.randrange(world.anchored)
        del log[at : at + chance.randrange(1, 6)]

    return _changed(world, change)


def _swap(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        one, two = chance.sample(range(world.anchored), 2)
        log[one], log[two] = log[two], log[one]

    return _changed(world, change)


def _move(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        at = chance.randrange(world.anchored)
        to = (at + chance.randrange(1, world.anchored)) % world.anchored
        log.insert(to, log.pop(at))

    return _changed(world, change)


def _truncate(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        del log[chance.randrange(world.anchored) :]

    return _changed(world, change)


def _insert(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        at = chance.randrange(world.anchored)
        run_id, seq, body = chance.choice(log)
        log.insert(at, (run_id, seq + 10_000, body.replace(b'"seq":', b'"seq":9')))

    return _changed(world, change)


def _duplicate(world: World, chance: random.Random) -> Case:
    def change(log: Log) -> None:
        at = chance.randrange(world.anchored - 1)
        log.insert(at + 1, log[at])

    return _changed(world, change)


def _another_history(world: World, chance: random.Random) -> Case:
    """From one entry on all is told anew."""

    def change(log: Log) -> None:
        for at in range(chance.randrange(world.anchored), len(log)):
            log[at] = _edited(log[at], log[at][2].replace(b'"at_us":17', b'"at_us":18', 1))

    return _changed(world, change)


def _as_a_node(world: World, chance: random.Random) -> Case:
    """Two neighbours become one entry whose hash poses as their parent."""

    def change(log: Log) -> None:
        at = chance.randrange(0, world.anchored - 1, 2)
        pair = [merkle.leaf_hash(log[at + step][2]) for step in (0, 1)]
        log[at : at + 2] = [_edited(log[at], b"\x01" + b"".join(pair))]

    return _changed(world, change)


def _resign(world: World, chance: random.Random) -> Case:
    """All is rewritten, and its checkpoints are signed by another key of the same name."""
    case = _another_history(world, chance)
    other = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
    hashes = [merkle.leaf_hash(body) for _, _, body in case.log]
    made = []
    for kept in case.notes:
        said = checkpoints.read_text(kept.rpartition("\n\n")[0] + "\n")
        text = checkpoints.Checkpoint(
            origin=said.origin, size=said.size, root=root_of(hashes[: said.size])
        ).text()
        made.append(sign(text, [(said.origin, other)]))
    return case._replace(notes=made)


def _flip(world: World, chance: random.Random) -> Case:
    """One bit of a checkpoint that was kept: of its root or its signature."""
    case = untouched(world)
    at = chance.randrange(len(case.notes))
    lines = case.notes[at].split("\n")
    number = chance.choice((2, 4))
    head, _, encoded = lines[number].rpartition(" ")
    raw = bytearray(base64.b64decode(encoded))
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    lines[number] = f"{head} {base64.b64encode(raw).decode()}".strip()
    case.notes[at] = "\n".join(lines)
    return case


def _other_size(world: World, chance: random.Random) -> Case:
    """A checkpoint is made to speak of a shorter journal, whose root it gives rightly."""
    case = _truncate(world, chance)
    if not case.log:
        case.log.append(world.log[0])
    said = checkpoints.read_text(world.notes[-1].rpartition("\n\n")[0] + "\n")
    root = root_of([merkle.leaf_hash(body) for _, _, body in case.log])
    text = checkpoints.Checkpoint(origin=said.origin, size=len(case.log), root=root).text()
    note = text + "\n" + world.notes[-1].rpartition("\n\n")[2]
    return case._replace(notes=[note])


def _receipt(world: World, index: int) -> dict[str, Any]:
    hashes = [merkle.leaf_hash(body) for _, _, body in world.log[: world.anchored]]
    proof = proofs.inclusion(lambda low, high: root_of(hashes[low:high]), index, world.anchored)
    return {
        "index": index,
        "proof": [base64.b64encode(step).decode() for step in proof],
        "entry": base64.b64encode(world.log[index][2]).decode(),
        "note": world.notes[-1],
    }


def _forged_receipt(world: World, chance: random.Random) -> Case:
    """A receipt is shown for an entry that it is not of."""
    case = untouched(world)
    one = _receipt(world, chance.randrange(world.anchored))
    body = base64.b64decode(one["entry"]).replace(b'"seq":', b'"seq":1', 1)
    one["entry"] = base64.b64encode(body).decode()
    return case._replace(receipts=[one])


def after_the_last(world: World, chance: random.Random) -> Case:
    case = untouched(world)
    at = chance.randrange(world.anchored, len(world.log))
    case.log[at] = _edited(case.log[at], case.log[at][2] + b" ")
    return case


KINDS: dict[str, Callable[[World, random.Random], Case]] = {
    "edit: a character": _edit,
    "edit: another verdict": _said_otherwise(b'"kind":"allow"', b'"kind":"deny"'),
    "edit: another name": _said_otherwise(b"clerk", b"klerk"),
    "edit: an earlier time": _earlier,
    "delete": _delete,
    "swap": _swap,
    "move": _move,
    "truncate": _truncate,
    "insert": _insert,
    "duplicate": _duplicate,
    "another history": _another_history,
    "an entry as a node": _as_a_node,
    "re-sign with another key": _resign,
    "checkpoint: one bit": _flip,
    "checkpoint: another size": _other_size,
    "receipt of another entry": _forged_receipt,
}
