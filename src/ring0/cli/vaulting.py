"""`secret set | list | remove`: what is kept for the far side of a tool, and shown to nobody."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, text
from ring0.cli.place import Json, place_of
from ring0.errors import InvalidInput
from ring0.identity import Vault

Name = Annotated[str, typer.Argument(metavar="NAME", help="As ring0.toml calls it.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Secrets that tools use and no agent sees.",
    )
    group.command("set")(set_secret)
    group.command("list")(list_secrets)
    group.command("remove")(remove_secret)
    app.add_typer(group, name="secret")


def set_secret(context: typer.Context, name: Name) -> None:
    """Keep a secret: typed without an echo, or read from standard input."""
    place = place_of(context, write=True)
    place.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = Vault(place.home)
    vault.set(name, _value(name), place.runtime.now_us())
    console().print(
        text(
            (f"{name} is kept. ", ""),
            ("A kernel that is at work takes it up at its next start.", "dim"),
        )
    )


def list_secrets(context: typer.Context, as_json: Json = False) -> None:
    """Name what is kept, and since when. Values are shown nowhere."""
    names = Vault(place_of(context).home).names()
    if as_json:
        output.print_json([{"name": name, "set_us": at_us} for name, at_us in names.items()])
        return
    if not names:
        console().print(text(("The vault is empty: `ring0 secret set NAME` adds one.", "dim")))
    for name, at_us in names.items():
        console().print(text((f"{name:<32} ", "bold"), (output.moment(at_us), "dim")))


def remove_secret(context: typer.Context, name: Name) -> None:
    """Forget a secret."""
    Vault(place_of(context, write=True).home).remove(name)
    console().print(text((f"{name} is forgotten.", "")))


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{name}: ")
    raw = sys.stdin.buffer.read(limits.SECRET_CHARS_MAX + 2)
    try:
        return raw.decode("ascii").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidInput(
            "The secret holds characters that no header can carry.",
            todo="Give plain ASCII on standard input.",
        ) from None
