"""`report`: a run as one file of HTML that needs nothing else, to read afterwards and to hand on.

All that is in it came from somewhere hostile: it is text, never markup; there is no script, and the
page's own policy lets nothing be loaded. Not here: which values there are (tree.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ring0.cli import output, tree
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, RunName, place_of, run_named, work
from ring0.errors import InvalidInput


def add_to(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    context: typer.Context,
    run: RunName = "last",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Else RUN.html, here.", show_default=False
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With values that are not for everybody's eyes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a run's post-mortem as one self-contained HTML file."""
    place = place_of(context)
    name, page = work(lambda: _page(place, run, private))
    path = out or Path(f"{name}.html")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInput(
            f"{path} is there already.", todo="Name another file with --out, or remove it."
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"{path} can't be written: {error.strerror}.", todo="Name another file with --out."
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(page)
    if as_json:
        output.print_json({"run": name, "file": str(path), "size_bytes": len(page)})
    else:
        console().print(text((line(str(path), 400), "bold"), f"  {len(page):,} bytes"))


async def _page(place: Place, name: str, private: bool) -> tuple[str, bytes]:
    from ring0.cli import page

    async with place.reading() as store:
        row = await run_named(store, name)
        told = await tree.gather(store, row)
        head = await store.head()
        return row.id, page.html(told, head, place.runtime.now_us(), private=private)
