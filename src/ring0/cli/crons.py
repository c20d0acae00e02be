"""`cron add | list | remove | pause | resume | run`: agents that start at times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ring0.cli import lengths, output
from ring0.cli.orders import (
    Anew,
    Manifest,
    OrderName,
    Priority,
    agent,
    change,
    code_now,
    only_one,
)
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Note, Place, place_of, work
from ring0.errors import InvalidInput
from ring0.gateway.holding import supervisor
from ring0.types import Cron, Missed, Overlap, Schedule


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Start agents at times, while `ring0 serve` is at work.",
    )
    for name, verb in (
        ("add", add),
        ("list", list_crons),
        ("remove", remove),
        ("pause", pause),
        ("resume", resume),
        ("run", run_now),
    ):
        group.command(name)(verb)
    app.add_typer(group, name="cron")


def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar='["MIN HOUR DAY MONTH WEEKDAY"] FILE.py[:FUNCTION] TASK',
            help="When (or --every, --at), the agent, and the task of each run.",
        ),
    ],
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="So often: 30s, 10m, 1h, 1d.")
    ] = "",
    at: Annotated[
        str, typer.Option("--at", metavar="MOMENT", help="Once: 2026-12-01T10:00Z.")
    ] = "",
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Of the schedule: Europe/Berlin.")
    ] = "UTC",
    missed: Annotated[
        Missed | None,
        typer.Option(
            "--missed",
            show_default=False,
            help="What becomes of moments when no daemon was at work: they are left out (skip), get"
            " one run (once; so for --at), or one each (all).",
        ),
    ] = None,
    overlap: Annotated[
        Overlap | None,
        typer.Option(
            "--overlap",
            show_default=False,
            help="While the run before goes on, the next is left out (skip), or waits (queue).",
        ),
    ] = None,
    manifest: Manifest = None,
    priority: Priority = None,
    force: Anew = False,
    as_json: Json = False,
) -> None:
    """Start an agent at times. Its code and its manifest are kept as they are now."""
    from ring0.gateway.ordering import SetCron
    from ring0.scheduler.timetable import Timetable

    place = place_of(context, write=True)
    if len(words) not in (2, 3):
        raise InvalidInput(
            "There is a word too many, or too few.",
            why="An expression is one word: it stands in quotes.",
            todo='`ring0 cron add NAME "*/5 * * * *" FILE.py "task"`.',
        )
    expression = words[0] if len(words) == 3 else ""
    schedule = _schedule(expression, every, at, timezone, place)
    described, told = agent(name, words[-2], words[-1], manifest, priority, anew=force)
    wanted = SetCron(
        told=told,
        agent=described,
        schedule=schedule,
        missed=missed or (Missed.ONCE if at else Missed.SKIP),
        overlap=overlap or (Overlap.QUEUE if missed is Missed.ALL else Overlap.SKIP),
    )
    made = work(lambda: change(place, wanted))
    next_us = Timetable(schedule, made["set_us"]).next_us(made["done_us"])
    if as_json:
        output.print_json({**made, "next_us": next_us})
        return
    console().print(text((name, "bold"), f"  {_when(schedule)}  next {output.moment(next_us)} UTC"))
    if supervisor(place.home) is None:
        console().print(text(("It starts nothing until `ring0 serve` is at work.", "yellow")))


def _schedule(expression: str, every: str, at: str, timezone: str, place: Place) -> Schedule:
    from ring0.scheduler.timetable import Timetable, zone

    which = only_one(expression=expression, every=every, at=at)
    if which == "every":
        every_s = lengths.seconds(every)
        if every_s is None:
            raise InvalidInput(f"--every {every[:40]!r} is no time.", todo="Write it like 10m.")
        schedule = Schedule(every_s=every_s)
    elif which == "at":
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            raise InvalidInput(
                f"--at {at[:40]!r} is no moment.", todo="Write it like 2026-12-01T10:00Z."
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone(timezone))
        schedule = Schedule(at_us=int(moment.astimezone(UTC).timestamp() * 1_000_000))
    else:
        schedule = Schedule(expression=" ".join(expression.split()), timezone=timezone)
    Timetable(schedule, place.runtime.now_us())  # Before anything is started for it.
    return schedule


def _when(schedule: Schedule) -> str:
    if schedule.every_s:
        return f"every {schedule.every_s} s"
    if schedule.at_us:
        return f"at {output.moment(schedule.at_us)} UTC"
    return f"{schedule.expression}  {schedule.timezone}"


def list_crons(context: typer.Context, as_json: Json = False) -> None:
    """Show them: when, the last run, what was left out, and whether the files have changed."""
    place = place_of(context)
    found = work(lambda: _list(place))
    if as_json:
        output.print_json(found)
        return
    if not found:
        console().print("There are no crons: `ring0 cron add` makes one.")
        return
    rows = [
        (
            row["name"],
            row["when"],
            _next(row),
            row["agent"],
            row["code"],
            row["principal"],
            row["last_run"] or "-",
            line(row["skipped"] or "-", 60),
        )
        for row in found
    ]
    columns = ("CRON", "WHEN", "NEXT (UTC)", "AGENT", "CODE", "FOR", "LAST RUN", "LEFT OUT")
    console().print(output.table(columns, rows))
    if any(row["code"] != "as given" for row in found):
        hint = (
            "What runs is the code as it was given; `ring0 cron add NAME … --force` takes the new."
        )
        console().print(text((hint, "dim")))


def _next(row: dict[str, Any]) -> str:
    if row["paused_by"]:
        return f"paused by {row['paused_by']}"
    return output.moment(row["next_us"]) if row["next_us"] else "over"


async def _list(place: Place) -> list[dict[str, Any]]:
    if place.is_new:
        return []
    async with place.reading() as store:
        return [
            {
                **output.builtins(cron),
                "paused_by": cron.paused_by,
                "last_run": cron.last_run,
                "skipped": cron.skipped,
                "when": _when(cron.schedule),
                "next_us": _next_us(cron, place),
                "code": await code_now(place, store, cron),
            }
            for cron in await store.crons()
        ]


def _next_us(cron: Cron, place: Place) -> int:
    from ring0.scheduler.timetable import Timetable

    try:
        timetable = Timetable(cron.schedule, cron.set_us)
    except InvalidInput:  # Its time zone is not known here any more.
        return 0
    return timetable.next_us(max(cron.done_us, place.runtime.now_us()))


def remove(context: typer.Context, name: OrderName) -> None:
    """Take one away. Runs that it has started go on."""
    from ring0.gateway.ordering import Remove

    place = place_of(context, write=True)
    work(lambda: change(place, Remove(order="cron", name=name)))
    console().print(text((name, "bold"), " is removed"))


def pause(context: typer.Context, name: OrderName, note: Note = "") -> None:
    """Let one start nothing until it is resumed."""
    from ring0.gateway.ordering import Pause

    place = place_of(context, write=True)
    work(lambda: change(place, Pause(order="cron", name=name, note=note)))
    console().print(text((name, "bold"), " is paused"))


def resume(context: typer.Context, name: OrderName) -> None:
    """Let one that is paused start runs again; moments that have passed were missed."""
    from ring0.gateway.ordering import Resume

    place = place_of(context, write=True)
    work(lambda: change(place, Resume(order="cron", name=name)))
    console().print(text((name, "bold"), " is resumed"))


def run_now(context: typer.Context, name: OrderName, as_json: Json = False) -> None:
    """Start a run of one now, beside those that are due. Prints the run's id."""
    from ring0.gateway.ordering import RunNow

    place = place_of(context, write=True)
    run = work(lambda: change(place, RunNow(name=name)))
    if as_json:
        output.print_json({"run": run["id"]})
    else:
        console().print(run["id"])
