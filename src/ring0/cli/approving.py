"""What waits for people, and their answers: `approvals`, `approve`, `deny`, `revoke`.

By way of the kernel that has the data folder, or one opened for just this.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import typer

from ring0 import limits
from ring0.cli import anew, lengths, output
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.parts import Asking, asking, held, shown_of
from ring0.cli.place import Json, Note, Place, place_of, run_named, work
from ring0.errors import InvalidInput, NotFound
from ring0.store.sqlite import SqliteStore
from ring0.types import Approval, ApprovalState, Shown, Standing, Terms

_APPROVAL: Final = "a-"
_NO_PATTERN: Final[dict[str, Any]] = {"same": {}, "like": {}}
"""Of a run whose values were erased."""
"""What every id of one begins with, and none of a run."""

ApprovalNames = Annotated[
    list[str], typer.Argument(metavar="APPROVAL…", help="As `ring0 approvals` lists them.")
]
Like = Annotated[
    bool, typer.Option("--like", help="And all that wait of this run and are like the first.")
]


def add_to(app: typer.Typer) -> None:
    for name, verb in (
        ("approvals", approvals),
        ("approve", approve),
        ("deny", deny),
        ("revoke", revoke),
    ):
        app.command(name)(verb)


def approvals(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[RUN|APPROVAL]",
            help="Those of a run and of all beneath it; or that one, whatever became of it.",
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Those that were answered too.")] = False,
    standing: Annotated[
        bool, typer.Option("--standing", help="What was said yes to in advance, instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the calls that wait for a human, each with what it would do and what its arguments
    take."""
    place = place_of(context)
    if standing:
        _show_standing(place, name, every, as_json)
        return
    found = work(lambda: _approvals(place, name, every))
    if as_json:
        output.print_json(
            {
                "approvals": [
                    {
                        **output.builtins(a),
                        "agent": of.run.agent,
                        "principal": of.run.principal,
                        "task": of.task,
                        "shown": s,
                    }
                    for a, s, of in found
                ]
            }
        )
    elif not found:
        console().print("Nothing waits for an answer.")
    elif every and not name.startswith(_APPROVAL):
        console().print(_table(found))
    else:
        for approval, shown, of in found:
            console().print(held(approval, shown, of))


def _table(found: list[tuple[Approval, Shown, Asking]]) -> Any:
    return output.table(
        ("APPROVAL", "STATE", "CALL", "WHAT", "ASKED (UTC)", "BY", "NOTE"),
        [
            (
                a.id,
                str(a.state),
                a.call,
                s.title,
                output.moment(a.asked_us),
                ", ".join(a.yes_by) if len(a.yes_by) > 1 else a.answered_by,
                a.note,
            )
            for a, s, _ in found
        ],
    )


async def _approvals(place: Place, name: str, every: bool) -> list[tuple[Approval, Shown, Asking]]:
    async with place.reading() as store:
        if name.startswith(_APPROVAL):
            rows = [await _one(store, name)]
        else:
            rows = await store.approvals(states=() if every else [ApprovalState.PENDING])
            runs = await _beneath(store, name) if name else None
            rows = [row for row in rows if runs is None or row.run in runs]
        found = []
        for row in rows:
            of = await asking(store, row)
            found.append((row, await shown_of(store, row, of.run), of))
        return found


async def _one(store: SqliteStore, name: str) -> Approval:
    """Raises NotFound."""
    row = await store.approval(name)
    if row is None:
        raise NotFound(
            f"There is no approval {name[:40]!r}.", todo="`ring0 approvals --all` lists them."
        )
    return row


async def _beneath(store: SqliteStore, name: str) -> frozenset[str]:
    """The run of that name and all that it has started, and those that they have. Raises NotFound,
    InvalidInput."""
    top = await run_named(store, name)
    found = {top.id}
    tree = await store.runs(root=top.root, most=limits.RUNS_LISTED_MAX)
    for row in sorted(tree, key=lambda row: row.depth):
        if row.parent in found:
            found.add(row.id)
    return frozenset(found)


def _show_standing(place: Place, name: str, every: bool, as_json: bool) -> None:
    found = work(lambda: _standing(place, name, every))
    if as_json:
        output.print_json(
            {"standing": [{**output.builtins(row), "pattern": fits} for row, fits in found]}
        )
    elif not found:
        console().print("Nothing was said yes to in advance.")
    else:
        console().print(
            output.table(
                ("STANDING", "TOOL", "WHERE", "ARGUMENTS", "USED", "UNTIL (UTC)", "BY"),
                [
                    (
                        row.id,
                        row.tool,
                        f"{row.agent}, for {row.principal}" if row.everywhere else row.run,
                        _arguments(fits),
                        str(row.uses),
                        f"revoked by {row.revoked_by}"
                        if row.revoked_by
                        else output.moment(row.expires_us),
                        row.given_by,
                    )
                    for row, fits in found
                ],
            )
        )


def _arguments(fits: dict[str, Any]) -> str:
    same = [f"{name} = {output.value_line(value, 60)}" for name, value in fits["same"].items()]
    like = [f"{name} like {glob}" for name, glob in fits["like"].items()]
    return line("; ".join([*same, *like]) or "none", 400)


async def _standing(place: Place, name: str, every: bool) -> list[tuple[Standing, dict[str, Any]]]:
    """Those that stand, or all; of a run and all beneath it. One of a run ends with it."""
    now_us = place.runtime.now_us()
    async with place.reading() as store:
        found = []
        runs = await _beneath(store, name) if name else None
        for row in await store.standings():
            if runs is not None and row.run not in runs:
                continue
            run = await store.run(row.run)
            ended = not row.everywhere and (run is None or run.ended_us > 0)
            if every or not (row.revoked_by or ended or row.expires_us <= now_us):
                erased = run is not None and run.erased
                fits = b"" if erased else await store.blob(row.pattern)
                found.append((row, msgspec.json.decode(fits) if fits else _NO_PATTERN))
        return found


def approve(
    context: typer.Context,
    approvals: ApprovalNames,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="ARG=VALUE",
            help="Change an argument: the call is judged anew with it, as yours.",
        ),
    ] = None,
    for_run: Annotated[
        bool, typer.Option("--for-run", help="Calls of this run that fit too, until it ends.")
    ] = False,
    until: Annotated[
        str,
        typer.Option(
            "--until",
            metavar="TIME",
            help="Calls that fit too, in runs that the same person starts of this agent: 30m, 2h.",
        ),
    ] = "",
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match",
            metavar="ARG=GLOB",
            help="With --for-run and --until: this argument may differ; all others are equal.",
        ),
    ] = None,
    like: Like = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let a held call go on: this call, with these arguments, once."""
    terms = None
    if for_run or until:
        if for_run and until:
            raise InvalidInput("--for-run and --until are two things.", todo="Say one of them.")
        terms = Terms(until_s=_seconds(until), match=_pairs(match, "--match"))
    elif match:
        raise InvalidInput("--match goes with --for-run or --until.", todo="Say which.")
    body = {
        "approvals": approvals,
        "yes": True,
        "note": note,
        "like": like,
        "edits": _pairs(change, "--set"),
        "terms": terms,
    }
    _answer(context, body, as_json)


def deny(
    context: typer.Context,
    approvals: ApprovalNames,
    like: Like = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Refuse held calls."""
    body = {"approvals": approvals, "yes": False, "note": note, "like": like}
    _answer(context, body, as_json)


def _answer(context: typer.Context, body: dict[str, Any], as_json: bool) -> None:
    place = place_of(context, write=True)
    rows, at_work = _given(place, body)
    edited = rows[0] if rows[0].state is ApprovalState.EDITED else None
    if not as_json:
        for row in rows:
            console().print(text((row.id, "bold"), f" {_told(row)}: {row.call}"))
    found = work(lambda: anew.look(place, edited)) if edited is not None and at_work else None
    if as_json:
        said: Any = rows[0] if len(body["approvals"]) == 1 and len(rows) == 1 else rows
        if edited is not None:
            said = {**output.builtins(edited), "anew": found.as_dict() if found else None}
        output.print_json(said)
        return
    if edited is not None and anew.ask(found, edited.run) and found is not None and found.ask:
        again = {"approvals": [found.ask.id], "yes": True, "note": body["note"]}
        for row in _given(place, again)[0]:
            console().print(text((row.id, "bold"), f" {_told(row)}: {row.call}"))


def _given(place: Place, body: dict[str, Any]) -> tuple[list[Approval], bool]:
    """The answer is on record; whether the kernel that has it carries runs on."""

    async def answer() -> tuple[list[Approval], bool]:
        from ring0.gateway.remote import Remote

        async with operating(place) as operator:
            rows = msgspec.convert(await operator.ask("answers", body), list[Approval])
            return rows, isinstance(operator, Remote)

    return work(answer)


def _told(row: Approval) -> str:
    if row.state is ApprovalState.PENDING:
        return f"has {len(row.yes_by)} of {row.needs} yeses, and waits"
    if row.state is ApprovalState.EDITED:
        return f"changed by {row.answered_by}, and judged anew"
    by = " and ".join(row.yes_by) if len(row.yes_by) > 1 else row.answered_by
    return f"{row.state} by {by}"


def revoke(
    context: typer.Context,
    standing: Annotated[
        str, typer.Argument(metavar="STANDING", help="As `ring0 approvals --standing` lists it.")
    ],
    as_json: Json = False,
) -> None:
    """Take back what was said yes to in advance."""
    place = place_of(context, write=True)

    async def end() -> Standing:
        async with operating(place) as operator:
            return msgspec.convert(await operator.ask("revoke", {"standing": standing}), Standing)

    row = work(end)
    if as_json:
        output.print_json(row)
    else:
        used = output.count(row.uses, "use")
        console().print(text((row.id, "bold"), f" revoked by {row.revoked_by}, after {used}"))


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given or ():
        name, sign, value = one.partition("=")
        if not sign or not name or name in found:
            raise InvalidInput(
                f"{option} {one[:60]!r} says nothing."
                if not sign or not name
                else f"{option} names {name[:60]!r} twice.",
                todo=f"Write it like {option} to=ann@example.com, each argument once.",
            )
        found[name] = value
    return found


def _seconds(until: str) -> int:
    if not until:
        return 0
    seconds = lengths.seconds(until)
    if not seconds:
        raise InvalidInput(f"--until {until[:40]!r} is no time.", todo="Write it like 30m or 2h.")
    return seconds
