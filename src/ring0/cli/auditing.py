"""`replay`, `audit verify`, `policy explain`: is the record true, and does it come out so?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring0.cli import output, proving
from ring0.cli.output import console, indented, line, text
from ring0.cli.place import Json, Place, RunName, call_named, place_of, whole_run_named, work
from ring0.cli.proving import AnchorFiles, KeyNames, anchors_for, not_anchored
from ring0.cli.reloading import changes
from ring0.errors import ReplayDiverged, VerifyFailed
from ring0.identity import Vault
from ring0.kernel.agent import manifests
from ring0.observability.proof import logs
from ring0.observability.proof.anchors import Anchors
from ring0.observability.verify import Report, verify

if TYPE_CHECKING:
    from ring0.cli.explaining import Explained
    from ring0.kernel.replay import Replayed

LIMIT = (
    "What was written after the last checkpoint that is kept elsewhere can be rewritten by whoever"
    " owns this machine."
)
HERE = (
    "The checkpoint and its key are this folder's own: whoever owns the machine can rewrite all of"
    " it together. `--anchor FILE --key KEY`, kept elsewhere, finds that out."
)


def add_to(app: typer.Typer) -> None:
    app.command("replay")(replay_run)
    audit = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="The journal's integrity."
    )
    audit.callback()(_group)
    audit.command("verify")(verify_all)
    audit.command("changes")(changes)
    proving.add_to(audit)
    app.add_typer(audit, name="audit")


def _group() -> None:
    """A group with one verb stays a group."""


def replay_run(
    context: typer.Context,
    run: RunName = "last",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Each call must be the same to the byte: there is no other way yet."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Run the agent again from the journal alone: no model, no tool; nothing is written."""
    place = place_of(context)
    done = work(lambda: _replay(place, run))
    if as_json:
        output.print_json({**output.builtins(done), "ok": done.ok})
        raise typer.Exit(0 if done.ok else ReplayDiverged.exit_code)
    result = "the same result" if done.same_result else "another result"
    console().print(
        text(
            (done.run, "bold cyan"),
            f"  {done.matched} of {done.calls} calls matched,"
            f" {result}, {0 if done.ok else 1} divergent",
        )
    )
    if not done.ok:
        raise ReplayDiverged(
            f"The replay of {done.run} diverged.",
            why=line(done.divergence, 600),
            todo=f"`ring0 show {done.run}` has what is on record.",
        )


async def _replay(place: Place, name: str) -> Replayed:
    from ring0.gateway import door
    from ring0.kernel.replay import replay, replay_gate

    async with place.reading() as store:
        row = await whole_run_named(store, name)
        gate = replay_gate(
            store,
            place.runtime,
            place.environment,
            manifests.read_config(place.home),
            Vault(place.home).values(),
        )
        return await replay(place.home, store, gate, door.doors(gate), row.id)


def verify_all(
    context: typer.Context,
    anchor: AnchorFiles = None,
    key: KeyNames = None,
    journal: Annotated[
        Path | None,
        typer.Option(help="A journal.db or a folder of `audit export`: the log alone, no kernel."),
    ] = None,
    log_only: Annotated[
        bool, typer.Option("--log-only", help="The log and its anchors; no values, no tables.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the journal against its anchors: every hash, the order, every value, every row."""
    files, keys = anchor or [], key or []
    if journal is not None or log_only:
        home = None if journal is not None else place_of(context).home
        _verify_log(home, journal, files, keys, as_json)
        return
    place = place_of(context)
    anchors = anchors_for(place.home, files, keys)
    report = work(lambda: _verify(place, anchors))
    limit = LIMIT if files and keys else f"{LIMIT} {HERE}"
    if as_json:
        output.print_json({**output.builtins(report), "anchored_by": _by(anchors), "limit": limit})
        raise typer.Exit(0 if report.ok and anchors.held else VerifyFailed.exit_code)
    out = console()
    out.print(
        text(
            f"events  {report.events}, in one unbroken Merkle log\n"
            if report.ok
            else f"events  {report.events}\n",
            f"values  {report.blobs}\nrows    {report.rows}, against a rebuild from the events\n",
            f"root    {report.root}\n",
            f"head    the head file vouches for {report.anchored} events\n",
            _signed(report.events, anchors),
        )
    )
    if not report.ok:
        for problem in report.problems:
            out.print(indented(text(("✗ ", "red"), line(problem, 400)), 0))
        raise VerifyFailed(
            "The journal is not what it was.",
            why=line(report.problems[0], 400),
            todo="Keep it as it is, and put back a copy to work on.",
        )
    if not anchors.held:
        raise not_anchored(files, anchors)
    out.print(text(("The journal is what was written. ", "bold green")))
    out.print(text((f"The limit: {limit}", "dim")))


def _signed(events: int, anchors: Anchors) -> str:
    if not anchors.held:
        return "signed  no checkpoint vouches for any of it"
    seen = f", seen by {', '.join(map(line, sorted(anchors.witnesses)))}" * bool(anchors.witnesses)
    after = events - anchors.size
    return f"signed  a checkpoint vouches for {anchors.size} events{seen}; {after} came after it"


def _by(anchors: Anchors) -> dict[str, Any]:
    return {"checkpoints": anchors.held, "witnesses": sorted(anchors.witnesses)}


async def _verify(place: Place, anchors: Anchors) -> Report:
    async with place.reading() as store:
        return await verify(store, anchors)


def _verify_log(
    home: Path | None,
    journal: Path | None,
    files: Sequence[Path],
    keys: Sequence[str],
    as_json: bool,
) -> None:
    """The log alone."""
    where = journal or home
    assert where is not None, "one of the two"
    beside = where / logs.CHECKPOINTS
    if not files and journal is not None and beside.is_file():
        files = [beside]
    anchors = anchors_for(home, files, keys, journal)
    report = logs.check_log(logs.entries_of(where), anchors)
    limit = LIMIT if keys else f"{LIMIT} {HERE}"
    if as_json:
        output.print_json({**output.builtins(report), "anchored_by": _by(anchors), "limit": limit})
        raise typer.Exit(0 if report.ok and anchors.held else VerifyFailed.exit_code)
    signed = _signed(report.events, anchors)
    console().print(text(f"events  {report.events}\nroot    {report.root}\n{signed}"))
    if not report.ok:
        raise VerifyFailed(
            "The log is not what was signed.",
            why=line(report.problems[0], 400),
            todo="Keep it as it is: it is evidence.",
        )
    if not anchors.held:
        raise not_anchored(files, anchors)
    console().print(text(("The log is what was signed. ", "bold green")))
    console().print(text((f"The limit: {limit}", "dim")))


def explain_call(
    context: typer.Context,
    run: RunName,
    call: Annotated[
        str,
        typer.Argument(
            metavar="CALL", help="Its id, its place `0/3`, or its seq `#12` (in quotes)."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Decide a call again, with the policy and the facts of then, and show what determined it."""
    place = place_of(context)
    explained = work(lambda: _explain(place, run, call))
    if as_json:
        output.print_json(explained.as_dict())
    else:
        _print(explained)


async def _explain(place: Place, run: str, name: str) -> Explained:
    from ring0.cli.explaining import explain

    async with place.reading() as store:
        return await explain(
            store, await call_named(store, await whole_run_named(store, run), name)
        )


def _print(explained: Explained) -> None:
    out = console()
    call = explained.call
    out.print(
        text(
            (call.id, "bold cyan"),
            f"  #{call.seq}  ",
            (f"{call.kind} {call.name}".strip(), "bold"),
            "  ",
            (str(call.verdict.kind), "bold"),
        )
    )
    for reason in call.verdict.reasons:
        out.print(indented(text((f"{reason.rule}: ", "bold"), line(reason.text, 600)), 2))
    if explained.error:
        out.print(
            indented(
                text(
                    ("It came to: ", "dim"),
                    line(explained.error["what"], 600),
                    " ",
                    line(explained.error["why"], 600),
                ),
                2,
            )
        )
    if explained.again is None:
        out.print(text(f"No policy was asked: {explained.why_no_policy}"))
        return
    same = (
        "the same verdict" if explained.same else f"ANOTHER verdict: {explained.again.verdict.kind}"
    )
    out.print(
        text(
            ("Decided again with the policy of then ", "dim"),
            (f"{call.verdict.policy_digest[:16]}…", ""),
            (": ", "dim"),
            (same, "bold green" if explained.same else "bold red"),
        )
    )
    for policy in explained.again.policies:
        out.print(indented(text((policy.text.strip(), "cyan")), 4))
    out.print(text(("What it was decided on", "bold")))
    facts: dict[str, Any] = output.builtins(explained.again.question)
    for name, value in facts.items():
        out.print(indented(text((f"{name:<20} ", "dim"), output.value_line(value, 300)), 4))
    if explained.origins:
        out.print(text(("Where its arguments came from", "bold")))
    for origin in explained.origins:
        sources = ", ".join(origin.sources) or "nowhere that the kernel has seen"
        out.print(
            indented(
                text(
                    f"{line(origin.argument, 60)} = {line(origin.value, 80)}: ",
                    sources,
                    (f"  [{origin.integrity}]", "dim"),
                ),
                4,
            )
        )
