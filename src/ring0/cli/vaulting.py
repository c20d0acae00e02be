"""`secret set | list | remove | rekey | login`: what is kept for the far side of a tool, and shown
to nobody.
"""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.errors import InvalidInput, Ring0Error
from ring0.identity import Vault
from ring0.identity.dumps import leave_no_dump
from ring0.identity.vault import secret_name

if TYPE_CHECKING:
    from ring0.identity.oauth import OAuth
    from ring0.identity.oauth_answers import Tokens

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As ring0.toml calls it: TOKEN, secret://github/x.")
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Secrets that tools use and no agent sees.",
    )
    group.command("set")(set_secret)
    group.command("list")(list_secrets)
    group.command("remove")(remove_secret)
    group.command("rekey")(rekey)
    group.command("login")(login)
    app.add_typer(group, name="secret")


def set_secret(context: typer.Context, name: Name) -> None:
    """Keep a secret: typed without an echo, or read from standard input."""
    place = place_of(context, write=True)
    place.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = Vault(place.home, place.runtime)
    vault.set(name, _value(name), place.runtime.now_us())
    entry = vault.entry(name)
    assert entry is not None, "it was set just now"
    console().print(text(f"{secret_name(name)} is kept, version {entry.version}. ", _told(place)))


def list_secrets(context: typer.Context, as_json: Json = False) -> None:
    """Name what is kept, and since when. Values are shown nowhere."""
    vault = Vault(place_of(context).home)
    shut = vault.shut()
    found = [(name, entry) for name in vault.names() if (entry := vault.entry(name)) is not None]
    if as_json:
        rows = [
            {
                "name": name,
                "set_us": entry.set_us,
                "version": entry.version,
                "ends_us": entry.ends_us,
                "opens": name not in shut,
            }
            for name, entry in found
        ]
        output.print_json(rows)
        return
    if not found:
        console().print(text(("The vault is empty: `ring0 secret set NAME` adds one.", "dim")))
    for name, entry in found:
        said = "does not open: set it again" if name in shut else f"version {entry.version}"
        when = output.moment(entry.set_us)
        console().print(text((f"{line(name):<32} ", "bold"), (f"{when}  {said}", "dim")))


def remove_secret(context: typer.Context, name: Name) -> None:
    """Forget a secret."""
    place = place_of(context, write=True)
    Vault(place.home, place.runtime).remove(name)
    console().print(text(f"{secret_name(name)} is forgotten. ", _told(place)))


def rekey(context: typer.Context) -> None:
    """Seal all under a new key."""
    place = place_of(context, write=True)
    count = Vault(place.home, place.runtime).rekey()
    console().print(text(f"{output.count(count, 'secret')} under a new key. ", _told(place)))


def login(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="LOGIN", help="[oauth.LOGIN] of ring0.toml.")],
    device: Annotated[
        bool, typer.Option("--device", help="Say yes on another device: no browser is needed here.")
    ] = False,
) -> None:
    """Log in at another service for the agents that may use it; the kernel keeps it fresh."""
    from ring0.kernel.agent import manifests
    from ring0.kernel.keeping import Logins

    place = place_of(context, write=True)
    config = manifests.read_config(place.home)
    vault = Vault(place.home, place.runtime)
    logins = Logins(config, vault, place.environment, place.runtime)

    async def body() -> Tokens:
        tokens = await _log_in(place, await logins.of(name), device)
        await _keep(place, vault, name, tokens)
        return tokens

    leave_no_dump()
    tokens = work(body, kept="Nobody is logged in by what was begun.")
    console().print(text("Logged in for ", (line(name), "bold"), ". ", _told(place)))
    if not tokens.refresh_token:
        until = f"at {output.moment(tokens.expires_us)} UTC" if tokens.expires_us else "some day"
        console().print(text((f"The server gave no refresh token: it ends {until}.", "yellow")))


async def _log_in(place: Place, oauth: OAuth, device: bool) -> Tokens:
    from ring0.identity.loopback import Loopback

    out = console(error=True)
    if device:
        begun = await oauth.begin_device()
        where = begun.verification_uri_complete or begun.verification_uri
        out.print(text("Go to ", (line(where, limits.OAUTH_URL_CHARS_MAX), "bold")), soft_wrap=True)
        out.print(text("and say yes to the code ", (line(begun.user_code), "bold")))
        return await oauth.finish_device(begun)
    async with Loopback(place.runtime) as back:
        attempt = oauth.begin(back.redirect_uri)
        # As it is: an address that is broken into lines can't be followed.
        sys.stderr.write(f"Log in here:\n{attempt.url}\n")
        sys.stderr.flush()
        return await oauth.finish(attempt, await back.wait(attempt.state))


async def _keep(place: Place, vault: Vault, name: str, tokens: Tokens) -> None:
    from ring0.identity.refreshing import entries_of, login_lock

    async with login_lock(place.home, name, place.runtime):
        await place.runtime.in_thread(vault.put, entries_of(name, tokens), place.runtime.now_us())


def _told(place: Place) -> tuple[str, str]:
    """Has the kernel at work, if there is one, taken it up?"""
    from ring0.gateway.holding import holder
    from ring0.gateway.remote import remote
    from ring0.kernel.folder import LOCK

    if holder(place.home / LOCK) is None:
        return "No kernel is at work: the next one has it.", "dim"
    try:
        work(lambda: remote(place.home, place.runtime, place.environment).ask("secrets", {}))
    except Ring0Error as error:
        return f"The kernel at work has not taken it up: {line(error.what, 300)}", "yellow"
    return "The kernel at work has taken it up.", "dim"


def _value(name: str) -> str:
    leave_no_dump()
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
