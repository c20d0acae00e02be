"""`ps`, `show`: what is on record, read without a lock beside any kernel."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from ring0 import limits
from ring0.cli import listing, output, tree
from ring0.cli.listing import Listed
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, RunName, place_of, run_named, work
from ring0.gateway.holding import holder
from ring0.kernel.folder import LOCK
from ring0.types import ENDED, LIVE


def add_to(app: typer.Typer) -> None:
    app.command("ps")(ps)
    app.command("show")(show)


def ps(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those that have ended too.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs that go on or wait."""
    place = place_of(context)
    rows, observed = work(lambda: _runs(place, every))
    if as_json:
        runs = [listed.as_dict() for listed in rows]
        output.print_json({"runs": runs, "observed": observed})
        return
    if observed:
        console().print(text((listing.OBSERVED, "bold yellow")))
    if not rows:
        console().print(
            "No run goes on." + ("" if every else " `ring0 ps --all` lists those that ended.")
        )
    else:
        now_us = place.runtime.now_us()
        console().print(
            output.table(
                ("RUN", "STATE", "AGENT", "FOR", "PRIO", "CALLS", "COST", "STARTED (UTC)", "TOOK",
                 "TASK"),
                [_row(listed, now_us) for listed in rows],
            )
        )  # fmt: skip
        for row in [row for row in rows if row.stuck][: listing.STUCK_MAX]:
            console().print(text((row.run.id, "bold"), "  ", line(row.stuck, 400)))
        if any(row.run.state in LIVE for row in rows) and holder(place.home / LOCK) is None:
            console().print(
                "No kernel is at work: they go on with `ring0 serve` or `ring0 recover`."
            )


async def _runs(place: Place, every: bool) -> tuple[list[Listed], bool]:
    async with place.reading() as store:
        rows = await store.runs(states=() if every else LIVE, most=limits.RUNS_LISTED_MAX)
        at_work = any(row.state in LIVE for row in rows) and holder(place.home / LOCK) is not None
        load, _ = await listing.load(place) if at_work else (None, "")
        return await listing.of(store, rows, load), await listing.observes(store)


def _row(listed: Listed, now_us: int) -> tuple[str | Text, ...]:
    row = listed.run
    ends_us = row.ended_us if row.state in ENDED else now_us
    return (
        listed.branch + row.id,
        listing.state(listed, now_us),
        row.agent,
        row.principal,
        str(row.priority),
        str(row.calls_used),
        output.money(row.cost_used_microusd),
        output.moment(row.started_us),
        output.lasted(row.started_us, ends_us),
        line(listed.task, 60),
    )


def show(
    context: typer.Context,
    run: RunName = "last",
    printed: Annotated[bool, typer.Option("--output", help="What its process printed.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Its journal, entry by entry.")] = False,
    times: Annotated[
        bool, typer.Option("--waterfall", help="When each call began and ended.")
    ] = False,
    costs: Annotated[bool, typer.Option("--costs", help="What it spent, and on what.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="Calls of this kind, state or name: model, refused.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a run as a tree: its calls with verdict, rule, label, cost, and its children."""
    place = place_of(context)
    if times or costs:
        work(lambda: _drawn(place, run, times, costs, as_json))
        return
    work(lambda: _show(place, run, printed, events, frozenset(only or ()), as_json))


async def _drawn(place: Place, name: str, times: bool, costs: bool, as_json: bool) -> None:
    from ring0.cli import waterfall

    out = console()
    async with place.reading() as store:
        told = await tree.gather(store, await run_named(store, name))
    now_us = place.runtime.now_us()
    if as_json:
        spent = [
            {"of": of, "calls": calls, "tokens": tokens, "cost_microusd": cost}
            for of, calls, tokens, cost in waterfall.costs(told)
        ]
        rows = [asdict(row) for row in waterfall.rows(told, now_us)]
        output.print_json({"run": told.run.id, "rows": rows, "costs": spent})
        return
    if times:
        for drawn in waterfall.draw(told, now_us, output.columns_of(out)):
            out.print(drawn, soft_wrap=True)
    if costs:
        out.print(
            output.table(
                ("OF", "CALLS", "TOKENS", "COST"),
                [
                    (of, f"{calls:,}", f"{tokens:,}", output.money(cost))
                    for of, calls, tokens, cost in waterfall.costs(told)
                ],
            )
        )


async def _show(
    place: Place, name: str, printed: bool, events: bool, only: frozenset[str], as_json: bool
) -> None:
    out = console()
    async with place.reading() as store:
        row = await run_named(store, name)
        if printed:
            said = await tree.printed(store, row)
            if as_json:
                output.print_json({"run": row.id, **said})
            else:
                for stream in ("stdout", "stderr"):
                    out.print(text(said[stream]), soft_wrap=True, end="")
        elif events:
            entries = [entry async for entry in store.entries(row.id)]
            if as_json:
                output.print_json({"run": row.id, "events": entries})
            else:
                out.print(
                    output.table(
                        ("SEQ", "TIME (UTC)", "EVENT", "WHAT"),
                        [tree.entry_row(entry) for entry in entries],
                    )
                )
        else:
            told = tree.narrowed(await tree.gather(store, row), only)
            if as_json:
                output.print_json(told.as_dict())
            else:
                out.print(tree.draw(told, place.runtime.now_us()))
