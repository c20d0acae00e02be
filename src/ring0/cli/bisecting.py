"""`bisect`: the first commit with which a recorded run does not come out as it did.

Of the agent's code: it is replayed, strictly, from what is on record. Of policies: what was decided
is decided again. Nothing is checked out, nothing is called, nothing is written.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ring0.cli import output
from ring0.cli.output import console, indented, line, text
from ring0.cli.place import Json, Place, place_of, whole_run_named, work
from ring0.cli.replaying import export_of, read_file
from ring0.errors import InvalidInput, Ring0Error
from ring0.kernel.replaying.searching import Check, Found, Repository, first_bad
from ring0.types import Frozen

REVISION_CHARS = 12


class Blamed(Frozen, frozen=True, kw_only=True):
    """A commit, and what is not as it was from there on."""

    commit: str
    subject: str
    why: str
    good: str
    tried: int


def add_to(app: typer.Typer) -> None:
    app.command("bisect")(bisect)


def bisect(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN|CASSETTE", help="A run of this folder, or a cassette.")
    ],
    good: Annotated[str, typer.Option("--good", metavar="REV", help="With it, it came out so.")],
    bad: Annotated[str, typer.Option("--bad", metavar="REV", help="With it, it doesn't.")] = "HEAD",
    folder: Annotated[
        Path,
        typer.Option("--folder", metavar="DIR", help="The agent's, in a git work tree; else here."),
    ] = Path(),
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="Beneath that folder: search these policies' history, not the code's.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the commit from which on a recorded run comes out otherwise: its agent asks for
    something else, or (--policy) something is decided otherwise."""
    place = place_of(context)
    found = work(lambda: _bisect(place, run, good, bad, folder, policy or []))
    if as_json:
        output.print_json(found)
        return
    out = console()
    out.print(text((found.commit[:REVISION_CHARS], "bold red"), f"  {line(found.subject, 200)}"))
    out.print(indented(text(line(found.why, 600)), 4))
    told = f"{output.count(found.tried, 'commit')} tried; {found.good[:REVISION_CHARS]} is good"
    out.print(text((told, "dim")))


async def _bisect(
    place: Place, named: str, good: str, bad: str, folder: Path, policy: list[str]
) -> Blamed:
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {str(folder)[:200]!r}.", todo="Name the agent's.")
    repository = await Repository.around(folder.resolve(), place.runtime)
    check = (
        await _policies(place, named, repository, policy)
        if policy
        else await _code(place, named, repository)
    )
    found: Found = await first_bad(await repository.between(good, bad), check)
    return Blamed(
        commit=found.bad.revision,
        subject=(await repository.told(found.bad.revision)).strip(),
        why=found.bad.why,
        good=found.good,
        tried=len(found.tried),
    )


async def _code(place: Place, named: str, repository: Repository) -> Check:
    """Whether the code of a commit asks for just what is on record."""
    from ring0.gateway.playing import play
    from ring0.kernel.agent.manifests import read_config

    path = Path(named)
    strange = path.is_file()
    data = read_file(path) if strange else (await export_of(place, named))[1].data
    shown = () if strange else (Path("/"),)  # What a run of this folder was shown, it is again.
    tier = read_config(place.home).sandbox.tier

    async def check(commit: str) -> str:
        with tempfile.TemporaryDirectory(prefix="ring0-bisect-") as made:
            laid = await repository.lay_out(commit, Path(made))
            try:
                runs = await play(
                    data,
                    place.runtime,
                    code=laid,
                    environment=place.environment,
                    read=shown,
                    tier_min=tier,
                )
            except Ring0Error as error:
                return f"{error.what} {error.why}".strip()
            return next((one.divergence or "it differs" for one in runs if not one.ok), "")

    return check


async def _policies(place: Place, named: str, repository: Repository, files: list[str]) -> Check:
    """Whether the policies of a commit decide all that the run asked as it was decided then."""
    from ring0.cli.differing import again, tools_of
    from ring0.cli.explaining import Evidence
    from ring0.governance import Policies

    async with place.reading() as store:
        row = await whole_run_named(store, named)
        tools = await tools_of(store, row, place)
        decided = [
            (call, msgspec.json.decode(await store.blob(call.decision), type=Evidence))
            for call in await store.calls(row.id)
            if call.decision
        ]

    async def check(commit: str) -> str:
        with tempfile.TemporaryDirectory(prefix="ring0-bisect-") as made:
            laid = await repository.lay_out(commit, Path(made))
            try:
                policies = Policies.load([laid / name for name in files])
            except Ring0Error as error:
                return f"{error.what} {error.why}".strip()
        for call, evidence in decided:
            verdict = again(policies, call, evidence, tools)
            if verdict is None:
                return f"{call.id} can't be decided again: its tool is no more what it was."
            if verdict.kind != call.verdict.kind:
                rules = ", ".join(reason.rule for reason in verdict.reasons)
                return f"{call.id} was {call.verdict.kind}, and is {verdict.kind} by {rules}"
        return ""

    return check
