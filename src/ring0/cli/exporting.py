"""`export otlp`: runs to the receiver that ring0.toml names, as a kernel sends them.

Not here: what is sent (observability/telemetry/), and a run to a file (replaying.py).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ring0.cli import output, replaying
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, run_named, work


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Runs, for other tools to read."
    )
    group.command("otlp")(otlp)
    replaying.add_export(group)
    app.add_typer(group, name="export")


def otlp(
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="Ids, their beginnings, or `last`.")
    ],
    as_json: Json = False,
) -> None:
    """Send runs, with all beneath them, as spans to the place of [otlp]. Twice adds nothing."""
    place = place_of(context, write=True)
    done = work(lambda: _send(place, runs))
    if as_json:
        output.print_json(done)
        return
    sent = f"{output.count(done['spans'], 'span')} of {output.count(done['runs'], 'run')}"
    console().print(text((sent, "bold"), f" sent to {line(done['to'], 200)}"))
    if done["refused"]:
        console(error=True).print(
            text((f"{done['refused']} more are not taken there: see its log.", "yellow"))
        )


async def _send(place: Place, names: list[str]) -> dict[str, Any]:
    async with place.reading() as store:
        ids = [(await run_named(store, name)).id for name in names]
    async with operating(place) as operator:
        done: dict[str, Any] = await operator.ask("export-otlp", {"runs": ids})
    return done
