"""`labels`: where the values of a run came from, and what came of a source; from the journal alone.

Not here: how that is found (kernel/lineage/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, indented, line, text
from ring0.cli.parts import named, worst_read
from ring0.cli.parts import place as place_in_run
from ring0.cli.place import Json, Place, RunName, call_named, place_of, whole_run_named, work
from ring0.errors import InvalidInput
from ring0.types import CallKind, Run

if TYPE_CHECKING:
    from rich.tree import Tree

    from ring0.kernel.lineage.reaching import Item, Reached
    from ring0.kernel.lineage.tracing import Step, Trace, Traced, Traces
    from ring0.store.sqlite import SqliteStore

NOWHERE = "nowhere that the kernel has seen"
_STYLES = {"untrusted": "red", "trusted-field": "green", "user": "bold green", "system": "dim"}


def add_to(app: typer.Typer) -> None:
    app.command("labels")(labels)


def labels(
    context: typer.Context,
    run: RunName = "last",
    call: Annotated[
        str,
        typer.Argument(metavar="[CALL]", help="A call: its id, its place `0/3`, or its seq `#12`."),
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="SOURCE",
            help="What came of it in this tree: a result `crm.query@r-…/0/3`, a tool, a file, a"
            " URL, `run r-…`.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Show where each argument of a run's calls came from; of one call, the whole way back."""
    if call and source:
        raise InvalidInput(
            "A call has a way back, and a source a way on.", todo="Give CALL, or --source."
        )
    place = place_of(context)
    work(lambda: _labels(place, run, call, source, as_json))


async def _labels(place: Place, name: str, call: str, source: str, as_json: bool) -> None:
    from ring0.kernel.lineage.tracing import Traces

    async with place.reading() as store:
        row = await whole_run_named(store, name)
        if source:
            found = await _of_source(place, store, row, source)
            if as_json:
                output.print_json(found)
            else:
                print_reached(found)
            return
        traces = Traces(store)
        if call:
            way = await traces.way(await _call_id(store, traces, row, call))
            if as_json:
                output.print_json({"run": row.id, "way": way})
            else:
                console().print(_drawn(way))
            return
        trace = await traces.of(row.id)
    if as_json:
        output.print_json({"run": row.id, "calls": list(trace.calls.values())})
    else:
        _print(trace)


async def _call_id(store: SqliteStore, traces: Traces, row: Run, name: str) -> str:
    """Of a call that is on record, or of one that is held. Raises NotFound."""
    held = f"{row.id}/{name.removeprefix(f'{row.id}/')}"
    if held in (await traces.of(row.id)).calls:
        return held
    return (await call_named(store, row, name)).id


# --- one run: each call, one step back ----------------------------------------------------------


def _print(trace: Trace) -> None:
    out, run = console(), trace.run
    head = f"  has read: {worst_read(run.label)}"
    out.print(text((run.id, "bold cyan"), (head, "dim")))
    for call in trace.calls.values():
        out.print(_head(call))
        for words in _question(call) if call.kind is CallKind.MODEL else _origins(call):
            out.print(indented(words, 4))
        for argument, who in call.edited.items():
            out.print(indented(text((f"{line(argument, 60)} was changed by ", "yellow"), who), 4))
        for path, label in call.fields.items():
            out.print(indented(text(("field ", "dim"), line(path, 80), (f"  [{label}]", "dim")), 4))
        for said in call.declassified:
            out.print(indented(text((declassified(said), "yellow")), 4))


def _origins(call: Traced) -> Iterator[Any]:
    for origin in call.origins:
        yield text(
            f"{line(origin.argument, 60)} = {line(origin.value, 80)}: ",
            ", ".join(line(one, 80) for one in origin.sources) or NOWHERE,
            (f"  [{origin.integrity if origin.sources else 'untrusted'}]", "dim"),
        )


def _question(call: Traced) -> Iterator[Any]:
    """What a model was asked is the whole conversation, and each tool with its schema: only where
    it came from. `ring0 labels RUN CALL` has each text of it."""
    sources = dict.fromkeys(one for origin in call.origins for one in origin.sources)
    nowhere = sum(not origin.sources for origin in call.origins)
    found = ", ".join(line(one, 80) for one in sources) or "nothing that the kernel has seen"
    yield text(f"its question: {found}", (f"; {nowhere} texts from {NOWHERE}", "dim"))


def declassified(said: Any) -> str:
    values = output.count(said.values, "value")
    return (
        f"declassified by {line(said.by, 100)}: {line(said.what, 80)}, {values}, from"
        f" {said.before} to {said.after}"
    )


def _head(call: Traced) -> Any:
    name = named(str(call.kind), call.name)
    label = f"  → [{call.label.integrity}, {call.label.confidentiality}]"
    own = f"{call.name or call.kind}@{call.call}"
    others = [line(one, 80) for one in call.label.sources if one != own]
    if call.remembered:
        others += [f"noted by {line(one, 80)}" for one in call.remembered]
    return text(
        (f"{place_in_run(call.call)} #{call.seq}  ", "dim"),
        (line(name, 120), "bold"),
        (f"  {call.state}", "dim"),
        (label, _STYLES.get(str(call.label.integrity), "")),
        (f"  from {', '.join(others)}" if others else "", "dim"),
    )


# --- one call: the whole way back ---------------------------------------------------------------


def _drawn(way: Step) -> Tree:
    from rich.tree import Tree

    tree = Tree(_step(way), guide_style="dim")
    stack = [(tree, way)]
    while stack:
        branch, step = stack.pop()
        for inner in step.behind:
            stack.append((branch.add(_step(inner)), inner))
    return tree


def _step(step: Step) -> Any:
    nowhere = step.kind == "argument" and not step.behind and not step.told
    return text(
        (line(step.what, 200), "bold" if step.kind in ("call", "run") else ""),
        (f"  {step.call}" if step.call else "", "dim"),
        (f": {NOWHERE}" if nowhere else "", "red"),
        (f"  [{step.integrity}]" if step.integrity and not nowhere else "",
         _STYLES.get(step.integrity, "")),
        ("  told elsewhere in this tree" if step.told else "", "dim"),
    )  # fmt: skip


# --- a source: the way on -----------------------------------------------------------------------


async def _of_source(place: Place, store: Any, row: Run, source: str) -> Reached:
    """What came of it in the tree of this run."""
    from msgspec.structs import replace

    from ring0.kernel.lineage.reaching import reached

    found = await reached(store, place.runtime, row.tenant, source)
    tree = {one.id for one in await store.runs(root=row.root, most=limits.RUNS_LISTED_MAX)}
    return replace(
        found,
        runs={run: seq for run, seq in found.runs.items() if run in tree},
        items=tuple(item for item in found.items if item.run in tree),
        live=tuple(run for run in found.live if run in tree),
    )


def print_reached(found: Reached) -> None:
    """By run, what may come of the source."""
    out = console()
    if not found.runs:
        out.print(text(f"No run has got anything of a source {line(found.source, 120)}."))
        out.print(
            text(
                (
                    "It is named as `ring0 labels RUN` prints it after `from`; no part of a text.",
                    "dim",
                )
            )
        )
        return
    items: dict[str, list[Item]] = {}
    for item in found.items:
        items.setdefault(item.run, []).append(item)
    runs = output.count(len(found.runs), "run")
    out.print(text((line(found.source, 160), "bold cyan"), f"  was seen by {runs}"))
    for run, seq in found.runs.items():
        state = "goes on" if run in found.live else "has ended"
        out.print(text((run, "bold"), (f"  from #{seq} on; {state}", "dim")))
        for words in _items(items.get(run, ())):
            out.print(indented(words, 4))
    if found.more:
        out.print(text((f"and {found.more:,} things more, which are not told one by one", "dim")))
    for name in found.pending:
        out.print(text((name, "bold yellow"), "  waits for an answer, and rests on it"))


def _items(items: Iterable[Item]) -> Iterable[Any]:
    for item in items:
        yield text(
            (f"#{item.seq}  ", "dim"),
            (f"{item.kind}  ", "bold" if item.direct else ""),
            line(item.name, 200) or "what the kernel noted of it",
            ("  came from it" if item.direct else "", "red"),
        )
