"""`memory forget`: shows what would be gone for good, takes it away, and proves it by a receipt."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ring0.cli import output
from ring0.cli.memory.scopes import principal_of
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Note, Place, place_of, run_named, work
from ring0.errors import Interrupted, InvalidInput
from ring0.memory import facts


class NotForgotten(InvalidInput):
    """A look by a receipt found that something is left."""

    code = "not_forgotten"


def add_to(group: typer.Typer) -> None:
    group.command("forget")(forget)


def forget(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Records.", show_default=False)
    ] = None,
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="Whose memory.")] = "",
    principal: Annotated[
        str, typer.Option("--principal", metavar="NAME", help="For whom; else for you.")
    ] = "",
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="All that this run wrote.")] = "",
    document: Annotated[
        str, typer.Option("--document", metavar="NAME", help="All passages of this document.")
    ] = "",
    subject: Annotated[
        str, typer.Option("--subject", metavar="NAME", help="All facts of this subject.")
    ] = "",
    source: Annotated[
        str, typer.Option("--source", metavar="SOURCE", help="What has this source in its label.")
    ] = "",
    before: Annotated[
        str, typer.Option("--before", metavar="TIME", help="What was written before this.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--everything", help="All that the agent remembers for the principal.")
    ] = False,
    only_made: Annotated[
        bool,
        typer.Option(
            "--only-made",
            help="Not what was only written after it was recalled: that may say the same.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without being asked.")] = False,
    receipt: Annotated[
        str, typer.Option("--receipt", metavar="ID", help="Of something forgotten before.")
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="With --receipt: only look whether all is gone.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Forget records for good: their texts, what was made of them, and the calls that hold them."""
    selectors = any((ids, run, document, subject, source, before, everything))
    if receipt:
        if selectors or yes:
            raise InvalidInput(
                "--receipt stands alone, or with --check.",
                todo="`ring0 memory forget --receipt ID --check`",
            )
        _receipt(context, receipt, check=check, as_json=as_json)
        return
    if check:
        raise InvalidInput("--check takes a --receipt.", todo="Give the one that forget printed.")
    place = place_of(context, write=True)
    body: dict[str, Any] = {
        "agent": agent, "principal": principal_of(principal), "ids": ids or [], "act": run,
        "document": document, "subject": subject, "source": source,
        "before_us": facts.moment_us(before, what="--before"), "everything": everything,
        "only_made": only_made, "note": note,
    }  # fmt: skip
    if not agent:
        raise InvalidInput(
            "Whose memory is to be forgotten was not said.",
            why="Without it, it could be anybody's.",
            todo="Give --agent NAME, and --principal NAME where it is not yours.",
        )
    if not yes:
        plan = work(lambda: _ask(place, body))
        if as_json:
            output.print_json({"plan": plan, "done": False})
            return
        _confirm(plan)
    done = work(lambda: _ask(place, body | {"yes": True}))
    if as_json:
        output.print_json({"receipt": done, "done": True})
    else:
        _print_receipt(done)


async def _ask(place: Place, body: dict[str, Any]) -> Any:
    if body["act"] and not body["act"].startswith("m-"):
        async with place.reading() as store:
            body = {**body, "act": (await run_named(store, body["act"])).id}
    async with operating(place) as operator:
        return await operator.ask("memory-forget", body)


def _confirm(plan: dict[str, Any]) -> None:
    """Shows what would be gone, and asks. Raises Interrupted for any answer but yes."""
    out = console()
    for title, rows in (
        ("meant", plan["chosen"]),
        ("made of it", plan["made_of_them"]),
        ("written after", plan["written_after"]),
    ):
        for row in rows:
            said = line(f"{row['kind']} {row['role']}: {row['text']}", 160)
            out.print(text((f"{title:<14}", "dim"), (row["id"], "bold"), "  ", said))
    for run in plan["runs"]:
        out.print(text((f"{'erased':<14}", "dim"), (run, "bold"), "  its calls hold the text"))
    for one in plan["blocked"]:
        said = f"  {one['why']}: {one['todo']}"
        out.print(text(("in the way    ", "bold red"), (one["run"], "bold"), line(said, 200)))
    made = plan["made"] + plan["seen"]
    out.print(
        text(
            f"{output.count(plan['records'], 'record')}, {made} that came of"
            f" {'it' if plan['records'] == 1 else 'them'}, and the values of"
            f" {output.count(len(plan['runs']), 'run')} would be gone for good. Archives, back-ups"
            " and exports that somebody made are not looked at."
        )
    )
    if plan["blocked"]:
        raise InvalidInput(
            "It can't be forgotten yet.", why="See above.", todo=plan["blocked"][0]["todo"]
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        out.print(text(("Nothing was done: give --yes to do it.", "bold")))
        raise typer.Exit(2)
    out.print("Forget it? Type yes: ", end="")
    if sys.stdin.readline().strip().lower() != "yes":
        raise Interrupted("Nothing was done.", todo="Nothing.")


def _receipt(context: typer.Context, receipt: str, *, check: bool, as_json: bool) -> None:
    place = place_of(context, write=not check)

    async def look() -> Any:
        from ring0.kernel.memory import forgetting  # It loads numpy.

        async with place.reading() as store:
            return (await forgetting.check(store, receipt)).as_dict()

    async def finish() -> Any:
        async with operating(place) as operator:
            return await operator.ask("memory-receipt", {"receipt": receipt})

    found = work(look if check else finish)
    if as_json:
        output.print_json({"receipt": found})
    else:
        _print_receipt(found)
    if found["left"]:
        raise NotForgotten(
            f"{receipt} is not done.",
            why=f"There is still: {', '.join(found['left'][:5])[:300]}.",
            todo=f"`ring0 memory forget --receipt {receipt}` finishes it.",
        )


def _print_receipt(found: dict[str, Any]) -> None:
    out = console()
    out.print(text("Receipt ", (found["id"], "bold"), f" of {output.moment(found['at_us'])} UTC"))
    out.print(
        text(
            f"  {output.count(found['records'], 'record')}, {found['derived']} of them because they"
            f" came of the others; {output.count(len(found['runs']), 'run')} erased; by"
            f" {line(found['by'], 80)}"
        )
    )
    out.print(text(("  of the ids  ", "dim"), found["digest"]))
    if not found["left"]:
        out.print(
            text("  ", ("nothing is left", "bold"), ": rows, index, vectors, what came of it")
        )
