"""Room goes back to the disk; tenants have quotas; growth is foretold."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from archive_world import LONG, ended
from kernel_world import Doing, world

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached
from ring0.kernel.operating import storing
from ring0.observability import verify
from ring0.store import events as ev
from ring0.types import Budget


async def test_room_goes_back_to_the_file_system(tmp_path: Path) -> None:
    async with ended(tmp_path / "home", calls=300) as w:
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        free = w.store.storage.free_pages()
        assert free > 100
        pages = w.store.storage.pages()
        with mock.patch.object(limits, "PAGES_GIVEN_BACK_AT_ONCE", 300):
            given = await storing.give_back(w.kernel, by="ann")
        assert given["pages"] == free - w.store.storage.free_pages() > 100
        assert w.store.storage.pages() <= pages - given["pages"] + 20
        report = await verify(w.store)
        assert report.ok, report.problems
        told = [e.body async for e in w.store.entries() if isinstance(e.body, ev.RoomGivenBack)]
        assert len(told) >= 2 and all(one.by == "ann" for one in told)
    size = (tmp_path / "home" / "journal.db").stat().st_size
    assert size < (pages - given["pages"] + 20) * 4_096


# --- quotas ------------------------------------------------------------------------------------


async def test_a_tenant_that_has_filled_its_quota_is_refused_and_told_why(tmp_path: Path) -> None:
    async with world(tmp_path / "home", budget=Budget(calls=1_000, cost_microusd=1_000)) as w:
        w.tool(Doing("look"))
        tenant = (await w.row()).tenant
        await storing.quota(w.kernel, tenant, 100_000, by="ann")
        assert (await w.call("look", {"text": LONG})).error is None
        with pytest.raises(LimitReached, match="may no more than 100,000") as told:
            for number in range(12):
                await w.call("look", {"text": f"{number}: {LONG}"})
        assert f"ring0 quota {tenant}" in told.value.todo
        await storing.quota(w.kernel, tenant, 0, by="ann")
        assert (await w.call("look", {"text": "again"})).error is None
        assert (await verify(w.store)).ok


async def test_what_comes_back_from_an_archive_is_held_to_the_quota(tmp_path: Path) -> None:
    async with ended(tmp_path / "home", calls=20) as w:
        tenant = (await w.row()).tenant
        await storing.archive(w.kernel, [w.run.id], 0, by="ann")
        await storing.quota(w.kernel, tenant, 1_000, by="ann")
        with pytest.raises(LimitReached, match="may no more than 1,000"):
            await storing.unarchive(w.kernel, w.run.id, by="ann")
        assert (await verify(w.store)).ok


@pytest.mark.parametrize(("tenant", "size"), [("", 5), ("t", -1), ("t" * 200, 5), ("t", 2**60)])
async def test_a_quota_that_is_none_is_refused(tmp_path: Path, tenant: str, size: int) -> None:
    async with world(tmp_path / "home") as w:
        with pytest.raises(InvalidInput):
            await storing.quota(w.kernel, tenant, size, by="ann")


async def test_growth_is_that_of_late_and_by_tenant(tmp_path: Path) -> None:
    async with ended(tmp_path / "home", calls=20) as w:
        now_us = w.store.now_us()
        found = w.store.storage.growth(now_us)
        tenant = (await w.row()).tenant
        assert found.by_tenant[tenant] == (await w.store.tenant(tenant)).stored_bytes
        assert found.events == (await w.store.head()).size and found.span_us > 0
        later = w.store.storage.growth(now_us + 8 * 86_400_000_000)
        assert later.events == 0 and later.stored_bytes == 0
        with mock.patch.object(limits, "GROWTH_EVENTS_MAX", 5):
            assert w.store.storage.growth(now_us).events == 5
