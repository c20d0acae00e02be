"""The fair queue: which call goes next, with which slots. Synchronous; time is handed in.

Strict classes that age; inside a class tenants by weighted cost; inside a tenant the tree, then the
run, that has had the least; a run's own in the order of arrival. A ticket gets all of its slots at
once or waits and holds none. Nothing that goes is stopped: who is next is decided between calls. So
that who comes finds a slot, a tree (or a tenant, where there are several) that waits alone does not
get the last ones (`Slots.free_for`); beyond that no slot is idle while anybody waits for it.

Bounds. A class that waits has a turn within its number times AGEING_S and ten more grants of its
lane; a tree or run that waits is next in its tenant after RUN_STARVED_S. Over any time in which two
tenants of one class wait for the same N slots, what they were served, each by its weight, differs
by at most N of the dearest calls of the one and N of the other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping

from ring0 import limits
from ring0.errors import Busy
from ring0.scheduler.buckets import Bucket
from ring0.scheduler.queue_accounts import Accounts, Attained
from ring0.scheduler.queue_lanes import WOKEN, Lane, Ranks, Ticket, TicketState

FIRST_COST_US = limits.CALL_COST_US_MIN
"""Charged when a call goes, the rest when it is over: so that who has many under way counts."""


class Slots:
    """How many of one resource there are, and who has them."""

    __slots__ = ("accounts", "by_root", "by_tenant", "in_use", "most", "roots_waiting", "size")

    def __init__(self, size: int, weights: Mapping[str, int]) -> None:
        self.size = size
        spare = max(1, size // limits.SLOTS_SPARE_SHARE) if size >= limits.SLOTS_SPARE_FROM else 0
        self.most = size - spare
        """What one tree or tenant may have of it while nobody else waits."""
        self.in_use = 0
        self.by_tenant: dict[str, int] = {}
        self.by_root: dict[str, int] = {}
        self.roots_waiting: dict[str, int] = {}
        self.accounts = Accounts(weights)

    def free_for(self, ticket: Ticket) -> bool:
        """Whether there is one, and it is not one of the last, which are kept for others."""
        if self.in_use < self.most:
            return True
        if self.in_use >= self.size:
            return False
        if self.by_root.get(ticket.root, 0) >= self.most and not _others(
            self.roots_waiting, ticket.root
        ):
            return False
        return self.by_tenant.get(ticket.tenant, 0) < self.most or not self.accounts.alone(
            ticket.tenant
        )

    def take(self, ticket: Ticket) -> None:
        self.in_use += 1
        assert self.in_use <= self.size
        self.by_root[ticket.root] = self.by_root.get(ticket.root, 0) + 1
        self.by_tenant[ticket.tenant] = self.by_tenant.get(ticket.tenant, 0) + 1
        self.accounts.goes(ticket.tenant, FIRST_COST_US)

    def give_back(self, ticket: Ticket) -> None:
        self.in_use -= 1
        assert self.in_use >= 0
        _less(self.by_root, ticket.root)
        _less(self.by_tenant, ticket.tenant)


def _others(counts: dict[str, int], name: str) -> bool:
    return len(counts) > (name in counts)


def _less(counts: dict[str, int], name: str) -> None:
    if counts[name] == 1:
        del counts[name]
    else:
        counts[name] -= 1


class FairQueue:
    """All that waits and all that goes. `told` hears of queued tickets that are granted or pushed
    out: their `state` says which."""

    def __init__(
        self,
        *,
        sizes: Mapping[str, int],
        size_default: int = limits.MODEL_CALLS_AT_ONCE_DEFAULT,
        weights: Mapping[str, int] | None = None,
        queued_max: int = limits.QUEUED_CALLS_PER_TENANT_MAX,
        told: Callable[[Ticket], None] = lambda ticket: None,
    ) -> None:
        assert all(size >= 1 for size in (*sizes.values(), size_default))
        self.told = told
        self.buckets: dict[str, Bucket] = {}
        self._sizes = sizes
        self._size_default = size_default
        self._weights = weights or {}
        self._queued_max = queued_max
        self._slots: dict[str, Slots] = {}
        self._sets: dict[tuple[str, ...], tuple[Slots, ...]] = {}
        """The slots that a ticket's names stand for."""
        self._lanes: dict[tuple[tuple[str, ...], str], Lane] = {}
        self._lanes_made = 0
        self._roots, self._runs = Attained(), Attained()
        self._by_tenant: Counter[str] = Counter()
        self._by_root: dict[str, dict[str, OrderedDict[Ticket, None]]] = {}
        """Tenant, tree: what of it waits. For the bound of a tenant's queue."""
        self.held = False
        """Nothing goes any more: the kernel is stopping."""
        self._cost_us = FIRST_COST_US
        """A moving average of what a call costs, for the word when to come back."""

    # --- in and out -----------------------------------------------------------------------------

    def submit(self, ticket: Ticket, now_us: int) -> bool:
        """Whether it may go at once; otherwise it waits. Raises Busy where its tenant's queue is
        full (and no larger tree of that tenant is there to give way)."""
        assert ticket.state is TicketState.NEW
        ticket.asked_us = now_us
        # Whoever waits in another lane while these slots are free waits for something else.
        if ticket.lane not in self._lanes and not self.held and self._free(ticket, now_us):
            for slots in self._sets[ticket.slots]:
                slots.accounts.lift(ticket.tenant)
            self._grant(ticket, now_us)
            return True
        self._make_room(ticket)
        if (lane := self._lanes.get(ticket.lane)) is None:
            self._lanes_made += 1
            scarcest = self._set(ticket.slots)[-1]
            ranks = Ranks(scarcest.accounts.had, self._roots.had, self._runs.had)
            lane = Lane(ticket.slots, ticket.bucket, self._lanes_made, ranks)
            self._lanes[ticket.lane] = lane
        for slots in self._sets[ticket.slots]:
            slots.accounts.enter(ticket.tenant)
            slots.roots_waiting[ticket.root] = slots.roots_waiting.get(ticket.root, 0) + 1
        ticket.state = TicketState.QUEUED
        lane.put(ticket, now_us)
        self._by_tenant[ticket.tenant] += 1
        roots = self._by_root.setdefault(ticket.tenant, {})
        roots.setdefault(ticket.root, OrderedDict())[ticket] = None
        self.dispatch(now_us, ticket)  # What was kept for whoever comes is free for this one.
        return ticket.state is TicketState.GRANTED

    def release(self, ticket: Ticket, cost_us: int, now_us: int) -> None:
        """A call is over: its slots go to who is next, and what it cost is charged."""
        assert ticket.state is TicketState.GRANTED
        ticket.state = TicketState.GONE
        for slots in self._sets[ticket.slots]:
            slots.give_back(ticket)
        if (rest_us := cost_us - FIRST_COST_US) > 0:
            for slots in self._sets[ticket.slots]:
                slots.accounts.charge(ticket.tenant, rest_us)
            self._roots.charge(ticket.root, rest_us)
            self._runs.charge(ticket.run, rest_us)
        self._cost_us += (max(cost_us, 0) - self._cost_us) // 8
        if self._lanes:
            self.dispatch(now_us)

    def leave(self, ticket: Ticket, now_us: int) -> None:
        """Nobody waits for a queued ticket any more."""
        assert ticket.state is TicketState.QUEUED
        self._take_out(ticket)
        ticket.state = TicketState.GONE
        self.dispatch(now_us)  # The next of its lane may need fewer tokens.

    def dispatch(self, now_us: int, asking: Ticket | None = None) -> None:
        """Grants what may go now. `asking` is told by whoever asks for it."""
        while not self.held and (ticket := self._next(now_us)) is not None:
            self._lanes[ticket.lane].take(ticket, now_us)
            self._count_out(ticket)
            self._grant(ticket, now_us)
            if ticket is not asking:
                self.told(ticket)

    def next_us(self, now_us: int) -> int:
        """When `dispatch` may grant something though nothing has ended: a bucket; 0: never."""
        first_us = 0
        for lane in self._lanes.values():
            if (bucket := self.buckets.get(lane.bucket)) is None:
                continue
            ticket = lane.peek(now_us)[2]
            if self._slots_free(ticket):
                ready_us = bucket.ready_us(ticket.tokens, now_us)
                first_us = min(first_us, ready_us) if first_us else ready_us
        return first_us

    # --- what there is ----------------------------------------------------------------------------

    def resources(self) -> dict[str, Slots]:
        return self._slots

    def waiting(self) -> Iterator[Ticket]:
        """All that wait, lane by lane."""
        for lane in self._lanes.values():
            yield from lane

    def back_s(self, slot: str) -> int:
        """About how long it takes until what waits for this has gone; 1 at the least."""
        ahead = sum(lane.count for lane in self._lanes.values() if slot in lane.slots)
        left_us = ahead * self._cost_us // self._slots[slot].size
        return max(1, min(limits.BUSY_BACK_S_MAX, -(-left_us // 1_000_000)))

    # --- inside -----------------------------------------------------------------------------------

    def _set(self, names: tuple[str, ...]) -> tuple[Slots, ...]:
        found = self._sets.get(names)
        if found is None:
            assert len(set(names)) == len(names) > 0
            for name in names:
                if name not in self._slots:
                    size = self._sizes.get(name, self._size_default)
                    self._slots[name] = Slots(size, self._weights)
            found = self._sets[names] = tuple(self._slots[name] for name in names)
        return found

    def _slots_free(self, ticket: Ticket) -> bool:
        for slots in self._set(ticket.slots):  # noqa: SIM110  (every call's path: `all` is slow)
            if not slots.free_for(ticket):
                return False
        return True

    def _free(self, ticket: Ticket, now_us: int) -> bool:
        if not self._slots_free(ticket):
            return False
        bucket = self.buckets.get(ticket.bucket)
        return bucket is None or bucket.ready_us(ticket.tokens, now_us) <= now_us

    def _next(self, now_us: int) -> Ticket | None:
        """The first of those lanes' heads that have all they need."""
        best: tuple[tuple[int, int, int, int, int], Ticket] | None = None
        for lane in self._lanes.values():
            if any(slots.in_use >= slots.size for slots in self._sets[lane.slots]):
                continue
            effective, since_us, ticket = lane.peek(now_us)
            if not self._free(ticket, now_us):
                continue  # Its tokens are not there, and those behind it don't overtake it; or
                # what is left is kept for others, and all that wait here are its own.
            had = self._slots[lane.slots[0]].accounts.had(ticket.tenant)
            place = (effective, had, self._roots.had(ticket.root), since_us, lane.number)
            if best is None or place < best[0]:
                best = (place, ticket)
        return best[1] if best else None

    def _grant(self, ticket: Ticket, now_us: int) -> None:
        for slots in self._sets[ticket.slots]:
            slots.take(ticket)
        self._roots.charge(ticket.root, FIRST_COST_US)
        self._runs.charge(ticket.run, FIRST_COST_US)
        if (bucket := self.buckets.get(ticket.bucket)) is not None:
            bucket.reserve(ticket.tokens, now_us)
        ticket.state = TicketState.GRANTED
        ticket.granted_us = now_us

    def _take_out(self, ticket: Ticket) -> None:
        self._lanes[ticket.lane].drop(ticket)
        self._count_out(ticket)

    def _count_out(self, ticket: Ticket) -> None:
        if not self._lanes[ticket.lane].count:
            del self._lanes[ticket.lane]
        for slots in self._sets[ticket.slots]:
            slots.accounts.leave(ticket.tenant)
            _less(slots.roots_waiting, ticket.root)
        self._by_tenant[ticket.tenant] -= 1
        roots = self._by_root[ticket.tenant]
        del roots[ticket.root][ticket]
        if not roots[ticket.root]:
            del roots[ticket.root]
        if not roots:
            del self._by_root[ticket.tenant], self._by_tenant[ticket.tenant]

    def _make_room(self, ticket: Ticket) -> None:
        """Where the tenant's queue is full, its largest tree gives way: the last that it asked for
        is pushed out. So no tree keeps the others of its tenant out. Raises Busy."""
        if self._by_tenant[ticket.tenant] < self._queued_max:
            return
        roots = self._by_root[ticket.tenant]
        largest = max(roots.values(), key=len)
        own = len(roots.get(ticket.root, ()))
        if len(largest) <= own + 1:
            raise self.busy(ticket)
        last = next(reversed(largest))
        self._take_out(last)
        last.state = TicketState.PUSHED_OUT
        self.told(last)

    def busy(self, ticket: Ticket) -> Busy:
        """What a ticket is told for which there is no place."""
        seconds = self.back_s(ticket.slots[-1])
        return Busy(
            f"{self._queued_max} calls of this tenant wait for their turn already.",
            why="A queue without end helps nobody who stands in it.",
            todo=f"Ask again, with a new call, in about {seconds} s.",
            after_s=seconds,
        )


__all__ = ["WOKEN", "FairQueue", "Slots", "Ticket", "TicketState"]
