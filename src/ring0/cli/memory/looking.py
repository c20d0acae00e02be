"""`memory search`, `show`, `why`, `facts`, `stats`: read beside any kernel, without a lock.

A search asks the kernel that is at work, if one is: it has the indexes, and knows meanings beside
words.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from ring0 import limits
from ring0.cli import output
from ring0.cli.memory.scopes import AnyAgent, Principal, owners, principal_of, scope_of
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, work
from ring0.gateway.holding import holder
from ring0.kernel.agent import manifests
from ring0.kernel.folder import LOCK
from ring0.kernel.lineage.reaching import quarantined
from ring0.kernel.memory import explaining
from ring0.memory import facts as remembered_facts
from ring0.types import Integrity, MemoryKind, RecordState

Record = Annotated[str, typer.Argument(metavar="ID", help="A record's id: `r-…#12`, `m-…#3.1`.")]


def add_to(group: typer.Typer) -> None:
    group.command("search")(search)
    group.command("show")(show)
    group.command("why")(why)
    group.command("facts")(facts)
    group.command("stats")(stats)


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="A few words.")],
    agent: AnyAgent = "",
    principal: Principal = "",
    k: Annotated[int, typer.Option("--k", help="At most so many of each agent.")] = 10,
    kind: Annotated[
        list[MemoryKind] | None,
        typer.Option("--kind", help="Only these: several times.", show_default=False),
    ] = None,
    as_of: Annotated[
        str, typer.Option("--as-of", metavar="TIME", help="What was known and held then.")
    ] = "",
    min_integrity: Annotated[
        Integrity | None,
        typer.Option("--min-integrity", help="Nothing worse than this.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search what the runs of an agent remember, for one principal and no other."""
    place, who = place_of(context), principal_of(principal)
    asked: dict[str, Any] = {"query": query, "k": k, "kinds": kind or [], "as_of": as_of}
    asked["min_integrity"] = min_integrity
    found = work(lambda: _search(place, agent, who, asked))
    if as_json:
        told = [{"agent": name, **row} for name, row in found]
        output.print_json({"principal": who, "found": told})
    elif not found:
        console().print(text(f"Nothing that is remembered for {who} has these words."))
    else:
        console().print(
            output.table(
                ("ID", "AGENT", "KIND", "LABEL", "TIME (UTC)", "TEXT"),
                [_found_row(name, row) for name, row in found],
            )
        )


def _found_row(agent: str, row: dict[str, Any]) -> tuple[str | Text, ...]:
    said = row["text"]
    if row.get("document"):
        said = f"{row['document']}, {row['place']}: {said}"
    kind = row["role"] if row["kind"] == "episode" else row["kind"]
    return (
        line(row["id"], 40),
        line(agent, 40),
        line(f"{kind}, disputed" if row.get("disputed") else kind, 40),
        row["integrity"],
        output.moment(row.get("happened_us") or row["at_us"]),
        line(said, 240),
    )


async def _search(
    place: Place, agent: str, who: str, asked: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    async with place.reading() as store:
        if not agent and not await store.scopes():
            return []
        names = [one[2] for one in await owners(place, store, agent, who)]
    if holder(place.home / LOCK) is not None:
        async with operating(place) as operator:
            return [
                (name, row)
                for name in names
                for row in await operator.ask(
                    "memory-search", {"agent": name, "principal": who, **asked}
                )
            ]
    return await _search_here(place, names, who, asked)


async def _search_here(
    place: Place, names: list[str], who: str, asked: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """By words alone, in this process."""
    from ring0.kernel.memory.calls import RECALLED_KINDS, shown
    from ring0.kernel.memory.manager import Memory

    tenant = manifests.read_config(place.home).tenant
    found: list[tuple[str, dict[str, Any]]] = []
    async with place.reading() as store:
        here = Memory(store, place.runtime)
        for name in names:
            rows = await here.recall(
                scope_of((tenant, who, name)),
                asked["query"],
                k=asked["k"],
                kinds=asked["kinds"] or RECALLED_KINDS,
                as_of_us=remembered_facts.moment_us(asked["as_of"], what="--as-of"),
                min_integrity=asked["min_integrity"],
            )
            for one in rows:
                told = shown(one.record, one.score, await here.is_disputed(one.record))
                found.append((name, {**told, "why": one.why}))
    return found


def show(context: typer.Context, record: Record, as_json: Json = False) -> None:
    """Show one record, whole."""
    place = place_of(context)
    told = work(lambda: _told(place, record, whole=False))
    if as_json:
        output.print_json(told)
        return
    _print(told)
    console().print()
    console().print(text(output.safe(told["text"])))


def why(context: typer.Context, record: Record, as_json: Json = False) -> None:
    """Tell where a record came from, what it was made of, and what came of it."""
    place = place_of(context)
    told = work(lambda: _told(place, record, whole=True))
    if as_json:
        output.print_json(told)
        return
    out = console()
    _print(told)
    for title, rows in (("made of", told["parents"]), ("forgotten since", told["gone"])):
        for row in rows:
            said = row if isinstance(row, str) else f"{row['id']}  {row['role']}: {row['text']}"
            out.print(text((f"  {title}  ", "dim"), line(said, 200)))
    for one in told["seen"][: limits.FORGET_PLAN_SHOWN_MAX]:
        out.print(text(("  its run had recalled  ", "dim"), one))
    for child in told["children"][: limits.FORGET_PLAN_SHOWN_MAX]:
        how = "made of it" if child["by"] == "parents" else "written after it was recalled"
        out.print(text((f"  {how}  ", "dim"), child["id"]))
    for run in told["recalled_by"]:
        out.print(text(("  recalled by  ", "dim"), run))


async def _told(place: Place, record: str, *, whole: bool) -> dict[str, Any]:
    async with place.reading() as store:
        row = await explaining.find(store, record)
        explaining.check_tenant(row, manifests.read_config(place.home).tenant)
        owner = (row.tenant, row.principal, row.agent)
        found = {"agent": row.agent, "principal": row.principal}
        if not whole:
            return found | explaining.told(row)
        return found | (await explaining.explain(store, row, among=owner)).as_dict()


def _print(told: dict[str, Any]) -> None:
    rows = [
        ("record", told["id"]),
        ("what", ", ".join(dict.fromkeys((told["kind"], told["role"]))) + _state(told)),
        ("of", f"{told['agent']} for {told['principal']}"),
        ("written", f"{output.moment(told['at_us'])} UTC by {told['by']}, in {told['act']}"),
    ]
    if told.get("call"):
        rows.append(("by the call", told["call"]))
    if "subject" in told:
        rows.append(("fact", f"{told['subject']} {told['predicate']}: {told['text']}"))
        held = f"{told['valid_from'] or 'ever'} to {told['valid_to'] or 'now'}"
        rows.append(("holds", held))
    if told.get("document"):
        rows.append(("from", f"{told['document']}, {told['place']}"))
    rows.append(("label", f"{told['integrity']}, {told['confidentiality']}"))
    rows += [("source", one) for one in told["sources"]]
    for name, said in rows:
        console().print(text((f"{name:<12}", "dim"), line(said, 400)))


def _state(told: dict[str, Any]) -> str:
    if told["superseded_us"]:
        return f"; superseded by {told['superseded_by'] or 'an operator'}"
    return "" if told["state"] == "current" else f"; {told['state']}"


def facts(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="[SUBJECT]", show_default=False)] = "",
    agent: AnyAgent = "",
    principal: Principal = "",
    as_of: Annotated[
        str, typer.Option("--as-of", metavar="TIME", help="What was known and held then.")
    ] = "",
    history: Annotated[
        bool, typer.Option("--history", help="Those that were superseded too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what is stated as fact; what is disputed stands there with each value."""
    place = place_of(context)
    at_us = remembered_facts.moment_us(as_of, what="--as-of")

    async def read() -> list[dict[str, Any]]:
        found = []
        async with place.reading() as store:
            out = quarantined(manifests.read_config(place.home).tenant, await store.quarantines())
            from ring0.kernel.lineage.reaching import is_out

            for owner in await owners(place, store, agent, principal):
                rows = await store.records(
                    scope_of(owner),
                    kinds=(MemoryKind.FACT,),
                    states=(RecordState.CURRENT,),
                    subject=subject,
                    superseded=history or at_us > 0,
                    most=limits.MEMORY_LISTED_MAX,
                )
                rows = [one for one in rows if not is_out(one.id, out)]
                for one in rows:
                    if history or remembered_facts.holds(one, at_us):
                        told = explaining.told(one)
                        told["disputed"] = remembered_facts.disputed(one, rows)
                        found.append({"agent": owner[2], **told})
        return found

    rows = work(read)
    if as_json:
        output.print_json({"facts": rows})
    elif not rows:
        console().print("No fact is remembered.")
    else:
        console().print(
            output.table(
                ("ID", "SUBJECT", "PREDICATE", "VALUE", "HOLDS FROM", "TO", "LABEL", ""),
                [
                    (
                        row["id"],
                        line(row["subject"], 60),
                        line(row["predicate"], 60),
                        line(row["text"], 120),
                        row["valid_from"][:10],
                        row["valid_to"][:10],
                        row["integrity"],
                        "disputed" if row["disputed"] else _state(row).removeprefix("; "),
                    )
                    for row in rows
                ],
            )
        )


def stats(context: typer.Context, as_json: Json = False) -> None:
    """Show whose memory there is, how much of it, and how it is searched."""
    place = place_of(context)

    async def read() -> tuple[list[Any], dict[str, Any]]:
        async with place.reading() as store:
            sizes = await store.scopes()
        if holder(place.home / LOCK) is None:
            return sizes, {}
        async with operating(place) as operator:
            return sizes, await operator.ask("memory-stats", {})

    sizes, search = work(read)
    if as_json:
        scopes = [
            {"tenant": one.owner[0], "principal": one.owner[1], "agent": one.owner[2],
             "records": one.records, "text_bytes": one.text_bytes, "newest_us": one.newest_us}
            for one in sizes
        ]  # fmt: skip
        output.print_json({"scopes": scopes, "search": search})
        return
    if not sizes:
        console().print("Nothing is remembered yet.")
        return
    console().print(
        output.table(
            ("AGENT", "FOR", "RECORDS", "TEXT", "NEWEST (UTC)"),
            [
                (line(one.owner[2], 60), line(one.owner[1], 60), f"{one.records:,}",
                 f"{one.text_bytes:,} B", output.moment(one.newest_us))
                for one in sizes
            ],
        )
    )  # fmt: skip
    if search:
        for name, said in _searched(search):
            console().print(text((f"{name:<10}", "dim"), line(said, 200)))
    else:
        console().print("No kernel is at work: beside one, this tells how memory is searched.")


def _searched(search: dict[str, Any]) -> list[tuple[str, str]]:
    """Who makes vectors, and how far they are; why not, where none are made."""
    model, records = search["model"], search["records"]
    rows = [("vectors", search["embeddings"])]
    if model:
        done = search["vectors"].get(model, 0)
        told = f"{done:,} of {output.count(records, 'record')} have one"
        rows.append(("", told))
    if search["serving"] and search["serving"] != model:
        rows.append(("", f"those of {search['serving']} serve until then"))
    if search["trouble"]:
        rows.append(("trouble", search["trouble"]))
    return rows
