"""`ring0 budget`: what a run was given, what of it is used, on what; and an operator's way to give
it more. Looking changes nothing and works beside a kernel that is at work.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.lengths import SECONDS
from ring0.cli.output import console, text
from ring0.cli.place import Json, Note, Place, RunName, place_of, run_named, work
from ring0.errors import InvalidInput
from ring0.scheduler import budgets
from ring0.store.project import SHARED
from ring0.types import ENDED, Run

_NUMBER: Final = re.compile(r"\+?([0-9]{1,15})(k|M)?")
_MONEY: Final = re.compile(r"\+?([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_TIME: Final = re.compile(r"\+?([0-9]{1,9}) ?(s|m|min|h)")
_MANY: Final = {None: 1, "k": 1_000, "M": 1_000_000}


def add_to(app: typer.Typer) -> None:
    app.command("budget")(budget)


def budget(
    context: typer.Context,
    run: RunName,
    calls: Annotated[str, typer.Option(metavar="+N", help="Give so many calls more.")] = "",
    tokens: Annotated[str, typer.Option(metavar="+N", help="Tokens: +10000, +10k, +1M.")] = "",
    usd: Annotated[str, typer.Option(metavar="+N", help="US dollars: +0.50.")] = "",
    wall: Annotated[str, typer.Option(metavar="+TIME", help="Time: +30s, +10m, +1h.")] = "",
    children: Annotated[str, typer.Option(metavar="+N", help="Runs beneath it.")] = "",
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Show what a run may use and what it used on what; or give it more.

    What a child is given, all above it are given too, and have moved it down.
    """
    more = _more(calls=calls, tokens=tokens, usd=usd, wall=wall, children=children)
    place = place_of(context, write=bool(more))
    seen = work(lambda: _give(place, run, more, note) if more else _look(place, run))
    if as_json:
        output.print_json(seen)
        return
    given = ("  given more" if more else "", "green")
    console().print(text((seen["run"], "bold"), f"  {seen['agent']}  {seen['state']}", given))
    rows = [
        (_CALLED.get(what, what), *(_shown(what, part[column]) for column in _COLUMNS))
        for what, part in seen["budget"].items()
    ]
    console().print(output.table(("", *(name.upper() for name in _COLUMNS)), rows))
    console().print(f"time          until {output.moment(seen['deadline_us'])} (UTC)")
    if seen["spent"]:
        console().print()
        spent = [
            (
                str(s["what"]),
                f"{s['calls']:,}",
                f"{s['tokens']:,}",
                output.money(s["cost_microusd"]),
            )
            for s in seen["spent"]
        ]
        console().print(output.table(("USED BY", "CALLS", "TOKENS", "COST"), spent))


_CALLED: Final = {"cost_microusd": "cost"}
_COLUMNS: Final = ("budget", "used", "reserved", "moved", "left")


def _shown(what: str, amount: int) -> str:
    return output.money(amount) if what == "cost_microusd" else f"{amount:,}"


async def _give(place: Place, name: str, more: dict[str, int], note: str) -> dict[str, Any]:
    from ring0.gateway.control import operations

    async with place.reading() as store:
        run = (await run_named(store, name)).id
    async with operations(place.home, place.runtime, place.environment) as operator:
        await operator.budget(run, more, note=note)
    return await _look(place, run)


async def _look(place: Place, name: str) -> dict[str, Any]:
    async with place.reading() as store:
        run = await run_named(store, name)
        calls = await store.calls(run.id)
        children = await store.runs(parent=run.id, most=limits.RUNS_LISTED_MAX)
    tokens, cost = budgets.reserved(calls)
    spent = output.builtins(budgets.spent(run, calls))
    held = {"tokens": tokens, "cost_microusd": cost}
    return {
        "run": run.id,
        "agent": run.agent,
        "state": run.state,
        "deadline_us": run.deadline_us,
        "budget": {
            what: _part(run, what, used, held.get(what, 0), _moved(children, what))
            for what, used in SHARED.items()
        },
        "spent": spent,
    }


def _part(run: Run, what: str, field: str, reserved: int, moved: int) -> dict[str, int]:
    """One line: `used` is all that is gone, `reserved` and `moved` are parts of it."""
    most, used = getattr(run.budget, what), getattr(run, field)
    return {
        "budget": most,
        "used": used,
        "reserved": reserved,
        "moved": moved,
        "left": most - used,
    }


def _moved(children: list[Run], what: str) -> int:
    """To runs beneath: all of its share while one goes on, what it used when it has ended."""
    one = 1 if what == "children" else 0  # Itself.
    return sum(
        one + (getattr(run, SHARED[what]) if run.state in ENDED else getattr(run.budget, what))
        for run in children
    )


def _more(*, calls: str, tokens: str, usd: str, wall: str, children: str) -> dict[str, int]:
    """What the options give, by field. Raises InvalidInput."""
    found = {}
    for option, field, given in (
        ("--calls", "calls", calls),
        ("--tokens", "tokens", tokens),
        ("--children", "children", children),
    ):
        if given:
            match = _read(_NUMBER, option, given, "+100")
            found[field] = int(match[1]) * _MANY[match[2]]
    if usd:
        found["cost_microusd"] = int(Decimal(_read(_MONEY, "--usd", usd, "+0.50")[1]) * 1_000_000)
    if wall:
        match = _read(_TIME, "--wall", wall, "+10m")
        found["wall_s"] = int(match[1]) * SECONDS[match[2]]
    for field, amount in found.items():
        if not amount:
            raise InvalidInput(f"0 {field} more is nothing.", todo="Give a larger number.")
    return found


def _read(form: re.Pattern[str], option: str, given: str, example: str) -> re.Match[str]:
    match = form.fullmatch(given.strip())
    if match is None:
        raise InvalidInput(
            f"{option} {given[:40]!r} is no amount.",
            why="A budget is only ever raised: by how much is said, not to what.",
            todo=f"Write it like `{option} {example}`.",
        )
    return match
