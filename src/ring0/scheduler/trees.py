"""What all runs of a tree do together: how often they ask the same, how long since anything
was new, how quickly they call, and whether a chain of parents comes back to where it was.

One run's own cycles are found in loops.py. Depth, number of children and money are budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from ring0 import limits
from ring0.errors import LoopStopped
from ring0.runtime import Runtime

_SECOND_US: Final = 1_000_000


class Rate:
    """So many a second, and some at once; who takes beyond that waits for as long as it owes."""

    __slots__ = ("_at_us", "_burst", "_left", "_per_s")

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst * _SECOND_US
        self._left = self._burst
        self._at_us = 0

    def take(self, now_us: int) -> float:
        """Takes one; how many seconds to wait before it is used. In order: who comes later waits
        longer."""
        gained = max(0, now_us - self._at_us) * self._per_s
        self._at_us = max(self._at_us, now_us)
        self._left = min(self._burst, self._left + gained) - _SECOND_US
        return max(0.0, -self._left / self._per_s / _SECOND_US)


class Tree:
    """Of one root, as long as one of its runs is at work here."""

    def __init__(self, key: bytes, runtime: Runtime) -> None:
        self._key = key
        self._runtime = runtime
        self.live: dict[str, int] = {}
        """Runs at work, each with how often it was started and not let go of yet."""
        self.stale = 0
        """Calls since the last new observation."""
        self._known: dict[int, None] = {}
        self._asked: dict[int, int] = {}
        self._rate = Rate(limits.TREE_CALLS_PER_S_MAX, limits.TREE_CALLS_BURST_MAX)

    def join(self, run: str) -> None:
        """A run of it is at work."""
        self.live[run] = self.live.get(run, 0) + 1

    def leave(self, run: str) -> bool:
        """It no longer is; whether none is left."""
        if self.live.get(run, 0) > 1:
            self.live[run] -= 1
        else:
            self.live.pop(run, None)
        return not self.live

    def digest(self, *parts: bytes) -> int:
        """64 bits that are the same in all runs of the tree, and tell nothing without its key."""
        framed = b"".join([len(part).to_bytes(8, "big") + part for part in parts])
        mac = blake2b(framed, key=self._key, digest_size=8)
        return int.from_bytes(mac.digest(), "big")

    async def turn(self) -> None:
        """Returns when the tree's rate lets one more call through."""
        if wait_s := self._rate.take(self._runtime.monotonic_us()):
            await self._runtime.sleep(wait_s)

    def ask(self, request: int, what: str, *, polled: bool) -> None:
        """Counts a call of any of its runs. Raises LoopStopped."""
        known = request in self._asked
        count = self.count(request, polled=polled)
        if count > limits.TREE_IDENTICAL_CALLS_MAX:
            raise _stopped(what, f"came more than {limits.TREE_IDENTICAL_CALLS_MAX} times")
        if known and not polled and self.stale >= self._stale_max():
            raise _stopped(what, f"was made before, and so were the last {self.stale} calls")

    def count(self, request: int, *, polled: bool) -> int:
        """How often it came by now; what is paused before is not counted."""
        count = self._asked.get(request, 0) + (not polled)
        self._asked[request] = count
        if len(self._asked) > 4 * limits.LOOP_KNOWN_MAX:
            del self._asked[next(iter(self._asked))]
        return count

    def saw(self, observation: int, *, counts: bool) -> None:
        """One of its runs was given an answer; `counts`: no pause came before."""
        if observation not in self._known:
            self._known[observation] = None
            if len(self._known) > 4 * limits.LOOP_KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self.stale = 0
        elif counts:
            self.stale += 1

    def warns(self) -> bool:
        """Half of what is let through has brought nothing new."""
        return self.stale > 0 and self.stale * 2 == self._stale_max()

    def _stale_max(self) -> int:
        """Equal runs that work side by side each see what the others have seen."""
        return limits.LOOP_STALE_CALLS_MAX * max(1, len(self.live))


def check_chain(chain: Sequence[tuple[str, str]], agent: str, task: str) -> bool:
    """Whether a child would stand where one above it stood: the same agent on the same task.

    chain: (agent, task) of the parent, its parent, … up to the root; tasks without their noise.
    Raises LoopStopped where it would be more often than LOOP_ANCESTORS_MAX: the agent that starts
    itself on its own task is stopped at a depth of 2; a cycle of two at a depth of 4.
    """
    times = sum(one == (agent, task) for one in chain)
    if times >= limits.LOOP_ANCESTORS_MAX:
        raise LoopStopped(
            f"{agent} is on this task {times} times already, each time started by the one before.",
            why="A task that is handed down unchanged comes no nearer to its end.",
            todo="Do it in this run, or hand down a smaller part of it.",
        )
    return times > 0


def _stopped(what: str, why: str) -> LoopStopped:
    return LoopStopped(
        f"{what} is refused: in this run and those of its tree it {why}.",
        why="Runs that repeat themselves and each other make no progress and spend budget.",
        todo="Use the answers that stand, do something else, or end the run.",
    )
