"""`sandbox exec | selftest`: any command in a fresh sandbox, and attacks on such sandboxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ring0.cli import output
from ring0.cli.output import console, put, text
from ring0.cli.place import Json, Place, WithCommand, command_of, place_of, work
from ring0.errors import InvalidInput
from ring0.tools.sandbox.sandbox import TIER
from ring0.tools.sandbox.selftest import ATTACKS, Attack, Finding, Report, State, selftest

if TYPE_CHECKING:
    from ring0.cli.confining import Ended

OPEN_EXIT: Final = 1
_STYLES: Final = {
    State.CLOSED: "green",
    State.OPEN: "bold red",
    State.NOT_HERE: "dim",
    State.GAP: "yellow",
    State.BROKEN: "bold red",
    State.NO_CONTROL: "bold red",
}

Tier = Annotated[
    str,
    typer.Option(
        "--tier", metavar="TIER", help="The weakest isolation that will do; less is an error."
    ),
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Commands in sandboxes, without a run."
    )
    group.command("exec", cls=WithCommand)(execute)
    group.command("selftest")(test)
    app.add_typer(group, name="sandbox")


def execute(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- CMD ARGS", show_default=False, help="The command."),
    ] = None,
    tier: Tier = TIER,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="RULE",
            help="A host that it may reach: `host` (https, reading only), or"
            " `POST https://host/path/*`.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit", metavar="NAME=N", help="memory=256M,processes=8,tmp=64M,cpu=5s,wall=30s,…"
        ),
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(
            "--read",
            metavar="PATH[:INSIDE]",
            help="A file or folder that it sees, read-only, at the same path or another.",
        ),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", metavar="DIR", help="Copied in, as its /work."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the files go that it changed in /work."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="Into its environment."),
    ] = None,
) -> None:
    """Run a command in a fresh sandbox, with nothing of this machine but what is named."""
    from ring0.cli.confining import Command, bounds_of, confine, environment_of

    place = place_of(context)
    argv = command_of(context)
    if words or not argv:
        raise InvalidInput(
            "There is no command to run." if not words else f"{words[0][:60]!r} is left over.",
            todo="Put the command after `--`: `ring0 sandbox exec -- CMD ARGS`.",
        )
    command = Command(
        argv=argv,
        tier=tier,
        allow=tuple(allow or ()),
        bounds=bounds_of(limit or []),
        read=tuple(read or ()),
        workspace=workspace,
        out=out,
        env=environment_of(env or []),
    )
    ended = work(lambda: confine(place, command), kept="Nothing is kept of it.")
    _tell(ended, out)
    raise typer.Exit(ended.code)


def _tell(ended: Ended, out: Path | None) -> None:
    """What the command itself can't say, on standard error."""
    error = console(error=True)
    for asked, times in ended.refused:
        put(error, text(("ring0: ", "dim"), f"refused: {asked}  ({times}×)"))
    for path, why in ended.left_out:
        put(error, text(("ring0: ", "dim"), f"left out: {output.escaped(path, 200)}  ({why})"))
    if out is not None:
        copied = output.count(len(ended.copied), "file")
        put(error, text(("ring0: ", "dim"), f"{copied} copied to {out}"))


# --- selftest ---------------------------------------------------------------------------------


def test(
    context: typer.Context,
    tier: Tier = TIER,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="An attack, or a family of them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack sandboxes of this machine, each attack with proof that it works outside of one."""
    place = place_of(context)
    attacks = _named(only or [])
    report = work(lambda: _selftest(place, tier, attacks, as_json), kept="Nothing is kept of it.")
    if as_json:
        output.print_json(_as_dict(report))
    else:
        _summary(report)
    if not report.good:
        raise typer.Exit(OPEN_EXIT)


def _named(names: list[str]) -> list[Attack]:
    known = {attack.name for attack in ATTACKS} | {attack.family for attack in ATTACKS}
    for name in names:
        if name not in known:
            families = ", ".join(dict.fromkeys(attack.family for attack in ATTACKS))
            raise InvalidInput(
                f"There is no attack {name[:40]!r}.", todo=f"The families are: {families}."
            )
    return [a for a in ATTACKS if not names or a.name in names or a.family in names]


async def _selftest(place: Place, tier: str, attacks: list[Attack], as_json: bool) -> Report:
    from ring0.cli.confining import Maker

    maker = Maker(place.runtime)
    try:
        return await selftest(
            maker,
            place.runtime,
            tier=tier,
            attacks=attacks,
            found=None if as_json else _print,
        )
    finally:
        await maker.close()


def _print(finding: Finding) -> None:
    """One line; more only for what is not as it should be."""
    out = console()
    name = f"{finding.family}/{finding.name}"
    put(out, text((f"{finding.state:<9}", _STYLES[finding.state]), f" {name:<32} ", finding.tries))
    if finding.state is State.CLOSED:
        return
    if finding.why:
        put(out, text(("why      ", "dim"), output.line(finding.why)), 10)
    if finding.state is not State.NOT_HERE:
        put(out, text(("inside   ", "dim"), output.line(finding.inside)), 10)
        put(out, text(("outside  ", "dim"), output.line(finding.control)), 10)


def _summary(report: Report) -> None:
    counts = [
        output.count(len(report.findings), "attack"),
        f"{report.count(State.OPEN)} open",
        *(
            f"{number} {state}"
            for state in (State.NO_CONTROL, State.BROKEN, State.GAP, State.NOT_HERE)
            if (number := report.count(state))
        ),
        f"{output.count(report.held, 'control')} held",
    ]
    style = "bold green" if report.good else "bold red"
    where = f"tier {report.tier}, kernel uid {report.kernel_uid}"
    took = output.lasted(0, report.took_ms * 1_000)
    put(console(), text((", ".join(counts), style), f" ({where}), in {took}"))


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "tier": report.tier,
        "kernel_uid": report.kernel_uid,
        "good": report.good,
        "attacks": len(report.findings),
        **{state.name.lower(): report.count(state) for state in State},
        "controls_held": report.held,
        "took_ms": report.took_ms,
        "findings": list(report.findings),
    }
