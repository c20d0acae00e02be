"""From a journal to a cassette, and from a cassette to what a strict replay takes.

A cassette holds what a replay needs and what tells it apart: entries, outcomes, tasks, results,
arguments, code. Not the evidence of verdicts, not memory, not workspaces: replays read none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from ring0 import __version__, limits
from ring0.errors import (
    CassetteInvalid,
    InvalidInput,
    NotFound,
    Ring0Error,
    StoreDamaged,
    ValueArchived,
)
from ring0.kernel.agent import agents, manifests, offered
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.folder import SNAPSHOTS
from ring0.kernel.replaying import cassette as tape
from ring0.kernel.replaying.cassette import Cassette, Head, Placed, RecordedRun, RecordedTool
from ring0.kernel.replaying.recorded import CassetteStore, KeptTool, Recorded
from ring0.kernel.trees import beneath
from ring0.observability.proof.proofs import inclusion
from ring0.observability.proof.tiles import Tiles
from ring0.runtime import Runtime
from ring0.store import address
from ring0.store import events as ev
from ring0.store.events import decode_entry
from ring0.store.merkle import Tree, leaf_hash
from ring0.store.sqlite import SqliteStore
from ring0.tools.registry import Tool, digest
from ring0.types import ENDED, CallKind, Mode, Run

_EVENTS: Final = (ev.CallRefused, ev.CallIntended, ev.CallCopied)


class Exported(msgspec.Struct, frozen=True):
    """A cassette as it is written, and what to say of it."""

    data: bytes
    runs: int
    events: int
    size: int
    root: str
    changed: tuple[str, ...] = ()
    """Tools that are no more what they were when the run called them."""


async def export(home: Path, store: SqliteStore, runtime: Runtime, row: Run) -> Exported:
    """A run and all beneath it. Raises InvalidInput, StoreDamaged, CassetteInvalid."""
    rows = await _tree(store, row)
    config = manifests.read_config(home)
    runs, changed = [], set()
    for one in rows:
        family = await agents.family_of(store, one.id)
        tools = _tools(family, one.agent_digest, runtime, home)
        changed |= await _changed(store, one, {digest(tool.manifest) for tool in tools})
        key = await store.run_key(one.id)
        models = tuple(sorted(config.models))
        runs.append(RecordedRun(run=one.id, key=key.hex(), tools=tools, models=models))
    placed, size, root = _placed(store, {one.id for one in rows})
    head = Head(
        run=row.id,
        runs=tuple(runs),
        version=__version__,
        written_us=runtime.now_us(),
        size=size,
        root=root,
    )
    values = await _values(store, {one.run: bytes.fromhex(one.key) for one in runs}, placed)
    code = list(_code(home, {one.agent_digest for one in rows if one.mode is Mode.ISOLATED}))
    data = b"".join(tape.written(head, placed, values.items(), code))
    return Exported(data, len(rows), len(placed), size, root, tuple(sorted(changed)))


async def _tree(store: SqliteStore, row: Run) -> list[Run]:
    """The run and all beneath it. Raises InvalidInput where one goes on."""
    found = await beneath(store, row, limits.CASSETTE_RUNS_MAX)
    if len(found) > limits.CASSETTE_RUNS_MAX:
        raise CassetteInvalid(
            "The run is too large for a cassette.",
            why=f"More than {limits.CASSETTE_RUNS_MAX:,} runs are beneath it.",
            todo="Export one of those by itself.",
        )
    for one in found:
        if one.state not in ENDED:
            raise InvalidInput(
                f"{one.id} goes on: it is {one.state}.",
                why="A cassette holds what has ended.",
                todo="Wait for its end, or `ring0 kill` it.",
            )
        if one.erased:
            raise InvalidInput(
                f"{one.id} was erased: no cassette can be made of it.",
                why="What it was asked and told is gone for good (`ring0 audit erase`, or what it"
                " held was forgotten).",
                todo="Its events stay: `ring0 show`, `ring0 audit verify`. A cassette that was made"
                " before goes on replaying.",
            )
    return found


def _tools(family: Family, code: str, runtime: Runtime, home: Path) -> tuple[RecordedTool, ...]:
    """The tools of its manifest, as far as they can still be made, one after the other."""
    found = [
        RecordedTool(manifest=msgspec.structs.replace(one, code_digest=code))
        for one in family.manifest.functions
    ]
    for instance, config in family.manifest.tools.items():
        alone = msgspec.structs.replace(family.manifest, tools={instance: config})
        try:
            made = offered.built_in_with_bare(alone, runtime, home)
        except Ring0Error:  # Its database or its server's pin is gone.
            continue
        found += [RecordedTool(manifest=manifest, bare=bare) for manifest, bare in made]
    return tuple(found)


async def _changed(store: SqliteStore, row: Run, known: set[str]) -> set[str]:
    """Names of tools that the run called, and that are not known any more as they were."""
    return {
        call.name
        for call in await store.calls(row.id)
        if call.kind is CallKind.TOOL and call.tool_digest and call.tool_digest not in known
        and row.mode is Mode.ISOLATED
    }  # fmt: skip


def _placed(store: SqliteStore, runs: set[str]) -> tuple[list[Placed], int, str]:
    """The entries of these runs with their proofs, and the log's size and root."""
    leaves: list[bytes] = []
    found: list[tuple[int, bytes]] = []
    tree = Tree()
    for index, run, _, leaf, body in store.stored():
        leaves.append(leaf)
        tree.append(leaf)
        if run in runs:
            if leaf_hash(body) != leaf:
                raise StoreDamaged(
                    f"Event {index} is not what was written.",
                    todo="`ring0 audit verify` names what else was changed.",
                )
            found.append((index, body))
    nodes = Tiles(lambda begin, end: leaves[begin:end]).nodes
    placed = [
        Placed(index=index, proof=tuple(inclusion(nodes, index, tree.size)), body=body)
        for index, body in found
    ]
    return placed, tree.size, tree.root().hex()


async def _values(
    store: SqliteStore, keys: dict[str, bytes], placed: list[Placed]
) -> dict[str, bytes]:
    """The values that a replay reads, each under its address. What was erased is left out."""
    found: dict[str, bytes] = {}
    for one in placed:
        entry = decode_entry(one.body)
        for where in tape.read_by_replays(entry):
            if where and where not in found:
                try:
                    value = await store.blob(where)
                except ValueArchived:
                    raise
                except StoreDamaged:
                    continue
                # What is kept in parts has an address of another kind; replays read none of it.
                if any(address(key, value) == where for key in (keys[entry.run], b"")):
                    found[where] = value
    return found


def _code(home: Path, digests: set[str]) -> Iterator[tuple[str, str, bytes]]:
    for named in sorted(digests):
        place = home / SNAPSHOTS / named
        if not place.is_dir():
            raise StoreDamaged(
                f"The code of the run ({named[:12]}) is gone.",
                why="Its snapshot was removed.",
                todo=f"Put back {place}.",
            )
        for path in sorted(place.rglob("*")):
            if path.is_file():
                yield named, str(path.relative_to(place)), path.read_bytes()


# --- from a cassette -----------------------------------------------------------------------------


def runs_in(cassette: Cassette) -> list[str]:
    """Its runs, the one that was exported first."""
    others = [one.run for one in cassette.head.runs if one.run != cassette.head.run]
    return [cassette.head.run, *others]


async def recorded(
    cassette: Cassette, run: str, folder: Path, code: Agent | None = None
) -> Recorded:
    """What a strict replay of one of its runs takes. `folder`: an empty one that its code is laid
    into; `code`: other code in place of that. Raises CassetteInvalid, NotFound."""
    store = CassetteStore(cassette)
    row = await store.run(run)
    if row is None:
        raise NotFound(f"There is no run {run[:40]!r} in the cassette.", todo="Name one that is.")
    family = await agents.family_of(store.as_store(), run)
    if code is None:
        agent = _laid_out(cassette, row, family, folder)
    else:
        agent = Agent(family, code.digest, code=code.code, functions=code.functions)
    said = cassette.of(run)
    tools: list[Tool] = [KeptTool(one.manifest, one.bare) for one in said.tools]
    if not tools and code is not None:
        tools = [KeptTool(one) for one in family.manifest.functions]
    return Recorded(
        row,
        bytes.fromhex(said.key),
        agent,
        tools,
        await store.calls(run),
        store.as_store(),
        frozenset(said.models),
    )


def _laid_out(cassette: Cassette, row: Run, family: Family, folder: Path) -> Agent:
    """Its code as a folder, checked against the digest that its first event names."""
    if row.mode is not Mode.ISOLATED:
        raise CassetteInvalid(
            f"{row.id} was embedded in another program.",
            why="Its code is that program's, and is not in the cassette.",
            todo="Give the agent: `ring0_replay(cassette, agent=…)` in a test of that program.",
        )
    files = cassette.code.get(row.agent_digest, {})
    if agents.digest(family.manifest, files) != row.agent_digest:
        raise CassetteInvalid(
            "The cassette can't be used.",
            why=f"The code in it is not what {row.id} ran.",
            todo="Have it exported again.",
        )
    return agents.laid_out(family, row.agent_digest, files, folder)
