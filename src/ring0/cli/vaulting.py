"""`secret set | list | remove | rekey | login`: what is kept for the far side of a tool, and shown
to nobody.
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.errors import InvalidInput, Ring0Error
from ring0.identity import Vault, operator_name
from ring0.identity import logins as logins_kept
from ring0.identity.dumps import leave_no_dump
from ring0.identity.vault import secret_name

if TYPE_CHECKING:
    from ring0.identity.oauth import Device
    from ring0.identity.oauth_answers import Tokens
    from ring0.kernel.logins import Begun

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
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="Ask for this one, too. May stand often."),
    ] = None,
    principal: Annotated[
        str, typer.Option("--for", metavar="PRINCIPAL", help="Whose runs use it; default: yours.")
    ] = "",
) -> None:
    """Log in at another service for the agents that may use it; the kernel keeps it fresh."""
    from ring0.kernel.agent import manifests
    from ring0.kernel.logins import Logins

    place = place_of(context, write=True)
    config = manifests.read_config(place.home)
    vault = Vault(place.home, place.runtime)
    logins = Logins(config, vault, place.environment, place.runtime)
    whose, scopes = principal or whoever_types(place), tuple(scope or ())

    async def body() -> Tokens:
        if device:
            return await logins.by_device(name, whose, _show_device, scopes)
        return await logins.by_browser(name, whose, _show_address, scopes)

    leave_no_dump()
    tokens = work(body, kept="Nobody is logged in by what was begun.")
    own = logins.key(name, "") != logins.key(name, whose)
    of_whom = f", for runs of {line(whose)}" if own else ""
    console().print(text("Logged in for ", (line(name), "bold"), f"{of_whom}. ", _told(place)))
    if not tokens.refresh_token:
        until = f"at {output.moment(tokens.expires_us)} UTC" if tokens.expires_us else "some day"
        console().print(text((f"The server gave no refresh token: it ends {until}.", "yellow")))


def whoever_types(place: Place) -> str:
    """The principal of runs that this person starts."""
    kept = logins_kept.kept(logins_kept.place(place.home, place.environment))
    return kept.name if kept is not None else operator_name(os.geteuid())


def _show_device(begun: Begun, device: Device) -> None:
    out = console(error=True)
    _show_where(begun)
    where = device.verification_uri_complete or device.verification_uri
    out.print(text("Go to ", (line(where, limits.OAUTH_URL_CHARS_MAX), "bold")), soft_wrap=True)
    out.print(text("and say yes to the code ", (line(device.user_code), "bold")))


def _show_address(begun: Begun, url: str) -> None:
    _show_where(begun)
    # As it is: an address that is broken into lines can't be followed.
    sys.stderr.write(f"Log in here:\n{url}\n")
    sys.stderr.flush()


def _show_where(begun: Begun) -> None:
    """Where what a person is about to agree to was found, and what it is: a server's words."""
    out = console(error=True)
    oauth = begun.oauth
    if not oauth.client.resource:
        return
    out.print(text("The server is ", (line(oauth.client.resource, 300), "bold")))
    out.print(text("One logs in at ", (line(oauth.endpoints.issuer, 300), "bold")))
    ends = oauth.endpoints
    page, token = urlsplit(ends.authorize_url or ends.device_url), urlsplit(ends.token_url)
    if page.netloc != token.netloc:  # It may show another server's page and take what that gives.
        out.print(
            text("It shows a page of ", (line(page.netloc, 300), "bold"),
                 ", and what that page gives goes to ", (line(token.netloc, 300), "bold"))
        )  # fmt: skip
    scopes = " ".join(oauth.client.scopes) or "whatever it gives by itself"
    out.print(text("It is asked for ", (line(scopes, 1_000), "bold")))


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
