"""`token give | narrow | show | list | revoke`: a run's right to call, for another process.

A token is read from standard input and never from the command line, which others can see.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from ring0 import limits
from ring0.cli import lengths, output
from ring0.cli.operating import operating, run_id
from ring0.cli.output import console, text
from ring0.cli.place import Json, RunName, place_of, work
from ring0.errors import InvalidInput
from ring0.identity import narrowing

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="What it is good for: crm.query, 'files.*', model:NAME, agent:NAME; several times.",
    ),
]
Expires = Annotated[
    str, typer.Option("--expires", metavar="5m", help="How long: 90s, 5m, 2h; at most 24h.")
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="A run's right to call, or a part of it, for another process.",
    )
    for name, verb in (
        ("give", give),
        ("narrow", narrow),
        ("show", show),
        ("list", list_tokens),
        ("revoke", revoke),
    ):
        group.command(name)(verb)
    app.add_typer(group, name="token")


def give(
    context: typer.Context,
    run: RunName,
    only: Only = None,
    expires: Expires = "5m",
    as_json: Json = False,
) -> None:
    """Print a token of a run at work: for its tools, or for what --only names."""
    from ring0.gateway.tokening import Give

    place = place_of(context, write=True)
    named = None if only is None else narrowing.exactly(only)
    expires_s = _seconds(expires)

    async def ask() -> Any:
        target = await run_id(place, run)
        async with operating(place) as operator:
            return await operator.ask("token", Give(target, named, expires_s))

    given = work(ask)
    if as_json:
        output.print_json(given)
        return
    console().print(given["token"], soft_wrap=True)
    console(error=True).print(
        text(("It is taken at ", "dim"), given["socket"], (" (Authorization: Bearer).", "dim"))
    )


def narrow(
    context: typer.Context, only: Only = None, expires: Expires = "", as_json: Json = False
) -> None:
    """Narrow the token on standard input, without any kernel; prints the new one."""
    from ring0.identity import tokens

    place = place_of(context)
    if not only and not expires:
        raise InvalidInput("Nothing is narrowed.", todo="Give --only, --expires, or both.")
    before_us = 0
    if expires:
        before_us = place.runtime.now_us() + _seconds(expires) * 1_000_000
    narrowed = tokens.narrow(_read(), narrowing.exactly(only or ()), before_us)
    if as_json:
        output.print_json({"token": narrowed})
    else:
        console().print(narrowed, soft_wrap=True)


def show(context: typer.Context, as_json: Json = False) -> None:
    """Print the ids of the token on standard input and what it says, as it claims."""
    from ring0.identity import tokens

    found = tokens.blocks(_read())
    if as_json:
        output.print_json([{"id": one, "says": says} for one, says in found])
        return
    for one, says in found:
        console().print(text((one, "bold")))
        for row in says.splitlines():
            console().print(text(("  " + output.line(row, limits.TOKEN_SIZE_BYTES_MAX), "dim")))


def list_tokens(context: typer.Context, run: RunName, as_json: Json = False) -> None:
    """Name the tokens of a run that can be used."""
    from ring0.gateway.tokening import List
    from ring0.identity import tokens

    place = place_of(context, write=True)

    async def ask() -> Any:
        target = await run_id(place, run)
        async with operating(place) as operator:
            return await operator.ask("tokens", List(target))

    found: list[tokens.Issued] = msgspec.convert(work(ask), list[tokens.Issued])
    if as_json:
        output.print_json(msgspec.to_builtins(found))
        return
    for one in found:
        until = output.moment(one.expires_us)
        console().print(text((one.id, "bold"), f"  until {until}  ", (_named(one.only), "dim")))
    if not found:
        console().print(text(("None.", "dim")))


def revoke(
    context: typer.Context,
    run: RunName,
    token: Annotated[str, typer.Argument(metavar="ID", help="`token list`, `token show`.")],
    as_json: Json = False,
) -> None:
    """Take back a token, and all that was narrowed from it."""
    from ring0.gateway.tokening import Revoke

    place = place_of(context, write=True)

    async def ask() -> None:
        target = await run_id(place, run)
        async with operating(place) as operator:
            await operator.ask("token-revoke", Revoke(target, token))

    work(ask)
    if as_json:
        output.print_json({"revoked": token})
    else:
        console().print(text((token, "bold"), " is dead."))


def _named(only: Sequence[str]) -> str:
    return " ".join(pattern.removeprefix(narrowing.TOOL) for pattern in only)


def _seconds(words: str) -> int:
    """Raises InvalidInput."""
    found = lengths.seconds(words)
    if found is None:
        raise InvalidInput(f"{words[:40]!r} is no time.", todo="Write it like 90s, 5m or 2h.")
    return found


def _read() -> str:
    """The token on standard input. Raises InvalidInput."""
    if sys.stdin.isatty():
        console(error=True).print(text(("The token, then Enter:", "dim")))
        return sys.stdin.readline(limits.TOKEN_SIZE_BYTES_MAX).strip()
    try:
        return sys.stdin.buffer.read(limits.TOKEN_SIZE_BYTES_MAX + 2).decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidInput("That is no token.", todo="Give it on standard input.") from None
