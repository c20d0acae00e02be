"""Who has logged in, what the operator's files say, what is quarantined: from events to rows.

A part of `project.py`, which calls this and nobody else does.
"""

from __future__ import annotations

from typing import Final

from ring0.store import events as ev
from ring0.store.holdings import Tables
from ring0.types import Login, Quarantine, Setting

OPERATED: Final = (
    ev.SettingChanged | ev.LoggedIn | ev.LoggedOut | ev.SourceQuarantined | ev.SourceReleased
)
"""The events that this takes."""


def operated(entry: ev.Entry, tables: Tables) -> None:
    """What the kernel's own journal says of people."""
    match entry.body:
        case ev.SettingChanged() as changed:
            row: Setting | None = tables.get("setting", changed.name)
            assert changed.before == (row.value if row else ""), f"{changed.name} was otherwise"
            assert changed.by, f"nobody changed {changed.name}"
            now = Setting(name=changed.name, value=changed.after, by=changed.by, at_us=entry.at_us)
            tables.put("setting", changed.name, now)
        case ev.LoggedIn(login=login):
            assert tables.get("login", login.key) is None, "a login's value is used twice"
            assert login.expires_us > login.begun_us, "a login that is over before it begins"
            tables.put("login", login.key, login)
        case ev.LoggedOut(key=key):
            there: Login | None = tables.get("login", key)
            assert there is not None, "nobody is logged in with that value"
            tables.put("login", key, None)
        case ev.SourceQuarantined() as held:
            assert held.source and held.by, "nobody quarantined nothing"
            row_of = Quarantine(
                tenant=held.tenant,
                source=held.source,
                runs=held.runs,
                by=held.by,
                at_us=entry.at_us,
                note=held.note,
            )
            tables.put("quarantine", quarantine_key(held.tenant, held.source), row_of)
        case ev.SourceReleased(tenant=tenant, source=source):
            key = quarantine_key(tenant, source)
            assert tables.get("quarantine", key) is not None, f"{source} is not quarantined"
            tables.put("quarantine", key, None)
        case _:
            pass


def quarantine_key(tenant: str, source: str) -> str:
    return f"{tenant}\n{source}"
