"""The order in which calls wait that need the very same: a lane.

Class, then tenant, then tree, then run, then arrival: `peek` says who is next and `take` takes it
out. What has been had only grows, so an entry of a heap that is out of date is too small: it is put
right when it comes up. Slots and buckets are the queue's: nothing of them is known here.
"""

from __future__ import annotations

import enum
import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ring0 import limits

AGEING_US = limits.AGEING_S * 1_000_000
STARVED_US = limits.RUN_STARVED_S * 1_000_000
WOKEN = -1
"""The class before all others: what waited already goes on."""


class TicketState(enum.Enum):
    NEW = "new"
    QUEUED = "queued"
    GRANTED = "granted"
    PUSHED_OUT = "pushed out"
    GONE = "gone"


class Ticket:
    """One call's place in the queue, then what it holds."""

    __slots__ = (
        "asked_us",
        "bucket",
        "granted_us",
        "lane",
        "leaf",
        "priority",
        "root",
        "run",
        "slots",
        "state",
        "tenant",
        "tokens",
    )

    def __init__(
        self,
        *,
        tenant: str,
        root: str,
        run: str,
        priority: int,
        slots: tuple[str, ...],
        bucket: str = "",
        tokens: int = 0,
    ) -> None:
        assert WOKEN <= priority <= limits.PRIORITY_LAST
        assert slots
        self.tenant = tenant
        self.root = root
        self.run = run
        self.priority = priority
        self.slots = slots
        """What it needs one of, all at once. The last is the scarcest: tenants share by that."""
        self.bucket = bucket
        self.tokens = tokens
        """The estimate that it reserves of its bucket."""
        self.state = TicketState.NEW
        self.asked_us = 0
        self.granted_us = 0
        self.leaf: Node | None = None
        self.lane = (slots, bucket)


class Node:
    """A class, a tenant, a tree or a run with something in the queue."""

    __slots__ = ("ages", "name", "nodes", "parent", "ranks", "since_us", "tickets")

    def __init__(self, name: str, parent: Node | None, now_us: int) -> None:
        self.name = name
        self.parent = parent
        self.since_us = now_us
        """When something of it last went, or it came to wait."""
        self.nodes: dict[str, Node] = {}
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()
        """A run's own, in the order of their arrival."""
        self.ranks: list[tuple[int, int, Node]] = []
        self.ages: list[tuple[int, int, Node]] = []

    def least(self, had: Callable[[str], int]) -> Node:
        """The one beneath that has had the least; between equals, the one that came first."""
        while True:
            rank, number, node = self.ranks[0]
            if self.nodes.get(node.name) is not node:
                heapq.heappop(self.ranks)
            elif (now := had(node.name)) > rank:
                heapq.heapreplace(self.ranks, (now, number, node))
            else:
                return node

    def oldest(self) -> Node:
        """The one beneath that has waited longest for anything of its own to go."""
        while True:
            since, number, node = self.ages[0]
            if self.nodes.get(node.name) is not node:
                heapq.heappop(self.ages)
            elif node.since_us > since:
                heapq.heapreplace(self.ages, (node.since_us, number, node))
            else:
                return node

    def tidy(self) -> None:
        """Drops entries of nodes that are gone, when they are more than what is there."""
        for heap in (self.ranks, self.ages):
            if len(heap) > 2 * len(self.nodes) + limits.HEAP_SPARE_MAX:
                heap[:] = [one for one in heap if self.nodes.get(one[2].name) is one[2]]
                heapq.heapify(heap)


class Ranks:
    """How much each has had, as a lane needs to know it."""

    def __init__(
        self, tenant: Callable[[str], int], root: Callable[[str], int], run: Callable[[str], int]
    ) -> None:
        self.tenant = tenant
        self.root = root
        self.run = run


class Lane:
    """All that wait for the same slots and the same bucket."""

    def __init__(self, slots: tuple[str, ...], bucket: str, number: int, ranks: Ranks) -> None:
        self.slots = slots
        self.bucket = bucket
        self.number = number
        self.count = 0
        self._classes: dict[int, Node] = {}
        self._numbers = 0
        self._ranks = ranks

    def __iter__(self) -> Iterator[Ticket]:
        for priority in sorted(self._classes):
            for tenant in self._classes[priority].nodes.values():
                for root in tenant.nodes.values():
                    for run in root.nodes.values():
                        yield from run.tickets

    def put(self, ticket: Ticket, now_us: int) -> None:
        top = self._classes.get(ticket.priority)
        if top is None:
            top = self._classes[ticket.priority] = Node("", None, now_us)
        # A tenant that comes back goes before one of the same counter; trees and runs after.
        tenant = self._below(top, ticket.tenant, self._ranks.tenant, now_us, newest_first=True)
        root = self._below(tenant, ticket.root, self._ranks.root, now_us)
        run = self._below(root, ticket.run, self._ranks.run, now_us)
        run.tickets[ticket] = None
        ticket.leaf = run
        self.count += 1

    def _below(
        self,
        node: Node,
        name: str,
        had: Callable[[str], int],
        now_us: int,
        *,
        newest_first: bool = False,
    ) -> Node:
        found = node.nodes.get(name)
        if found is None:
            self._numbers += 1
            found = node.nodes[name] = Node(name, node, now_us)
            node.tidy()
            number = -self._numbers if newest_first else self._numbers
            heapq.heappush(node.ranks, (had(name), number, found))
            heapq.heappush(node.ages, (now_us, number, found))
        return found

    def peek(self, now_us: int) -> tuple[int, int, Ticket]:
        """(effective class, since when it waits, who is next). Only where something waits.

        A class goes up one for every AGEING_S in which nothing of it went; up to 0 and no further.
        """
        best: tuple[int, int, Node] | None = None
        for priority, top in self._classes.items():
            aged = (now_us - top.since_us) // AGEING_US
            effective = max(min(priority, 0), priority - max(0, aged))
            if best is None or (effective, top.since_us) < best[:2]:
                best = (effective, top.since_us, top)
        assert best is not None, "an empty lane was asked who is next"
        tenant = best[2].least(self._ranks.tenant)
        root = self._next(tenant, self._ranks.root, now_us)
        run = self._next(root, self._ranks.run, now_us)
        return best[0], best[1], next(iter(run.tickets))

    def _next(self, node: Node, had: Callable[[str], int], now_us: int) -> Node:
        """Who has had the least, unless somebody has waited beyond the bound."""
        if len(node.nodes) > 1:
            oldest = node.oldest()
            if now_us - oldest.since_us >= STARVED_US:
                return oldest
        return node.least(had)

    def take(self, ticket: Ticket, now_us: int) -> None:
        """Out of the lane, because it goes: all above it have been served."""
        node: Node | None = ticket.leaf
        while node is not None:
            node.since_us = max(node.since_us, now_us)
            node = node.parent
        self.drop(ticket)

    def drop(self, ticket: Ticket) -> None:
        """Out of the lane, because nobody waits for it any more."""
        leaf = ticket.leaf
        assert leaf is not None
        del leaf.tickets[ticket]
        ticket.leaf = None
        self.count -= 1
        node = leaf
        while not node.tickets and not node.nodes:
            if node.parent is None:
                del self._classes[ticket.priority]
                break
            del node.parent.nodes[node.name]
            node = node.parent
