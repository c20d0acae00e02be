"""`login`, `logout`, `whoami`: who this person is to the kernel.

The kernel goes through the steps; here are the browser, the terminal, and the file that the login's
value is kept in.
"""

from __future__ import annotations

import getpass
import sys
import webbrowser
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.errors import InvalidInput, Ring0Error
from ring0.identity import logins

if TYPE_CHECKING:
    from ring0.gateway.control import Operations

KEPT = "Nobody is logged in by what was begun."


def add_to(app: typer.Typer) -> None:
    for name, verb in (("login", login), ("logout", logout), ("whoami", whoami)):
        app.command(name)(verb)


def login(
    context: typer.Context,
    device: Annotated[
        bool, typer.Option("--device", help="Say yes on another device: no browser is needed here.")
    ] = False,
    code: Annotated[
        bool, typer.Option("--code", help="By the code that the daemon's first start made.")
    ] = False,
    make_code: Annotated[
        bool, typer.Option("--make-code", help="Make a new such code (takes the role admin).")
    ] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Log in at the issuer that ring0.toml names; every command is then by that name."""
    if [device, code, make_code].count(True) > 1:
        raise InvalidInput("There are several ways to log in.", todo="Choose one of them.")
    place = place_of(context, write=True)
    if make_code:
        _print_code(place, as_json)
        return
    entered = work(lambda: _login(place, device, code, no_browser), kept=KEPT)
    kept = logins.Kept(
        value=entered["value"], name=entered["name"], expires_us=entered["expires_us"]
    )
    logins.keep(logins.place(place.home, place.environment), kept)
    if as_json:
        output.print_json({"name": kept.name, "expires_us": kept.expires_us})
        return
    until = output.moment(kept.expires_us)
    console().print(text("You are ", (line(kept.name), "bold"), (f", until {until} UTC", "dim")))


def _print_code(place: Place, as_json: bool) -> None:
    path = work(lambda: _ask(place, "code", {}))
    if as_json:
        output.print_json({"file": path})
    else:
        console().print(text("The code is in ", (line(path), "bold"), ": it logs in once."))


async def _login(place: Place, device: bool, code: bool, no_browser: bool) -> Any:
    async with _operations(place, as_login=False) as to:
        if code:
            return await to.ask("login-code", {"code": _code(place)})
        if device:
            begun = await to.ask("login", {})
            _tell_device(begun)
            return await to.ask("login-finish", {"id": begun["id"]})
        return await _by_browser(place, to, no_browser)


async def _by_browser(place: Place, to: Operations, no_browser: bool) -> Any:
    from ring0.identity.loopback import Loopback

    async with Loopback(place.runtime) as back:
        begun = await to.ask("login", {"redirect_uri": back.redirect_uri})
        # As it is: an address that is broken into lines can't be followed.
        sys.stderr.write(f"Log in here:\n{begun['url']}\n")
        sys.stderr.flush()
        if not no_browser and sys.stderr.isatty():
            await place.runtime.in_thread(webbrowser.open, begun["url"])
        came = await back.wait(begun["state"])
        return await to.ask("login-finish", {"id": begun["id"], "came": dict(came)})


def _tell_device(begun: dict[str, Any]) -> None:
    out = console(error=True)
    where = begun.get("verification_uri_complete") or begun["verification_uri"]
    out.print(text("Go to ", (line(where, limits.OAUTH_URL_CHARS_MAX), "bold")), soft_wrap=True)
    out.print(text("and say yes to the code ", (line(begun["user_code"]), "bold")))


def _code(place: Place) -> str:
    """The code, from its file where this person may read it; else typed, or from standard input:
    never from the command line, which every process can read."""
    from ring0.kernel.operating.entering import CODE_FILE

    try:
        return (place.home / CODE_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        pass
    if sys.stdin.isatty():
        return getpass.getpass("code: ").strip()
    return sys.stdin.readline(limits.LOGIN_FILE_BYTES_MAX).strip()


def logout(context: typer.Context, as_json: Json = False) -> None:
    """End the login; you are known by your uid again."""
    place = place_of(context)
    path = logins.place(place.home, place.environment)
    kept = logins.kept(path)
    if kept is None:
        if as_json:
            output.print_json({"name": ""})
        else:
            console().print("You are not logged in.")
        return
    logins.forget(path)  # First: whatever comes of the rest, this person is logged out here.
    value = kept.value
    trouble = work(lambda: _leave(place, value))
    if as_json:
        output.print_json({"name": kept.name, "ended": not trouble})
        return
    console().print(text((line(kept.name), "bold"), " is logged out."))
    if trouble:
        until = output.moment(kept.expires_us)
        console().print(
            text(
                (f"The kernel could not be told: its row ends at {until} UTC. {trouble}", "yellow")
            )
        )


async def _leave(place: Place, value: str) -> str:
    """Ends the row; else why it could not be."""
    try:
        async with _operations(place, as_login=False) as to:
            await to.ask("logout", {"value": value})
    except Ring0Error as error:
        return line(error.what)
    return ""


def whoami(context: typer.Context, as_json: Json = False) -> None:
    """Say by which name you act, and what you may do."""
    place = place_of(context)
    found = work(lambda: _ask(place, "whoami", {}))
    if as_json:
        output.print_json(found)
        return
    by = "logged in" if found.get("expires_us") else "by the uid of this process"
    console().print(text((line(found["name"]), "bold"), (f"  {by}", "dim")))
    roles = ", ".join(found["roles"]) or "none: [roles] of ring0.toml does not name you"
    console().print(text(("roles   ", "dim"), roles))
    for what in ("email", "groups"):
        if told := found.get(what):
            said = told if isinstance(told, str) else ", ".join(told)
            console().print(text((f"{what:<8}", "dim"), line(said)))
    if expires_us := found.get("expires_us"):
        console().print(text(("until   ", "dim"), f"{output.moment(expires_us)} UTC"))


async def _ask(place: Place, verb: str, body: dict[str, Any]) -> Any:
    async with _operations(place) as to:
        return await to.ask(verb, body)


def _operations(place: Place, *, as_login: bool = True) -> AbstractAsyncContextManager[Operations]:
    from ring0.gateway.control import operations

    return operations(place.home, place.runtime, place.environment, as_login=as_login)
