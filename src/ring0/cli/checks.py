"""What `ring0 doctor` looks at, one function a thing. It reports; it changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from ring0 import limits
from ring0.cli import listing
from ring0.cli.place import Place
from ring0.errors import Ring0Error
from ring0.gateway.holding import holder, supervisor
from ring0.governance import Policies
from ring0.identity import Vault, operator_name
from ring0.kernel.agent import manifests
from ring0.kernel.agent.config_notify import places_of
from ring0.kernel.folder import LOCK
from ring0.kernel.operating import changing, checking
from ring0.models import prices
from ring0.store.sqlite.opening import open_store
from ring0.tools.sandbox import Probe, SandboxSpec, cgroups
from ring0.tools.sandbox.tiers import at_least, probe_all
from ring0.types import ApprovalState

FREE_BYTES_MIN: Final = 256 * 1024 * 1024
SYNCS: Final = 20


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str
    """`ok`, `note` (works, and one should know) or `missing` (ring0 can't work without)."""
    what: str
    todo: str = ""


async def checks(place: Place) -> list[Check]:
    """Everything, in the order in which it would fail."""
    found = [_python(), _linux(), _sqlite()]
    found += await _sandbox(place)
    found += _folder(place)
    found += [_kernel(place.home), _config(place), _model(place.environment), _prices(place)]
    if not place.is_new:
        found.append(_journal(place))
        found += await _profile(place)
        found += await _told(place)
    return found


def _python() -> Check:
    version = platform.python_version()
    return Check("Python", "ok", f"{version} at {sys.executable}")


def _linux() -> Check:
    who = operator_name(os.getuid())
    if sys.platform != "linux":
        return Check("Linux", "missing", platform.system(), "Use a Linux container or machine.")
    return Check(
        "Linux", "ok", f"{platform.release()} {platform.machine()}; the kernel runs as {who}"
    )


def _sqlite() -> Check:
    connection = apsw.Connection(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5 (text)")
    except apsw.Error as error:
        return Check("SQLite", "missing", f"no FTS5: {error}", "Install apsw from its wheel.")
    finally:
        connection.close()
    return Check("SQLite", "ok", f"{apsw.sqlite_lib_version()} with FTS5 (apsw)")


async def _sandbox(place: Place) -> list[Check]:
    """Each tier of isolation: what it keeps here, what it doesn't, or why it is not there."""
    tiers = await probe_all(place.runtime)
    found = [check for tier in tiers for check in _tier(tier)]
    enough = at_least(SandboxSpec().tier)
    if not any(tier.available for tier in tiers if tier.tier in enough):
        error = next(tier.error for tier in tiers if tier.tier == enough[0]) or {}
        found.insert(0, Check("sandbox", "missing", _sentence(error), error.get("todo", "")))
    return [_totals(), *found]


def _totals() -> Check:
    """What bounds a sandbox as a whole."""
    seen = cgroups.found()
    if seen.mechanism == "rlimits":
        what = f"Memory, processes and CPU time: each process by itself (rlimits). {seen.why}"
        return Check("limits", "note", what, seen.todo)
    what = f"{', '.join(seen.controllers)} of a sandbox as a whole: {seen.mechanism} in {seen.why}"
    return Check("limits", "ok", what)


def _tier(seen: Probe) -> list[Check]:
    if not seen.available:
        error = seen.error or {}
        return [Check(seen.tier, "note", _sentence(error), error.get("todo", ""))]
    kept = "; ".join(seen.enforced)
    found = [Check(seen.tier, "ok", f"{kept} (started in {seen.start_ms} ms)")]
    if not seen.own_uid:
        found.append(
            Check(
                seen.tier,
                "note",
                "Sandboxes have the kernel's own uid outside.",
                "Start ring0 as root to give each a uid of its own.",
            )
        )
    return [*found, Check(seen.tier, "note", f"Not enforced: {' '.join(seen.not_enforced)}")]


def _sentence(error: Mapping[str, str]) -> str:
    return f"{error.get('what', '')} {error.get('why', '')}".strip()


def _folder(place: Place) -> list[Check]:
    folder = place.home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return [
            Check(
                "data folder",
                "missing",
                f"{place.home}: {folder} can't be written to.",
                "Set RING0_HOME to a folder that you may write to.",
            )
        ]
    found = []
    free = shutil.disk_usage(folder).free
    new = "" if place.home.exists() else " (is made at the first run)"
    if free < FREE_BYTES_MIN:
        found.append(
            Check(
                "data folder",
                "missing",
                f"{place.home}: {free >> 20} MiB free.",
                "Make room: a journal that can't grow refuses everything.",
            )
        )
    else:
        found.append(Check("data folder", "ok", f"{place.home}{new}, {free >> 30} GiB free"))
    try:
        found.append(
            Check("disk", "ok", f"fdatasync of 4 KiB: {_sync_us(place, folder)} µs (median)")
        )
    except OSError as error:
        found.append(
            Check(
                "disk",
                "missing",
                f"A file can't be synced: {error.strerror}.",
                "Put the data folder on a disk that keeps what it acknowledges.",
            )
        )
    return found


def _sync_us(place: Place, folder: Path) -> int:
    """Median time until 4 KiB are on disk, in a file that is gone afterwards."""
    file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        took = []
        for number in range(SYNCS):
            began = place.runtime.monotonic_us()
            os.pwrite(file, bytes(4_096), number * 4_096)
            os.fdatasync(file)
            took.append(place.runtime.monotonic_us() - began)
        return sorted(took)[SYNCS // 2]
    finally:
        os.close(file)


def _kernel(home: Path) -> Check:
    pid, daemon = holder(home / LOCK), supervisor(home)
    if daemon is not None and pid is None:
        what = f"the daemon (supervisor {daemon}) starts a worker just now"
    elif daemon is not None:
        what = f"process {pid} is at work on this folder, as a daemon (supervisor {daemon})"
    elif pid is not None:
        what = f"process {pid} is at work on this folder, until its command ends"
    else:
        what = "none is at work on this folder; `ring0 serve` keeps one there"
    return Check("kernel", "ok", what)


def _config(place: Place) -> Check:
    try:
        config = manifests.read_config(place.home)
        checking.check(config, place.environment, Vault(place.home), place.runtime)
        policies = Policies.load([place.home / name for name in config.policy], config.profile)
    except Ring0Error as error:
        return Check("configuration", "missing", f"{error.what} {error.why}".strip(), error.todo)
    extra = f" and {', '.join(config.policy)}" if config.policy else ""
    what = f"tenant {config.tenant}; policy {policies.digest[:12]}: the default set{extra}"
    if config.profile == "observe":
        todo = 'Set profile = "balanced" or "strict" before anything depends on it.'
        return Check("configuration", "note", f"{what}; {listing.OBSERVED}", todo)
    profile = f"; profile {config.profile}" if config.profile else ""
    if config.profile == "strict" and config.oidc is None:
        what += f"{profile}; what can't be taken back wants two people logged in at an issuer"
        todo = "Name one in [oidc] (docs/identity.md): until then nobody can say yes to that."
        return Check("configuration", "note", what, todo)
    return Check("configuration", "ok", what + profile)


def _model(environment: Mapping[str, str]) -> Check:
    for maker in ("OPENAI", "ANTHROPIC"):  # The first that has a key is the default model.
        if environment.get(f"{maker}_API_KEY"):
            where = environment.get(f"{maker}_BASE_URL") or "the provider's own address"
            return Check("model", "ok", f"{maker}_API_KEY is set; requests go to {where}")
    what = (
        "No OPENAI_API_KEY or ANTHROPIC_API_KEY: only models that a manifest or ring0.toml names."
    )
    return Check("model", "note", what)


def _prices(place: Place) -> Check:
    found = prices.table()
    days = max(0, found.age_days(place.runtime.now_us()))
    models = len(found.openai) + len(found.anthropic) + len(found.gemini)
    what = f"of {models} models, read {found.read} ({days} days ago)"
    if days <= limits.PRICES_AGE_DAYS_MAX:
        return Check("prices", "ok", what)
    todo = "Compare with the provider's page; a price in [models.NAME] comes before the table's."
    return Check("prices", "note", f"{what}: they may have changed", todo)


def _journal(place: Place) -> Check:
    try:
        store = open_store(place.home, place.runtime, write=False)
        events = store.anchored()
    except (Ring0Error, OSError) as error:
        todo = error.todo if isinstance(error, Ring0Error) else "Put back a copy."
        return Check("journal", "missing", str(error).partition("\n")[0], todo)
    return Check(
        "journal", "ok", f"{events.size if events else 0} events; `ring0 audit verify` checks them"
    )


async def _profile(place: Place) -> list[Check]:
    """Whether a stricter profile holds than the one that ring0.toml names."""
    try:
        async with place.reading() as store:
            said = changing.read(place.home, await store.settings())
    except Ring0Error:
        return []  # The journal's and the configuration's own checks say it.
    if not said.held:
        return []
    holds = said.config.profile or changing.DEFAULT
    what = f"{holds} holds on; ring0.toml names {said.held}, which holds less back"
    return [Check("profile", "note", what, "`ring0 reload --yes-loosen`, or put it back.")]


async def _told(place: Place) -> list[Check]:
    """Whether the places of [[notify]] have heard of what waits."""
    try:
        config = manifests.read_config(place.home)
        known = manifests.secrets_of(config, place.environment, Vault(place.home).values())
        names = [one.name for one in places_of(config.notify, lambda name: known.get(name, ""))]
    except Ring0Error:
        return []  # The configuration's own check says it.
    if not names:
        return []
    before_us = place.runtime.now_us() - limits.NOTIFY_LATE_S * 1_000_000
    try:
        async with place.reading() as store:
            pending = await store.approvals(states=[ApprovalState.PENDING])
    except Ring0Error:
        return []  # Likewise the journal's.
    late = [
        (one.id, name)
        for one in pending
        for name in names
        if name not in one.told and one.asked_us < before_us
    ]
    if not late:
        return [Check("notify", "ok", f"{', '.join(names)} were told of all that waits")]
    approval, name = late[0]
    return [
        Check(
            "notify",
            "note",
            f"{name} has not taken the message of {approval} ({len(late)} are late)",
            "Look at that place; a kernel at work goes on trying, and its log says why it failed.",
        )
    ]
