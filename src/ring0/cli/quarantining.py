"""`quarantine`: shows what may come of a source, and revokes it; lifts that again.

Not here: how it is found and what is revoked (kernel/lineage/).
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ring0.cli import output
from ring0.cli.labels import print_reached
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Note, Place, place_of, work
from ring0.errors import Interrupted, InvalidInput
from ring0.kernel.agent import manifests


def add_to(app: typer.Typer) -> None:
    app.command("quarantine")(quarantine)


def quarantine(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="[SOURCE]",
            help="A result `crm.query@r-…/0/3`, a tool, a file, a URL, `hook NAME`, `run r-…`:"
            " `ring0 labels` prints them. Without one: what is quarantined.",
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it without being asked.")] = False,
    kill: Annotated[
        bool, typer.Option("--kill", help="End the runs that saw it, and don't just pause them.")
    ] = False,
    lift: Annotated[
        bool, typer.Option("--lift", help="Let what came of it be recalled again.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Take a source out: no memory of it is recalled, asks that rest on it are revoked, runs that
    saw it are paused."""
    if lift and (kill or not source):
        raise InvalidInput(
            "--lift takes a source, and ends nothing.", todo="`ring0 quarantine SOURCE --lift`"
        )
    if not source:
        _print_held(place_of(context), as_json)
        return
    place = place_of(context, write=True)
    if lift:
        row = work(lambda: _ask(place, "quarantine-lift", {"source": source, "note": note}))
        if as_json:
            output.print_json({"lifted": row})
        else:
            console().print(text((line(source, 160), "bold"), " is not quarantined any more."))
        return
    if not yes:
        _confirm(place, source, kill=kill, as_json=as_json)
    asked = {"source": source, "kill": kill, "note": note}
    done = work(lambda: _ask(place, "quarantine", asked))
    if as_json:
        output.print_json(done)
    else:
        _print_done(source, done)


async def _ask(place: Place, verb: str, body: dict[str, Any]) -> Any:
    async with operating(place) as operator:
        return await operator.ask(verb, body)


def _confirm(place: Place, source: str, *, kill: bool, as_json: bool) -> None:
    """Shows what may come of it, and asks. Where nobody can be asked, it ends with nothing done;
    raises Interrupted for any answer but yes."""
    from ring0.kernel.lineage.reaching import reached

    async def look() -> Any:
        tenant = manifests.read_config(place.home).tenant
        async with place.reading() as store:
            return await reached(store, place.runtime, tenant, source)

    found = work(look)
    if as_json:
        output.print_json({"found": found, "done": False})
        raise typer.Exit(0)
    print_reached(found)
    stopped = "ended" if kill else "paused"
    live = output.count(len(found.live), "run")
    asks = output.count(len(found.pending), "ask")
    console().print(
        text(f"{live} would be {stopped}, {asks} revoked, and no memory of it recalled.")
    )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        console().print(text(("Nothing was done: give --yes to do it.", "bold")))
        raise typer.Exit(2)
    console().print("Quarantine it? Type yes: ", end="")
    if sys.stdin.readline().strip().lower() != "yes":
        raise Interrupted("Nothing was done.", todo="Nothing.")


def _print_done(source: str, done: dict[str, Any]) -> None:
    out = console()
    out.print(text((line(source, 160), "bold"), " is quarantined."))
    seen = done["found"].get("runs", {})
    if seen:
        out.print(text(f"  {output.count(len(seen), 'run')} saw it; no memory of it is recalled"))
    else:
        out.print("  nothing on record came from it: it counts for what comes from now on")
        hint = "`ring0 labels RUN` prints sources; an ingested file is `document:ID`"
        out.print(text((f"  {hint} (`ring0 memory documents`)", "dim")))
    for key in ("paused", "killed", "revoked"):
        for name in done.get(key, ()):
            out.print(text(f"  {key}  ", (name, "bold")))
    if seen:
        out.print(text(("  what it did to the world stays: `ring0 undo RUN`", "dim")))


def _print_held(place: Place, as_json: bool) -> None:
    async def read() -> Any:
        async with place.reading() as store:
            return await store.quarantines()

    rows = work(read)
    if as_json:
        output.print_json({"quarantined": rows})
        return
    if not rows:
        console().print("Nothing is quarantined.")
        return
    console().print(
        output.table(
            ("SOURCE", "RUNS", "BY", "SINCE (UTC)", "NOTE"),
            [
                (line(row.source, 160), str(len(row.runs)), row.by, output.moment(row.at_us),
                 line(row.note))
                for row in rows
            ],
        )
    )  # fmt: skip
