"""`diff` and `whatif`: two runs side by side; one call, decided under something else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from msgspec.structs import replace

from ring0.cli import output
from ring0.cli.output import console, indented, line, text
from ring0.cli.place import Json, Place, RunName, call_named, place_of, whole_run_named, work
from ring0.errors import InvalidInput, NotFound
from ring0.kernel import values
from ring0.kernel.agent import manifests
from ring0.kernel.replaying.comparing import Apart, Compared, compare
from ring0.store.sqlite import SqliteStore
from ring0.types import Call, CallKind, Frozen, Verdict

if TYPE_CHECKING:
    from ring0.governance import Policies, Question

_MARKS = {"same": ("  ", "dim"), "differs": ("≠ ", "yellow"), "first": ("- ", "red"),
          "second": ("+ ", "green")}  # fmt: skip

_ALONE = {"first": "in the first alone", "second": "in the second alone"}


class WhatIf(Frozen, frozen=True, kw_only=True):
    """A call as it was decided, and as it would be."""

    call: str
    was: Verdict
    would_be: Verdict
    changed: tuple[str, ...] = ()
    """Arguments that are others."""
    kept: tuple[str, ...] = ()
    """What of it is as it was found out then, though other arguments may make it another."""


def add_to(app: typer.Typer) -> None:
    app.command("diff")(diff)
    app.command("whatif")(whatif)


# --- two runs ------------------------------------------------------------------------------------


def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its beginning.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run beside it.")],
    whole: Annotated[bool, typer.Option("--all", help="Calls that are the same, too.")] = False,
    as_json: Json = False,
) -> None:
    """Put two runs side by side, call by call along their paths: what was asked, decided, and what
    came of it. Exit code 1 where they asked for different things."""
    place = place_of(context)
    found = work(lambda: _compare(place, first, second))
    if as_json:
        output.print_json({**output.builtins(found), "apart": output.builtins(found.apart)})
    else:
        _show(found, whole)
    raise typer.Exit(1 if found.apart is not None else 0)


async def _compare(place: Place, first: str, second: str) -> Compared:
    async with place.reading() as store:
        rows = [await whole_run_named(store, name) for name in (first, second)]
        return await compare(store, rows[0], store, rows[1])


def _show(found: Compared, whole: bool) -> None:
    out = console()
    out.print(text((found.first, "bold cyan"), "  beside  ", (found.second, "bold cyan")))
    said = {"code": found.same_code, "task": found.same_task, "result": found.same_result}
    for name, same in said.items():
        told = ("the same", "dim") if same else ("another", "yellow")
        out.print(indented(text(f"{name:<8}", told), 2))
    shown = [one for one in found.calls if whole or one.how != "same"]
    for one in shown:
        out.print(_row(one))
    if len(shown) < len(found.calls):
        left = len(found.calls) - len(shown)
        out.print(text((f"{output.count(left, 'call')} the same: --all shows them", "dim")))
    if found.apart is None:
        out.print(text(("Both asked for the same. ", "bold green")))
    else:
        out.print(text(("They part at ", "bold"), (line(found.apart.place, 80), "bold yellow")))


def _row(one: Apart) -> Any:
    what = f"{one.kind} {one.name}".strip()
    told = ", ".join(one.what) or _ALONE.get(one.how, "")
    place = (f"{line(one.place, 40):<12} ", "dim")
    return text(_MARKS[one.how], place, (line(what, 80), "bold"), f"  {told}")


# --- one call ------------------------------------------------------------------------------------


def whatif(
    context: typer.Context,
    run: RunName,
    call: Annotated[str, typer.Argument(metavar="CALL", help="Its id, place `0/3`, or `#12`.")],
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            "--policy", metavar="FILE", help="Cedar files; else what ring0.toml says now."
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="ARG=JSON", help="Another argument, as yours. Several times."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide a recorded call under other policies, or with other arguments. Nothing is done."""
    place = place_of(context)
    found = work(lambda: _what_if(place, run, call, policy or [], change or []))
    if as_json:
        output.print_json(found)
        return
    out = console()
    out.print(text((found.call, "bold cyan")))
    for name, verdict in (("was", found.was), ("would be", found.would_be)):
        out.print(indented(text((f"{name:<10}", "dim"), (str(verdict.kind), "bold")), 2))
        for reason in verdict.reasons:
            out.print(indented(text(f"{line(reason.rule, 80)}: ", line(reason.text, 400)), 12))
    if found.kept:
        kept = ", ".join(found.kept)
        out.print(text((f"As it was found out then, and not looked at anew: {kept}.", "yellow")))


async def _what_if(
    place: Place, named: str, call_name: str, files: list[Path], given: list[str]
) -> WhatIf:
    from ring0.cli.explaining import Evidence
    from ring0.governance import Policies

    async with place.reading() as store:
        row = await whole_run_named(store, named)
        call = await call_named(store, row, call_name)
        if not call.decision:
            raise InvalidInput(
                f"{call.id} was refused before any policy was asked.",
                todo=f"`ring0 policy explain {row.id} {call_name}` says by what.",
            )
        evidence = msgspec.json.decode(await store.blob(call.decision), type=Evidence)
        if files:
            policies = Policies.load(files)
        else:
            config = manifests.read_config(place.home)
            policies = Policies.load([place.home / name for name in config.policy], config.profile)
        changes = _changes(given)
        args = dict(evidence.shown.arguments)
        if unknown := sorted(set(changes) - set(args)):
            raise NotFound(
                f"{call.id} has no argument {unknown[0][:60]!r}.",
                why=f"It has: {', '.join(sorted(args))}.",
                todo="Name one that is there.",
            )
        question = _as_if(evidence.question, set(changes))
        if call.kind is CallKind.TOOL and policies.looks_at(call.name):
            question = await _with_args(place, store, call, policies, question, {**args, **changes})
        would_be = policies.decide(question)
    kept = [name for name in ("rows", "tables", "host", "method") if getattr(question, name)]
    kept += ["the scanners' findings"] if changes and question.findings else []
    return WhatIf(
        call=call.id,
        was=call.verdict,
        would_be=would_be,
        changed=tuple(sorted(changes)),
        kept=tuple(kept) if changes else (),
    )


def _changes(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name or name in found:
            raise InvalidInput(f"--set {one[:60]!r} says nothing.", todo="Write --set limit=10.")
        try:
            found[name] = values.parse(value.encode())
        except Exception:
            found[name] = value  # A text, as one types it.
    return found


def _as_if(question: Question, changed: set[str]) -> Question:
    """What a person types is a person's word: of those arguments nothing is held against it."""

    def rest(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one for one in names if one.partition(".")[0].partition("[")[0] not in changed)

    return replace(
        question,
        untrusted_args=rest(question.untrusted_args),
        unfounded_args=rest(question.unfounded_args),
        unchosen_args=rest(question.unchosen_args),
        untrusted_urls=rest(question.untrusted_urls),
        private_args=rest(question.private_args),
        args=None,
    )


async def _with_args(
    place: Place,
    store: SqliteStore,
    call: Call,
    policies: Policies,
    question: Question,
    args: dict[str, Any],
) -> Question:
    from ring0.cli.differing import tools_of

    row = await whole_run_named(store, call.run)
    tool = (await tools_of(store, row, place)).get(call.tool_digest)
    if tool is None:
        raise InvalidInput(
            f"The policy looks at the arguments of {call.name}, which is no more what it was.",
            why="Its schema of then is not known.",
            todo="Put its manifest, or its database, back as it was.",
        )
    return replace(
        question, args=policies.arguments(call.name, call.tool_digest, tool.schema, args)
    )
