"""The fair queue: whose turn it is, and that nobody gets more than there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0 import limits
from ring0.errors import Busy
from ring0.scheduler.buckets import Bucket
from ring0.scheduler.queue import WOKEN, FairQueue, Ticket, TicketState

S = 1_000_000
AGEING = limits.AGEING_S * S


class Desk:
    """A queue, its clock, and what was granted in which order."""

    def __init__(self, **sizes: int) -> None:
        self.now = 1_000 * S
        self.order: list[Ticket] = []
        weights = sizes.pop("weights", None)
        most = sizes.pop("queued_max", 10_000)
        self.queue = FairQueue(
            sizes=sizes or {"call": 1}, weights=weights, queued_max=most, told=self._told
        )
        self.told: list[Ticket] = []

    def _told(self, ticket: Ticket) -> None:
        self.told.append(ticket)
        if ticket.state is TicketState.GRANTED:
            self.order.append(ticket)

    def ask(self, run: str = "r", **fields: Any) -> Ticket:
        given = {"tenant": "t", "root": run, "priority": 5, "slots": ("call",), **fields}
        ticket = Ticket(run=run, **given)
        if self.queue.submit(ticket, self.now):
            self.order.append(ticket)
        return ticket

    def end(self, ticket: Ticket, cost_us: int = S) -> None:
        self.now += cost_us
        self.queue.release(ticket, cost_us, self.now)

    def drain(self, cost_us: int = 1_000) -> list[Ticket]:
        """Ends what goes until nothing is left; in the order in which it went."""
        done = 0
        while done < len(self.order):
            if self.order[done].state is TicketState.GRANTED:
                self.end(self.order[done], cost_us)
            done += 1
        return self.order


def test_a_call_goes_at_once_where_there_is_room() -> None:
    desk = Desk(call=2)
    assert desk.ask().state is desk.ask().state is TicketState.GRANTED
    third = desk.ask()
    assert third.state is TicketState.QUEUED
    desk.end(desk.order[0])
    assert third.state is TicketState.GRANTED


def test_a_lower_class_number_goes_first_and_a_woken_one_before_all() -> None:
    desk = Desk(call=1)
    desk.ask("first")
    waiting = {p: desk.ask(f"r{p}", priority=p) for p in (9, 0, 5, WOKEN)}
    desk.drain()
    assert desk.order[1:] == [waiting[p] for p in (WOKEN, 0, 5, 9)]


def test_calls_of_one_run_go_in_the_order_in_which_they_came() -> None:
    desk = Desk(call=1)
    asked = [desk.ask("one") for _ in range(20)]
    assert desk.drain() == asked


def test_a_ticket_gets_all_of_its_slots_at_once_or_none() -> None:
    desk = Desk(call=2, sandbox=1)
    first = desk.ask(slots=("call", "sandbox"))
    second = desk.ask(slots=("call", "sandbox"))
    assert second.state is TicketState.QUEUED
    assert desk.queue.resources()["call"].in_use == 1, "it holds a slot while it waits"
    assert desk.ask(slots=("call",)).state is TicketState.GRANTED, "what needs less is held up"
    desk.end(first)
    assert second.state is TicketState.GRANTED


def test_tenants_share_by_what_their_calls_cost_and_not_by_their_number() -> None:
    desk = Desk(call=1)
    desk.ask("x", tenant="other")
    for number in range(200):
        desk.ask(f"a{number}", tenant="dear")
        desk.ask(f"b{number}", tenant="cheap")
    had = {"dear": 0, "cheap": 0, "other": 0}
    for ticket in desk.order:
        cost = 10 * S if ticket.tenant == "dear" else S
        had[ticket.tenant] += cost
        desk.end(ticket, cost)
        if had["cheap"] == 200 * S:
            break
    assert abs(had["dear"] - had["cheap"]) <= 10 * S


def test_a_tenant_of_twice_the_weight_gets_twice_as_much() -> None:
    desk = Desk(call=1, weights={"large": 2})  # type: ignore[arg-type]
    desk.ask("x", tenant="other")
    for number in range(100):
        desk.ask(f"a{number}", tenant="large")
        desk.ask(f"b{number}", tenant="small")
    desk.drain()
    first = [ticket.tenant for ticket in desk.order[1:91]]
    assert 58 <= first.count("large") <= 62


def test_who_was_idle_has_saved_up_nothing() -> None:
    desk = Desk(call=1)
    desk.end(desk.ask("b", tenant="idle"))
    for _ in range(100):  # An hour alone.
        desk.end(desk.ask("a", tenant="busy"), 36 * S)
    for number in range(50):
        desk.ask(f"a{number}", tenant="busy")
        desk.ask(f"b{number}", tenant="idle")
    desk.drain(S)
    first = [ticket.tenant for ticket in desk.order[-100:][:20]]
    assert 8 <= first.count("idle") <= 12, f"the one that was idle had {first.count('idle')} of 20"


def test_a_tenant_that_comes_back_goes_before_the_one_with_the_backlog() -> None:
    desk = Desk(call=1)
    for number in range(100):
        desk.ask(f"a{number}", tenant="heavy")
    for _ in range(5):
        desk.end(desk.order[-1])
    light = desk.ask("b", tenant="light")
    desk.end(desk.order[-1])
    assert desk.order[-1] is light


def test_a_tree_that_forks_gets_no_more_than_one_run() -> None:
    desk = Desk(call=1)
    desk.ask("x")
    for number in range(50):
        for call in range(4):
            desk.ask(f"child-{number}-{call % 2}", root="forks")
    alone = [desk.ask("alone", root="alone") for _ in range(50)]
    forks = 0
    for ticket in desk.order:
        forks += ticket.root == "forks"
        desk.end(ticket, 5 * S if ticket.root == "forks" else S)
        if ticket is alone[-1]:
            break
    assert 9 <= forks <= 11, f"it had {forks * 5} s beside the other's 50 s"


def test_a_run_that_has_had_the_least_goes_first_in_its_tenant() -> None:
    desk = Desk(call=1)
    long = desk.ask("long")
    later = desk.ask("long")
    short = desk.ask("short")
    desk.end(long, 5 * S)
    assert desk.order[-1] is short
    desk.end(short)
    assert desk.order[-1] is later


def test_a_run_that_has_had_much_goes_when_it_has_waited_beyond_the_bound() -> None:
    desk = Desk(call=1)
    desk.end(desk.ask("long"), 100 * S)
    desk.ask("new")
    starved = desk.ask("long")
    asked_us, number = desk.now, 0
    while starved.state is TicketState.QUEUED:
        number += 1
        desk.ask(f"new{number}")  # There is always a newcomer that has had less.
        desk.end(desk.order[-1], S)
        assert desk.now - asked_us <= limits.RUN_STARVED_S * S + 3 * S
    assert desk.now - asked_us >= limits.RUN_STARVED_S * S, "the newcomers were held up"


@pytest.mark.parametrize("priority", range(1, 10))
def test_no_class_waits_longer_than_its_number_times_the_ageing(priority: int) -> None:
    desk = Desk(call=1)
    desk.ask("x", priority=0)
    low = desk.ask("low", tenant="low", priority=priority)
    asked_us, number = desk.now, 0
    while low.state is TicketState.QUEUED:
        for _ in range(2):  # More comes of the highest class than goes.
            number += 1
            desk.ask(f"r{number}", priority=0, tenant=f"t{number % 3}")
        desk.end(desk.order[-1], S)
    waited_us = desk.now - asked_us
    assert (priority - 1) * AGEING < waited_us <= priority * AGEING + 10 * S


def test_a_backlog_that_has_aged_goes_one_by_one_and_not_all_before_the_others() -> None:
    desk = Desk(call=1)
    desk.ask("x", priority=0)
    for number in range(100):
        desk.ask(f"low{number}", priority=9, tenant="low")
    desk.now += 100 * AGEING  # All of it has waited for longer than any bound.
    high = [desk.ask(f"high{number}", priority=0) for number in range(50)]
    desk.drain(S)
    place = desk.order.index(high[-1])
    assert place <= 50 + 3, f"{place - 50} calls of the lowest class went before"


def test_what_has_waited_long_is_not_overtaken_by_a_clock_that_is_set_back() -> None:
    desk = Desk(call=1)
    first = desk.ask("x")
    waiting = desk.ask("r")
    desk.now -= 500 * S
    desk.end(first)
    assert waiting.state is TicketState.GRANTED


def test_a_full_queue_says_when_to_come_back() -> None:
    desk = Desk(call=1, queued_max=3)
    for _ in range(20):
        desk.end(desk.ask("r"), 10 * S)
    for _ in range(4):
        desk.ask("r")
    with pytest.raises(Busy) as full:
        desk.ask("r")
    assert full.value.code == "busy"
    assert 20 <= full.value.after_s <= 40 and f"{full.value.after_s} s" in full.value.todo
    assert desk.ask("s", tenant="another").state is TicketState.QUEUED


def test_a_tree_that_fills_its_tenants_queue_gives_way_to_the_others() -> None:
    desk = Desk(call=1, queued_max=10)
    desk.ask("x")
    crowd = [desk.ask(f"c{number}", root="crowd") for number in range(10)]
    other = desk.ask("other")
    assert other.state is TicketState.QUEUED
    assert crowd[-1].state is TicketState.PUSHED_OUT and desk.told == [crowd[-1]]
    with pytest.raises(Busy):
        desk.ask("c10", root="crowd")
    desk.drain()
    assert other in desk.order and crowd[-1] not in desk.order


def test_who_leaves_the_queue_makes_room_and_is_not_granted() -> None:
    desk = Desk(call=1, queued_max=2)
    first = desk.ask("x")
    gone, stays = desk.ask("a"), desk.ask("b")
    desk.queue.leave(gone, desk.now)
    third = desk.ask("c")
    desk.end(first)
    desk.drain()
    assert gone.state is TicketState.GONE and desk.order[-2:] == [stays, third]


def test_a_lane_waits_for_its_bucket_and_others_pass_it() -> None:
    desk = Desk(call=10)
    bucket = desk.queue.buckets["b"] = Bucket("b", tokens_per_min=6_000)
    bucket.reserve(0, desk.now)
    large = desk.ask("large", bucket="b", tokens=900)
    assert large.state is TicketState.GRANTED
    blocked = desk.ask("blocked", bucket="b", tokens=900)
    small = desk.ask("small", bucket="b", tokens=1)
    assert blocked.state is small.state is TicketState.QUEUED, "a small one overtook"
    assert desk.ask("other").state is TicketState.GRANTED
    due_us = desk.queue.next_us(desk.now)
    assert due_us - desk.now == 8 * S  # 900 - 100 left, at 100 a second.
    desk.queue.dispatch(due_us - 1)
    assert blocked.state is TicketState.QUEUED
    desk.queue.dispatch(due_us)
    assert blocked.state is TicketState.GRANTED


def test_when_the_one_that_waits_for_its_bucket_leaves_the_next_goes_at_once() -> None:
    desk = Desk(call=10)
    desk.queue.buckets["b"] = Bucket("b", tokens_per_min=6_000)
    desk.ask("large", bucket="b", tokens=900)
    blocked = desk.ask("blocked", bucket="b", tokens=900)
    small = desk.ask("small", bucket="b", tokens=100)
    desk.queue.leave(blocked, desk.now)
    assert small.state is TicketState.GRANTED


def test_a_tree_that_waits_alone_leaves_the_last_slot_to_who_comes() -> None:
    desk = Desk(call=4)
    for number in range(20):
        desk.ask(f"child{number}", root="tree")
    assert len(desk.order) == 3
    other = desk.ask("other")
    assert desk.order[-1] is other
    assert desk.told == [], "who asks is told twice"
    desk.drain()
    assert len(desk.order) == 21


def test_two_trees_that_wait_leave_no_slot_idle() -> None:
    desk = Desk(call=4)
    for name in "aaaaabbbbb":
        desk.ask(name)
    assert [ticket.root for ticket in desk.order] == ["a", "a", "a", "b"]
    while desk.queue._lanes and {ticket.root for ticket in desk.queue.waiting()} == {"a", "b"}:
        assert desk.queue.resources()["call"].in_use == 4
        desk.end(next(t for t in desk.order if t.state is TicketState.GRANTED))


def test_a_tenant_with_many_trees_leaves_the_last_slot_to_another_tenant() -> None:
    desk = Desk(call=4)
    desk.end(desk.ask("light", tenant="light"), 1_000)
    for number in range(20):
        desk.ask(f"r{number}", tenant="heavy")
    assert len(desk.order) == 1 + 3
    light = desk.ask("light", tenant="light")
    assert desk.order[-1] is light


def test_two_tenants_that_wait_leave_no_slot_idle() -> None:
    desk = Desk(call=4)
    for tenant in ("a", "b"):
        desk.end(desk.ask(tenant, tenant=tenant), 100 * S if tenant == "b" else S)
    for number in range(5):
        desk.ask(f"a{number}", tenant="a")
    assert desk.queue.resources()["call"].in_use == 3
    desk.ask("b", tenant="b")
    assert desk.queue.resources()["call"].in_use == 4


def test_a_tenant_that_is_the_only_one_uses_every_slot() -> None:
    desk = Desk(call=4)
    for number in range(20):
        desk.ask(f"r{number}", tenant="heavy")
    assert len(desk.order) == 4


def test_nothing_goes_once_the_queue_is_held() -> None:
    desk = Desk(call=2)
    first = desk.ask("a")
    desk.queue.held = True
    second = desk.ask("b")
    desk.end(first)
    assert second.state is TicketState.QUEUED


def test_nothing_is_kept_of_what_has_gone() -> None:
    desk = Desk(call=1)
    for number in range(500):
        desk.ask(f"r{number}", tenant=f"t{number % 7}", priority=number % 10)
    desk.drain()
    queue = desk.queue
    assert not queue._lanes and not queue._by_root and not queue._by_tenant


def test_heaps_do_not_grow_with_those_who_came_and_left() -> None:
    desk = Desk(call=1)
    desk.ask("x")
    stays = desk.ask("stays")
    assert stays.leaf is not None and stays.leaf.parent is not None
    tenant = stays.leaf.parent.parent
    assert tenant is not None
    sizes = []
    for number in range(5_000):
        desk.queue.leave(desk.ask(f"r{number}"), desk.now)
        sizes.append(len(tenant.ranks))
    assert max(sizes) <= 2 * limits.HEAP_SPARE_MAX
    assert max(sizes) >= limits.HEAP_SPARE_MAX, "nor is all gone through each time that one leaves"


# --- whatever comes ----------------------------------------------------------------------------

SLOTS = (("call",), ("call", "sandbox"), ("call", "model:a"), ("call", "model:a", "model:a/b"))
SIZES = {"call": 4, "sandbox": 2, "model:a": 3, "model:a/b": 1}
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.integers(0, 3),  # tenant
            st.integers(0, 3),  # tree
            st.integers(0, 2),  # run
            st.sampled_from((WOKEN, 0, 3, 9)),
            st.sampled_from(SLOTS),
        ),
        st.tuples(st.just("end"), st.integers(0, 50), st.integers(0, 20 * S)),
        st.tuples(st.just("leave"), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.integers(0, 200 * S)),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(2, 12))
def test_whatever_comes_slots_are_kept_full_and_never_overfull_and_everyone_leaves_once(
    steps: list[Any], queued_max: int
) -> None:
    desk = Desk(**SIZES, queued_max=queued_max)
    asked: list[Ticket] = []
    for step in steps:
        going = [ticket for ticket in asked if ticket.state is TicketState.GRANTED]
        queued = [ticket for ticket in asked if ticket.state is TicketState.QUEUED]
        match step:
            case ("ask", tenant, tree, run, priority, slots):
                root = f"{tenant}.{tree}"
                fields = {"tenant": f"t{tenant}", "priority": priority, "slots": slots}
                try:
                    asked.append(desk.ask(f"{root}.{run}", root=root, **fields))
                except Busy:
                    pass
            case ("end", number, cost) if going:
                desk.end(going[number % len(going)], cost)
            case ("leave", number) if queued:
                desk.queue.leave(queued[number % len(queued)], desk.now)
            case ("wait", by):
                desk.now += by
        _holds(desk, asked)
    while going := [ticket for ticket in asked if ticket.state is TicketState.GRANTED]:
        desk.end(going[0])
        _holds(desk, asked)
    assert {ticket.state for ticket in asked} <= {TicketState.GONE, TicketState.PUSHED_OUT}
    assert len(set(map(id, desk.told))) == len(desk.told), "somebody was told twice"
    assert not desk.queue._lanes


def _holds(desk: Desk, asked: list[Ticket]) -> None:
    used = dict.fromkeys(SIZES, 0)
    for ticket in asked:
        if ticket.state is TicketState.GRANTED:
            for slot in ticket.slots:
                used[slot] += 1
    for name, slots in desk.queue.resources().items():
        assert slots.in_use == used[name] <= SIZES[name]
    for ticket in asked:
        if ticket.state is TicketState.QUEUED:
            assert any(
                used[slot] == SIZES[slot] or _kept(slot, ticket, asked, used)
                for slot in ticket.slots
            ), "a slot was left idle"
    first: dict[tuple[Any, ...], Ticket] = {}
    for ticket in asked:  # Of a run, a class and the same needs: in the order of arrival.
        key = (ticket.run, ticket.priority, ticket.slots)
        if ticket.state is TicketState.QUEUED:
            first.setdefault(key, ticket)
        elif ticket in desk.order and key in first:
            raise AssertionError("a later call of a run overtook an earlier one")


def _kept(slot: str, ticket: Ticket, asked: list[Ticket], used: dict[str, int]) -> bool:
    """The last one of four, and those who wait for it have all others."""
    if SIZES[slot] < limits.SLOTS_SPARE_FROM or used[slot] != SIZES[slot] - 1:
        return False
    mine = [t for t in asked if slot in t.slots]
    for field in ("root", "tenant"):
        names = {getattr(t, field) for t in mine if t.state is TicketState.QUEUED}
        names |= {getattr(t, field) for t in mine if t.state is TicketState.GRANTED}
        if names == {getattr(ticket, field)}:
            return True
    return False


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.integers(1, 6),
    st.tuples(st.sampled_from((1, 2, 5)), st.sampled_from((1, 3))),
)
def test_over_any_time_in_which_two_tenants_wait_their_shares_differ_by_the_stated_bound(
    data: st.DataObject, slots: int, weights: tuple[int, int]
) -> None:
    desk = Desk(call=slots, weights=dict(zip("ab", weights, strict=True)))  # type: ignore[arg-type]
    dearest = 8 * S
    waiting = {"a": 0, "b": 0}
    number = 0

    def more() -> None:
        nonlocal number
        for tenant in "ab":
            while sum(t.tenant == tenant for t in desk.queue.waiting()) < slots + 1:
                number += 1
                desk.ask(f"{tenant}{number % 5}", tenant=tenant)

    more()
    had = {"a": 0.0, "b": 0.0}
    lead, lows, highs = [], [0.0], [0.0]
    for _ in range(60):
        going = [ticket for ticket in desk.order if ticket.state is TicketState.GRANTED]
        ticket = data.draw(st.sampled_from(going))
        cost = data.draw(st.sampled_from((1_000, S, 3 * S, dearest)))
        waiting[ticket.tenant] += 1
        had[ticket.tenant] += cost / weights["ab".index(ticket.tenant)]
        desk.end(ticket, cost)
        more()
        lead.append(had["a"] - had["b"])
    lows.append(min(lead))
    highs.append(max(lead))
    bound = sum(slots * dearest / weight for weight in weights)
    assert max(highs) - min(lows) <= bound + len(lead)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=40))
def test_whatever_stands_in_the_queue_each_class_is_served_within_the_bound(
    queued: list[tuple[int, int]],
) -> None:
    desk = Desk(call=1)
    desk.ask("x", priority=0)
    since = {}
    for number, (priority, tenant) in enumerate(queued):
        desk.ask(f"r{number}", priority=priority, tenant=f"t{tenant}")
        since.setdefault(priority, desk.now)
    left = {ticket.priority for ticket in desk.queue.waiting()}
    while left:
        desk.ask(f"new{desk.now}", priority=0)  # The highest class never runs dry.
        desk.end(desk.order[-1], S)
        went = desk.order[-1].priority
        since[went] = desk.now
        left = {ticket.priority for ticket in desk.queue.waiting()} - {0}
        for priority in left:
            waited = desk.now - since[priority]
            assert waited <= priority * AGEING + 10 * S, f"class {priority} waited {waited} us"
