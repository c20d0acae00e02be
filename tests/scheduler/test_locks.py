"""Who may hold a named resource, in which order, and what is found when runs wait in a circle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0 import limits
from ring0.errors import CallInvalid, Deadlock, LimitReached
from ring0.scheduler import circles
from ring0.scheduler.circles import Wait
from ring0.scheduler.locks import Ask, AskState, LockTable, canonical_name
from ring0.types import Lock, LockMode

SHARED, EXCLUSIVE = LockMode.SHARED, LockMode.EXCLUSIVE
HOUR_US = 3_600_000_000


class World:
    """A table, and runs `a`, `b`, … of which each is younger than the one before."""

    def __init__(self) -> None:
        self.table = LockTable()
        self.fence = 0
        self.calls = 0

    def ask(
        self, run: str, *names: str, mode: LockMode = EXCLUSIVE, claims: bool = False,
        tenant: str = "acme",
    ) -> Ask:  # fmt: skip
        self.calls += 1
        keys = [(tenant, name) for name in names]
        ask = Ask(run, ord(run[0]), f"{run}/{self.calls}", keys, mode, claims=claims)
        if self.table.ask(ask) and not claims:
            self.write(ask)
        return ask

    def write(self, ask: Ask) -> None:
        self.fence += 1
        ((tenant, name),) = ask.keys
        lock = Lock(
            tenant=tenant, resource=name, run=ask.run, mode=ask.mode, fence=self.fence,
            expires_us=HOUR_US, call=ask.call,
        )  # fmt: skip
        self.table.hold(lock, HOUR_US)

    def free(self, run: str, name: str) -> None:
        self.table.drop(("acme", name), run)


def test_one_run_has_an_exclusive_lock_and_the_next_gets_it_when_it_is_freed() -> None:
    w = World()
    assert w.ask("a", "x").state is AskState.GRANTED
    b = w.ask("b", "x")
    assert b.state is AskState.QUEUED and not b.woken.is_set()
    w.free("a", "x")
    assert b.state is AskState.GRANTED and b.woken.is_set()


def test_shared_locks_stand_beside_each_other_and_keep_a_writer_out() -> None:
    w = World()
    assert w.ask("a", "x", mode=SHARED).state is AskState.GRANTED
    assert w.ask("b", "x", mode=SHARED).state is AskState.GRANTED
    writer = w.ask("c", "x")
    w.free("a", "x")
    assert writer.state is AskState.QUEUED
    w.free("b", "x")
    assert writer.state is AskState.GRANTED


def test_a_writer_does_not_starve_behind_readers_that_keep_coming() -> None:
    w = World()
    w.ask("a", "x", mode=SHARED)
    writer = w.ask("b", "x")
    late = w.ask("c", "x", mode=SHARED)
    assert late.state is AskState.QUEUED
    w.free("a", "x")
    assert (writer.state, late.state) == (AskState.GRANTED, AskState.QUEUED)
    w.write(writer)
    w.free("b", "x")
    assert late.state is AskState.GRANTED


def test_lock_names_are_scoped_to_the_tenant() -> None:
    w = World()
    w.ask("a", "table:customers", tenant="acme")
    assert w.ask("b", "table:customers", tenant="other").state is AskState.GRANTED


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("table:Customers", "table:customers"),
        ("ticket:４２", "ticket:42"),
        ("caf\u00e9", "cafe\u0301"),
        ("ticket:42 ", "ticket:42"),
    ],
)
def test_two_names_that_look_alike_are_one(one: str, other: str) -> None:
    assert canonical_name(one) == canonical_name(other)


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\x1b[2J", "\ud800", "x" * 201, "ﷺ" * 100])
def test_what_can_not_be_printed_or_has_no_end_is_no_name(name: str) -> None:
    with pytest.raises(CallInvalid):
        canonical_name(name)


def test_a_lock_is_not_granted_while_a_call_that_touches_it_is_under_way() -> None:
    w = World()
    claim = w.ask("a", "x", "y", claims=True)
    lock = w.ask("b", "y")
    assert (claim.state, lock.state) == (AskState.GRANTED, AskState.QUEUED)
    w.table.unclaim(claim)
    assert lock.state is AskState.GRANTED


def test_a_call_claims_all_that_it_touches_at_once_and_holds_nothing_while_it_waits() -> None:
    w = World()
    w.ask("a", "y")
    both = w.ask("b", "x", "y", claims=True)
    assert both.state is AskState.QUEUED
    w.table.leave(both)
    assert w.ask("c", "x").state is AskState.GRANTED


def test_two_calls_that_touch_the_same_never_overlap_not_even_of_one_run() -> None:
    w = World()
    first = w.ask("a", "x", claims=True)
    second, third = w.ask("a", "x", claims=True), w.ask("b", "x", claims=True)
    assert second.state is third.state is AskState.QUEUED
    w.table.unclaim(first)
    assert (second.state, third.state) == (AskState.GRANTED, AskState.QUEUED)


def test_who_holds_a_lock_goes_before_those_that_wait_for_it() -> None:
    w = World()
    w.ask("a", "x")
    w.ask("b", "x")
    assert w.ask("a", "x", claims=True).state is AskState.GRANTED


def test_an_upgrade_waits_for_the_other_readers_and_goes_before_the_queue() -> None:
    w = World()
    w.ask("a", "x", mode=SHARED)
    w.ask("b", "x", mode=SHARED)
    waiting = w.ask("c", "x")
    upgrade = w.ask("a", "x")
    assert upgrade.state is AskState.QUEUED
    w.free("b", "x")
    assert (upgrade.state, waiting.state) == (AskState.GRANTED, AskState.QUEUED)


def test_a_lock_that_got_no_row_is_as_if_it_had_never_been_granted() -> None:
    w = World()
    ask = Ask("a", 1, "a/1", [("acme", "x")], EXCLUSIVE, claims=False)
    assert w.table.ask(ask)
    b = w.ask("b", "x")
    w.table.not_taken(ask)
    assert b.state is AskState.GRANTED and w.table.of("a") == []


def test_an_upgrade_that_got_no_row_leaves_the_shared_lock_as_it_was() -> None:
    w = World()
    w.ask("a", "x", mode=SHARED)
    up = Ask("a", 1, "a/9", [("acme", "x")], EXCLUSIVE, claims=False)
    assert w.table.ask(up)
    w.table.not_taken(up)
    assert w.ask("b", "x", mode=SHARED).state is AskState.GRANTED


def test_the_queue_for_a_name_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCK_WAITERS_PER_NAME_MAX", 2)
    w = World()
    w.ask("a", "x")
    w.ask("b", "x")
    w.ask("c", "x")
    ask = Ask("d", 4, "d/1", [("acme", "x")], EXCLUSIVE, claims=False)
    with pytest.raises(LimitReached):
        w.table.ask(ask)
    w.table.leave(ask)
    assert len(w.table.waiting()) == 2


def test_a_lease_is_over_as_soon_as_one_of_the_two_clocks_says_so() -> None:
    w = World()
    w.ask("a", "x")
    held = w.table.held(("acme", "x"), "a")
    assert held is not None
    assert held.left_us(HOUR_US - 5, 0) == 5
    assert held.left_us(0, HOUR_US - 7) == 7
    assert held.left_us(HOUR_US, 0) == held.left_us(0, HOUR_US) == 0


# --- circles ---------------------------------------------------------------------------------


def test_a_deadlock_is_found_when_it_forms_and_the_youngest_gives_way() -> None:
    w = World()
    w.ask("a", "x")
    w.ask("b", "y")
    young = w.ask("b", "x")
    old = w.ask("a", "y")
    assert young.state is AskState.GONE and young.woken.is_set()
    assert isinstance(young.error, Deadlock)
    assert "a waits for y, of b" in young.error.why and "b waits for x, of a" in young.error.why
    assert old.state is AskState.QUEUED
    w.free("b", "y")
    assert old.state is AskState.GRANTED


def test_the_youngest_is_told_at_once_where_it_is_the_one_that_asks() -> None:
    w = World()
    w.ask("a", "x")
    w.ask("b", "y")
    w.ask("a", "y")
    with pytest.raises(Deadlock):
        w.ask("b", "x")


def test_a_circle_of_many_is_found_and_one_of_them_gives_way() -> None:
    w = World()
    runs = "abcdefghij"
    for run in runs:
        w.ask(run, f"of-{run}")
    asks = [w.ask(one, f"of-{two}") for one, two in zip(runs[1:], runs, strict=False)]
    last = w.ask("a", "of-j")
    gone = [ask for ask in [*asks, last] if ask.state is AskState.GONE]
    assert [ask.run for ask in gone] == ["j"]
    assert "and 2 more" in gone[0].error.why if gone[0].error else False


def test_who_only_waits_behind_a_circle_is_not_ended() -> None:
    w = World()
    w.ask("a", "x")
    w.ask("b", "y")
    behind = w.ask("z", "x")
    b = w.ask("b", "x")
    w.ask("a", "y")
    assert behind.state is AskState.QUEUED and b.state is AskState.GONE


def test_two_readers_that_both_want_to_write_do_not_wait_for_ever() -> None:
    w = World()
    w.ask("a", "x", mode=SHARED)
    w.ask("b", "x", mode=SHARED)
    old = w.ask("a", "x")
    with pytest.raises(Deadlock):
        w.ask("b", "x")
    w.free("b", "x")
    assert old.state is AskState.GRANTED


def test_a_place_in_a_queue_counts_as_something_to_wait_for() -> None:
    w = World()
    w.ask("a", "x", mode=SHARED)
    w.ask("b", "y")
    w.ask("b", "x")  # Waits for a.
    w.ask("c", "y", mode=SHARED)  # Waits for b.
    c = w.ask("c", "x", mode=SHARED)  # Waits behind b.
    assert c.state is AskState.QUEUED
    a = w.ask("a", "y")  # Waits for b, which waits for a.
    assert a.state is AskState.QUEUED
    assert [ask.run for ask in w.table.waiting() if ask.error] == []
    assert "b" not in [ask.run for ask in w.table.waiting()]


def test_a_circle_that_only_a_queue_closes_is_found() -> None:
    w = World()
    w.ask("a", "x", mode=SHARED)
    w.ask("c", "z")
    b = w.ask("b", "x")  # Waits for a.
    c = w.ask("c", "x", mode=SHARED)  # Waits behind b.
    a = w.ask("a", "z")  # Waits for c.
    assert isinstance(c.error, Deadlock) and a.state is b.state is AskState.QUEUED
    w.free("c", "z")
    assert a.state is AskState.GRANTED


def test_a_parent_that_waits_for_a_child_that_waits_for_its_lock_is_a_deadlock() -> None:
    w = World()
    w.ask("p", "x")
    child = w.ask("q", "x")
    w.table.wait_for_runs(Wait("p", runs=["q"]))
    assert isinstance(child.error, Deadlock)


def test_the_child_is_told_where_its_parent_waits_already() -> None:
    w = World()
    w.ask("p", "x")
    w.table.wait_for_runs(Wait("p", runs=["q"]))
    with pytest.raises(Deadlock):
        w.ask("q", "x", claims=True)


def test_a_race_is_no_deadlock_as_long_as_one_of_the_children_can_end() -> None:
    w = World()
    w.ask("p", "x")
    first = w.ask("q", "x")
    w.table.wait_for_runs(Wait("p", runs=["q", "r"], any_of=True))
    assert first.state is AskState.QUEUED
    with pytest.raises(Deadlock):
        w.ask("r", "x")
    assert first.state is AskState.QUEUED


def test_a_call_that_is_under_way_is_waited_for_and_is_in_no_circle() -> None:
    w = World()
    w.ask("a", "x")
    w.ask("b", "x")  # b waits for a …
    w.ask("b", "y", claims=True)  # … while a call of b is under way,
    a = w.ask("a", "y")  # … which ends by itself.
    assert a.state is AskState.QUEUED and a.error is None


RUNS, NAMES = "abcde", "xyz"
Steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "share", "claim", "free", "end", "leave"]),
        st.sampled_from(RUNS),
        st.sampled_from(NAMES),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=Steps)
def test_whatever_runs_do_nobody_overlaps_and_nobody_is_left_waiting(
    steps: list[tuple[str, str, str]],
) -> None:
    w = World()
    asks: list[Ask] = []
    for step, run, name in steps:
        try:
            if step in ("ask", "share"):
                mine = w.table.held(("acme", name), run)
                more = mine is None or (mine.mode is SHARED and step == "ask")
                if more and not w.table.asks(("acme", name), run):
                    asks.append(w.ask(run, name, mode=SHARED if step == "share" else EXCLUSIVE))
            elif step == "claim":
                asks.append(w.ask(run, name, NAMES[0], claims=True))
            elif step == "free":
                w.free(run, name)
            elif step == "leave":
                for ask in [ask for ask in asks if ask.run == run]:
                    w.table.leave(ask)
            else:
                for ask in [ask for ask in asks if ask.run == run]:
                    w.table.unclaim(ask)
        except Deadlock:
            pass
        for ask in asks:
            if ask.state is AskState.GRANTED and not ask.claims:
                held = w.table.held(ask.keys[0], ask.run)
                if held is not None and held.taking:
                    w.write(ask)
        _check_nobody_overlaps(w, asks)
    for _ in range(len(asks) + 1):  # All that goes on ends: then everybody must have had a turn.
        for run in RUNS:
            for name in NAMES:
                if not any(a.run == run and a.state is AskState.QUEUED for a in asks):
                    w.free(run, name)
        for ask in asks:
            w.table.unclaim(ask)
            if ask.state is AskState.GRANTED and not ask.claims:
                w.free(ask.run, ask.keys[0][1])
    assert not w.table.waiting()


def _check_nobody_overlaps(w: World, asks: list[Ask]) -> None:
    for name in NAMES:
        held = w.table.on(("acme", name))
        claims = [a for a in asks if a.claims and a.state is AskState.GRANTED
                  and ("acme", name) in a.keys]  # fmt: skip
        assert len(claims) <= 1
        if any(one.mode is EXCLUSIVE for one in held):
            assert len(held) == 1
        for claim in claims:
            assert all(one.run == claim.run for one in held)


def test_behind_a_claim_stands_who_waits_for_that_call_alone() -> None:
    w = World()
    w.ask("a", "x")
    for run in "bcbc":  # Their calls stand behind each other's, and each will have its turn.
        assert w.ask(run, "x", claims=True).state is AskState.QUEUED
    w.ask("d", "y")
    w.ask("b", "y")  # That b waits for d is not what keeps c's calls.
    assert w.ask("d", "x").state is AskState.QUEUED


def test_a_circle_through_a_claim_that_waits_is_found() -> None:
    w = World()
    w.ask("a", "x")
    w.ask("c", "y")
    claim = w.ask("b", "x", "z", claims=True)
    young = w.ask("c", "z")  # Behind the claim, which waits for a.
    old = w.ask("a", "y")
    assert isinstance(young.error, Deadlock)
    assert "c waits for z, of b; b waits for x, z, of a" in young.error.why
    assert claim.state is old.state is AskState.QUEUED


def test_of_many_calls_that_wait_for_one_lock_each_is_looked_at_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    is_stuck = circles._is_stuck

    def counted(*given: Any) -> bool:
        nonlocal looks
        looks += 1
        return is_stuck(*given)

    monkeypatch.setattr(circles, "_is_stuck", counted)
    w = World()
    w.ask("a", "x")
    for number in range(200):
        looks = 0
        w.ask(f"r{number}", "x")
        assert looks <= 4 * number + 4, "a long queue keeps the whole kernel from its work"
