"""`top`: what goes on right now, again and again: runs, slots, queues, locks, spend.

Read from the journal; what is only in the memory of the kernel at work is asked of its socket.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ring0 import limits
from ring0.cli import listing, output
from ring0.cli.listing import Listed
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.errors import InvalidInput
from ring0.gateway.holding import holder, supervisor
from ring0.kernel.folder import LOCK
from ring0.store.sqlite import SqliteStore
from ring0.types import LIVE, Lock


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    at_us: int
    events: int
    """In the journal."""
    events_per_s: float
    """Since the look before."""
    spent_microusd: int
    """By the runs that go on, with what is reserved for them."""
    kernel: int | None
    """The process at work on the folder."""
    daemon: int | None
    runs: tuple[Listed, ...]
    locks: tuple[Lock, ...]
    load: dict[str, Any] | None
    """What the kernel holds in memory (`Kernel.load`); None where none is at work or it does not
    answer."""
    why_no_load: str = ""
    observed: bool = False
    """The profile asks nobody."""

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = output.builtins(self)
        return {**found, "runs": [listed.as_dict() for listed in self.runs]}


def add_to(app: typer.Typer) -> None:
    app.command("top")(top)


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: Json = False,
) -> None:
    """Show what goes on, as it goes on: runs as trees, slots, queues, locks. `q` ends it."""
    place = place_of(context)
    if as_json:
        output.print_json(work(lambda: _once(place)).as_dict())
    elif once:
        seen = work(lambda: _once(place))
        console().print(draw(seen, limits.TOP_RUNS_SHOWN_MAX))
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput(
            "There is no terminal to show it in.", todo="`ring0 top --once`, or `--json`."
        )
    else:
        work(lambda: _live(place))


async def _once(place: Place) -> Seen:
    async with place.reading() as store:
        first = await look(place, store, None)
        await place.runtime.sleep(limits.BEAT_S)  # Else there is nothing to tell a rate from.
        return await look(place, store, first)


async def look(place: Place, store: SqliteStore, before: Seen | None) -> Seen:
    """What goes on now."""
    now_us = place.runtime.now_us()
    rows = await store.runs(states=LIVE, most=limits.TOP_RUNS_SHOWN_MAX)
    events = (await store.head()).size
    kernel = holder(place.home / LOCK)
    load, why = await listing.load(place) if kernel is not None else (None, "")
    passed_s = (now_us - before.at_us) / 1_000_000 if before is not None else 0
    return Seen(
        at_us=now_us,
        events=events,
        events_per_s=(events - before.events) / passed_s if before and passed_s > 0 else 0.0,
        spent_microusd=sum(row.cost_used_microusd for row in rows if not row.parent),
        kernel=kernel,
        daemon=supervisor(place.home),
        runs=tuple(await listing.of(store, rows, load)),
        locks=tuple(await store.locks()),
        load=load,
        why_no_load=why,
        observed=await listing.observes(store),
    )


async def _live(place: Place) -> None:
    out = console()
    with _keys() as quits:
        async with place.reading() as store:
            seen = await look(place, store, None)
            with Live(console=out, screen=True, auto_refresh=False) as live:
                while not quits.is_set():
                    live.update(draw(seen, max(5, out.height - 12)), refresh=True)
                    try:
                        await place.runtime.wait_for(quits.wait(), limits.TOP_REFRESH_S)
                    except TimeoutError:
                        seen = await look(place, store, seen)


@contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """Set once `q` is typed. The terminal is as it was afterwards."""
    quits, descriptor = asyncio.Event(), sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    was = termios.tcgetattr(descriptor)

    def typed() -> None:
        keys = os.read(descriptor, 64)
        if not keys or b"q" in keys.lower():
            quits.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, typed)
    try:
        yield quits
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, was)


# --- drawing ---------------------------------------------------------------------------------


def draw(seen: Seen, rows_max: int) -> RenderableType:
    """All of it; of the runs at most so many."""
    parts: list[RenderableType] = [_head(seen), *_resources(seen), *_locks(seen)]
    if seen.observed:
        parts.insert(1, text((listing.OBSERVED, "bold yellow")))
    if seen.runs:
        parts += [Text(), _runs(seen, rows_max)]
    if (more := len(seen.runs) - rows_max) > 0:
        parts.append(text((f"{more} more: `ring0 ps`", "dim")))
    return Group(*parts)


def _head(seen: Seen) -> Text:
    states = Counter(
        f"{one.run.state} {one.run.waiting_for}".strip() for one in seen.runs
    ).most_common()
    runs = ", ".join(f"{count} {word}" for word, count in states) or "no run goes on"
    if seen.daemon is not None:
        who = f"daemon {seen.daemon}, worker {seen.kernel or 'is being started'}"
    elif seen.kernel is not None:
        who = f"kernel {seen.kernel}"
    else:
        who = "no kernel is at work"
    return text(
        (output.moment(seen.at_us), "dim"),
        f"  {who}  ",
        (runs, "bold"),
        f"  {seen.events_per_s:,.0f} events/s of {seen.events:,}"
        f"  {output.money(seen.spent_microusd)} spent or reserved",
    )


def _resources(seen: Seen) -> list[RenderableType]:
    if seen.load is None:
        return [text((line(seen.why_no_load), "yellow"))] if seen.why_no_load else []
    rows = [
        (
            str(found["name"]),
            f"{found['in_use']} of {found['size']}",
            str(sum(found["by_tenant"].values())),
            output.lasted(0, found["oldest_us"]) if found["oldest_us"] else "",
            ", ".join(f"{name} {count}" for name, count in sorted(found["by_tenant"].items())),
            ", ".join(f"{name}: {count}" for name, count in sorted(found["by_class"].items())),
        )
        for found in seen.load.get("resources", ())
    ]
    heads = ("SLOTS", "IN USE", "QUEUED", "OLDEST", "OF TENANT", "OF PRIORITY")
    return [Text(), output.table(heads, rows)] if rows else []


def _locks(seen: Seen) -> list[RenderableType]:
    waiting: dict[str, list[str]] = {}
    for ask in (seen.load or {}).get("lock_waits", ()):
        for name in ask["resources"]:
            waiting.setdefault(str(name), []).append(str(ask["run"]))
    held: dict[str, list[Lock]] = {}
    for lock in seen.locks:
        if lock.expires_us > seen.at_us:
            held.setdefault(lock.resource, []).append(lock)
    rows = [
        (
            name,
            ", ".join(f"{lock.run} ({lock.mode})" for lock in held.get(name, ())),
            ", ".join(output.lasted(seen.at_us, lock.expires_us) for lock in held.get(name, ())),
            ", ".join(waiting.get(name, ())),
        )
        for name in sorted({*held, *waiting})
    ]
    return [Text(), output.table(("LOCK", "HELD BY", "FOR", "WAITED FOR BY"), rows)] if rows else []


def _runs(seen: Seen, rows_max: int) -> RenderableType:
    return output.table(
        ("RUN", "STATE", "PRIO", "AGENT", "CALLS", "COST", "AGE", "TASK"),
        [
            (
                one.branch + one.run.id,
                listing.state(one, seen.at_us),
                str(one.run.priority),
                one.run.agent,
                f"{one.run.calls_used} of {one.run.budget.calls}",
                output.money(one.run.cost_used_microusd),
                output.lasted(one.run.started_us, seen.at_us),
                line(one.task, 40),
            )
            for one in seen.runs[:rows_max]
        ],
    )
