"""Loops: what a run asks again and again, hearing the same each time, is told, then stopped.

Each call that ended leaves a fingerprint: its request, and what came of it (result and state), also
without its noise (noise.py). An answer that the run had not had before is a new observation. A call
whose newest answer was given LOOP_WARN_AT times with no new observation in between is told to the
model; it is refused the LOOP_STOP_AT-th time. That finds cycles of any period and any order, and
lets pass what lists a folder between two files that it had not read.

Legitimate, and not counted: what was asked before the earlier answer was there (a gather of equal
calls), and what a pause came before (`ctx.sleep` in the same task, or a tool that says `polls`).
A cap on the request alone stops what hides behind answers that always change. What a whole tree of
runs does is in trees.py. Nothing here decides what a call may do, and nothing of it is shown to the
run but the notice.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import LoopStopped
from ring0.scheduler.noise import plain
from ring0.scheduler.trees import Tree

_TEXTS_KEPT: Final = 64
"""First answers that are kept as text, until the request comes again; more than a cycle has."""
_TEXT_BYTES_MAX: Final = limits.KIB
_JOINED: Final = "+"
"""Marks a fingerprint on record: it stood beside an equal call."""
_AS_FIRST: Final = "="
"""Without noise it is what came the first time, when nobody had looked for noise."""


class Lane(enum.StrEnum):
    """What kind of observation a call can bring."""

    ACT = "act"
    """It looks at the world, or changes it."""
    ECHO = "echo"
    """Its answer tells nothing: that it was made is nothing new."""
    MODEL = "model"
    """What it is asked changes with all that came before: kept apart from the acts."""
    SPAWN = "spawn"
    """What came of it is known when the child has been waited for."""
    CAPPED = "capped"
    """Only counted."""


class Asked(msgspec.Struct):
    """A call that was let through, until it ends."""

    request: int
    lane: Lane
    path: str
    position: int
    """Of the newest observation at the time."""
    what: str
    polls: bool = False
    """By the tool's own word."""
    polled: bool = False
    """By that, or by a pause since it was asked the last time."""


class Ended(msgspec.Struct, frozen=True):
    """What an answer is to the run."""

    fingerprint: str
    """As it goes on record."""
    notice: str = ""


class _Known(msgspec.Struct):
    """One observation."""

    age: int
    """How many new ones there were when it was last made."""
    times: int
    position: int


class _Meter:
    """Counts, of each observation, how often it was made since anything new was seen."""

    def __init__(self) -> None:
        self.known: dict[int, _Known] = {}
        self.newest: dict[int, int] = {}
        """By request, its newest observation."""
        self.age = 0

    def times(self, request: int, paused: int) -> int:
        """How often the newest answer to this was given by now."""
        found = self.known.get(self.newest.get(request, -1))
        if found is None or found.position <= paused:
            return 0
        return found.times if found.age == self.age else 1

    def add(self, asked: Asked, seen: int, position: int, paused: int, *, echo: bool) -> int:
        """Takes one in; how often it was made by now, 0 where it was asked for beside another."""
        found = self.known.get(seen)
        if found is not None and found.position > asked.position:
            return 0
        self.newest[asked.request] = seen
        if found is None:
            if not echo:
                self.age += 1
            self.known[seen] = _Known(self.age, 1, position)
            if len(self.known) > limits.LOOP_KNOWN_MAX:
                del self.known[next(iter(self.known))]
            if len(self.newest) > limits.LOOP_KNOWN_MAX:
                del self.newest[next(iter(self.newest))]
            return 1
        again = found.position > paused and not asked.polls
        if not again:
            found.times = 1
        elif found.age == self.age:
            found.times += 1
        else:
            found.times = 2
        found.age, found.position = self.age, position
        return found.times


class _Count(msgspec.Struct):
    """How often one request came."""

    close: int = 0
    polled: int = 0
    position: int = -1


class Watch:
    """One run's fingerprints, and what it was told."""

    def __init__(self, tree: Tree, run: str) -> None:
        self.tree = tree
        self.run = run
        self.notice = ""
        """What the model is to be told with the next answer that it is asked for."""
        self.children: dict[str, Asked] = {}
        """By child: what it was spawned for, until it was waited for."""
        self.chain: list[tuple[str, str]] = []
        """(agent, task) of this run and of those above it; empty: nobody has looked yet."""
        self._acts = (_Meter(), _Meter())
        """By exact answer, and by what is left of it without noise."""
        self._models = _Meter()
        self._asked: dict[int, _Count] = {}
        self._texts: dict[int, str] = {}
        self._paused: dict[str, int] = {}
        self._position = 0

    # --- asking -------------------------------------------------------------------------------

    def ask(
        self, canonical: bytes, lane: Lane, path: str, what: str, *, polls: bool = False
    ) -> Asked:
        """Counts a call that is about to be judged. Raises LoopStopped."""
        request = self.tree.digest(b"request", canonical)
        asked = Asked(request, lane, path, self._position, what, polls)
        found = self._count(asked)
        if found.close > limits.IDENTICAL_CALLS_MAX or found.polled > limits.POLLED_CALLS_MAX:
            most = limits.POLLED_CALLS_MAX if asked.polled else limits.IDENTICAL_CALLS_MAX
            raise _stopped(what, f"came more than {most} times")
        self.tree.ask(request, what, polled=asked.polled)
        if polls or lane is Lane.CAPPED:
            return asked
        times = self._times(request, lane, self._paused.get(path, -1))
        if times >= limits.LOOP_STOP_AT - 1:
            raise _stopped(
                what, f"gave the same answer {times} times, and nothing new came in between"
            )
        return asked

    def _count(self, asked: Asked) -> _Count:
        found = self._asked.get(asked.request)
        if found is None:
            found = self._asked[asked.request] = _Count()
            if len(self._asked) > limits.LOOP_KNOWN_MAX:
                del self._asked[next(iter(self._asked))]
        paused = 0 <= found.position <= self._paused.get(asked.path, -1)
        asked.polled = asked.polls or paused
        if asked.polled:
            found.polled += 1
        else:
            found.close += 1
        found.position = self._position
        return found

    def _times(self, request: int, lane: Lane, paused: int) -> int:
        if lane is Lane.MODEL:
            return self._models.times(request, paused)
        sharp, dull = self._acts
        return max(sharp.times(request, paused), dull.times(request, paused))

    def pause(self, path: str) -> None:
        """The task has slept: what it asks again after that, it asks on purpose."""
        self._paused.pop(path, None)
        self._paused[path] = self._position
        if len(self._paused) > limits.LOOP_PATHS_MAX:
            del self._paused[next(iter(self._paused))]

    # --- ending -------------------------------------------------------------------------------

    def ended(self, asked: Asked, answer: bytes, state: bytes = b"") -> Ended:
        """Takes in what a call came to: its answer, and what of the world it changed."""
        exact = self.tree.digest(asked.request.to_bytes(8, "big"), answer, state)
        bare, as_first = self._without_noise(asked, answer, state)
        if as_first:
            self._same_as_first(asked, bare)
        times = self._add(asked, exact, bare)
        mark = (_AS_FIRST if as_first else "") + ("" if times else _JOINED)
        fingerprint = f"{asked.request:016x}{exact:016x}{bare:016x}{mark}"
        if asked.polls:
            return Ended(fingerprint)
        notice = ""
        if times >= limits.LOOP_WARN_AT:
            notice = _notice(asked.what, times)
        elif self.tree.warns():
            notice = _stale(self.tree.stale)
        self.notice = notice or self.notice
        return Ended(fingerprint, notice)

    def _without_noise(self, asked: Asked, answer: bytes, state: bytes) -> tuple[int, bool]:
        """The digest of the plain answer, and whether the first answer was the same.

        0 while the request came only once: to look for noise costs more than all else here.
        """
        if asked.lane is Lane.MODEL:
            return 0, False
        head = asked.request.to_bytes(8, "big")
        text = answer.decode("utf-8", "replace")
        found = self._asked.get(asked.request)
        if found is None or found.close + found.polled < 2:
            if len(answer) <= _TEXT_BYTES_MAX:
                self._texts[asked.request] = text
                if len(self._texts) > _TEXTS_KEPT:
                    del self._texts[next(iter(self._texts))]
            return 0, False
        bare = plain(text)
        seen = self.tree.digest(head, bare.encode(), state)
        first = self._texts.pop(asked.request, None)
        return seen, first is not None and not state and plain(first) == bare

    def _same_as_first(self, asked: Asked, bare: int) -> None:
        """What is seen for the second time without noise was seen for the first time before."""
        sharp, dull = self._acts
        first = sharp.known.get(sharp.newest.get(asked.request, -1))
        if first is not None and bare not in dull.known:
            dull.known[bare] = _Known(dull.age, 1, first.position)
            dull.newest[asked.request] = bare

    def _add(self, asked: Asked, exact: int, bare: int, *, tree: bool = True) -> int:
        """How often this observation was made by now; 0: it stands beside another."""
        paused = self._paused.get(asked.path, -1)
        self._position += 1
        if asked.lane is Lane.MODEL:
            return self._models.add(asked, exact, self._position, paused, echo=True)
        echo = asked.lane is Lane.ECHO
        sharp, dull = self._acts
        times = sharp.add(asked, exact, self._position, paused, echo=echo)
        if bare:
            times = max(times, dull.add(asked, bare, self._position, paused, echo=echo))
        elif times == 1 and not echo:
            dull.age += 1  # The first answer to a request is new, whatever it says.
        if times and tree:
            self.tree.saw(exact, counts=not asked.polled)
        return times

    def child(self, run: object) -> Asked | None:
        """What a child was spawned for, once: what came of it is known now."""
        return self.children.pop(str(run), None)

    def heard(self, path: str) -> Asked:
        """A message that came: it may be new, and nobody can be blamed where it is not."""
        request = self.tree.digest(b"message")
        return Asked(request, Lane.ACT, path, self._position, "", polls=True)

    # --- told to the model --------------------------------------------------------------------

    def tell(self) -> str:
        """The notice, once."""
        notice, self.notice = self.notice, ""
        return notice

    # --- from the journal ---------------------------------------------------------------------

    def remember(
        self, fingerprint: str, lane: Lane, path: str, *, count: bool, tree: bool
    ) -> Asked | None:
        """A call on record, in the order of their ends. `tree`: the tree is to count it too."""
        try:
            request, exact, bare = (int(fingerprint[at : at + 16] or "0", 16) for at in (0, 16, 32))
        except ValueError:
            return None  # Of another version: it is not counted.
        asked = Asked(request, lane, path, self._position, "")
        if count:
            self._count(asked)
            if tree:
                self.tree.count(request, polled=asked.polled)
        if fingerprint[48:].startswith(_AS_FIRST):
            self._same_as_first(asked, bare)
        if exact and not fingerprint.endswith(_JOINED):
            self._add(asked, exact, bare, tree=tree)
        return asked


def only_asked(asked: Asked) -> str:
    """The fingerprint of a call that has no answer that counts."""
    return f"{asked.request:016x}"


def _notice(what: str, times: int) -> str:
    return (
        f"ring0: {what} gave the same answer {times} times, and nothing new came in between."
        f" The {limits.LOOP_STOP_AT}th time is refused. Use the answer that you have, do something"
        " else, wait with a pause before you look again, or end."
    )


def _stale(calls: int) -> str:
    return (
        f"ring0: the last {calls} calls brought nothing that was not known before. Do something"
        " else, or end: calls that were made before will be refused."
    )


def _stopped(what: str, why: str) -> LoopStopped:
    return LoopStopped(
        f"{what} is refused: it {why}.",
        why="A run that repeats itself makes no progress and spends budget.",
        todo="Use the answers that stand, do something else, pause with `ctx.sleep` before"
        " looking again, or end the run.",
    )
