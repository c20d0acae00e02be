"""`memory export` and `memory import`: memory as a file. The file is read and written here, as
whoever types; the kernel gets records."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.memory.scopes import Agent, Principal, owners, principal_of, scope_of
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.errors import InvalidInput
from ring0.memory import exchange
from ring0.memory.exchange import Bundle, Imported
from ring0.memory.forgetting import all_of
from ring0.types import Record

if TYPE_CHECKING:
    from ring0.gateway.control import Operations


def add_to(group: typer.Typer) -> None:
    group.command("export")(export)
    group.command("import")(take)


def export(
    context: typer.Context,
    agent: Agent,
    to: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A new file; else standard output.")
    ] = "-",
    principal: Principal = "",
) -> None:
    """Write all that an agent remembers for one principal as JSON Lines."""
    place = place_of(context)

    async def read() -> list[bytes]:
        async with place.reading() as store:
            (owner,) = await owners(place, store, agent, principal)
            records: list[Record] = [one async for one in all_of(store, scope_of(owner))]
        lines = [exchange.header(owner, place.runtime.now_us())]
        return lines + [exchange.line(one) for one in reversed(records)]

    lines = work(read)
    if to == "-":
        for one in lines:
            sys.stdout.write(one.decode() + "\n")
        return
    try:
        with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(one + b"\n" for one in lines)
    except OSError as error:
        raise InvalidInput(
            f"{to[:200]} can't be written.",
            why=f"{error.strerror}.",
            todo="Name a file that is not there yet.",
        ) from None
    console().print(text(f"{output.count(len(lines) - 1, 'record')} to ", (line(to, 200), "bold")))


def take(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(help="Of `memory export`, mem0's get_all() as JSON, or a Letta `.af`."),
    ],
    agent: Agent,
    principal: Principal = "",
    owner: Annotated[
        str,
        typer.Option(
            "--owner", metavar="NAME", help="Whose, where the file holds several people's."
        ),
    ] = "",
    trust: Annotated[
        bool,
        typer.Option("--trust", help="You answer for it (role admin); else it is a stranger's."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take in what was remembered elsewhere. Twice the same file changes nothing."""
    place = place_of(context, write=True)
    data = _read(file)
    bundle = exchange.read(data, owner=owner)
    source = f"import:{hashlib.sha256(data).hexdigest()[:16]}"
    body = {"agent": agent, "principal": principal_of(principal), "source": source, "trust": trust}
    done = work(lambda: _take(place, bundle, body))
    told = {"format": bundle.format, "records": len(bundle.records), **done,
            "left_out": dict(bundle.left_out), "source": source}  # fmt: skip
    if as_json:
        output.print_json(told)
        return
    out = console()
    out.print(
        text(
            f"{output.count(told['records'], 'record')} of {bundle.format}: {told['new']} new,"
            f" {told['records'] - told['new']} that were here already."
        )
    )
    out.print(text(("  their source  ", "dim"), source))
    if told["demoted"]:
        counted = output.count(told["demoted"], "directive")
        said = f"{counted} came as notes: only --trust takes directives."
        out.print(text("  ", said))
    for why, count in bundle.left_out.items():
        out.print(text(("  left out  ", "dim"), line(f"{count} × {why}", 200)))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(limits.EXCHANGE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(
            f"{str(file)[:200]} can't be read.", why=f"{error.strerror}.", todo="Name another file."
        ) from None
    if len(data) > limits.EXCHANGE_SIZE_BYTES_MAX:
        raise InvalidInput(
            f"{str(file)[:200]} is too large.",
            why=f"At most {limits.EXCHANGE_SIZE_BYTES_MAX:,} bytes are taken.",
            todo="Split it.",
        )
    return data


async def _take(place: Place, bundle: Bundle, body: dict[str, Any]) -> dict[str, Any]:
    done: Counter[str] = Counter(new=0, demoted=0)
    async with operating(place) as operator:
        known: dict[str, str] = {}
        for page in pages(bundle.records):
            answer = await _page(operator, page, known, body)
            known |= answer["ids"]
            done.update(new=answer["new"], demoted=answer["demoted"])
    return dict(done)


async def _page(
    operator: Operations, page: list[Imported], known: dict[str, str], body: dict[str, Any]
) -> Any:
    named = {one for each in page for one in (*each.parents, each.superseded_by)}
    said = {one: known[one] for one in named if one in known}
    asked = {**body, "page": [msgspec.to_builtins(one) for one in page], "known": said}
    return await operator.ask("memory-import", asked)


def pages(records: list[Imported]) -> list[list[Imported]]:
    """What fits into one request; what was made of a record comes in a later page than it."""
    found: list[list[Imported]] = []
    page: list[Imported] = []
    names: set[str] = set()
    size_bytes = 0
    for one in records:
        more_bytes = len(msgspec.json.encode(one))
        full = len(page) >= limits.EXCHANGE_PAGE_RECORDS
        full = full or size_bytes + more_bytes > limits.EXCHANGE_PAGE_BYTES_MAX
        if page and (full or not names.isdisjoint(one.parents)):
            found.append(page)
            page, names, size_bytes = [], set(), 0
        page.append(one)
        names.add(one.origin)
        size_bytes += more_bytes
    return [*found, page] if page else found
