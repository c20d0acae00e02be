"""`memory directive add | list | retire`, `approve`, `consolidate`: what people say."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.memory.scopes import Agent, AnyAgent, Principal, owners, principal_of, scope_of
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Note, Place, place_of, work
from ring0.kernel.agent import manifests
from ring0.kernel.memory import directing, explaining
from ring0.types import MemoryKind, RecordState

Id = Annotated[str, typer.Argument(metavar="ID")]
Text = Annotated[str, typer.Argument(metavar="TEXT", help="What it is to keep to, always.")]


def add_to(group: typer.Typer) -> None:
    directives = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Standing instructions: in every question, and only people give them.",
    )
    directives.command("add")(add)
    directives.command("list")(listed)
    directives.command("retire")(retire)
    group.add_typer(directives, name="directive")
    group.command("approve")(approve)
    group.command("consolidate")(consolidate)


def add(
    context: typer.Context,
    said: Text,
    agent: Agent,
    principal: Principal = "",
    as_json: Json = False,
) -> None:
    """Give an agent a standing instruction, for one principal's runs."""
    place = place_of(context, write=True)
    body = {"agent": agent, "principal": principal_of(principal), "text": said}
    row = work(lambda: _ask(place, "memory-directive", body))
    if as_json:
        output.print_json(row)
        return
    console().print(text((row["id"], "bold"), " stands from the next question on."))


def listed(
    context: typer.Context,
    agent: AnyAgent = "",
    principal: Principal = "",
    every: Annotated[bool, typer.Option("--all", help="Retired ones too.")] = False,
    as_json: Json = False,
) -> None:
    """List the directives that stand."""
    place = place_of(context)

    async def read() -> list[dict[str, Any]]:
        async with place.reading() as store:
            return [
                {"agent": owner[2], **explaining.told(one)}
                for owner in await owners(place, store, agent, principal)
                for one in await directing.listed(store, owner, retired=every)
            ]

    rows = work(read)
    if as_json:
        output.print_json({"directives": rows})
    elif not rows:
        console().print("No directive stands.")
    else:
        console().print(
            output.table(
                ("ID", "AGENT", "BY", "SINCE (UTC)", "STATE", "TEXT"),
                [
                    (row["id"], line(row["agent"], 40), line(row["by"], 40),
                     output.moment(row["at_us"]), row["state"], line(row["text"], 200))
                    for row in rows
                ],
            )
        )  # fmt: skip


def retire(context: typer.Context, record: Id, note: Note = "", as_json: Json = False) -> None:
    """Take a directive (or a procedure) out of every question to come; it stays on record."""
    _settle(context, record, "retired", note, as_json)


def approve(
    context: typer.Context,
    record: Annotated[
        str,
        typer.Argument(metavar="[ID]", help="Else what is proposed is listed.", show_default=False),
    ] = "",
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Approve a procedure that a run proposed: from here on it is recalled. Without an ID: list
    what is proposed."""
    if record:
        _settle(context, record, "current", note, as_json)
        return
    place = place_of(context)
    rows = work(lambda: _proposed(place))
    if as_json:
        output.print_json({"proposed": rows})
    elif not rows:
        console().print("No procedure is proposed.")
    else:
        console().print(
            output.table(
                ("ID", "AGENT", "FOR", "BY", "SOURCES", "LABEL", "TEXT"),
                [
                    (row["id"], line(row["agent"], 40), line(row["principal"], 40),
                     line(row["by"], 40), line(", ".join(row["sources"]), 80), row["integrity"],
                     line(row["text"], 400))
                    for row in rows
                ],
            )
        )  # fmt: skip
        console().print(
            "`ring0 memory approve ID` approves one, `ring0 memory directive retire ID` ends it."
        )


async def _proposed(place: Place) -> list[dict[str, Any]]:
    """Of every agent and principal of the tenant."""
    tenant = manifests.read_config(place.home).tenant
    async with place.reading() as store:
        return [
            {"agent": one.agent, "principal": one.principal, **explaining.told(one)}
            for owner in sorted(size.owner for size in await store.scopes())
            if owner[0] == tenant
            for one in await store.records(
                scope_of(owner),
                kinds=(MemoryKind.PROCEDURE,),
                states=(RecordState.PROPOSED,),
                most=limits.MEMORY_LISTED_MAX,
            )
        ]


def _settle(context: typer.Context, record: str, state: str, note: str, as_json: bool) -> None:
    place = place_of(context, write=True)
    body = {"record": record, "state": state, "note": note}
    row = work(lambda: _ask(place, "memory-settle", body))
    if as_json:
        output.print_json(row)
        return
    said = "is approved" if state == "current" else "is retired"
    console().print(text((row["id"], "bold"), f" {said}: ", line(row["text"], 200)))


def consolidate(
    context: typer.Context,
    agent: Agent,
    principal: Principal = "",
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="NAME", help="Reads what is new; else as the manifest says."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Tidy up what an agent remembers, in a run of its own: duplicates, and facts it can cite."""
    place = place_of(context, write=True)
    body = {"agent": agent, "principal": principal_of(principal), "model": model}
    told = work(lambda: _ask(place, "memory-consolidate", body))
    if as_json:
        output.print_json(told)
        return
    out = console()
    out.print(text("The run ", (str(told["run"]), "bold"), f" is {told['state']}."))
    for name, noun, what in _COUNTED:
        if number := told.get(name):
            out.print(f"  {output.count(number, noun)} {what}")


async def _ask(place: Place, verb: str, body: dict[str, Any]) -> Any:
    async with operating(place) as operator:
        return await operator.ask(verb, body)


_COUNTED: Final = (
    ("records", "new record", "looked at"),
    ("merged", "record", "merged into one that says the same"),
    ("facts", "fact", "stated"),
    ("procedures", "procedure", "proposed: `ring0 memory approve` lists what is proposed"),
    ("dropped", "answer", "of the model left out: without a source, or of another form"),
)
