"""What operators do, and how they get to a kernel: `settle`.

By way of the kernel that has the data folder, or one opened for just this.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from ring0.cli import output
from ring0.cli.output import console, text
from ring0.cli.place import Json, Note, Place, call_named, place_of, run_named, work
from ring0.errors import InvalidInput
from ring0.types import Call

if TYPE_CHECKING:
    from ring0.gateway.control import Operations


def add_to(app: typer.Typer) -> None:
    app.command("settle")(settle)


def operating(place: Place) -> AbstractAsyncContextManager[Operations]:
    from ring0.gateway.control import operations

    return operations(place.home, place.runtime, place.environment)


async def run_id(place: Place, name: str, *, of_tree: bool = False) -> str:
    """The run of that name, or the one that its tree began with. Raises NotFound."""
    async with place.reading() as store:
        row = await run_named(store, name)
        return row.root if of_tree else row.id


def settle(
    context: typer.Context,
    call: Annotated[str, typer.Argument(metavar="CALL", help="Its id: `r-…/0/3`.")],
    what: Annotated[str, typer.Argument(metavar="happened|did-not-happen")],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Say whether an effect that was cut off happened; its run then goes on."""
    if what not in ("happened", "did-not-happen"):
        raise InvalidInput(
            f"{what[:40]!r} says nothing.",
            why="An effect happened or it did not.",
            todo="Say `happened` or `did-not-happen`.",
        )
    place = place_of(context, write=True)

    async def say() -> Call:
        async with place.reading() as store:
            found = await call_named(store, None, call)
        async with operating(place) as operator:
            return await operator.settle(found.id, happened=what == "happened", note=note)

    row = work(say)
    if as_json:
        output.print_json(row)
    else:
        console().print(
            text(
                (row.id, "bold"),
                f" settled: {what}. `ring0 recover` goes on with its run,"
                " unless a kernel has it already.",
            )
        )
