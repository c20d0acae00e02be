"""`export run` and `test`: a run in a file, and the file replayed as a test.

The replay of a run of this folder is in auditing.py.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ring0 import limits
from ring0.cli import output
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, RunName, place_of, whole_run_named, work
from ring0.errors import CassetteInvalid, InvalidInput, NotFound, ReplayDiverged

if TYPE_CHECKING:
    from ring0.kernel.replay import Replayed
    from ring0.kernel.replaying.exporting import Exported

TENANT_TODO = "Ask who operates that tenant."


def add_to(app: typer.Typer) -> None:
    app.command("test")(test)


def add_export(group: typer.Typer) -> None:
    """`ring0 export` is a group: what it exports, and whereto, is a verb of its own."""
    group.command("run")(export_run)


def export_run(
    context: typer.Context,
    run: RunName = "last",
    to: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The cassette; else RUN.r0, here."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write an ended run, with all beneath it, into a file that replays anywhere. It holds what
    the run saw and said."""
    place = place_of(context)
    name, done = work(lambda: export_of(place, run))
    path = to or Path(f"{name}.r0")
    _write(path, done.data, force)
    said = {"run": name, "file": str(path), "runs": done.runs, "events": done.events,
            "size_bytes": len(done.data), "log_size": done.size, "log_root": done.root,
            "tools_changed": list(done.changed)}  # fmt: skip
    if as_json:
        output.print_json(said)
        return
    out = console()
    counted = f"{output.count(done.runs, 'run')}, {output.count(done.events, 'event')}"
    out.print(
        text((str(path), "bold cyan"), f"  {counted}, {len(done.data):,} bytes. It holds what the"
             " run saw and said: keep it as you keep that.")
    )  # fmt: skip
    out.print(text((f"Of a log of {done.size} events, root {done.root}", "dim")))
    if done.changed:
        names = line(", ".join(done.changed), 400)
        out.print(
            text(("! ", "yellow"), f"No more what they were when the run called them: {names}. A"
                 " replay has them as they are now, where the agent is told of its tools.")
        )  # fmt: skip


async def export_of(place: Place, named: str) -> tuple[str, Exported]:
    from ring0.kernel.agent import manifests
    from ring0.kernel.replaying.exporting import export

    async with place.reading() as store:
        row = await whole_run_named(store, named)
        if row.tenant != manifests.read_config(place.home).tenant:
            raise NotFound(f"There is no run {named[:40]!r} of this tenant.", todo=TENANT_TODO)
        return row.id, await export(place.home, store, place.runtime, row)


def _write(path: Path, data: bytes, force: bool) -> None:
    """Whole or not at all, and for its owner alone."""
    if path.exists() and not force:
        raise InvalidInput(f"{path} is there already.", todo="Name another file, or add --force.")
    building = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            building.rename(path)
        except BaseException:
            building.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidInput(
            f"{path} can't be written: {error.strerror}.", todo="Name a file that you may write."
        ) from None


def test(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="CASSETTE...", help="Files of `ring0 export run`.")
    ],
    code: Annotated[
        Path | None,
        typer.Option(
            "--code",
            metavar="DIR",
            help="The agent's code as it is now: does it still ask for the same? Else the code"
            " that was recorded.",
        ),
    ] = None,
    read: Annotated[
        list[Path] | None,
        typer.Option(
            "--read",
            metavar="PATH",
            help="What of this machine the recording may be shown, where its [sandbox] read names"
            " it. Several times; Python environments are shown without.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay recorded runs, strictly and from their files alone: no model, no tool, no network."""
    place = place_of(context)
    found = {str(path): work(partial(_play, place, path, code, read or [])) for path in files}
    bad = [(path, one) for path, runs in found.items() for one in runs if not one.ok]
    if as_json:
        output.print_json(
            [{"file": path, **output.builtins(one), "ok": one.ok}
             for path, runs in found.items() for one in runs]
        )  # fmt: skip
        raise typer.Exit(ReplayDiverged.exit_code if bad else 0)
    out = console()
    for path, runs in found.items():
        for one in runs:
            mark = ("✓ ", "green") if one.ok else ("✗ ", "red")
            told = f"  {one.matched} of {one.calls} calls matched  "
            out.print(text(mark, (one.run, "bold cyan"), told, (line(path, 200), "dim")))
            if not one.calls:
                out.print(
                    text(("  It never asked for anything: this shows next to nothing.", "yellow"))
                )
    if bad:
        path, first = bad[0]
        raise ReplayDiverged(
            f"{output.count(len(bad), 'run')} of {line(path, 200)} diverged.",
            why=line(first.divergence, 600),
            todo="`--json` names the call. Other code needs another recording, or is to be mended.",
        )


async def _play(place: Place, path: Path, code: Path | None, read: list[Path]) -> list[Replayed]:
    from ring0.gateway.playing import play
    from ring0.kernel.agent import manifests

    return await play(
        read_file(path),
        place.runtime,
        code=code,
        environment=place.environment,
        read=read,
        tier_min=manifests.read_config(place.home).sandbox.tier,
    )


def read_file(path: Path) -> bytes:
    """Raises CassetteInvalid, InvalidInput."""
    most = limits.CASSETTE_SIZE_BYTES_MAX + limits.CASSETTE_SEAL_SIZE_BYTES_MAX
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InvalidInput(
            f"{path} can't be read: {error.strerror}.", todo="Name a cassette."
        ) from None
    if len(data) > most:
        raise CassetteInvalid(
            f"{path} is too large for a cassette.",
            why=f"One has at most {limits.CASSETTE_SIZE_BYTES_MAX:,} bytes.",
            todo="Name a file of `ring0 export run`.",
        )
    return data
