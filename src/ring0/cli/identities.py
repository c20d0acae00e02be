"""`identity jwks | rotate`: the keys that others verify with whom a request is made for."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from ring0.cli import output
from ring0.cli.operating import operating
from ring0.cli.output import console, text
from ring0.cli.place import Json, place_of, work
from ring0.errors import NotFound


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="The keys that JWTs of runs are verified with.",
    )
    group.command("jwks")(jwks)
    group.command("rotate")(rotate)
    app.add_typer(group, name="identity")


def jwks(context: typer.Context) -> None:
    """Print the public keys (a JWK set): give it to servers that take JWTs of runs."""
    place = place_of(context)
    from ring0.identity.jwts import Jwts
    from ring0.identity.keys import Keys

    keys = Keys(place.home)
    if not keys.held().signing:
        raise NotFound(
            "No JWT was ever made here, so there is no key yet.",
            why="It is made with the first one, or by `ring0 identity rotate`.",
            todo="ring0 identity rotate",
        )
    made = Jwts(keys, "", place.runtime.now_us, place.runtime.random_bytes)
    output.print_json(msgspec.json.decode(made.public()))


def rotate(context: typer.Context, as_json: Json = False) -> None:
    """Sign with a new key from here on; the one before is still published, until the next time."""
    from ring0.gateway.tokening import Rotate

    place = place_of(context, write=True)

    async def ask() -> Any:
        async with operating(place) as operator:
            return await operator.ask("identity-rotate", Rotate())

    name = work(ask)
    if as_json:
        output.print_json({"kid": name})
    else:
        console().print(text((name, "bold"), " signs from here on."))
