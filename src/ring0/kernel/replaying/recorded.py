"""What a strict replay has of one run: its row, calls, tools and code, out of a journal or a
cassette. Nothing here goes on: whatever asks for more than is on record hears so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

from msgspec.structs import replace

from ring0.errors import CassetteInvalid, StoreDamaged
from ring0.kernel.agent.agents import Agent
from ring0.kernel.replaying.cassette import Cassette
from ring0.kernel.replaying.folding import fold
from ring0.store import Store
from ring0.store import events as ev
from ring0.store.events import Entry
from ring0.tools.recorded import KeptDriver
from ring0.tools.registry import Tool, digest
from ring0.types import Call, Run, ToolManifest


class Recorded:
    """One run as it was."""

    def __init__(
        self,
        row: Run,
        key: bytes,
        agent: Agent,
        tools: list[Tool],
        records: list[Call],
        store: Store,
        models: frozenset[str] = frozenset(),
    ) -> None:
        self.row = row
        self.key = key
        self.agent = agent
        self.tools = tools
        self.records = records
        self.store = store
        self.models = models


class KeptTool(Tool):
    """Its schema is not compiled: arguments that are on record fitted then, and it may come out of
    a file from a stranger."""

    def __init__(self, manifest: ToolManifest, bare: str = "") -> None:
        self.driver = KeptDriver(manifest, bare)
        self.manifest = manifest
        self.digest = digest(manifest)

    def validate(self, args: Any) -> dict[str, Any]:
        return args if isinstance(args, dict) else {}


def folded(entries: Iterable[Entry]) -> tuple[Run, list[Call]]:
    """The row of a run and its calls, as its own events make them. Raises CassetteInvalid."""
    row: Run | None = None
    calls: dict[str, Call] = {}
    for entry in entries:
        body = entry.body
        if row is None:
            if not isinstance(body, ev.RunQueued) or body.run.id != entry.run:
                raise _impossible(entry, "it does not begin with its start")
            row = body.run
            continue
        row = _moved(row, entry)
        try:
            fold(calls, entry)
        except KeyError:
            raise _impossible(entry, "it is about a call that never was") from None
    if row is None:
        raise CassetteInvalid("The cassette can't be used.", why="A run has no events.")
    return row, sorted(calls.values(), key=lambda call: call.seq)


def _moved(row: Run, entry: Entry) -> Run:
    match entry.body:
        case ev.RunMoved(state=state, epoch=epoch):
            return replace(row, state=state, epoch=epoch or row.epoch)
        case ev.RunEnded(state=state, result=result, epoch=epoch):
            return replace(row, state=state, result=result, epoch=epoch, ended_us=entry.at_us)
        case ev.BudgetRaised(wall_s=wall_s):
            budget = replace(row.budget, wall_s=row.budget.wall_s + wall_s)
            return replace(row, budget=budget)
    return row


def _impossible(entry: Entry, why: str) -> CassetteInvalid:
    return CassetteInvalid(
        "The cassette can't be used.",
        why=f"{entry.run[:40]} #{entry.seq}: {why}.",
        todo="Have it exported again.",
    )


class CassetteStore:
    """What a strict replay reads of a store. It writes nothing; so here nothing can be written."""

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette
        self._folded = {run: folded(found) for run, found in cassette.entries.items()}

    def as_store(self) -> Store:
        return cast(Store, self)

    async def flush(self) -> None:
        """All of it is here."""

    async def run(self, run: str) -> Run | None:
        found = self._folded.get(run)
        return found[0] if found else None

    async def calls(self, run: str) -> list[Call]:
        return self._folded[run][1]

    async def run_key(self, run: str) -> bytes:
        return bytes.fromhex(self._cassette.of(run).key)

    async def blob(self, address: str) -> bytes:
        try:
            return self._cassette.blobs[address]
        except KeyError:
            raise StoreDamaged(
                f"The value {address[:16]}… is not in the cassette.",
                why="It was erased before the run was exported.",
                todo="Nothing can be replayed that needs it.",
            ) from None

    async def entries(self, run: str = "") -> AsyncIterator[Entry]:
        for entry in self._cassette.entries[run]:
            yield entry

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a strict replay asked a cassette for {name!r}")
