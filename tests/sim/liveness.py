"""Whether what a run waited for woke it: read from the journal alone.

A run that ends at its deadline while it waited for something that had come long before was asleep.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ring0.store import events as ev
from ring0.types import ApprovalState, Run, RunState

if TYPE_CHECKING:
    from sim.checks import Checks

SLACK_US = 150_000_000
"""A kernel may be dead for a while, a clock may be set forward, a person looks now and then."""


class Liveness:
    """What each run waited for, and when it came."""

    def __init__(self, checks: Checks, runs: dict[str, Run]) -> None:
        self._checks = checks
        self._runs = runs
        self._waits: dict[str, ev.RunMoved] = {}
        self._paused: set[str] = set()
        self._unknown: dict[str, set[str]] = defaultdict(set)
        self._asked: dict[str, set[str]] = defaultdict(set)
        self._messages: dict[str, int] = defaultdict(int)
        """Sent and not received."""
        self._children: dict[str, set[str]] = defaultdict(set)
        self._last_us: dict[str, int] = defaultdict(int)
        """When something came for it, or it moved."""

    def follow(self, entries: list[ev.Entry]) -> None:
        for entry in entries:
            if isinstance(entry.body, ev.RunEnded):
                self._ended(entry)
            else:
                self._learn(entry.run, entry.body, entry.at_us)

    def _learn(self, run: str, body: Any, at_us: int) -> None:
        match body:
            case ev.RunQueued():
                if body.run.parent:
                    self._children[body.run.parent].add(run)
            case ev.RunMoved():
                self._waits[run] = body
            case ev.RunPaused():
                self._paused.add(run)
            case ev.RunResumed():
                self._paused.discard(run)
            case ev.CallCutOff():
                self._unknown[run].add(body.call)
            case ev.CallSettled():
                self._unknown[run].discard(body.call)
            case ev.ApprovalAsked():
                self._asked[run].add(body.approval.id)
            case ev.ApprovalAnswered():
                if body.state is ApprovalState.REVOKED and body.note == "the run has ended":
                    return
                self._asked[run].discard(body.approval)
            case ev.MessageSent():
                self._messages[body.to] += 1
                self._last_us[body.to] = max(at_us, self._last_us[body.to])
            case ev.CallEnded():
                self._messages[run] -= body.received > 0
            case _:
                pass
        self._last_us[run] = max(at_us, self._last_us[run])

    def _ended(self, entry: ev.Entry) -> None:
        row = self._runs[entry.run]
        above = row.parent
        while above:  # That a child ended is news for its parent.
            self._children[above].discard(entry.run)
            self._last_us[above] = max(entry.at_us, self._last_us[above])
            above = self._runs[above].parent
        slept = entry.at_us >= row.deadline_us and entry.body.state is RunState.FAILED  # type: ignore[union-attr]
        wait = self._waits.get(entry.run)
        if not slept or wait is None or wait.state is not RunState.WAITING:
            return
        if entry.run in self._paused or entry.at_us - self._last_us[entry.run] < SLACK_US:
            return
        if self._has_come(entry.run, wait, entry.at_us):
            what = f"{entry.run} waited for {wait.waiting_for} until its deadline"
            self._checks.found("what a run waits for wakes it", what)

    def _has_come(self, run: str, wait: ev.RunMoved, now_us: int) -> bool:
        match wait.waiting_for:
            case "unknown":
                return not self._unknown[run]
            case "approval" | "budget":
                return not self._asked[run]
            case "child":
                return not self._children[run]
            case "message":
                return self._messages[run] > 0
            case "timer":
                return 0 < wait.wake_us < now_us - SLACK_US
            case _:
                return wait.waiting_for == "pause"
