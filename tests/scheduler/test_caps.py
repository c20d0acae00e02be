"""Caps count what all runs of a principal take of a tool within a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ring0.errors import LimitReached
from ring0.scheduler import caps
from ring0.scheduler.caps import Cap, Taking
from ring0.types import Budget, Integrity, Label, Mode, Run, RunState

HOUR_US = 3_600_000_000
ROWS = Cap(tool="crm.*", of="rows", most=50, window_s=3_600)
RUN = Run(
    id="r-1",
    state=RunState.RUNNING,
    root="r-1",
    agent="a",
    agent_digest="",
    mode=Mode.EMBEDDED,
    tenant="acme",
    principal="ann",
    task="",
    label=Label(integrity=Integrity.USER),
    budget=Budget(),
    started_us=1,
    deadline_us=2,
)


def take(
    cap: Cap,
    amounts: dict[str, int],
    *,
    name: str = "crm.execute",
    resources: Sequence[str] = (),
    run: Run = RUN,
    mutates: bool = True,
    now_us: int = 10 * HOUR_US,
) -> tuple[Taking, ...]:
    return caps.takings([cap], run, name, resources, amounts, mutates=mutates, now_us=now_us)


def only(cap: Cap, amounts: dict[str, int], **more: Any) -> Taking:
    (found,) = take(cap, amounts, **more)
    return found


def test_a_call_takes_as_many_rows_as_its_driver_found() -> None:
    assert only(ROWS, {"rows": 7}).use.amount == 7


def test_one_counter_is_for_all_tools_that_a_cap_names() -> None:
    keys = {only(ROWS, {"rows": 1}, name=name).use.key for name in ("crm.execute", "crm.delete")}
    assert len(keys) == 1


def test_a_tool_that_the_cap_does_not_name_takes_nothing_of_it() -> None:
    assert take(ROWS, {"rows": 7}, name="mail.send") == ()


def test_another_run_another_tree_and_another_agent_share_the_counter() -> None:
    other = replace(RUN, id="r-2", root="r-9", parent="r-9", agent="b")
    assert only(ROWS, {"rows": 1}).use == only(ROWS, {"rows": 1}, run=other).use


def test_principals_have_counters_of_their_own_unless_the_cap_is_the_tenants() -> None:
    bob = replace(RUN, principal="bob")
    assert only(ROWS, {"rows": 1}).use.key != only(ROWS, {"rows": 1}, run=bob).use.key
    shared = replace(ROWS, per="tenant")
    assert only(shared, {"rows": 1}).use.key == only(shared, {"rows": 1}, run=bob).use.key


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_no_two_owners_of_counters_meet_in_one_name(a: str, b: str, c: str, d: str) -> None:
    one, other = replace(RUN, tenant=a, principal=b), replace(RUN, tenant=c, principal=d)
    same = only(ROWS, {"rows": 1}, run=one).use.key == only(ROWS, {"rows": 1}, run=other).use.key
    assert same == ((a, b) == (c, d))


def test_a_cap_on_a_table_counts_calls_that_touch_it_also_beside_others() -> None:
    cap = replace(ROWS, resource="customer")
    assert take(cap, {"rows": 3}, resources=["purchase"]) == ()
    assert only(cap, {"rows": 3}, resources=["purchase", "customer"]).use.amount == 3


def test_what_cannot_be_counted_is_refused_where_a_cap_counts_it() -> None:
    cap = replace(ROWS, of="recipients")
    with pytest.raises(LimitReached, match="can't say how many recipients"):
        take(cap, {"rows": 1})
    assert take(cap, {"rows": 1}, mutates=False) == (), "a read reaches nobody"


def test_windows_are_fixed_and_a_refusal_says_when_the_next_begins() -> None:
    early, late = only(ROWS, {"rows": 1}), only(ROWS, {"rows": 1}, now_us=11 * HOUR_US - 1)
    assert early.use.window == late.use.window
    assert only(ROWS, {"rows": 1}, now_us=11 * HOUR_US).use.window == early.use.window + 1
    caps.check(early, 49, 10 * HOUR_US)
    with pytest.raises(LimitReached) as told:
        caps.check(early, 50, 10 * HOUR_US)
    assert "50 are used" in told.value.what and "crm.*" in told.value.what
    assert "1970-01-01 11:00:00 UTC" in told.value.todo


def test_a_refusal_tells_money_in_dollars() -> None:
    cap = Cap(tool="model:*", of="money", most=5_000_000, window_s=86_400)
    taking = only(cap, {"money": 6_000_000}, name="model:default")
    with pytest.raises(LimitReached, match=r"5\.000000 USD of model:\*.*more than the cap"):
        caps.check(taking, 0, 0)
