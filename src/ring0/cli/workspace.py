"""`workspace diff | export`: what a run did to its files, and how they leave ring0.

What leaves are regular files without an exec bit. Names that programs act on by themselves stay.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from ring0.cli import leaving, output
from ring0.cli.comparing import Compared, compare, visible
from ring0.cli.output import console, text
from ring0.cli.place import Json, Place, RunName, call_named, place_of, whole_run_named, work
from ring0.errors import InvalidInput, LimitReached, NotFound
from ring0.store.sqlite import SqliteStore
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.workspace.history import Change, changes_of_call, changes_of_run
from ring0.types import File, FileDelta, Run

_STYLES: Final = {"@": "cyan", "+": "green", "-": "red", "\\": "dim"}


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The files of a run.")
    group.command("diff")(diff)
    group.command("export")(export)
    app.add_typer(group, name="workspace")


# --- diff -----------------------------------------------------------------------------------


def diff(
    context: typer.Context,
    run: RunName = "last",
    call: Annotated[
        str,
        typer.Option(
            "--call", metavar="CALL", help="Of one call: its id, its place `0/3`, or its seq `#12`."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Show what a run, or one call of it, did to the run's files."""
    place = place_of(context)
    work(lambda: _diff(place, run, call, as_json))


async def _diff(place: Place, name: str, of: str, as_json: bool) -> None:
    async with place.reading() as store:
        row = await whole_run_named(store, name)
        call = await call_named(store, row, of) if of else None
        changes = await (changes_of_call(store, call) if call else changes_of_run(store, row.id))
        compared = [await _compared(store, change) for change in changes]
    if as_json:
        told = [_as_dict(change, one) for change, one in zip(changes, compared, strict=True)]
        output.print_json({"run": row.id, "call": call.id if call else None, "files": told})
        return
    out = console()
    out.print(text((call.id if call else row.id, "bold cyan"), f"  {_counted(compared)}"))
    for one in compared:
        _print(out, one)


async def _compared(store: SqliteStore, change: Change) -> Compared:
    before, after = [
        None if delta is None else await store.blob(delta.blob)
        for delta in (change.before, change.after)
    ]
    return compare(change.path, before, after)


def _counted(compared: list[Compared]) -> str:
    if not compared:
        return "changed no file"
    made = sum(one.before_bytes is None for one in compared)
    removed = sum(one.after_bytes is None for one in compared)
    counts = {"made": made, "changed": len(compared) - made - removed, "removed": removed}
    return ", ".join(f"{output.count(n, 'file')} {what}" for what, n in counts.items() if n)


def _print(out: Console, one: Compared) -> None:
    path = visible(one.path)
    if one.note:
        sizes = " → ".join(_size(size) for size in (one.before_bytes, one.after_bytes))
        output.put(out, text((path, "bold"), f"  {sizes}", (f"  ({one.note})", "dim")))
        return
    for mark, side, size in (("---", "a", one.before_bytes), ("+++", "b", one.after_bytes)):
        name = "/dev/null" if size is None else f"{side}/{path}"
        output.put(out, text((f"{mark} {name}", "bold"), (f"  {_size(size)}", "dim")))
    for line in one.lines:
        output.put(out, text((line, _STYLES.get(line[0], ""))))


def _size(size_bytes: int | None) -> str:
    return "nothing" if size_bytes is None else output.count(size_bytes, "byte")


def _as_dict(change: Change, one: Compared) -> dict[str, object]:
    def side(delta: FileDelta | None) -> object:
        return None if delta is None else {"size_bytes": delta.size_bytes, "label": delta.label}

    return {
        "path": change.path,
        "before": side(change.before),
        "after": side(change.after),
        "lines": list(one.lines),
        "note": one.note,
    }


# --- export ---------------------------------------------------------------------------------


@dataclass
class Exported:
    """What left, and what did not."""

    run: Run
    files: list[File] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def export(
    context: typer.Context,
    run: RunName,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that is empty or not there yet.")
    ],
    everything: Annotated[
        bool,
        typer.Option(
            "--with-dotfiles",
            help="Also dotfiles, and files that programs obey because they are there"
            " (conftest.py, *.pth, …).",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a run's files out of ring0: regular files, none of them executable."""
    place = place_of(context)
    exported = work(lambda: _export(place, run, folder, everything))
    if as_json:
        output.print_json(
            {
                "run": exported.run.id,
                "folder": str(folder),
                "files": exported.files,
                "left_out": [{"path": path, "why": why} for path, why in exported.left_out],
            }
        )
        return
    out = console()
    for file in exported.files:
        parts = ("  ", visible(file.path), (f"  {_size(file.size_bytes)}", "dim"))
        output.put(out, text(*parts, (f"  [{file.label.integrity}]", "dim")))
    for path, why in exported.left_out:
        output.put(out, text(("  left out  ", "yellow"), visible(path), (f"  {why}", "dim")))
    out.print(
        text(f"{output.count(len(exported.files), 'file')} of {exported.run.id} copied to {folder}")
    )


async def _export(place: Place, name: str, folder: Path, everything: bool) -> Exported:
    async with place.reading() as store:
        exported = Exported(await whole_run_named(store, name))
        files = await store.files(exported.run.id)
        beneath = _empty(folder)
        try:
            for file in files:
                why = _why_not(file, files, everything)
                if not why:
                    why = _copy(beneath, file, await store.blob(file.blob))
                if why:
                    exported.left_out.append((file.path, why))
                else:
                    exported.files.append(file)
        finally:
            beneath.close()
    return exported


def _why_not(file: File, files: list[File], everything: bool) -> str:
    """Why a file stays; empty where it may leave."""
    if any(other.path.startswith(file.path + "/") for other in files):
        return "other files lie beneath a folder of this name"
    if everything:
        return ""
    why = leaving.why_not(file.path)
    return f"{why}: see --with-dotfiles" if why else ""


def _copy(beneath: Beneath, file: File, content: bytes) -> str:
    """Why it could not be written; empty where it was. Raises LimitReached on a full disk."""
    try:
        beneath.mkdirs(file.path.rpartition("/")[0], 0o755)
        beneath.write(file.path, content, 0o644)
    except InvalidInput as error:  # A name that this file system can't have.
        return error.why or error.what
    except LimitReached:
        raise LimitReached(
            f"{visible(file.path)} does not fit: the disk is full.",
            why="What was copied before it is there.",
            todo="Make room, and export into an empty folder again.",
        ) from None
    return ""


def _empty(folder: Path) -> Beneath:
    """The folder, made where it is not there. Raises InvalidInput, NotFound."""
    try:
        if not folder.exists():
            folder.mkdir(mode=0o755)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(
            f"There is no folder {str(folder.parent)[:200]!r}.", todo="Make it first."
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"{str(folder)[:200]!r} can't be written to: {os.strerror(error.errno or 0)}.",
            todo="Name a folder of your own; it must not be a link.",
        ) from None
    if os.listdir(opened):
        os.close(opened)
        raise InvalidInput(
            f"{str(folder)[:200]!r} is not empty.",
            why="A file of the run could take the place of one of yours.",
            todo="Name an empty folder, or one that is not there yet.",
        )
    return Beneath(opened)
