"""How runs end, one and many, and who waits for that.

Whatever way a run ends, it ends in this order: its handle dies, its calls are stopped (each writes
how it ended), its sandboxes are confirmed dead, its children are cancelled, its asks are revoked,
and only then the end is written. From the first step on nobody starts it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ring0 import limits
from ring0.errors import CallDenied, NotFound, Ring0Error
from ring0.kernel import values
from ring0.kernel.calls import requests
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.types import ENDED, LIVE, Approval, ApprovalState, CallState, Run, RunState

if TYPE_CHECKING:
    from ring0.kernel.gate import Gate
    from ring0.kernel.sandboxes import Sandboxes


class Ends:
    """Who waits for the end of a run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiters: dict[str, list[asyncio.Future[Run]]] = {}
        self._kept: dict[str, Ring0Error] = {}
        """What keeps a run from ending here, until it is started again."""

    async def of(self, run: str) -> Run:
        """The run's row once it has ended. Raises NotFound, and what keeps it from ending here."""
        future: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(run, [])
        waiters.append(future)  # Before the row is read: so no end comes in between.
        try:
            row = await self._store.run(run)
            if row is None:
                raise NotFound(f"There is no run {run[:40]!r}.", todo="`ring0 ps` lists them.")
            if row.state in ENDED:
                return row
            if (kept := self._kept.get(run)) is not None:
                raise kept
            return await future
        finally:
            waiters.remove(future)
            if not waiters:
                self._waiters.pop(run, None)

    def ended(self, row: Run) -> None:
        self._kept.pop(row.id, None)
        for future in self._waiters.get(row.id, ()):
            if not future.done():
                future.set_result(row)

    def kept(self, run: str, error: Ring0Error) -> None:
        """It has not ended, and nobody carries it on."""
        self._kept[run] = error
        for future in self._waiters.get(run, ()):
            if not future.done():
                future.set_exception(error)

    def goes_on(self, run: str) -> None:
        """It was started again."""
        self._kept.pop(run, None)


class Ending:
    """Ends the runs of one kernel."""

    def __init__(
        self,
        gate: Gate,
        sandboxes: Sandboxes,
        ends: Ends,
        task_of: Callable[[str], asyncio.Task[None] | None],
        ended: Callable[[Run], None],
        written: Callable[[Run], None],
    ) -> None:
        """`task_of`: what carries a run on here. `ended`: hears whenever an end is found to stand;
        `written`: of each end that this kernel wrote, once."""
        self._gate = gate
        self._store = gate.store
        self._sandboxes = sandboxes
        self._ends = ends
        self._task_of = task_of
        self._ended = ended
        self._written = written
        self._under_way: Counter[str] = Counter()
        self._cancelled: dict[str, str] = {}
        """Runs that are being ended from outside, and by whom."""

    def has_begun(self, run: str) -> bool:
        """It is being ended: nobody may start it any more."""
        return run in self._under_way

    async def end(
        self,
        run: str,
        state: RunState,
        value: Any = None,
        error: Ring0Error | None = None,
        *,
        by: str = "",
        output: bytes = b"",
    ) -> Run:
        """Ends a run and all beneath it. Ending an ended run is nothing."""
        self._under_way[run] += 1
        try:
            return await self._end(run, state, value, error, by, output)
        finally:
            self._under_way[run] -= 1
            self._under_way += Counter()  # Drops what is at zero.

    async def _end(
        self,
        run: str,
        state: RunState,
        value: Any,
        error: Ring0Error | None,
        by: str,
        output: bytes,
    ) -> Run:
        self._gate.handles.kill(run)
        live = self._gate.live.pop(run, None)
        if live is not None:
            await live.stop_calls()
            await live.close_tools()
            how = "Its run ended in the middle of it."
            await requests.end(self._store, live.row, live.records.values(), how)
        await self._sandboxes.end_all(run)
        await self._store.flush()  # What its last calls began to write (a child, an ask) is there.
        while children := await self._store.runs(parent=run, states=LIVE):
            who = by or self._cancelled.get(run) or "its parent ended"
            await asyncio.gather(*(self.cancel(child.id, by=who) for child in children))
            await self._store.flush()
        await self._gate.waiting.revoke(run, by or "kernel")
        await self._store.flush()
        row = await self._store.run(run)
        assert row is not None
        if row.state not in ENDED:
            await self._gate.turns.ended(row.id)
            if (who := self._cancelled.get(run, "")) != "":  # However it went, it was cancelled.
                state, value, error, by = RunState.CANCELLED, None, _cancelled(run, who), who
            elif _left_unknown(await self._store.calls(run)):  # A run's own picture may lag.
                state = RunState.UNKNOWN  # It left an effect behind that nobody knows of.
            row = await self._write(row, state, value, error, by, output)
        self._ended(row)
        self._ends.ended(row)
        return row

    async def cancel(self, run: str, *, by: str) -> None:
        """Ends a run from outside: its process is stopped first, its end says who asked."""
        self._cancelled.setdefault(run, by)
        try:
            row = await self.end(run, RunState.CANCELLED, by=by)
            if (task := self._task_of(run)) is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._ends.ended(row)  # What its task says on its way out keeps nothing.
        finally:
            self._cancelled.pop(run, None)

    # --- many, that are nothing but rows --------------------------------------------------------

    async def end_rows(self, rows: Sequence[Run], *, by: str) -> None:
        """Ends runs that are neither at work nor being started here, those beneath first, many in
        one go of the disk. What was started meanwhile is left as it is."""
        asked: dict[str, list[Approval]] = {}
        for approval in await self._store.approvals(states=[ApprovalState.PENDING]):
            asked.setdefault(approval.run, []).append(approval)
        for depth in sorted({row.depth for row in rows}, reverse=True):
            level = [row for row in rows if row.depth == depth]
            for begin in range(0, len(level), limits.RUNS_LOOKED_AT_ONCE_MAX):
                batch = level[begin : begin + limits.RUNS_LOOKED_AT_ONCE_MAX]
                ended = [self._end_row(row, asked.get(row.id, ()), by) for row in batch]
                await asyncio.gather(*ended)

    async def _end_row(self, row: Run, asked: Iterable[Approval], by: str) -> None:
        self._under_way[row.id] += 1
        try:
            await self._gate.turns.ended(row.id)
            note = "the run has ended"
            state = ApprovalState.REVOKED
            revoked = [
                ev.ApprovalAnswered(approval=one.id, by=by, state=state, note=note) for one in asked
            ]
            error = _cancelled(row.id, by)
            end, blobs = await self._said(row, RunState.CANCELLED, None, error, by, b"")
            guard = base.RunLive(run=row.id, epoch=row.epoch)
            write = Write(
                run=row.id, blobs=blobs, durable=True, guards=[guard], events=[*revoked, end]
            )
            try:
                await self._store.append(write)
            except GuardFailed:
                return
            found = await self._store.run(row.id)
            assert found is not None
            self._gate.spending.ended(found)
            self._written(found)
            self._ended(found)
            self._ends.ended(found)
        finally:
            self._under_way[row.id] -= 1
            self._under_way += Counter()

    # --- the write ----------------------------------------------------------------------------

    async def _write(
        self,
        row: Run,
        state: RunState,
        value: Any,
        error: Ring0Error | None,
        by: str,
        output: bytes,
    ) -> Run:
        end, blobs = await self._said(row, state, value, error, by, output)
        guards: list[base.Guard] = [base.RunLive(run=row.id, epoch=row.epoch)]
        if state is RunState.FAILED:  # What a kill made fail was cancelled.
            guards.append(base.NotKilled(run=row.id))
        self._gate.runtime.reached("run.ends")
        try:
            await self._store.append(
                Write(run=row.id, blobs=blobs, durable=True, guards=guards, events=[end])
            )
            self._gate.runtime.reached("run.ended")
            written = True
        except GuardFailed as failure:
            if isinstance(failure.guard, base.NotKilled):
                by = by or "a kill"
                state, value, error = RunState.CANCELLED, None, _cancelled(row.id, by)
            written = False
            await self._store.flush()  # Somebody else ended it first: its write is on its way.
        found = await self._store.run(row.id)
        assert found is not None
        if written:
            self._gate.spending.ended(found)
            self._written(found)
        if found.state not in ENDED:  # It was started once more before we said that it ends.
            return await self._write(found, state, value, error, by, output)
        return found

    async def _said(
        self,
        row: Run,
        state: RunState,
        value: Any,
        error: Ring0Error | None,
        by: str,
        output: bytes,
    ) -> tuple[ev.RunEnded, dict[str, bytes]]:
        secrets = self._gate.secrets
        body: dict[str, Any] = {"value": secrets.redact(value)[0]}
        if error is not None:
            body = {"error": secrets.redact(error.as_dict())[0]}
        key = await self._store.run_key(row.id)
        stored = values.canonical(body)
        printed = secrets.redact_text(output.decode()).encode()
        end = ev.RunEnded(
            state=state,
            result=address(key, stored),
            epoch=row.epoch + 1,
            output=address(key, printed) if printed else "",
            by=by,
        )
        return end, {address(key, stored): stored, address(key, printed): printed}


def _cancelled(run: str, by: str) -> CallDenied:
    return CallDenied(f"{run} was cancelled.", why=f"By {by}.", todo="Start a new run.")


def _left_unknown(calls: Iterable[Any]) -> bool:
    return any(call.state is CallState.UNKNOWN for call in calls)
