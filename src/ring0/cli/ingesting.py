"""`memory ingest`, `memory documents`: files into what an agent remembers, and which there are.

The files are read here, as whoever types; the kernel gets their bytes and opens none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ring0 import limits
from ring0.cli import output, paths
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Note, Place, place_of, work
from ring0.errors import InvalidInput, NotFound, Ring0Error
from ring0.memory.documents import NOT_INGESTED

if TYPE_CHECKING:
    from ring0.gateway.control import Operations

Agent = Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent that recalls it.")]
Principal = Annotated[
    str, typer.Option("--principal", metavar="NAME", help="For whose runs; else for yours.")
]


class SomeNotIngested(InvalidInput):
    """Some files were not ingested; each has said why."""

    code = "some_not_ingested"


def add_to(group: typer.Typer) -> None:
    group.command("ingest")(ingest)
    group.command("documents")(documents)


def ingest(
    context: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="Files, or folders with all in them.")
    ],
    agent: Agent,
    principal: Principal = "",
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="What the (one) document is called.")
    ] = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="As your own word; else it is untrusted.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Who recalls it has seen what is private.")
    ] = False,
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="Forget what it said before and says no more.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="And erase the ended runs that recalled that.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let an agent recall what is in documents, with citations."""
    place = place_of(context, write=True)
    found, skipped = paths.found(files)
    if name and len(found) != 1:
        raise InvalidInput(
            f"--as names one document, and there are {len(found)} files.", todo="Give one file."
        )
    if not found:
        raise _nothing(skipped)
    body: dict[str, Any] = {"agent": agent, "principal": principal, "note": note}
    body |= {"trust": trust, "private": private, "forget_old": forget_old, "yes": yes}
    if name:
        found = {name: next(iter(found.values()))}
    rows = work(lambda: _ingest(place, found, body, quiet=as_json))
    if as_json:
        output.print_json({"documents": rows, "skipped": skipped})
    else:
        _print_rest(rows, skipped, agent)
    failed = [row["error"] for row in rows if "error" in row]
    if failed and as_json:
        raise typer.Exit(SomeNotIngested.exit_code)
    if failed and len(rows) == 1:
        raise SomeNotIngested(failed[0]["what"], why=failed[0]["why"], todo=failed[0]["todo"])
    if failed:
        raise SomeNotIngested(
            f"{len(failed)} of {len(rows)} files were not ingested.",
            why=failed[0]["what"],
            todo="What stands above says why of each; the others are.",
        )


def documents(
    context: typer.Context, agent: Agent, principal: Principal = "", as_json: Json = False
) -> None:
    """List the documents that an agent can recall."""
    place = place_of(context, write=True)

    async def ask() -> Any:
        async with operating(place) as operator:
            return await operator.ask("memory-documents", {"agent": agent, "principal": principal})

    rows = work(ask)
    if as_json:
        output.print_json({"documents": rows})
    elif not rows:
        console().print(text(f"There are no documents for {line(agent, 60)}."))
    else:
        heads = ("DOCUMENT", "PASSAGES", "LABEL", "SHA-256", "SINCE (UTC)", "BY", "SOURCE")
        console().print(output.table(heads, [_listed(row) for row in rows]))


def _listed(row: dict[str, Any]) -> tuple[str, ...]:
    label = row["label"]
    private = label.get("confidentiality", "public")
    return (
        line(row["document"], 80),
        f"{row['passages']:,}",
        label["integrity"] + ("" if private == "public" else f", {private}"),
        row["digest"][:12],
        output.moment(row["at_us"]),
        line(row["by"], 40),
        row["source"],
    )


async def _ingest(
    place: Place, files: dict[str, Path], body: dict[str, Any], *, quiet: bool
) -> list[dict[str, Any]]:
    """One after the other: a file that can't be read keeps none of the others out."""
    rows: list[dict[str, Any]] = []
    async with operating(place) as operator:
        for name, path in files.items():
            row: dict[str, Any] = {"file": str(path)}
            upload = place.runtime.random_bytes(16).hex()
            try:
                row |= await _send(operator, path, {**body, "name": name, "upload": upload})
            except Ring0Error as error:
                if error.as_dict()["code"] not in _OF_THE_FILE:
                    raise
                row |= {"document": name, "error": error.as_dict()}
            if not quiet and not ("error" in row and len(files) == 1):
                _print(row)
            rows.append(row)
    return rows


async def _send(operator: Operations, path: Path, body: dict[str, Any]) -> dict[str, Any]:
    """The file in pieces; what became of it."""
    data = paths.read(path)
    size = limits.DOCUMENT_PIECE_SIZE_BYTES
    starts = range(0, max(len(data), 1), size)
    done: Any = None
    for start in starts:
        piece = {"data": data[start : start + size], "first": start == 0}
        last = start == starts[-1]
        done = await operator.ask("memory-ingest", {**body, **piece, "last": last})
    return dict(done)


def _print(row: dict[str, Any]) -> None:
    name = line(row["document"], 100)
    if "error" in row:
        error = row["error"]
        what = "" if error["what"].endswith(NOT_INGESTED) else error["what"]
        words = " ".join(filter(None, (what, error["why"], error["todo"])))
        console().print(text(("FAILED     ", "bold red"), (name, "bold"), f"  {line(words, 400)}"))
        return
    parts = [f"{row[what]:,} {word}" for what, word in _COUNTED.items() if row.get(what)]
    counted = output.count(row["passages"], "passage")
    if row["state"] != "unchanged" and parts:
        counted += f": {', '.join(parts)}"
    if row["label"]["integrity"] != "untrusted":
        counted += f", trusted as {row['label']['integrity']}"
    console().print(text((f"{row['state']:<11}", "bold"), (name, "bold"), f"  {counted}"))


def _print_rest(rows: list[dict[str, Any]], skipped: dict[str, str], agent: str) -> None:
    out = console()
    for path, why in list(skipped.items())[: limits.DOCUMENTS_SKIPPED_SHOWN_MAX]:
        out.print(text(("skipped    ", "dim"), f"{line(path, 100)}  {why}"))
    if (more := len(skipped) - limits.DOCUMENTS_SKIPPED_SHOWN_MAX) > 0:
        out.print(text(("skipped    ", "dim"), f"and {more:,} more; --json lists them all"))
    good = [row for row in rows if "error" not in row]
    if good and good[0]["label"]["integrity"] == "untrusted":
        out.print(
            text(
                ("Labelled untrusted, and so is a run that recalls them; --trust says otherwise."
                 f' `ring0 memory search "…" --agent {line(agent, 60)}` finds them.', "dim")
            )
        )  # fmt: skip


def _nothing(skipped: dict[str, str]) -> NotFound:
    why = "; ".join(f"{path}: {reason}" for path, reason in list(skipped.items())[:3])
    return NotFound(
        "There is no file of a kind that is read.",
        why=line(why, 400) if why else "The folders are empty, or all in them is hidden.",
        todo="Name files: text, Markdown, HTML, PDF, .docx, .rst, CSV, JSON Lines, programs.",
    )


_COUNTED: Final = {
    "written": "new",
    "kept": "kept",
    "superseded": "superseded",
    "forgotten": "forgotten",
}
_OF_THE_FILE: Final = ("document_unreadable", "invalid_input")
"""Errors that say nothing about the next file."""
