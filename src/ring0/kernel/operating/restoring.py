"""Puts a back-up back: what was given out since it was made, and what it still says is open, is
void before its journal stands in the data folder.

Runs are ended, asks and standing approvals revoked, logins ended, locks freed, orders paused; the
kill generation and the numbers of locks go on far beyond what they were: whatever another journal
gave out after the back-up's moment is worth nothing here. What was there is moved aside, never
deleted. At every moment of it the folder holds a journal that is whole, or one that no kernel
opens. Not here: how a back-up is made and looked at (backing.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.errors import CallDenied, InvalidInput, StoreDamaged, StoreFull
from ring0.kernel import values
from ring0.kernel.folder import lock_folder, make_folder
from ring0.kernel.life import cutting
from ring0.kernel.operating import backing
from ring0.kernel.telemetry import cursor
from ring0.observability.proof.anchors import SETTING, begin_generation
from ring0.observability.verify import verify
from ring0.runtime import Runtime
from ring0.store import Write, address, archiving
from ring0.store import events as ev
from ring0.store.sqlite import HEAD, JOURNAL, SqliteStore, open_store
from ring0.store.storing import beyond
from ring0.types import (
    LIVE,
    Approval,
    ApprovalState,
    CallState,
    Cron,
    Frozen,
    Hook,
    Lock,
    Run,
    RunState,
    Standing,
)

STAGING: Final = "restoring"
ASIDE: Final = "replaced"
_WHY: Final = "the journal was restored from a back-up"
_OF_IT: Final = (archiving.FOLDER, cursor.FILE)
"""What speaks of the journal that was there, and of no other."""
_OPEN: Final = (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.EDITED)


class Restored(Frozen, frozen=True, kw_only=True):
    """What was done."""

    size: int
    """Of the back-up's log, in events."""
    root: str
    made_us: int
    runs: int
    """That went on in it, and are ended."""
    approvals: int
    standings: int
    logins: int
    orders: int
    """Crons and hooks that are paused."""
    aside: str
    """Where what was there before lies; empty: nothing was."""
    log: str = ""
    """The name of the log that the signer goes on with; empty: nothing was ever signed here."""


async def restore(
    home: Path, folder: Path, runtime: Runtime, *, by: str, replace: bool = False
) -> Restored:
    """Raises KernelBusy, InvalidInput, StoreDamaged, StoreFull, StoreFailed. Until the last moment
    what stood in the folder stands there still."""
    make_folder(home)
    lock = lock_folder(home)
    staging = home / STAGING
    try:
        there = any((home / name).exists() for name in (JOURNAL, HEAD))
        if there and not replace:
            raise _is_there(home)
        listed = await runtime.in_thread(backing.read_list, folder)
        _check_room(home, listed)
        try:
            await runtime.in_thread(_stage, folder, staging, listed)
            done = await _void(staging, listed, runtime, by)
            aside = await runtime.in_thread(_put_in, home, staging, runtime.now_us())
            log = begin_generation(home, await _signed_by(home, runtime))
        except OSError as error:
            raise archiving.not_written(home, error) from None
        return Restored(
            size=listed.size,
            root=listed.root,
            made_us=listed.made_us,
            aside=aside,
            log=log,
            **done,
        )
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


async def _signed_by(home: Path, runtime: Runtime) -> str:
    """The key of the log's signer, by the journal that was put there; empty: it names none."""
    store = open_store(home, runtime, write=False)
    try:
        row = (await store.settings()).get(SETTING)
    finally:
        await store.close()
    return row.value if row is not None else ""


def _stage(folder: Path, staging: Path, listed: backing.Listed) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    for name, kept in listed.files.items():
        target = staging / name
        backing.copy(folder / name, target)
        if backing.kept(target).digest != kept.digest:  # It was changed since it was looked at.
            raise backing.damaged(folder, f"{name} is not what was put there")


# --- what is void --------------------------------------------------------------------------------


async def _void(staging: Path, listed: backing.Listed, runtime: Runtime, by: str) -> dict[str, int]:
    """Raises StoreDamaged where the journal is not what the back-up says."""
    store = open_store(staging, runtime, write=True)
    try:
        if await store.head() != backing.head_of(listed):
            raise backing.damaged(staging, "its journal is another than it says")
        report = await verify(store)
        if not report.ok:
            raise backing.damaged(staging, report.problems[0][:300])
        logins, orders = await _kernels(store, listed, by)
        live = await store.runs(states=LIVE, most=limits.RUNS_LIVE_MAX)
        standings: dict[str, list[Standing]] = {}
        for standing in await store.standings():
            if not standing.revoked_by:
                standings.setdefault(standing.run, []).append(standing)
        approvals = await store.approvals(states=_OPEN)
        for row in sorted(live, key=lambda row: -row.depth):
            await _end(store, row, by)
        for box in await store.sandboxes_alive():  # Of runs that had ended, and it had not yet.
            ended = ev.SandboxEnded(sandbox=box.id, how=_WHY)
            await store.append(Write(run=box.run, durable=True, events=[ended]))
        for left in await store.approvals(states=_OPEN):  # Likewise.
            await store.append(Write(run=left.run, durable=True, events=[_revoked(left, by)]))
        for run, given in standings.items():
            revoked = [ev.StandingRevoked(standing=one.id, by=by) for one in given]
            await store.append(Write(run=run, durable=True, events=revoked))
    except AssertionError as error:
        raise StoreDamaged("The back-up can't be voided.", why=str(error)) from error
    finally:
        await store.close()
    return {
        "runs": len(live),
        "approvals": len(approvals),
        "standings": sum(map(len, standings.values())),
        "logins": logins,
        "orders": orders,
    }


async def _kernels(store: SqliteStore, listed: backing.Listed, by: str) -> tuple[int, int]:
    """What the kernel's own journal says: the restore, the kill of all that was, logins, orders."""
    generation = beyond(await store.kill_generation(), store.now_us(), limits.RESTORED_GENERATIONS)
    logins = await store.logins()
    orders: list[tuple[str, Cron | Hook]] = [("cron", row) for row in await store.crons()]
    orders += [("hook", row) for row in await store.hooks()]
    events: list[ev.AnyEvent] = [
        ev.Restored(size=listed.size, root=listed.root, by=by),
        ev.Killed(scope="all", target="", generation=generation, by=by),
        *(ev.LoggedOut(key=login.key, by=by) for login in logins),
        *(
            ev.OrderPaused(order=order, name=row.name, by=by, note=_WHY)
            for order, row in orders
            if not row.paused_by
        ),
        # Those that were never claimed: another kernel made them, and nobody here ends them.
        *(ev.SandboxEnded(sandbox=row.id, how=_WHY) for row in await store.sandboxes_parked()),
    ]
    now_us = store.now_us()
    for cron in await store.crons():
        if cron.done_us < now_us:  # The other journal may have started their runs.
            events.append(
                ev.CronSkipped(
                    cron=cron.name, version=cron.version, through_us=now_us, moments=1, why=_WHY
                )
            )
    await store.append(Write(run=ev.KERNEL, durable=True, events=events))
    return len(logins), len(orders)


async def _end(store: SqliteStore, row: Run, by: str) -> None:
    """No process of it is looked for: if there is one, it is another kernel's."""
    await cutting.cut_off(store, row)
    unknown = any(call.state is CallState.UNKNOWN for call in await store.calls(row.id))
    error = CallDenied(f"{row.id} was ended: {_WHY}.", why=f"By {by}.", todo="Start a new run.")
    result = values.canonical({"error": error.as_dict()})
    where = address(await store.run_key(row.id), result)
    boxes = [box for box in await store.sandboxes_alive() if box.run == row.id]
    locks: list[Lock] = await store.locks(run=row.id)
    events: list[ev.AnyEvent] = [
        *(ev.SandboxEnded(sandbox=box.id, how=_WHY) for box in boxes),
        *(ev.LockFreed(tenant=lock.tenant, resource=lock.resource, how="ended") for lock in locks),
        *(_revoked(one, by) for one in await store.approvals(states=_OPEN, run=row.id)),
        ev.RunEnded(
            state=RunState.UNKNOWN if unknown else RunState.CANCELLED,
            result=where,
            epoch=row.epoch + 1,
            by=by,
        ),
    ]
    await store.append(Write(run=row.id, durable=True, events=events, blobs={where: result}))


def _revoked(approval: Approval, by: str) -> ev.ApprovalAnswered:
    state = ApprovalState.REVOKED
    return ev.ApprovalAnswered(approval=approval.id, state=state, by=by, note=_WHY)


# --- the folder ----------------------------------------------------------------------------------


def _put_in(home: Path, staging: Path, now_us: int) -> str:
    """The head first and the journal last: in between no kernel opens the folder. Returns where
    what was there lies."""
    for path in staging.glob(f"{JOURNAL}-*"):  # It was closed: all is in the file.
        path.unlink()
    (staging / "journal.reserve").unlink(missing_ok=True)
    aside = home / f"{ASIDE}-{now_us}"
    aside.mkdir(mode=0o700)
    if (home / HEAD).exists():
        os.link(home / HEAD, aside / HEAD)
    os.replace(staging / HEAD, home / HEAD)
    _sync(home, aside)
    gone = [JOURNAL, *(path.name for path in sorted(home.glob(f"{JOURNAL}-*"))), *_OF_IT]
    new = [path.name for path in sorted(staging.iterdir()) if path.name != JOURNAL]
    steps = [(home / name, aside / name) for name in dict.fromkeys((*gone, *new))]
    steps += [(staging / name, home / name) for name in (*new, JOURNAL)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in steps:
            if os.path.lexists(source):
                os.rename(source, target)
                done.append((source, target))
    except OSError:  # One is a mount, perhaps: all is where it was before that is told.
        for source, target in reversed(done):
            os.rename(target, source)
        _take_back_head(home, aside)
        raise
    _sync(home, aside)
    if not any(aside.iterdir()):
        aside.rmdir()
        return ""
    return str(aside)


def _take_back_head(home: Path, aside: Path) -> None:
    if (aside / HEAD).exists():
        os.replace(aside / HEAD, home / HEAD)
    else:
        (home / HEAD).unlink(missing_ok=True)
    aside.rmdir()
    _sync(home)


def _sync(*folders: Path) -> None:
    for folder in folders:
        archiving.sync_folder(folder)


def _check_room(home: Path, listed: backing.Listed) -> None:
    needed = sum(kept.size_bytes for kept in listed.files.values())
    needed += limits.JOURNAL_ROOM_SIZE_BYTES_MIN
    status = os.statvfs(home)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise StoreFull(
            f"There is no room in {home}: {free:,} bytes are free, and it takes {needed:,}.",
            why="What is there is kept beside what is put back. Nothing was begun.",
            todo="Free some space, or restore into another folder (RING0_HOME).",
        )


def _is_there(home: Path) -> InvalidInput:
    return InvalidInput(
        f"{home} holds a journal already.",
        why="What it says that happened since the back-up would not be in the one that you put"
        " back: effects would be forgotten that are in the world.",
        todo=f"--replace moves it aside, to {home}/{ASIDE}-…; or set RING0_HOME to a new folder.",
    )
