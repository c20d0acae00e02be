"""Who holds which named resource, who waits for it, and in which order: the table in memory.

Synchronous; whoever calls passes the time. It writes nothing: `kernel/calls/leases.py` keeps the
rows that this is a cache of. Two things are granted here: a *lock*, which a run holds for a
lease, and a *claim*, which a call has on what it changes, from its admission to its end. Waiting
is first in, first out, readers among writers, so that nobody starves; who holds a resource goes
before the queue on it, or it would wait for itself.
"""

from __future__ import annotations

import asyncio
import enum
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from ring0 import limits
from ring0.errors import CallInvalid, Deadlock, LimitReached
from ring0.scheduler import circles
from ring0.scheduler.circles import Wait
from ring0.types import Lock, LockMode

Key = tuple[str, str]
"""Tenant and resource: names are a tenant's own."""


def canonical_name(name: str) -> str:
    """A resource's name as it is compared: two that look alike are one, which locks too much and
    never too little. Raises CallInvalid."""
    if len(name) <= limits.LOCK_NAME_CHARS_MAX:
        folded = unicodedata.normalize("NFKC", name).casefold()
        plain = " ".join(unicodedata.normalize("NFKC", folded).split())
        if 0 < len(plain) <= limits.LOCK_NAME_CHARS_MAX and plain.isprintable():
            return plain
    raise CallInvalid(
        f"{name[:40]!r} names no resource.",
        why=f"A name has 1 to {limits.LOCK_NAME_CHARS_MAX} characters that can be printed.",
        todo="Use a name like `table:customers`.",
    )


class AskState(enum.Enum):
    QUEUED = "queued"
    GRANTED = "granted"
    GONE = "gone"


class Ask(Wait):
    """One request: for a lock (one key), or for the claims of a call (all keys at once)."""

    __slots__ = ("call", "claims", "error", "keys", "mode", "seq", "since_us", "state", "woken")

    def __init__(
        self,
        run: str,
        started_us: int,
        call: str,
        keys: Sequence[Key],
        mode: LockMode,
        *,
        claims: bool,
        since_us: int = 0,
    ) -> None:
        super().__init__(run, started_us)
        self.call = call
        self.keys = tuple(keys)
        self.mode = mode
        self.claims = claims
        self.since_us = since_us
        self.seq = 0
        self.state = AskState.QUEUED
        self.error: Deadlock | None = None
        self.woken = asyncio.Event()
        """Set when it is granted, or its wait was ended to break a deadlock."""

    @property
    def node(self) -> str:
        """What those wait for who stand behind it. A claim ends with its call; a lock when its run
        lets it go, which may wait for all that the run waits for."""
        return f"claim of {self.call}" if self.claims else self.run

    def __str__(self) -> str:
        return f"{self.run} waits for {', '.join(name for _, name in self.keys)}"


class Held:
    """A lock that a run holds, or is about to."""

    __slots__ = ("ends_us", "lock", "mode", "run", "taking")

    def __init__(self, run: str, mode: LockMode, lock: Lock | None, ends_us: int = 0) -> None:
        self.run = run
        self.mode = mode
        self.lock = lock
        """Its row; None: it has none yet."""
        self.ends_us = ends_us
        """The end of its lease by the clock that never goes back."""
        self.taking = lock is None
        """Granted, and its row is on its way."""

    def left_us(self, now_us: int, monotonic_us: int) -> int:
        """What is left of its lease: nothing as soon as one of the clocks says so."""
        if self.lock is None or self.taking:
            return limits.LOCK_LEASE_S_MAX * 1_000_000
        return max(0, min(self.lock.expires_us - now_us, self.ends_us - monotonic_us))


class LockTable:
    """All locks, claims and waits of one kernel."""

    def __init__(self) -> None:
        self._held: dict[Key, dict[str, Held]] = {}
        """By run."""
        self._names: dict[str, dict[Key, None]] = {}
        """By run, what of it is held: each call asks for that."""
        self._claims: dict[Key, dict[str, str]] = {}
        """From call to run."""
        self._queues: dict[Key, list[Ask]] = {}
        """In order of `seq`."""
        self._waits: dict[str, list[Wait]] = {}
        """All that a run waits for: asks here, and children. A queued claim also by itself, as
        `node`: who stands behind it waits for that call, and not for all that its run waits for."""
        self._seq = 0

    # --- asking -------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> bool:
        """Whether it is granted at once; otherwise it is queued.

        Raises Deadlock where its wait would close a circle in which its run is the youngest,
        LimitReached where the queue is full.
        """
        self._seq += 1
        ask.seq = self._seq
        if self._may(ask):
            self._grant(ask)
            return True
        for key in ask.keys:
            if len(self._queues.get(key, ())) >= limits.LOCK_WAITERS_PER_NAME_MAX:
                ask.state = AskState.GONE
                raise LimitReached(
                    f"{limits.LOCK_WAITERS_PER_NAME_MAX} calls wait for {key[1]}.",
                    why="A queue has an end.",
                    todo="Ask again later.",
                )
        for key in ask.keys:
            self._queues.setdefault(key, []).append(ask)
        self._waits.setdefault(ask.run, []).append(ask)
        if ask.claims:
            self._waits[ask.node] = [ask]
        self._break_circles(ask.run)
        if ask.error is not None:
            raise ask.error
        return ask.state is AskState.GRANTED  # A victim's leaving may have made room.

    def leave(self, ask: Ask) -> None:
        """Takes a queued ask out; others may be next."""
        if ask.state is AskState.QUEUED:
            self._unqueue(ask, AskState.GONE)
            self._serve(ask.keys)

    def wait_for_runs(self, wait: Wait) -> None:
        """A run waits for others (a parent for its children); ends with `done_waiting`."""
        self._waits.setdefault(wait.run, []).append(wait)
        self._break_circles(wait.run)

    def done_waiting(self, wait: Wait) -> None:
        waits = self._waits.get(wait.run, [])
        if wait in waits:
            waits.remove(wait)
        if not waits:
            self._waits.pop(wait.run, None)

    # --- holding ------------------------------------------------------------------------------

    def hold(self, lock: Lock, ends_us: int) -> None:
        """The lock as its row says: granted before, found at boot, or with a longer lease."""
        held = Held(lock.run, lock.mode, lock, ends_us)
        self._by_run((lock.tenant, lock.resource), lock.run)[lock.run] = held

    def held(self, key: Key, run: str) -> Held | None:
        return self._held.get(key, {}).get(run)

    def on(self, key: Key) -> list[Held]:
        return list(self._held.get(key, {}).values())

    def of(self, run: str) -> list[Lock]:
        """What the run holds, in order of name."""
        if run not in self._names:
            return []
        found = (self._held[key][run].lock for key in self._names[run])
        return sorted((lock for lock in found if lock is not None), key=lambda one: one.resource)

    def not_taken(self, ask: Ask) -> None:
        """What was granted got no row: all is as it was before."""
        (key,) = ask.keys
        held = self._held[key][ask.run]
        if held.lock is None:
            self.drop(key, ask.run)
        else:
            held.mode, held.taking = held.lock.mode, False
            self._serve([key])

    def drop(self, key: Key, run: str) -> None:
        """The run holds it no more; others may be next."""
        by_run = self._held.get(key, {})
        if by_run.pop(run, None) is not None:
            del self._names[run][key]
            if not self._names[run]:
                del self._names[run]
        if not by_run:
            self._held.pop(key, None)
        self._serve([key])

    def unclaim(self, ask: Ask) -> None:
        """The call is over; others may be next."""
        if not ask.claims or ask.state is not AskState.GRANTED:
            return
        ask.state = AskState.GONE
        for key in ask.keys:
            calls = self._claims.get(key, {})
            calls.pop(ask.call, None)
            if not calls:
                self._claims.pop(key, None)
        self._serve(ask.keys)

    # --- looking ------------------------------------------------------------------------------

    def holders(self, ask: Ask) -> list[tuple[Key, Held]]:
        """The locks of other runs that are in its way."""
        return [
            (key, held)
            for key in ask.keys
            for held in self._held.get(key, {}).values()
            if held.run != ask.run and _shut_out(held.mode, ask.mode)
        ]

    def targets(self, wait: Wait) -> Sequence[str]:
        """The runs, and the queued claims, that must go on before this wait can end.

        Who has a mere claim is not among them: its call is under way, and ends by itself. Of those
        before it in a queue only the nearest that are in its way: these wait for the rest.
        """
        found = dict.fromkeys(self._holding(wait))
        if not isinstance(wait, Ask):
            return tuple(found)
        for key in wait.keys:
            if self.held(key, wait.run) is None:
                found.update({other.node: None for other in self._nearest(wait, key)})
        return tuple(found)

    def _holding(self, wait: Wait) -> Sequence[str]:
        """The same without those before it in a queue."""
        if not isinstance(wait, Ask):
            return wait.runs
        return tuple(held.run for _, held in self.holders(wait))

    def waiting(self) -> list[Ask]:
        """All asks that are queued, the oldest first."""
        asks = {ask.seq: ask for queue in self._queues.values() for ask in queue}
        return [asks[seq] for seq in sorted(asks)]

    def asks(self, key: Key, run: str) -> bool:
        """Whether a call of the run waits for a lock on it."""
        return any(ask.run == run and not ask.claims for ask in self._queues.get(key, ()))

    # --- within -------------------------------------------------------------------------------

    def _by_run(self, key: Key, run: str) -> dict[str, Held]:
        """Who holds it, for the run to be written among them."""
        self._names.setdefault(run, {})[key] = None
        return self._held.setdefault(key, {})

    def _may(self, ask: Ask) -> bool:
        return not any(self._in_the_way(ask, key) for key in ask.keys)

    def _in_the_way(self, ask: Ask, key: Key) -> bool:
        held = self._held.get(key, {})
        if any(one.run != ask.run and _shut_out(one.mode, ask.mode) for one in held.values()):
            return True
        for call, run in self._claims.get(key, {}).items():
            if run != ask.run or (ask.claims and call != ask.call):
                return True
        return ask.run not in held and next(self._nearest(ask, key), None) is not None

    def _nearest(self, ask: Ask, key: Key) -> Iterator[Ask]:
        """Those before it in the queue and in its way, back to one that waits for all before it."""
        queue = self._queues.get(key, [])
        for place in range(bisect_left(queue, ask.seq, key=lambda one: one.seq) - 1, -1, -1):
            other = queue[place]
            same = other.run == ask.run and not (other.claims and ask.claims)
            if same or not _shut_out(other.mode, ask.mode):
                continue
            yield other
            if other.mode is LockMode.EXCLUSIVE:
                return

    def _grant(self, ask: Ask) -> None:
        ask.state = AskState.GRANTED
        for key in ask.keys:
            if ask.claims:
                self._claims.setdefault(key, {})[ask.call] = ask.run
            else:  # Kept for it until it has its row.
                by_run = self._by_run(key, ask.run)
                held = by_run.setdefault(ask.run, Held(ask.run, ask.mode, None))
                held.mode, held.taking = ask.mode, True
        ask.woken.set()

    def _serve(self, keys: Sequence[Key]) -> None:
        """Grants, in their order, all that nothing is in the way of any more."""
        asks = {ask.seq: ask for key in keys for ask in self._queues.get(key, ())}
        for seq in sorted(asks):
            if self._may(asks[seq]):
                self._unqueue(asks[seq], AskState.GRANTED)
                self._grant(asks[seq])

    def _unqueue(self, ask: Ask, state: AskState) -> None:
        ask.state = state
        for key in ask.keys:
            queue = self._queues[key]
            queue.remove(ask)
            if not queue:
                del self._queues[key]
        self.done_waiting(ask)
        if ask.claims:
            self._waits.pop(ask.node, None)

    def _break_circles(self, run: str) -> None:
        """Ends waits, of the youngest run each, until this run is in no circle any more. First
        circles of those who hold: who stands in a queue between two of them need not give way."""
        for targets in (self._holding, self.targets):
            while (circle := circles.find(run, self._waits, targets)) is not None:
                circle = list(dict.fromkeys(circle))  # A claim is there by itself and as its run's.
                asks = [wait for wait in circle if isinstance(wait, Ask)]
                assert asks, "runs that wait for runs alone are a tree"
                victim = max(asks, key=lambda ask: (ask.started_us, ask.run, ask.seq))
                within = {wait: self._runs(targets(wait)) for wait in circle}
                victim.error = _deadlock(victim, within)
                self._unqueue(victim, AskState.GONE)
                victim.woken.set()
                self._serve(victim.keys)

    def _runs(self, nodes: Sequence[str]) -> Sequence[str]:
        """Whose they are."""
        found = {self._waits[one][0].run if one in self._waits else one: None for one in nodes}
        return tuple(found)


def _shut_out(one: LockMode, other: LockMode) -> bool:
    return LockMode.EXCLUSIVE in (one, other)


def _deadlock(victim: Ask, circle: Mapping[Wait, Sequence[str]]) -> Deadlock:
    """`circle`: the waits, and the runs that each waits for."""
    shown = list(circle.items())[: limits.DEADLOCK_RUNS_SHOWN_MAX]
    within = {wait.run for wait in circle}
    lines = [f"{wait}, of {', '.join(one for one in to if one in within)}" for wait, to in shown]
    more = len(circle) - len(shown)
    return Deadlock(
        f"{victim}, and would wait for ever: runs wait for each other in a circle.",
        why="; ".join(lines) + (f"; and {more} more" if more else "") + ". The youngest gives way.",
        todo="Free what this run holds and begin again; take locks in the same order everywhere.",
    )


__all__ = ["Ask", "AskState", "Held", "Key", "LockTable", "canonical_name"]
