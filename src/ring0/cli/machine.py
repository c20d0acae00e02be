"""`doctor`, `demo`, `bench`: what this machine gives, what ring0 does on it, and how quickly."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ring0
from ring0.cli import demo, output
from ring0.cli.output import console, text
from ring0.cli.place import Json, place_of, work
from ring0.errors import InvalidInput, NotFound, SandboxUnavailable

if TYPE_CHECKING:
    from ring0.cli.checks import Check

MISSING_EXIT = SandboxUnavailable.exit_code
_STYLES = {"ok": "green", "note": "yellow", "missing": "bold red"}


def add_to(app: typer.Typer) -> None:
    app.command("doctor")(doctor)
    app.command("demo")(demo.demo)
    app.command("bench")(bench)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Look whether this machine has what ring0 needs, and say what is enforced on it."""
    from ring0.cli.checks import checks

    place = place_of(context, write=True)
    found = work(lambda: checks(place))
    if as_json:
        output.print_json(
            {
                "ok": all(check.state != "missing" for check in found),
                "checks": [
                    {"name": c.name, "state": c.state, "what": c.what, "todo": c.todo}
                    for c in found
                ],
            }
        )
    else:
        for check in found:
            _print(check)
    if any(check.state == "missing" for check in found):
        raise typer.Exit(MISSING_EXIT)


def _print(check: Check) -> None:
    console().print(
        output.indented(
            text(
                (f"{check.state:<8}", _STYLES[check.state]),
                (f"{check.name:<14}", "bold"),
                check.what,
            ),
            0,
        )
    )
    if check.todo:
        console().print(output.indented(text(("Do: ", "dim"), check.todo), 22))


def bench(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As the file in bench/ is called: gate.")
    ],
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="Where all of it goes, with --json: agentdojo."),
    ] = None,
    suites: Annotated[
        str | None, typer.Option("--suites", metavar="A,B", help="Which ones: agentdojo.")
    ] = None,
    locomo: Annotated[
        str | None, typer.Option("--locomo", metavar="FILE", help="What is found in it: memory.")
    ] = None,
    isolation: Annotated[
        bool, typer.Option("--isolation", help="Queries across scopes: memory.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure, with a rival or a floor beside it in the same run. Only in a checkout."""
    module = _load(name)
    takes = inspect.signature(module.run).parameters
    given = {"suites": suites, "file": file, "locomo": locomo, "isolation": isolation or None}
    given |= {"json": as_json or None} if "json" in takes else {}
    told = {key: value for key, value in given.items() if value is not None}
    if beyond := [key for key in told if key not in takes]:
        raise InvalidInput(
            f"The benchmark {name} takes no {beyond[0]}.",
            todo="Leave it out; agentdojo takes FILE and --suites, memory --locomo or --isolation.",
        )
    rows = module.run(**told)
    if as_json:
        output.print_json(rows)
        return
    console().print(
        output.table(
            ("NAME", "VALUE", "UNIT", "N", "RIVAL"),
            [
                [_cell(row.get(key)) for key in ("name", "value", "unit", "n", "rival")]
                for row in rows
                if not row["name"].startswith(" ")
            ],
        )
    )
    for row in rows:  # One by one: a line each, however long.
        if row["name"].startswith(" "):
            output.put(console(), text(output.line(row["name"])))


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _load(name: str) -> Any:
    """The module `bench/NAME.py` of the checkout. Raises NotFound, InvalidInput."""
    root = Path(ring0.__file__).resolve().parents[2]
    folder = root / "bench"
    if not folder.is_dir():
        raise NotFound(
            "There are no benchmarks here.",
            why="They come with a checkout, not with the installed package.",
            todo="Clone the repository and `make bench`.",
        )
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    there = sorted(name for name, path in files.items() if "\ndef run(" in path.read_text())
    if name not in there:
        raise InvalidInput(
            f"There is no benchmark {name[:40]!r}.",
            todo=f"There are: {', '.join(there) or 'none'}.",
        )
    sys.path.insert(0, str(root))
    return importlib.import_module(f"bench.{name}")
