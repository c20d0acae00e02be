"""The journal to the place of `[otlp]`: all of it as it grows, or some runs when somebody asks.

One page of entries is read, its spans are sent, and only when they were taken the cursor moves and
the next page is read: a slow receiver makes it late, and never makes it hold or drop anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import LimitReached, NotFound
from ring0.kernel.agent.config_telemetry import Target
from ring0.kernel.telemetry.cursor import Cursor
from ring0.kernel.telemetry.delivering import Delivery
from ring0.kernel.telemetry.sending import Sender
from ring0.kernel.trees import beneath
from ring0.observability.telemetry.projecting import Projection
from ring0.observability.telemetry.spans import Span
from ring0.runtime import Runtime
from ring0.store import Store, Write
from ring0.store import events as ev
from ring0.types import Frozen, Run

_ITS_OWN: Final = (
    ArithmeticError, AssertionError, LookupError, TypeError, ValueError, msgspec.MsgspecError,
)  # fmt: skip
"""What an entry's own contents can do to who reads them; all else may be over in a while."""


class Exported(Frozen, frozen=True, kw_only=True):
    """What an export came to."""

    runs: int
    spans: int
    refused: int
    """Of the spans, those that the receiver does not take."""
    to: str


class Exporting:
    """Tells one receiver all that the journal says, from where it was left."""

    def __init__(
        self,
        home: Path,
        store: Store,
        runtime: Runtime,
        target: Target,
        sender: Sender,
        projection: Projection,
        say: Callable[[str], None],
    ) -> None:
        """`say`: a line for whoever operates it."""
        self._store = store
        self._runtime = runtime
        self._projection = projection
        self._cursor = Cursor(home, target.name)
        self._say = say
        self._task: asyncio.Task[None] | None = None
        self.name = target.name
        self.delivery = Delivery(sender, runtime, target.name)
        self.delivery.began_to_fail = lambda why: say(
            f"{target.name} does not take spans, and is tried again: {why}"
        )
        self.delivery.left_out = lambda why: say(f"{target.name} will not take {why}")

    def begin(self) -> None:
        self._task = self._runtime.start(self._run(), name="otlp")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def late(self) -> int:
        """Entries that were not told yet."""
        return max(0, (await self._store.head()).size - 1 - self._cursor.index)

    async def _run(self) -> None:
        self._cursor.load(self._store)
        while True:
            try:
                more = await self.step()
            except Exception as error:  # The journal can't be read just now, say: it goes on later.
                self._say(f"spans are not told just now: {type(error).__name__}: {error}"[:300])
                await self._runtime.sleep(limits.OTLP_BACK_S_MAX)
                continue
            if not more:
                await self._runtime.sleep(limits.OTLP_POLL_S)

    async def step(self) -> bool:
        """One page; False where there was none."""
        page = self._store.stored_after(self._cursor.index, limits.OTLP_PAGE_ENTRIES_MAX)
        if not page:
            return False
        spans: list[Span] = []
        for _, _, entry in page:
            spans += await _told(self._projection, entry, self.delivery)
            await self._runtime.sleep(0)  # Whoever works has their turn between any two.
        await self.delivery.deliver(spans)
        index, leaf, _ = page[-1]
        try:
            await self._runtime.in_thread(self._cursor.move, index, leaf)
        except OSError as error:  # What is told twice adds nothing.
            self._say(f"how far spans were sent can't be kept: {error.strerror}")
        return True


async def export(
    store: Store,
    runtime: Runtime,
    target: Target,
    sender: Sender,
    projection: Projection,
    runs: Sequence[str],
    *,
    by: str,
) -> Exported:
    """Sends these runs with all beneath them, and puts it on record. Raises NotFound, LimitReached,
    ToolFailed."""
    rows = [row for run in runs for row in await _tree(store, run)]
    if len(rows) > limits.OTLP_RUNS_MAX:
        raise LimitReached(
            f"These are {len(rows)} runs.",
            why=f"At most {limits.OTLP_RUNS_MAX} are sent in one go.",
            todo="Name fewer; `ring0 serve` with [otlp] sends all of them as they end.",
        )
    delivery = Delivery(sender, runtime, target.name)
    for row in rows:
        page: list[Span] = []
        async for entry in store.entries(row.id):
            page += await _told(projection, entry, delivery)
            await runtime.sleep(0)
            if len(page) >= limits.OTLP_BATCH_SPANS_MAX:
                await delivery.deliver(page, limits.OTLP_TRIES_MAX)
                page = []
        await delivery.deliver(page, limits.OTLP_TRIES_MAX)
    exported = ev.Exported(
        runs=tuple(dict.fromkeys(runs)), spans=delivery.sent, to=target.name, by=by
    )
    await store.append(Write(run=ev.KERNEL, events=[exported], durable=True))
    return Exported(runs=len(rows), spans=delivery.sent, refused=delivery.refused, to=target.name)


async def _told(projection: Projection, entry: ev.Entry, delivery: Delivery) -> list[Span]:
    """An entry's spans. One that can't be told, whatever stands in it, keeps back no other."""
    try:
        return await projection.spans(entry)
    except _ITS_OWN as error:
        delivery.leave_out(f"{entry.run} #{entry.seq}: {type(error).__name__}: {error}"[:300])
        return []


async def _tree(store: Store, run: str) -> list[Run]:
    row = await store.run(run)
    if row is None:
        raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps --all` lists them.")
    return await beneath(store, row, limits.OTLP_RUNS_MAX)
