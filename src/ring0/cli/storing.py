"""`storage`, `archive`, `unarchive`, `vacuum`, `quota`, `backup`, `restore`: room, and copies.

By way of the kernel that has the data folder, or one opened for just this. `storage` only reads;
`restore` takes a folder that no kernel has.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from ring0 import limits
from ring0.cli import lengths, output
from ring0.cli.operating import operating
from ring0.cli.output import console, line, text
from ring0.cli.place import Json, Place, place_of, run_named, work
from ring0.errors import InvalidInput, KernelBusy
from ring0.gateway.holding import SUPERVISOR_LOCK, supervisor
from ring0.identity import roles
from ring0.identity.operators import operator_name
from ring0.kernel.agent import manifests
from ring0.kernel.operating.backing import BackedUp
from ring0.kernel.operating.measuring import Storage, measure
from ring0.kernel.operating.storing import Archived
from ring0.store import archiving
from ring0.store.rows import TenantRow
from ring0.types import Operator, Role, Run

_SIZE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(B|kB|MB|GB|KiB|MiB|GiB)")
_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_DAY_S: Final = 86_400


def add_to(app: typer.Typer) -> None:
    app.command("storage")(storage)
    app.command("archive")(archive)
    app.command("unarchive")(unarchive)
    app.command("vacuum")(vacuum)
    app.command("quota")(quota)
    app.command("backup")(backup)
    app.command("restore")(restore)


def size(number: int) -> str:
    """Bytes, for a person."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= least:
            return f"{number / least:,.1f} {unit}"
    return f"{number} B"


def storage(context: typer.Context, as_json: Json = False) -> None:
    """Show what the journal takes, who fills it, how it grows, and when the disk is full."""
    place = place_of(context)

    async def look() -> Storage:
        async with place.reading() as store:
            return measure(place.home, store)

    found = work(look)
    if as_json:
        output.print_json(found)
        return
    out = console()
    rows = [
        ("journal", size(found.file_bytes), f"{found.events:,} events"),
        ("its log", size(found.log_bytes), "written, and not yet in the journal's file"),
        ("free in it", size(found.free_bytes), "`ring0 vacuum` gives it back"),
        ("archives", size(found.archive_bytes), output.count(found.archived_runs, "run")),
        ("free on disk", size(found.disk_free_bytes), ""),
    ]
    out.print(output.table(("", "SIZE", ""), rows))
    out.print()
    tenants = [
        (
            line(one.tenant, 60),
            f"{one.events:,}",
            size(one.stored_bytes),
            size(one.quota_bytes),
            size(one.grows_bytes_a_day),
            _when(one.full_in_s),
        )
        for one in found.tenants
    ]
    if tenants:
        heads = ("TENANT", "EVENTS", "STORED", "MAY", "GROWS A DAY", "FULL IN")
        out.print(output.table(heads, tenants))
        out.print()
    if not found.grows_bytes_a_day:
        out.print("Nothing was written of late: it does not grow.")
        return
    looked = output.lasted(0, found.looked_back_us)
    out.print(
        text(
            f"It grows by {size(found.grows_bytes_a_day)} a day (the last {looked});"
            " the disk is full in ",
            (f"{_when(found.full_in_s)}.", "bold"),
        )
    )


def _when(seconds: int) -> str:
    if seconds < 0:
        return "-"
    if seconds > 1_000 * _DAY_S:
        return "> 1,000 days"
    return f"{seconds // _DAY_S} days" if seconds >= 2 * _DAY_S else f"{seconds // 3_600} h"


def archive(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", show_default=False)
    ] = None,
    older: Annotated[
        str, typer.Option("--older", metavar="AGE", help="All that ended so long ago: 12h, 30d.")
    ] = "",
    listed: Annotated[bool, typer.Option("--list", help="List what is archived.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="List it, and look whether each file is whole.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the values of ended runs into files beside the journal; their events stay."""
    if [bool(runs), bool(older), listed or check].count(True) != 1:
        raise InvalidInput(
            "Say what to archive: RUNs or --older AGE; or --list what is.",
            todo="`ring0 archive --older 30d`",
        )
    if listed or check:
        _print_archived(place_of(context), check, as_json)
        return
    place = place_of(context, write=True)
    older_us = _age_us(older) if older else 0

    async def do() -> list[Archived]:
        names = await _named(place, runs or [])
        async with operating(place) as operator:
            asked = {"runs": names, "older_us": older_us}
            return msgspec.convert(await operator.ask("archive", asked), list[Archived])

    done = work(do)
    if as_json:
        output.print_json({"archived": done})
        return
    for one in done:
        what = f"  {output.count(one.values, 'value')}, {size(one.size_bytes)}"
        what += f" in a file of {size(one.file_bytes)}"
        console().print(text((one.run, "bold"), f"  stays: {one.kept}" if one.kept else what))
    if not done:
        console().print("Nothing ended so long ago that is not archived already.")
    elif any(not one.kept for one in done):
        console().print(text(("`ring0 vacuum` gives the room back to the disk.", "dim")))


async def _named(place: Place, names: list[str]) -> list[str]:
    async with place.reading() as store:
        rows: list[Run] = [await run_named(store, name) for name in names]
    return list(dict.fromkeys(row.id for row in rows))


def _print_archived(place: Place, check: bool, as_json: bool) -> None:
    async def read() -> list[dict[str, Any]]:
        async with place.reading() as store:
            found = [output.builtins(row) for row in store.storage.archives()]
        for row in found if check else ():
            path = archiving.path_of(place.home, row["run"])
            row["whole"] = archiving.is_whole(path, row["digest"])
        return found

    rows = work(read)
    damaged = [row["run"] for row in rows if not row.get("whole", True)]
    if as_json:
        output.print_json({"archived": rows})
    elif not rows:
        console().print("Nothing is archived.")
    else:
        table = [
            (
                row["run"],
                f"{row['values']:,}",
                size(row["size_bytes"]),
                output.moment(row["at_us"]),
                line(row["by"], 60),
                {True: "whole", False: "DAMAGED"}.get(row.get("whole"), ""),  # type: ignore[arg-type]
            )
            for row in rows
        ]
        console().print(output.table(("RUN", "VALUES", "SIZE", "SINCE (UTC)", "BY", ""), table))
    if damaged:
        raise archiving.damaged(archiving.path_of(place.home, damaged[0]), "it was changed")


def unarchive(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of it.")],
    as_json: Json = False,
) -> None:
    """Put the values of an archived run back into the journal's file."""
    place = place_of(context, write=True)

    async def do() -> Archived:
        (name,) = await _named(place, [run])
        async with operating(place) as operator:
            return msgspec.convert(await operator.ask("unarchive", {"run": name}), Archived)

    done = work(do)
    if as_json:
        output.print_json(done)
    else:
        values = output.count(done.values, "value")
        console().print(text((done.run, "bold"), f"  {values} are back"))


def vacuum(context: typer.Context, as_json: Json = False) -> None:
    """Give room that the journal's file has and does not use back to the disk; calls go on."""
    place = place_of(context, write=True)

    async def do() -> Any:
        async with operating(place) as operator:
            return await operator.ask("vacuum", {})

    done = work(do)
    if as_json:
        output.print_json(done)
    else:
        console().print(f"{size(done['bytes'])} given back.")


def quota(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    stored: Annotated[
        str, typer.Argument(metavar="SIZE|none", help="What it may store: 500MB, 2GB.")
    ],
    as_json: Json = False,
) -> None:
    """Set how much of the journal a tenant may fill; what has happened is recorded all the same."""
    stored_bytes = 0 if stored == "none" else _size_bytes(stored)
    place = place_of(context, write=True)

    async def do() -> TenantRow:
        async with operating(place) as operator:
            body = {"tenant": tenant, "stored_bytes": stored_bytes}
            return msgspec.convert(await operator.ask("quota", body), TenantRow)

    row = work(do)
    if as_json:
        output.print_json(row)
        return
    may = size(row.quota_bytes or limits.TENANT_STORED_BYTES_MAX)
    used = size(row.stored_bytes)
    console().print(text((line(row.tenant, 60), "bold"), f" may store {may}; it stores {used}."))


def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="One that is not there yet.")],
    keys: Annotated[
        bool,
        typer.Option("--with-keys", help="Copy the vault's key too: then it holds every secret."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy the data folder as it is at one moment, while runs go on."""
    place = place_of(context, write=True)
    target = Path(os.path.abspath(folder))

    async def do() -> BackedUp:
        async with operating(place) as operator:
            asked = {"folder": str(target), "keys": keys}
            return msgspec.convert(await operator.ask("backup", asked), BackedUp)

    done = work(do)
    if as_json:
        output.print_json(done)
        return
    console().print(
        text(
            (line(done.folder, 400), "bold"),
            f"  {done.size:,} events, {output.count(done.files, 'file')},"
            f" {size(done.size_bytes)}\nroot  {done.root}\n",
            ("Keep the root elsewhere too: it names this very journal. ", "dim"),
            (
                "It holds every secret in the clear: keep it as you keep those."
                if keys
                else "Without vault.key nobody opens its secrets: keep that one apart.",
                "dim",
            ),
        )
    )


def restore(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `ring0 backup` made.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the journal that is there aside.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a back-up back. Runs, asks, logins and locks that it holds are void; orders are paused.

    No kernel may be at work on the folder.
    """
    place = place_of(context, write=True)
    by = operator_name(os.getuid())
    _check_may(place, by)
    if (daemon := supervisor(place.home)) is not None:
        raise KernelBusy(
            f"A daemon (process {daemon}) serves {place.home}.",
            why=f"It has {SUPERVISOR_LOCK}, and would start its kernel in the middle of it.",
            todo=f"Stop it first: Ctrl-C, or `kill {daemon}`; start it again afterwards.",
        )

    async def do() -> Any:
        from ring0.kernel.operating.restoring import restore as put_back

        source = Path(os.path.abspath(folder))
        return await put_back(place.home, source, place.runtime, by=by, replace=replace)

    done = work(do)
    if as_json:
        output.print_json(done)
        return
    out = console()
    out.print(
        text(
            (str(place.home), "bold"),
            f" is as it was at {output.moment(done.made_us)} (UTC): {done.size:,} events.",
        )
    )
    for number, what in (
        (done.runs, "run ended"),
        (done.approvals, "ask revoked"),
        (done.standings, "standing approval revoked"),
        (done.logins, "login ended"),
        (done.orders, "order paused"),
    ):
        if number:
            noun, _, done_to = what.rpartition(" ")
            out.print(f"  {output.count(number, noun)} {done_to}")
    if done.aside:
        out.print(text("What was there lies in ", (done.aside, "bold")))
    out.print(
        text(
            (
                "What happened in the world since is not on record here. Look before you start"
                " anything anew; `ring0 cron resume` and `ring0 hook resume` start orders again.",
                "dim",
            )
        )
    )


def _check_may(place: Place, by: str) -> None:
    """By the roles of the folder as it is: no kernel is there to ask. Raises RoleMissing."""
    table = roles.Roles(manifests.read_config(place.home).roles)
    operator = Operator(name=by, roles=table.of_peer(by), login="peer")
    roles.check(operator, Role.ADMIN, "restore")


def _age_us(told: str) -> int:
    age_s = lengths.seconds(told)
    if age_s is None:
        raise InvalidInput(f"{told[:40]!r} is no age.", todo="Write 30m, 12h, 30d or 8w.")
    return age_s * 1_000_000


def _size_bytes(told: str) -> int:
    found = _SIZE.fullmatch(told)
    number = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not number:
        raise InvalidInput(
            f"{told[:40]!r} is no size.",
            todo="Write 200kB, 500MB, 2GB or 1.5GiB; `none` takes it away.",
        )
    return number
