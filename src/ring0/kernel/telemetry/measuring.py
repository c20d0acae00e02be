"""The numbers of one kernel: how things stand, and what happened since it came to work.

What needs a person is a number of its own: the oldest ask, the fullest budget, the checkpoint's
age, the disk's room. docs/prometheus-rules.yml makes alerts of these. No label names a run.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from ring0 import __version__, limits
from ring0.kernel.telemetry.exporting import Exporting
from ring0.kernel.telemetry.watching import Watching
from ring0.observability.proof import anchors
from ring0.observability.proof.checkpoints import said_in
from ring0.observability.proof.notes import NoteWrong
from ring0.observability.telemetry import prometheus
from ring0.observability.telemetry.counting import Counts
from ring0.observability.telemetry.prometheus import Family
from ring0.store.sqlite import RESERVE
from ring0.store.sqlite.opening import JOURNAL
from ring0.types import LIVE, ApprovalState, RunState

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


class Measures:
    """Of one kernel at work. `begin` it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._counts = Counts(kernel.store)
        self.exporting: Exporting | None = None
        """What sends its spans, where anything does."""
        self.watching: Watching | None = None
        """What looks after its log, in a daemon."""

    async def begin(self) -> None:
        await self._counts.begin()

    async def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        left = await self._counts.read()
        families = [
            *await self._runs(),
            *await self._asks(),
            *await self._storage(),
            *await self._sent(),
            *(self.watching.families() if self.watching is not None else ()),
            *self._counts.families,
            _one("ring0_metrics_left_entries", "Entries that are not counted yet.", left),
        ]
        info = Family(name="ring0_info", help="Which ring0 this is.")
        info.set(1, version=__version__)
        return prometheus.text([info, *families])

    async def _runs(self) -> list[Family]:
        store, most = self._kernel.store, limits.METRICS_RUNS_LOOKED_AT_MAX
        rows = await store.runs(states=LIVE, most=most)
        states, waits = (
            Family(name="ring0_runs", help="Runs that have not ended, by state."),
            (Family(name="ring0_runs_waiting", help="Runs that wait, by what they wait for.")),
        )
        counted = Counter(row.state for row in rows)
        for state in sorted(LIVE):
            states.set(counted[state], state=str(state))
        for reason, count in Counter(
            row.waiting_for for row in rows if row.state is RunState.WAITING
        ).items():
            waits.set(count, reason=reason)
        used = Family(
            name="ring0_budget_used_ratio_max",
            help="Of the run that has used most of its budget: what part of it.",
        )
        for resource, share in (
            ("calls", [row.calls_used / row.budget.calls for row in rows]),
            ("tokens", [row.tokens_used / row.budget.tokens for row in rows if row.budget.tokens]),
            (
                "cost",
                [
                    row.cost_used_microusd / row.budget.cost_microusd
                    for row in rows
                    if row.budget.cost_microusd
                ],
            ),
        ):
            used.set(round(max(share, default=0.0), 4), resource=resource)
        paused = sum(bool(row.paused_by) for row in rows)
        lost = len(self._kernel.runs.not_recovered)
        return [
            states,
            waits,
            used,
            _one("ring0_runs_paused", "Runs that somebody or something has paused.", paused),
            _one("ring0_runs_not_recovered", "Runs that could not go on.", lost),
        ]

    async def _asks(self) -> list[Family]:
        now_us = self._kernel.runtime.now_us()
        rows = await self._kernel.store.approvals(states=[ApprovalState.PENDING])
        pending = [row for row in rows if row.expires_us > now_us]
        oldest = max((now_us - row.asked_us for row in pending), default=0)
        soonest = min((row.expires_us - now_us for row in pending), default=0)
        failing = len(self._kernel.notifying.failing)
        return [
            _one("ring0_approvals_pending", "Asks that wait for a person.", len(pending)),
            _one("ring0_approval_oldest_seconds", "How long the oldest waits.", oldest / 1e6),
            _one(
                "ring0_approval_expires_seconds",
                "When the first of them expires; 0: none waits.",
                soonest / 1e6,
            ),
            _one("ring0_notify_failing", "Places that can't be told of asks.", failing),
        ]

    async def _storage(self) -> list[Family]:
        home, head = self._kernel.home, await self._kernel.store.head()
        disk = os.statvfs(home)
        size = _size(home / JOURNAL) + _size(home / f"{JOURNAL}-wal")
        age, behind = self._checkpoint(head.size)
        return [
            _one("ring0_journal_entries", "Entries of the journal.", head.size),
            _one("ring0_journal_size_bytes", "What the journal takes of the disk.", size),
            _one("ring0_disk_free_bytes", "Room on its disk.", disk.f_bavail * disk.f_frsize),
            _one("ring0_disk_size_bytes", "Size of its disk.", disk.f_blocks * disk.f_frsize),
            _one(
                "ring0_disk_full",
                "1: there is no room, only kills and ends are taken.",
                int(not (home / RESERVE).exists()),
            ),
            _one(
                "ring0_checkpoint_behind_entries",
                "Entries that no signed checkpoint vouches for.",
                behind,
            ),
            _one(
                "ring0_checkpoint_age_seconds",
                "How old the newest checkpoint is where there are such entries, else 0.",
                age,
            ),
        ]

    def _checkpoint(self, size: int) -> tuple[float, int]:
        """Age in seconds and entries behind it. Where there is none, all of the journal is, and as
        long as it goes back."""
        home, now_s = self._kernel.home, self._kernel.runtime.now_us() / 1e6
        try:
            signed = said_in(anchors.newest_note(home)).size
            at_s = (home / anchors.NEWEST).stat().st_mtime
        except (NoteWrong, OSError):
            first = self._kernel.store.stored_after(-1, 1)
            return (now_s - first[0][2].at_us / 1e6 if first else 0.0), size
        behind = max(0, size - signed)
        return (max(0.0, now_s - at_s) if behind else 0.0), behind

    async def _sent(self) -> list[Family]:
        if self.exporting is None:
            return []
        delivery = self.exporting.delivery
        spans = Family(name="ring0_otlp_spans_total", help="Spans, by result.", kind="counter")
        spans.set(delivery.sent, result="sent")
        spans.set(delivery.refused, result="refused")
        late, failing = await self.exporting.late(), int(bool(delivery.failing))
        return [
            spans,
            _one("ring0_otlp_late_entries", "Entries whose spans are not sent yet.", late),
            _one("ring0_otlp_failing", "1: the receiver takes nothing.", failing),
        ]


def _one(name: str, help_: str, value: float) -> Family:
    family = Family(name=name, help=help_)
    family.set(value)
    return family


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
