"""`pause`, `resume`, `send`: what an operator does to a run that goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from ring0.cli import output
from ring0.cli.operating import operating, run_id
from ring0.cli.output import console, text
from ring0.cli.place import Json, Note, RunName, place_of, work

Tree = Annotated[bool, typer.Option("--tree", help="All runs beneath it too.")]


def add_to(app: typer.Typer) -> None:
    for name, verb in (("pause", pause), ("resume", resume), ("send", send)):
        app.command(name)(verb)


def pause(
    context: typer.Context,
    run: RunName,
    tree: Tree = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let a run make no further call; the one under way ends, and all other runs go on."""
    place = place_of(context, write=True)

    async def stop() -> list[str]:
        target = await run_id(place, run)
        async with operating(place) as operator:
            return await operator.pause(target, tree=tree, note=note)

    _print(work(stop), "paused", as_json)


def resume(context: typer.Context, run: RunName, tree: Tree = False, as_json: Json = False) -> None:
    """Let a paused run go on."""
    place = place_of(context, write=True)

    async def go_on() -> list[str]:
        target = await run_id(place, run)
        async with operating(place) as operator:
            return await operator.resume(target, tree=tree)

    _print(work(go_on), "resumed", as_json)


def _print(runs: list[str], what: str, as_json: bool) -> None:
    if as_json:
        output.print_json({what: runs})
    for name in [] if as_json else runs:
        console().print(text((name, "bold"), f" {what}"))


def send(
    context: typer.Context,
    run: RunName,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="What it is told.")],
    as_json: Json = False,
) -> None:
    """Tell a run something: it gets it where its agent receives messages."""
    place = place_of(context, write=True)

    async def tell() -> str:
        target = await run_id(place, run)
        async with operating(place) as operator:
            await operator.send(target, words)
        return target

    target = work(tell)
    if as_json:
        output.print_json({"sent_to": target})
    else:
        console().print(text((target, "bold"), " has the message; its agent receives it."))
