"""`reload`, `audit changes`: what the operator's files say now is taken up, and was, by whom."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ring0.cli import output
from ring0.cli.operating import operating
from ring0.cli.output import console, line, put, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.store import events as ev

SHOWN_CHARS = 12
WARNING_CHARS = 600


def add_to(app: typer.Typer) -> None:
    app.command("reload")(reload)


def reload(
    context: typer.Context,
    yes_loosen: Annotated[
        bool,
        typer.Option("--yes-loosen", help="Also a profile that holds less back. It is on record."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take up what ring0.toml and the policy files say now, at once, all or nothing."""
    place = place_of(context, write=True)

    async def take_up() -> Any:
        async with operating(place) as operator:
            return await operator.ask("reload", {"loosen": yes_loosen})

    done = work(take_up)
    if as_json:
        output.print_json({name: done.get(name, []) for name in ("changes", "later", "warnings")})
        return
    for change in done.get("changes", []):
        console().print(text(*_said(change["name"], change["before"], change["after"])))
        if change.get("loosened"):
            console().print(text(("Less is held back than before.", "bold yellow")))
    if later := done.get("later"):
        told = ", ".join(later)
        console().print(text((f"Counts from the kernel's next start on: {told}", "yellow")))
    for warning in done.get("warnings", []):
        put(console(error=True), text(("! ", "bold yellow"), line(warning, WARNING_CHARS)))
    if not done.get("changes"):
        console().print(
            text(
                ("Policy, profile, roles and issuer are as they are on record ", "dim"),
                ("(`ring0 audit changes`).", "dim"),
            )
        )


def changes(context: typer.Context, as_json: Json = False) -> None:
    """List what the operator's files said, who logged in, what was quarantined: each change, and
    who made it."""
    place = place_of(context)
    found = work(lambda: _changes(place))
    if as_json:
        output.print_json({"changes": found})
        return
    if not found:
        console().print("Nothing is on record.")
    for one in found:
        console().print(
            text(
                (output.moment(one["at_us"]), "dim"),
                "  ",
                *_said(one["name"], one["before"], one["after"]),
                ("  by ", "dim"),
                line(one["by"]),
                ("  loosened" if one["loosened"] else "", "bold yellow"),
            )
        )


async def _changes(place: Place) -> list[dict[str, Any]]:
    async with place.reading() as store:
        names: dict[str, str] = {}
        found = []
        async for entry in store.entries(ev.KERNEL):
            match entry.body:
                case ev.SettingChanged(name=name, before=before, after=after, by=by) as changed:
                    told = (name, before, after, by, changed.loosened)
                case ev.LoggedIn(login=row):
                    names[row.key] = row.name
                    told = ("login", "", row.how, row.name, False)
                case ev.LoggedOut(key=key, by=by):
                    name = names.get(key, "")
                    told = ("login", "in", "out" if by else "over", by or name, False)
                case ev.SourceQuarantined(source=source, by=by, runs=runs):
                    told = ("quarantine", "", f"{source} ({len(runs)} runs saw it)", by, False)
                case ev.SourceReleased(source=source, by=by):
                    told = ("quarantine", source, "lifted", by, False)
                case _:
                    continue
            keys = ("name", "before", "after", "by", "loosened")
            found.append({"at_us": entry.at_us, **dict(zip(keys, told, strict=True))})
        return found


def _said(name: str, before: str, after: str) -> tuple[tuple[str, str], str]:
    from ring0.kernel.operating.changing import DEFAULT

    if name == "login":
        told = line(after) if before else f"in, by {line(after)}"
    elif name == "quarantine":
        told = f"{line(before)}: lifted" if before else line(after)
    else:
        none = DEFAULT if name in ("policy", "profile") else "none"
        told = f"{_short(before) or none} to {_short(after)}"
    return (f"{name:<7} ", "bold"), told


def _short(value: str) -> str:
    """A digest's beginning."""
    return value[:SHOWN_CHARS] if len(value) == 64 else line(value)
