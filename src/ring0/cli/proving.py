"""`audit checkpoint | prove | receipt | export | key | erase`: what proves the journal to others.

All but `--sign`, `--rotate` and `erase` only read, beside a kernel that is at work or none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ring0.cli import output
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Note, Place, place_of, run_named, work
from ring0.errors import InvalidInput, NotFound, Ring0Error, VerifyFailed
from ring0.observability.proof import anchors, checkpoints, logs, proofs
from ring0.observability.proof.anchors import Anchors
from ring0.observability.proof.checkpoints import Checkpoint, Receipt
from ring0.observability.proof.notes import Key, read_key
from ring0.observability.proof.tiles import Tiles
from ring0.store.sqlite import SqliteStore

AnchorFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchor", help="A file of checkpoints that was kept elsewhere; may be said again."
    ),
]
KeyNames = Annotated[
    list[str] | None,
    typer.Option("--key", help="A key that you trust, NAME+ID+BASE64; may be said again."),
]


class NotAnchored(VerifyFailed):
    """No checkpoint vouches for the journal."""

    code = "not_anchored"


def add_to(audit: typer.Typer) -> None:
    for verb in (checkpoint, prove, receipt, export, key, erase):
        audit.command(verb.__name__)(verb)


def anchors_for(
    home: Path | None, files: Sequence[Path], keys: Sequence[str], log: Path | None = None
) -> Anchors:
    """Those that were given; else the newest one that lies in the folder. `log`: a journal away
    from its kernel, or an export. How keys followed each other lies beside it. Raises NoteWrong."""
    notes = [note for path in files for note in anchors.read_notes(path)]
    if not files and home is not None:
        notes = [*filter(None, [anchors.newest_note(home)])]
    handovers = anchors.handovers_of(home) if home is not None else []
    if log is not None:
        folder = log if log.is_dir() else log.parent
        handovers = anchors.handovers_of(folder)
        if (folder / logs.CHECKPOINTS).is_file():
            handovers += anchors.read_notes(folder / logs.CHECKPOINTS)
    return Anchors(notes, [read_key(name) for name in keys], handovers)


def not_anchored(files: Sequence[Path], of: Anchors) -> NotAnchored:
    """Raised where nothing else is wrong."""
    if of.elsewhere:
        why = (
            f"{of.elsewhere} checkpoints are of other logs, or under keys that nothing vouches for"
            " (after `ring0 restore` of a journal that does not know its newest key: `ring0 audit"
            " key` prints it, and `--key` trusts it)"
        )
    elif files:
        why = "The files that were given hold no checkpoint of it"
    else:
        why = "This folder holds no checkpoint, and none was given"
    return NotAnchored(
        "No anchor vouches for the journal: what it says agrees with itself, and that is all.",
        why=f"{why}. Whoever can write here could have rewritten all of it.",
        todo="Give checkpoints that were kept elsewhere: --anchor FILE --key KEY. `ring0 audit"
        " checkpoint --sign` makes the first.",
    )


# --- checkpoint, key ------------------------------------------------------------------------------


def checkpoint(
    context: typer.Context,
    sign: Annotated[bool, typer.Option("--sign", help="Sign the journal as it is now.")] = False,
    as_json: Json = False,
) -> None:
    """Print the newest signed checkpoint: keep it elsewhere, and nothing before it can change."""
    place = place_of(context, write=sign)
    note = work(lambda: _checkpoint(place, sign))
    if as_json:
        said = checkpoints.said_in(note)
        told = {"origin": said.origin, "size": said.size, "root": said.root.hex(), "note": note}
        output.print_json(told)
    else:
        typer.echo(note, nl=False)


async def _checkpoint(place: Place, sign: bool) -> str:
    if sign:
        async with operating(place) as operator:
            return str(await operator.ask("checkpoint", {}))
    return _newest(place.home)


def _newest(home: Path) -> str:
    note = anchors.newest_note(home)
    if not note:
        raise NotFound(
            "No checkpoint has been signed here yet.",
            todo="`ring0 audit checkpoint --sign`, or run something: the end of it is signed.",
        )
    return note


def key(
    context: typer.Context,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Change the signer's key; the old one vouches for it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the keys that sign checkpoints, the newest last: who verifies needs one of them."""
    place = place_of(context, write=rotate)
    found = work(lambda: _keys(place, rotate))
    if as_json:
        output.print_json({"keys": found})
    for name in [] if as_json else found:
        typer.echo(name)


async def _keys(place: Place, rotate: bool) -> list[str]:
    if rotate:
        async with operating(place) as operator:
            await operator.ask("signer-rotate", {})
    async with place.reading() as store:
        seen = Anchors((), ())
        with store.snapshot() as moment:
            logs.check_log(((i, leaf, body) for i, _, _, leaf, body in moment.events()), seen)
    if not seen.keys:
        raise NotFound(
            "The journal names no key yet.", todo="`ring0 audit checkpoint --sign` makes one."
        )
    return [line(name, 400) for name in seen.keys]


def erase(
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs that have ended; forks go along.")
    ],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Erase what runs were told, said and returned, for good: events and proofs stay."""
    place = place_of(context, write=True)
    done = work(lambda: _erase(place, runs, note))
    if as_json:
        output.print_json({"erased": done})
    for one in [] if as_json else done:
        told = f" erased: {one['values']} values, {one['records']} of memory"
        console().print(text((line(one["run"]), "bold"), told))
        if not one["wiped"]:
            left = "  its bytes stay in the file until who reads the journal (a back-up) is done"
            console().print(text((left, "yellow")))


async def _erase(place: Place, runs: Sequence[str], note: str) -> list[Any]:
    async with place.reading() as store:
        targets = [(await run_named(store, name)).id for name in runs]
    async with operating(place) as operator:
        return list(await operator.ask("erase", {"runs": targets, "note": note}))


# --- prove, receipt -------------------------------------------------------------------------------


def prove(
    context: typer.Context,
    seq: Annotated[
        str,
        typer.Argument(metavar="SEQ", help="A place in the log, or `RUN#12`: a run and its seq."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write FILE.tlog-proof and FILE.entry instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a receipt of one event: that it is in the log that a checkpoint speaks of."""
    place = place_of(context)
    made, entry = work(lambda: _prove(place, seq))
    if out is not None:
        out.with_name(f"{out.name}.tlog-proof").write_text(made.text())
        out.with_name(f"{out.name}.entry").write_bytes(entry)
    if as_json:
        output.print_json({"index": made.index, "receipt": made.text(), "entry": entry.decode()})
    elif out is None:
        typer.echo(made.text(), nl=False)


async def _prove(place: Place, seq: str) -> tuple[Receipt, bytes]:
    note = _newest(place.home)
    said = checkpoints.said_in(note)
    async with place.reading() as store:
        index, entry = await _entry(store, seq)
        if index >= said.size:
            raise NotFound(
                f"Event {index} is not anchored yet: the newest checkpoint has {said.size}.",
                todo="`ring0 audit checkpoint --sign`, then ask again.",
            )
        nodes = Tiles(store.leaves).nodes
        try:
            if nodes(0, said.size) != said.root:
                raise VerifyFailed(
                    "The journal is not the one that was signed.",
                    why=f"Its first {said.size} events make another root than the checkpoint's.",
                    todo="`ring0 audit verify` says more.",
                )
            proof = proofs.inclusion(nodes, index, said.size)
        except LookupError as error:
            raise VerifyFailed(
                "The journal is shorter than its checkpoint.",
                why=str(error),
                todo="`ring0 audit verify` says more.",
            ) from None
    return Receipt(index=index, proof=tuple(proof), note=note), entry


async def _entry(store: SqliteStore, seq: str) -> tuple[int, bytes]:
    name, hash_sign, number = seq.rpartition("#")
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise InvalidInput(
            f"{seq[:60]!r} is no place in the log.",
            todo="Give a number, or a run and its seq: `r-…#12`, `last#3`.",
        )
    found: Any = None
    if hash_sign:
        run = name if name == "kernel" else (await run_named(store, name)).id
        found = next((one for one in store.stored(run) if one[2] == int(number)), None)
    else:
        found = store.stored_at(int(number))
    if found is None:
        raise NotFound(f"There is no event {seq[:60]}.", todo="`ring0 show RUN` has their seqs.")
    return int(found[0]), bytes(found[4])


def receipt(
    context: typer.Context,
    proof: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt (.tlog-proof).")],
    entry: Annotated[Path, typer.Option("--entry", help="The exact bytes of the event.")],
    keys: KeyNames = None,
    as_json: Json = False,
) -> None:
    """Check a receipt by itself: no journal is needed, only the event, and a key that you trust."""
    said = _receipt(proof, entry, [read_key(name) for name in keys or ()])
    if as_json:
        output.print_json({"ok": True, "origin": said.origin, "size": said.size})
        return
    console().print(text(("It is in the log ", "bold green"), f"{line(said.origin)} ({said.size})"))


def _receipt(proof: Path, entry: Path, trusted: list[Key]) -> Checkpoint:
    if not trusted:
        raise InvalidInput(
            "A receipt proves nothing without a key.",
            why="Anybody can make a log and sign it.",
            todo="--key NAME+ID+BASE64, got from where you trust it.",
        )
    try:
        found = checkpoints.read_receipt(proof.read_text())
        body = entry.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{error}"[:200], todo="Give the two files of `audit prove -o`."
        ) from None
    return checkpoints.check_receipt(found, body, trusted)


# --- export ---------------------------------------------------------------------------------------


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Write the log, its checkpoints and its keys: for `audit verify --journal`, or others."""
    place = place_of(context)
    count = work(lambda: _export(place, folder))
    if as_json:
        output.print_json({"events": count, "folder": str(folder)})
    else:
        console().print(f"{count} events, without the values that they name: {line(str(folder))}")


async def _export(place: Place, folder: Path) -> int:
    _newest(place.home)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise InvalidInput(
            f"{folder} can't be made: {error.strerror}.", todo="Name one that is not there."
        ) from None
    seen, count = Anchors((), ()), 0
    async with place.reading() as store:
        with store.snapshot() as moment, (folder / logs.LOG).open("wb") as file:
            for index, _, _, _, body in moment.events():
                if b"\n" in body:
                    raise _broken(index)
                file.write(body + b"\n")
                seen.note_key(body)
                count += 1
            file.flush()
            os.fsync(file.fileno())
    (folder / logs.CHECKPOINTS).write_text("".join(anchors.notes_here(place.home)))
    (folder / logs.KEYS).write_text("".join(f"{name}\n" for name in seen.keys))
    return count


def _broken(index: int) -> Ring0Error:
    return VerifyFailed(
        f"Event {index} is not as ring0 writes them.",
        why="No event has a line break in it.",
        todo="`ring0 audit verify` says more.",
    )
