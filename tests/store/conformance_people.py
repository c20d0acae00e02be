"""Who is logged in, and what the operator's files say."""

from __future__ import annotations

import pytest
from conforming import Place, Suite, assert_rows_say_what_the_journal_says
from msgspec.structs import replace

import journals
from ring0.store import Store, Write, WriteImpossible
from ring0.store import events as ev
from ring0.types import Login

ADA = Login(
    key="a" * 64,
    name="ada (https://login.example.com)",
    how="oidc",
    uid=1_000,
    email="ada@example.com",
    groups=("oncall",),
    begun_us=5,
    expires_us=journals.LATER_US,
)
STRICT = ev.SettingChanged(name="profile", before="", after="strict", by="ann (uid 5)")


def kernel(*events: ev.AnyEvent) -> Write:
    return Write(run=ev.KERNEL, durable=True, events=events)


class PeopleConformance(Suite):
    async def test_who_logged_in_is_there_until_the_login_ends(
        self, store: Store, place: Place
    ) -> None:
        await store.append(kernel(ev.LoggedIn(login=ADA)))
        assert await store.login(ADA.key) == ADA
        assert await store.logins() == [ADA]
        assert await store.login("b" * 64) is None
        await store.append(kernel(ev.LoggedOut(key=ADA.key, by="ada")))
        assert await store.login(ADA.key) is None and await store.logins() == []
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_login_is_begun_and_ended_once(self, store: Store) -> None:
        await store.append(kernel(ev.LoggedIn(login=ADA)))
        with pytest.raises(WriteImpossible):
            await store.append(kernel(ev.LoggedIn(login=replace(ADA, name="eve"))))
        assert await store.login(ADA.key) == ADA
        with pytest.raises(WriteImpossible):
            await store.append(kernel(ev.LoggedOut(key="b" * 64, by="ada")))

    async def test_a_source_is_quarantined_until_it_is_released(self, store: Store) -> None:
        held = ev.SourceQuarantined(
            tenant="t", source="mail", runs={"r-1": 4}, by="ann", note="odd"
        )
        await store.append(kernel(held))
        (row,) = await store.quarantines()
        assert (row.source, row.runs, row.by, row.note) == ("mail", {"r-1": 4}, "ann", "odd")
        await store.append(kernel(replace(held, runs={"r-1": 2, "r-2": 1})))
        (row,) = await store.quarantines()
        assert row.runs == {"r-1": 2, "r-2": 1}
        for tenant, source in (("t", "other"), ("u", "mail")):
            with pytest.raises(WriteImpossible):
                released = ev.SourceReleased(tenant=tenant, source=source, by="ann")
                await store.append(kernel(released))
        await store.append(kernel(ev.SourceReleased(tenant="t", source="mail", by="ann")))
        assert await store.quarantines() == []
        await assert_rows_say_what_the_journal_says(store)

    async def test_a_setting_changes_from_what_it_was_and_from_nothing_else(
        self, store: Store
    ) -> None:
        await store.append(kernel(STRICT))
        found = (await store.settings())["profile"]
        assert (found.value, found.by) == ("strict", "ann (uid 5)")
        for before in ("", "balanced"):
            with pytest.raises(WriteImpossible):
                await store.append(kernel(replace(STRICT, before=before, after="observe")))
        with pytest.raises(WriteImpossible):
            await store.append(kernel(replace(STRICT, before="strict", after="observe", by="")))
        await store.append(kernel(replace(STRICT, before="strict", after="observe")))
        assert (await store.settings())["profile"].value == "observe"
        await assert_rows_say_what_the_journal_says(store)
