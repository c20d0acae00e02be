"""`hook add | list | remove | pause | resume`: agents that start when somebody signs for it."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final

import typer

from ring0.cli import output
from ring0.cli.orders import (
    Anew,
    File,
    Manifest,
    OrderName,
    Priority,
    Task,
    agent,
    change,
    code_now,
)
from ring0.cli.output import console, text
from ring0.cli.place import Json, Note, Place, place_of, work
from ring0.types import HookScheme

_SECRET_BYTES: Final = 32


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Start agents by webhooks, while `ring0 serve --hooks` is at work.",
    )
    for name, verb in (
        ("add", add),
        ("list", list_hooks),
        ("remove", remove),
        ("pause", pause),
        ("resume", resume),
    ):
        group.command(name)(verb)
    app.add_typer(group, name="hook")


def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="POST /hooks/NAME starts it.")],
    file: File,
    task: Task,
    secret: Annotated[
        str,
        typer.Option(
            "--secret",
            metavar="SECRETNAME",
            help="What deliveries are signed with, in the vault; else one is made, and shown once.",
        ),
    ] = "",
    scheme: Annotated[
        HookScheme,
        typer.Option("--scheme", help="How they are signed: Standard Webhooks, or GitHub's way."),
    ] = HookScheme.STANDARD,
    manifest: Manifest = None,
    priority: Priority = None,
    force: Anew = False,
    as_json: Json = False,
) -> None:
    """Start an agent for each delivery that is signed; it finds what came in event.json."""
    from ring0.gateway.ordering import SetHook

    place = place_of(context, write=True)
    described, told = agent(name, file, task, manifest, priority, anew=force)
    made_secret = "" if secret else _make_secret(place, name)
    secret = secret or f"hook.{name}"
    wanted = SetHook(told=told, agent=described, secret=secret, scheme=scheme)
    made = work(lambda: change(place, wanted))
    if as_json:
        output.print_json({**made, "made_secret": made_secret or None})
        return
    console().print(text((name, "bold"), f"  POST /hooks/{name}, signed as {scheme}"))
    if made_secret:
        console().print(text("Its secret, shown this once: ", (made_secret, "bold")))


def _make_secret(place: Place, name: str) -> str:
    """Into the vault; empty where it holds one of that name already."""
    from ring0.errors import InvalidInput
    from ring0.identity import Vault
    from ring0.kernel.life.orders import NAME

    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:40]!r} is no name for a hook.",
            why="It is part of an address.",
            todo="Use a-z, 0-9 and . _ -",
        )
    place.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = Vault(place.home)
    if f"hook.{name}" in vault.names():
        return ""
    made = "whsec_" + base64.b64encode(place.runtime.random_bytes(_SECRET_BYTES)).decode()
    vault.set(f"hook.{name}", made, place.runtime.now_us())
    return made


def list_hooks(context: typer.Context, as_json: Json = False) -> None:
    """Show them: their agents, the last run, and whether the files have changed."""
    place = place_of(context)
    found = work(lambda: _list(place))
    if as_json:
        output.print_json(found)
        return
    if not found:
        console().print("There are no hooks: `ring0 hook add` makes one.")
        return
    rows = [
        (
            row["name"],
            f"paused by {row['paused_by']}" if row["paused_by"] else f"/hooks/{row['name']}",
            row["agent"],
            row["code"],
            row["principal"],
            f"{row['secret']} ({row['scheme']})",
            row["last_run"] or "-",
            f"{row['runs']:,}",
        )
        for row in found
    ]
    columns = ("HOOK", "PATH", "AGENT", "CODE", "FOR", "SECRET", "LAST RUN", "RUNS")
    console().print(output.table(columns, rows))


async def _list(place: Place) -> list[dict[str, Any]]:
    if place.is_new:
        return []
    async with place.reading() as store:
        return [
            {
                **output.builtins(hook),
                "paused_by": hook.paused_by,
                "last_run": hook.last_run,
                "runs": hook.runs,
                "scheme": str(hook.scheme),
                "code": await code_now(place, store, hook),
            }
            for hook in await store.hooks()
        ]


def remove(context: typer.Context, name: OrderName) -> None:
    """Take one away. Runs that it has started go on, and its secret is kept."""
    from ring0.gateway.ordering import Remove

    place = place_of(context, write=True)
    work(lambda: change(place, Remove(order="hook", name=name)))
    console().print(text((name, "bold"), " is removed"))


def pause(context: typer.Context, name: OrderName, note: Note = "") -> None:
    """Let one start nothing until it is resumed: its senders are told to come back."""
    from ring0.gateway.ordering import Pause

    place = place_of(context, write=True)
    work(lambda: change(place, Pause(order="hook", name=name, note=note)))
    console().print(text((name, "bold"), " is paused"))


def resume(context: typer.Context, name: OrderName) -> None:
    """Let one that is paused start runs again."""
    from ring0.gateway.ordering import Resume

    place = place_of(context, write=True)
    work(lambda: change(place, Resume(order="hook", name=name)))
    console().print(text((name, "bold"), " is resumed"))
