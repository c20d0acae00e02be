"""Runs in a list, as `ps` and `top` show them: children beneath their parents, what each waits for.

Not here: one run with its calls (tree.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from rich.text import Text

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import text
from ring0.cli.place import Place
from ring0.errors import Ring0Error
from ring0.kernel.agent.observing import OBSERVED as OBSERVED
from ring0.store import events as ev
from ring0.store.events import decode_entry
from ring0.store.sqlite import SqliteStore
from ring0.types import LIVE, Run, RunState

STUCK_CHARS: Final = 60
STUCK_MAX: Final = 20
"""Runs that could not go on and are told of in full."""
STYLES: Final = {
    RunState.DONE: "green",
    RunState.FAILED: "red",
    RunState.CANCELLED: "red",
    RunState.WAITING: "yellow",
    RunState.UNKNOWN: "yellow",
    RunState.RUNNING: "bold",
}


async def observes(store: SqliteStore) -> bool:
    """Whether the profile at work, or the last that was, asks nobody."""
    profile = (await store.settings()).get("profile")
    return profile is not None and profile.value == "observe"


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A run in its place in a list."""

    run: Run
    task: str
    branch: str
    """What is drawn before a child's id."""
    since_us: int
    """When it began to wait; 0: it does not, or it was not looked up."""
    stuck: str = ""
    """Why the kernel at work could not go on with it."""

    def as_dict(self) -> dict[str, Any]:
        """Its row, since when it waits, and why it could not go on."""
        found: dict[str, Any] = output.builtins(self.run)
        return {**found, "waiting_since_us": self.since_us, "could_not_go_on": self.stuck}


async def load(place: Place) -> tuple[dict[str, Any] | None, str]:
    """What the kernel at work holds in memory; or why it does not say."""
    from ring0.gateway import remote as other_end

    try:
        told = await place.runtime.wait_for(
            other_end.remote(place.home, place.runtime, place.environment).load(),
            limits.TOP_REFRESH_S,
        )
    except (Ring0Error, TimeoutError) as error:
        return None, str(error).partition("\n")[0] or "The kernel does not answer."
    return told, ""


async def of(
    store: SqliteStore, rows: Iterable[Run], held: Mapping[str, Any] | None = None
) -> list[Listed]:
    """The rows (newest first) as a list: each tree together, children in the order of their
    start. `held`: what `load` gave."""
    stuck = (held or {}).get("not_recovered", {})
    dated, found = 0, []
    for row, branch in _in_trees(list(rows)):
        since_us = 0
        if row.state is RunState.WAITING and dated < limits.LISTED_DATED_MAX:
            dated += 1
            since_us = _since(store, row)
        task = "" if row.erased else (await store.blob(row.task)).decode()
        why = stuck.get(row.id, "") if row.state in LIVE else ""
        found.append(Listed(run=row, task=task, branch=branch, since_us=since_us, stuck=why))
    return found


def _in_trees(rows: list[Run]) -> list[tuple[Run, str]]:
    known = {row.id for row in rows}
    beneath: dict[str, list[Run]] = {}
    for row in reversed(rows):
        if row.parent in known:
            beneath.setdefault(row.parent, []).append(row)
    found: list[tuple[Run, str]] = []
    # A stack, not a recursion; the last on it is the next.
    left = [(row, "") for row in reversed(rows) if row.parent not in known]
    while left:
        row, branch = left.pop()
        found.append((row, branch))
        deeper = "  " * branch.count(" ") if branch else ""
        children = beneath.get(row.id, ())
        left += [(child, f"{deeper}└ ") for child in reversed(children)]
    return found


def _since(store: SqliteStore, row: Run) -> int:
    since_us, waiting_for = 0, ""
    for _, _, _, _, body in store.stored(row.id):
        entry = decode_entry(body)
        if not isinstance(entry.body, ev.RunMoved):
            continue
        found = entry.body.waiting_for if entry.body.state is RunState.WAITING else ""
        if found != waiting_for:  # The same anew: it was put away meanwhile, and waits on.
            since_us, waiting_for = entry.at_us, found
    return since_us


def state(listed: Listed, now_us: int) -> Text:
    """A run's state in a word, what it waits for and since when, and who paused it; or that it
    could not go on, and why."""
    row = listed.run
    if listed.stuck:
        why = output.line(listed.stuck.partition("\n")[0].removeprefix(row.id).strip(), STUCK_CHARS)
        return text((f"could not go on: {why}", "red"))
    waits = ""
    if row.waiting_for:
        long = f", {output.lasted(listed.since_us, now_us)}" if listed.since_us else ""
        waits = f" ({row.waiting_for}{long})"
    paused = f", paused by {row.paused_by}" if row.paused_by else ""
    return text((f"{row.state}{waits}{paused}", STYLES.get(row.state, "")))
